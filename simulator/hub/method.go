package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Source: Microsoft Learn, "Understand and invoke direct methods from IoT Hub", unless said otherwise.
const (
	maxPayload       = 128 << 10 // bytes, each way: "IoT Hub quotas and throttling"
	maxMethodName    = 100       // characters; Microsoft gives no figure, MQTT a topic's 64 KiB
	maxCallsInFlight = 50        // to one identity; the hub has a limit (403800) and gives no figure
	defaultResponse  = 30 * time.Second
	minResponse      = 5 * time.Second
	maxTimeout       = 300 * time.Second
	oldMaxTimeout    = time.Hour // the same page, before 2019: see MethodTimeout
)

// MethodRequest is a direct method to call.
type MethodRequest struct {
	Name     string
	Payload  json.RawMessage // any JSON value; nil means none
	Response time.Duration   // 5 to 300 s for the whole call, or what MethodTimeout says; 0 means 30 s
	Connect  time.Duration   // up to as much to wait for a device that is not connected; 0 means not at all
}

// MethodResult is a device's answer. Status is the device's own number.
type MethodResult struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload"` // "null" if the device sent none
}

// call is a direct method that waits for its answer.
type call struct {
	name   string
	answer chan callAnswer // takes one without blocking
}

type callAnswer struct {
	result MethodResult
	err    *Error
}

func (c *call) fail(err *Error) { c.answer <- callAnswer{err: err} }

// Invoke calls a direct method of a device or module and waits for its answer. Errors: DeviceNotFound; DeviceNotOnline,
// when it is not connected or takes no methods within the time to connect; GatewayTimeout without an answer in time;
// DeviceConnectionClosedRemotely when the connection ends first; ArgumentInvalid.
func (h *Hub) Invoke(ctx context.Context, id ID, r MethodRequest) (MethodResult, error) {
	if r.Response == 0 {
		r.Response = defaultResponse
	}
	if err := r.check(h.maxTimeout()); err != nil {
		return MethodResult{}, err
	}
	if err := h.spendOpen(id, len(r.Payload)); err != nil {
		return MethodResult{}, err
	}
	over := time.NewTimer(r.Response)
	defer over.Stop()
	link, rid, c, err := h.start(ctx, id, r)
	if err != nil {
		return MethodResult{}, err
	}
	defer h.forget(link, rid)
	select {
	case a := <-c.answer:
		if a.err != nil {
			return MethodResult{}, a.err
		}
		_ = h.spendOpen(id, len(a.result.Payload)) // counted; the device has answered, so it is not refused any more
		return a.result, nil
	case <-over.C:
		return MethodResult{}, &Error{Code: 504101, Name: "GatewayTimeout",
			Text: fmt.Sprintf("no answer to method %s from %s within %s", r.Name, id, r.Response)}
	case <-ctx.Done():
		return MethodResult{}, canceled(ctx)
	}
}

// maxTimeout is the longest time that a caller may give a direct method.
func (h *Hub) maxTimeout() time.Duration {
	if h.Chose(MethodTimeout, "3600") {
		return oldMaxTimeout
	}
	return maxTimeout
}

func (r *MethodRequest) check(longest time.Duration) *Error {
	switch {
	case r.Name == "":
		return argument("methodName is missing")
	case !isMethodName(r.Name):
		return argument("methodName %q: 1 to %d characters, no control characters, '/', '+' or '#'", r.Name, maxMethodName)
	case len(r.Payload) > maxPayload:
		return argument("payload: %d bytes; %d are allowed", len(r.Payload), maxPayload)
	case r.Payload != nil && !json.Valid(r.Payload):
		return argument("payload is not JSON")
	case r.Response < minResponse || r.Response > longest:
		return argument("responseTimeoutInSeconds: %d; 5 to %d are allowed", r.Response/time.Second, longest/time.Second)
	case r.Connect < 0 || r.Connect > longest:
		return argument("connectTimeoutInSeconds: %d; 0 to %d are allowed", r.Connect/time.Second, longest/time.Second)
	case r.Connect > r.Response:
		return argument("The connection timeout (%d s) may not exceed the overall timeout (%d s).", r.Connect/time.Second, r.Response/time.Second)
	}
	return nil
}

// isMethodName says whether a name can be a level of an MQTT topic.
func isMethodName(name string) bool {
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '/' || r == '+' || r == '#' {
			return false
		}
	}
	return utf8.ValidString(name) && utf8.RuneCountInString(name) <= maxMethodName
}

// start hands a method to the identity's link, and waits for one if there is none and the caller wants to.
func (h *Hub) start(ctx context.Context, id ID, r MethodRequest) (*Link, string, *call, error) {
	patience := time.NewTimer(r.Connect)
	defer patience.Stop()
	for {
		l, rid, c, ready, err := h.try(id, r)
		if err != nil {
			return nil, "", nil, err
		}
		if l != nil {
			return l, rid, c, nil
		}
		select {
		case <-ready:
		case <-patience.C:
			return nil, "", nil, notOnline(id)
		case <-ctx.Done():
			return nil, "", nil, canceled(ctx)
		}
	}
}

// try hands a method over if the identity can take one. Else ready is closed when it is worth trying again.
func (h *Hub) try(id ID, r MethodRequest) (l *Link, rid string, c *call, ready <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.unlock()
	n, missing := h.find(id)
	switch {
	case missing != nil:
		return nil, "", nil, nil, missing
	case n.link == nil || !n.link.wants[Methods]:
		if r.Connect == 0 {
			return nil, "", nil, nil, notOnline(id)
		}
		return nil, "", nil, n.waitReachable(), nil
	case len(n.link.calls) >= maxCallsInFlight:
		return nil, "", nil, nil, &Error{Code: 403800, Name: "DeviceMaximumInflightMethodExceeded",
			Text: "too many direct methods wait for the answer of " + id.String()}
	}
	l = n.link
	h.rids++
	rid = strconv.FormatUint(h.rids, 16)
	c = &call{name: r.Name, answer: make(chan callAnswer, 1)}
	if l.calls == nil {
		l.calls = map[string]*call{}
	}
	l.calls[rid] = c
	h.tell(l, func(p Peer) { p.Method(rid, r.Name, r.Payload) })
	return l, rid, c, nil, nil
}

// MethodResult is a device's answer to a direct method; payload nil means none. An answer that nobody waits for is
// dropped.
func (l *Link) MethodResult(rid string, status int, payload json.RawMessage) {
	l.hub.mu.Lock()
	defer l.hub.unlock()
	c, ok := l.calls[rid]
	if !ok {
		return
	}
	delete(l.calls, rid)
	l.n.activity = time.Now()
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	if len(payload) > maxPayload || !utf8.Valid(payload) || !json.Valid(payload) {
		c.fail(&Error{Code: 502000, Name: "GenericBadGateway", Text: "the device's answer is not JSON of at most 131072 bytes"})
		return
	}
	result := MethodResult{Status: status, Payload: append(json.RawMessage(nil), payload...)}
	l.hub.emit(Event{Kind: "method", DeviceID: l.id.Device, ModuleID: l.id.Module, Detail: c.name, Body: result.Payload})
	c.answer <- callAnswer{result: result}
}

// forget gives up on an answer.
func (h *Hub) forget(l *Link, rid string) {
	h.mu.Lock()
	defer h.unlock()
	delete(l.calls, rid)
}

// waitReachable is closed when the identity gets a link that wants methods, or is removed.
func (n *identity) waitReachable() <-chan struct{} {
	if n.reachable == nil {
		n.reachable = make(chan struct{})
	}
	return n.reachable
}

// wake lets callers try again.
func (n *identity) wake() {
	if n.reachable != nil {
		close(n.reachable)
		n.reachable = nil
	}
}

func notOnline(id ID) *Error {
	return &Error{Code: 404103, Name: "DeviceNotOnline",
		Text: id.String() + " is not connected, or has not subscribed to direct methods"}
}

func canceled(ctx context.Context) *Error {
	return &Error{Code: 499000, Name: "ClientClosedRequest", Text: "the caller has gone: " + context.Cause(ctx).Error()}
}
