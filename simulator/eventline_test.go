package simulator

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/admin"
)

func TestEventText(t *testing.T) {
	for want, e := range map[string]admin.Event{
		"MQTT 5":                       {Kind: "connected", Detail: "MQTT 5"},
		`{"a":1}`:                      {Kind: "telemetry", Body: json.RawMessage(`{ "a": 1 }`)},
		"3 bytes that are no JSON":     {Kind: "telemetry", Base64: []byte("abc")},
		`queued {"a":1}`:               {Kind: "c2d", Detail: "queued", Body: json.RawMessage(`{"a":1}`)},
		"Expired":                      {Kind: "c2d", Detail: "Expired"},
		strings.Repeat("é", 160) + "…": {Kind: "lost", Detail: strings.Repeat("é", 161)},
	} {
		if got := eventText(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestEventProperties(t *testing.T) {
	got := EventProperties(admin.Event{Properties: map[string]string{"b": "<1>", "a": "\n"}, System: map[string]string{"iothub-message-source": "Telemetry"}})
	want := []string{
		`          properties  {"a":"\n","b":"<1>"}`,
		`          system      {"iothub-message-source":"Telemetry"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := EventProperties(admin.Event{Detail: "MQTT 5"}); len(got) != 0 {
		t.Errorf("%q of an event without properties", got)
	}
}
