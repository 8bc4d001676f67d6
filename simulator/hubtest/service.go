package hubtest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/hub"
)

// What a service does, a line each. An identity is named "device" or "device/module".

// WaitFor answers the first event of a kind (connected, telemetry, reported, …: see hub.Event) and an identity that no
// wait has answered before. Like Wait, it fails the test, with what has happened instead.
func (h *Hub) WaitFor(t testing.TB, kind, who string) hub.Event {
	t.Helper()
	id := named(who)
	return h.wait(t, kind+" of "+who, func(e hub.Event) bool { return e.Kind == kind && e.DeviceID == id.Device && e.ModuleID == id.Module })
}

// Desire merges a JSON object into an identity's desired properties.
func (h *Hub) Desire(who, properties string) {
	h.t.Helper()
	if _, err := h.PatchTwin(named(who), json.RawMessage(`{"properties":{"desired":`+properties+`}}`), ""); err != nil {
		h.t.Fatalf("hubtest: desired properties of %s: %v", who, err)
	}
}

// Call calls a direct method and answers what the device or module does. payload is JSON, or "" for none.
func (h *Hub) Call(who, method, payload string) hub.MethodResult {
	h.t.Helper()
	r := hub.MethodRequest{Name: method}
	if payload != "" {
		r.Payload = json.RawMessage(payload)
	}
	answer, err := h.Invoke(h.t.Context(), named(who), r)
	if err != nil {
		h.t.Fatalf("hubtest: direct method %s of %s: %v; what has happened:\n%s", method, who, err, h.story())
	}
	return answer
}

// Send puts a cloud-to-device message into an identity's queue.
func (h *Hub) Send(who, body string) {
	h.t.Helper()
	if err := h.SendC2D(named(who), hub.C2D{Message: hub.Message{Body: []byte(body)}}); err != nil {
		h.t.Fatalf("hubtest: cloud-to-device message for %s: %v", who, err)
	}
}

func named(who string) hub.ID {
	device, module, _ := strings.Cut(who, "/")
	return hub.ID{Device: device, Module: module}
}
