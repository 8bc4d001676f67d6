package mqtt3

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/internal/payload"
)

// Publish implements iothub.Wire.
func (w *wire) Publish(ctx context.Context, m iothub.Message) error {
	topic := telemetryTopic(w.id, m)
	t, err := w.run(ctx, func() mqtt.Token { return w.client.Publish(topic, 1, false, m.Body) })
	if err != nil {
		return err
	}
	return w.wait(ctx, t)
}

// Twin implements iothub.Wire.
func (w *wire) Twin(ctx context.Context) (iothub.Twin, error) {
	r, err := w.ask(ctx, twinGetTopic, nil)
	if err != nil {
		return iothub.Twin{}, err
	}
	if r.status != 200 {
		return iothub.Twin{}, payload.Error("twin", r.status, r.body)
	}
	return payload.Twin(r.body)
}

// Report implements iothub.Wire.
func (w *wire) Report(ctx context.Context, patch json.RawMessage) (int64, error) {
	r, err := w.ask(ctx, reportedTopic, patch)
	if err != nil {
		return 0, err
	}
	if r.status/100 != 2 {
		return 0, payload.Error("reported properties", r.status, r.body)
	}
	return r.version, nil
}

// ask sends a request and waits for the answer with the same $rid.
func (w *wire) ask(ctx context.Context, topic func(rid string) string, body []byte) (reply, error) {
	rid := strconv.FormatUint(w.rid.Add(1), 16)
	answer := make(chan reply, 1)
	w.mu.Lock()
	w.waiting[rid] = answer
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.waiting, rid)
		w.mu.Unlock()
	}()
	if _, err := w.run(ctx, func() mqtt.Token { return w.client.Publish(topic(rid), 0, false, body) }); err != nil {
		return reply{}, err
	}
	select {
	case r := <-answer:
		return r, nil
	case <-w.link.Lost():
		return reply{}, w.loss()
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// handle takes what the hub publishes. It must not block: the client reads nothing meanwhile. What it does not know is
// not acknowledged, so that the hub keeps it.
func (w *wire) handle(_ mqtt.Client, m mqtt.Message) {
	topic, body := m.Topic(), m.Payload()
	in, err := parseTopic(topic)
	if err != nil {
		w.link.Fail(fmt.Errorf("the hub published on %q: %w", payload.Line(topic), err))
		return
	}
	switch in.kind {
	case answer:
		w.mu.Lock()
		to := w.waiting[in.rid]
		delete(w.waiting, in.rid)
		w.mu.Unlock()
		if to != nil {
			to <- reply{in.status, in.version, body} // the only one: it has room
		}
	case desired:
		patch, err := payload.Patch(body, in.version)
		if err != nil {
			w.link.Fail(fmt.Errorf("the hub sent %w", err))
			return
		}
		w.desired(patch)
	case method:
		w.invoke(in, body)
	case cloud:
		w.take(in.bag, m)
		return // acknowledged when it is safe
	case unknown:
		return
	}
	m.Ack()
}

// take hands a cloud-to-device message over. One that nobody wants is left to the hub.
func (w *wire) take(bag string, m mqtt.Message) {
	if w.message == nil {
		return
	}
	properties, system := readBag(bag)
	id := system["message-id"]
	delete(system, "message-id")
	var once sync.Once
	w.message(iothub.CloudMessage{
		ID: id, Properties: properties, System: system, Body: slices.Clone(m.Payload()), Again: m.Duplicate(),
		Ack: func() {
			once.Do(func() {
				// After the end of the connection the hub hands it out again.
				_, _ = w.run(context.Background(), func() mqtt.Token { m.Ack(); return nil })
			})
		},
	})
}

func (w *wire) invoke(in incoming, body []byte) {
	if len(body) == 0 {
		body = []byte("null")
	}
	var once sync.Once
	answer := func(status int, result json.RawMessage) {
		once.Do(func() {
			topic := methodAnswerTopic(status, in.rid)
			// After the end of the connection nobody waits for the answer any more.
			_, _ = w.run(context.Background(), func() mqtt.Token { return w.client.Publish(topic, 0, false, []byte(result)) })
		})
	}
	if !json.Valid(body) {
		go answer(400, json.RawMessage(`{"error":"the payload is not JSON"}`))
		return
	}
	w.method(iothub.MethodCall{Name: in.name, Payload: body, Answer: answer})
}
