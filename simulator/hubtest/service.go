package hubtest

import (
	"encoding/json"
	"strings"

	"github.com/twinbay/twinbay/simulator/hub"
)

// What a service does, a line each. An identity is named "device" or "device/module".

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
