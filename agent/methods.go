package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/modules/modkit"
)

// Limits of direct methods. The hub allows 128 KiB in each direction (Microsoft Learn, "Understand and invoke direct
// methods from IoT Hub").
const (
	maxAnswer = 128 << 10
	maxCalls  = 4 // of one component at once
)

// reply is a direct method's answer. err is set when it is the agent's own: the module had no part in it.
type reply struct {
	status  int
	payload json.RawMessage
	err     error
}

// refusal is a reply of the agent's: {"error": text} and whatever else helps.
func refusal(status int, cause error, format string, args ...any) reply {
	text := fmt.Sprintf(format, args...)
	r := reply{status: status, payload: errorBody(map[string]any{"error": text})}
	if cause != nil {
		r.err = fmt.Errorf("%w: %s", cause, text)
	}
	return r
}

func errorBody(m map[string]any) json.RawMessage {
	raw, err := json.Marshal(m)
	if err != nil {
		return json.RawMessage(`{"error":"internal"}`)
	}
	return raw
}

// noSuchMethod is a 404 that says which methods there are.
func noSuchMethod(name string, known []string) reply {
	slices.Sort(known)
	return reply{status: http.StatusNotFound, payload: errorBody(map[string]any{
		"error":   fmt.Sprintf("no such direct method: %.100q", name),
		"methods": known,
	})}
}

// invoke calls a direct method of the component's module and answers through answer, once, from some goroutine. It never
// waits: a method runs beside Apply and beside other methods.
func (b *bay) invoke(name string, payload json.RawMessage, answer func(reply)) {
	if len(bytes.TrimSpace(payload)) == 0 {
		payload = nil
	}
	i := slices.IndexFunc(b.description.Methods, func(m modkit.Method) bool { return m.Name == name })
	switch {
	case b.described && i < 0:
		known := []string{}
		for _, m := range b.description.Methods {
			known = append(known, m.Name)
		}
		answer(noSuchMethod(name, known))
	case b.running == nil:
		answer(refusal(http.StatusServiceUnavailable, local.ErrNotRunning, "component %s: its module does not run now; see twinbay status", b.name))
	case len(payload) > maxAnswer:
		answer(refusal(http.StatusRequestEntityTooLarge, nil, "the payload has %d bytes, %d are allowed", len(payload), maxAnswer))
	case payload != nil && !json.Valid(payload):
		answer(refusal(http.StatusBadRequest, nil, "the payload is not JSON"))
	case b.invoking >= maxCalls:
		answer(refusal(http.StatusTooManyRequests, nil, "component %s answers %d direct methods already; try again when one has ended", b.name, maxCalls))
	default:
		b.invoking++
		remote, m := b.remote, b.description.Methods[i]
		b.loop.away(func(ctx context.Context) func() {
			answer(call(ctx, remote, m, payload))
			return func() { b.invoking-- }
		})
	}
}

// call has the module answer.
func call(ctx context.Context, remote *modkit.Remote, m modkit.Method, payload json.RawMessage) reply {
	deadline := m.Deadline
	if deadline <= 0 {
		deadline = modkit.DefaultDeadline
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	a, err := remote.Invoke(ctx, m.Name, payload)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return refusal(http.StatusGatewayTimeout, local.ErrTimeout, "%s did not answer within %v", m.Name, deadline)
	case errors.Is(err, modkit.ErrTooLarge):
		return refusal(http.StatusInternalServerError, nil, "%s answered more than %d bytes, %d are allowed", m.Name, modkit.MaxSaid, maxAnswer)
	case errors.Is(err, modkit.ErrEnded), errors.Is(err, context.Canceled):
		return refusal(http.StatusServiceUnavailable, local.ErrNotRunning, "%s: the module ended before it answered", m.Name)
	case err != nil:
		return refusal(http.StatusInternalServerError, nil, "%s failed without an answer: %v", m.Name, err)
	case len(a.Payload) > maxAnswer:
		return refusal(http.StatusInternalServerError, nil, "%s answered %d bytes, %d are allowed", m.Name, len(a.Payload), maxAnswer)
	case len(a.Payload) > 0 && !json.Valid(a.Payload):
		return refusal(http.StatusInternalServerError, nil, "%s answered what is not JSON", m.Name)
	}
	return reply{status: a.Status, payload: a.Payload}
}

// onMethod answers a direct method that came through the hub.
func (b *bay) onMethod(c iothub.MethodCall) {
	b.log.Debug("direct method", "method", c.Name)
	b.invoke(c.Name, c.Payload, func(r reply) { c.Answer(r.status, r.payload) })
}
