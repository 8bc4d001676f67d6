package mqtt5

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/internal/payload"
)

// Publish implements iothub.Wire. The client keeps to the hub's Receive Maximum.
func (w *wire) Publish(ctx context.Context, m iothub.Message) error {
	p := telemetry(m)
	if n := packetSize(p); n > w.maxPacket {
		return fmt.Errorf("%w: message %s makes a packet of %d bytes: the hub takes %d", iothub.ErrRejected, m.ID, n, w.maxPacket)
	}
	answer, err := w.client.Publish(ctx, p)
	switch {
	case answer != nil && answer.ReasonCode >= 0x80:
		return failure("PUBACK", answer.ReasonCode, answer.Properties.User, answer.Properties.ReasonString)
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return w.loss(err)
}

// Twin implements iothub.Wire.
func (w *wire) Twin(ctx context.Context) (iothub.Twin, error) {
	answer, err := w.ask(ctx, topicTwinGet, nil)
	if err != nil {
		return iothub.Twin{}, err
	}
	return payload.Twin(answer.Payload)
}

// Report implements iothub.Wire.
func (w *wire) Report(ctx context.Context, patch json.RawMessage) (int64, error) {
	answer, err := w.ask(ctx, topicReported, patch)
	if err != nil {
		return 0, err
	}
	return version(answer.Properties.User)
}

// ask sends a request and waits for the answer with the same correlation data.
func (w *wire) ask(ctx context.Context, topic string, body []byte) (*paho.Publish, error) {
	rid := strconv.FormatUint(w.rid.Add(1), 16) // at most 16 bytes, as the API wants
	answer := make(chan *paho.Publish, 1)
	w.mu.Lock()
	w.waiting[rid] = answer
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.waiting, rid)
		w.mu.Unlock()
	}()
	_, err := w.client.Publish(ctx, &paho.Publish{
		Topic:      topic,
		Payload:    body,
		Properties: &paho.PublishProperties{CorrelationData: []byte(rid)},
	})
	if err != nil {
		return nil, w.loss(err)
	}
	select {
	case a := <-answer:
		if status := a.Properties.User.Get("status"); status != "" {
			return nil, failure(topic, 0, a.Properties.User, "")
		}
		return a, nil
	case <-w.done:
		return nil, w.loss(w.Err())
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// handle takes what the hub publishes. It must not block: the client handles nothing else meanwhile.
func (w *wire) handle(r paho.PublishReceived) (bool, error) {
	p := r.Packet
	name, isMethod := strings.CutPrefix(p.Topic, prefixMethods)
	switch {
	case p.Topic == topicResponses:
		rid := string(p.Properties.CorrelationData)
		w.mu.Lock()
		to := w.waiting[rid]
		delete(w.waiting, rid)
		w.mu.Unlock()
		if to != nil {
			to <- p // the only one: it has room
		}
	case p.Topic == topicDesired:
		w.patch(p)
	case p.Topic == topicCommands:
		w.take(p)
	case isMethod:
		w.invoke(name, p)
	}
	return true, nil
}

// systemNames are the hub's names of a command's user properties; those of the application have an "@" in front.
var systemNames = map[string]string{
	"user-id": "user-id", "correlation-id": "correlation-id", "content-encoding": "content-encoding",
	"creation-time": "iothub-creation-time-utc", "sequence-no": "sequence-number", "enqueued-time": "iothub-enqueuedtime",
	"delivery-count": "delivery-count",
}

// take hands a cloud-to-device message over. One that nobody wants is left to the hub.
func (w *wire) take(p *paho.Publish) {
	if w.message == nil {
		return
	}
	m := iothub.CloudMessage{
		Properties: map[string]string{}, System: map[string]string{}, Body: slices.Clone(p.Payload), Again: p.Duplicate(),
	}
	if p.Properties.ContentType != "" {
		m.System["content-type"] = p.Properties.ContentType
	}
	for _, u := range p.Properties.User {
		name, own := strings.CutPrefix(u.Key, "@")
		switch {
		case own:
			m.Properties[name] = u.Value
		case u.Key == "message-id":
			m.ID = u.Value
		case systemNames[u.Key] != "":
			m.System[systemNames[u.Key]] = u.Value
		}
	}
	packet := p.Packet()
	var once sync.Once
	m.Ack = func() {
		once.Do(func() { _ = w.session.later(packet) }) // after the end of the connection the hub hands it out again
	}
	w.message(m)
}

// acks is a client's session in which a cloud-to-device message is acknowledged when its owner says so: the client itself
// acknowledges what its handler has returned from, and with its manual acknowledgements looks for them 20 times a second.
type acks struct {
	session.SessionManager
}

// Ack is the client's.
func (a *acks) Ack(p *packets.Publish) error {
	if p.Topic == topicCommands {
		return nil
	}
	return a.SessionManager.Ack(p)
}

// ConnectionLost ends the session with its connection, as the client does with a session of its own: whoever waits for an
// acknowledgement learns of it.
func (a *acks) ConnectionLost(d *packets.Disconnect) error {
	return errors.Join(a.SessionManager.ConnectionLost(d), a.SessionManager.Close())
}

// later is the owner's.
func (a *acks) later(p *packets.Publish) error { return a.SessionManager.Ack(p) }

func (w *wire) patch(p *paho.Publish) {
	v, err := version(p.Properties.User)
	if err == nil {
		var patch iothub.DesiredPatch
		if patch, err = payload.Patch(p.Payload, v); err == nil {
			w.desired(patch)
			return
		}
	}
	w.link.Fail(fmt.Errorf("the hub sent a desired patch that can't be read: %w", err))
}

func (w *wire) invoke(name string, p *paho.Publish) {
	body := p.Payload
	if len(body) == 0 {
		body = []byte("null")
	}
	var once sync.Once
	answer := func(status int, result json.RawMessage) {
		once.Do(func() {
			// After the end of the connection nobody waits for the answer any more.
			_, _ = w.client.Publish(context.Background(), &paho.Publish{
				Topic:   topicResponses,
				Payload: result,
				Properties: &paho.PublishProperties{
					CorrelationData: p.Properties.CorrelationData,
					User:            paho.UserProperties{{Key: "response-code", Value: strconv.Itoa(status)}},
				},
			})
		})
	}
	if !json.Valid(body) {
		go answer(400, json.RawMessage(`{"error":"the payload is not JSON"}`))
		return
	}
	w.method(iothub.MethodCall{Name: name, Payload: body, Answer: answer})
}
