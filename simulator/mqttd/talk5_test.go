package mqttd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hubtest"
)

func TestTelemetry5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		r.publish5("$iothub/telemetry", 1, 7, `{"t":1}`, &packets.Properties{ContentType: "application/json",
			User: user("content-encoding", "utf-8", "message-id", "m1", "correlation-id", "c1", "user-id", "u1", "creation-time", "1600987195320", "@unit", "C", "@ a b", "ü")})
		if ack := get[*packets.Puback](r); ack.PacketID != 7 || ack.ReasonCode != 0 {
			t.Errorf("PUBACK %v", ack)
		}
		e := h.Wait(t, kind("telemetry"))
		want := map[string]string{"content-type": "application/json", "content-encoding": "utf-8", "message-id": "m1", "correlation-id": "c1",
			"user-id": "u1", "iothub-creation-time-utc": "2020-09-24T22:39:55.32Z",
			"iothub-connection-device-id": "pi-01", "iothub-connection-module-id": "bme280", "iothub-message-source": "Telemetry",
			"iothub-connection-auth-method": ""} // which messages by MQTT 3.1.1 have
		if e.ModuleID != "bme280" || string(e.Body) != `{"t":1}` || e.Properties["unit"] != "C" || e.Properties[" a b"] != "ü" || len(e.Properties) != 2 {
			t.Errorf("%+v", e)
		}
		for k, v := range want {
			if e.System[k] != v {
				t.Errorf("system property %s is %q, want %q", k, e.System[k], v)
			}
		}
		r.publish5("$iothub/telemetry", 0, 0, "x", nil)
		h.Wait(t, kind("telemetry"))
	})
}

func TestTopicAliases(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		alias := &packets.Properties{TopicAlias: ptr(uint16(10))}
		for i, topic := range []string{"$iothub/telemetry", "", "", "$iothub/nowhere", ""} {
			r.publish5(topic, 1, uint16(i+1), "{}", alias)
			want := byte(0)
			if i > 2 { // the alias has been given anew
				want = 131
			}
			if ack := get[*packets.Puback](r); ack.ReasonCode != want {
				t.Errorf("packet %d: PUBACK %d, want %d", i+1, ack.ReasonCode, want)
			}
		}
		r.publish5("", 1, 9, "{}", &packets.Properties{TopicAlias: ptr(uint16(3))}) // never given
		r.ended(130, "")
		for _, n := range []uint16{0, 11} {
			r, _ := connect5(t, h, c, c.hello5())
			r.publish5("$iothub/telemetry", 1, 1, "{}", &packets.Properties{TopicAlias: &n})
			r.ended(148, "")
		}
	})
}

func TestRefusedPublish5(t *testing.T) {
	correlated := func(n int) *packets.Properties { return &packets.Properties{CorrelationData: make([]byte, n)} }
	tests := []struct {
		name, topic string
		qos         byte
		p           *packets.Properties
		code        byte
		status      string
	}{
		{"unknown property, QoS 1", "$iothub/telemetry", 1, &packets.Properties{User: user("x", "1")}, 131, "0100"},
		{"unknown property, QoS 0", "$iothub/telemetry", 0, &packets.Properties{User: user("x", "1")}, 131, "0100"},
		{"property without a name", "$iothub/telemetry", 1, &packets.Properties{User: user("@", "1")}, 131, "0100"},
		{"creation-time", "$iothub/telemetry", 1, &packets.Properties{User: user("creation-time", "x")}, 131, "0100"},
		{"unknown topic, QoS 1", "$iothub/twin/gett", 1, nil, 131, "0504"},
		{"unknown topic, QoS 0", "$iothub/twin/gett", 0, correlated(2), 144, ""},
		{"topic of 3.1.1", "devices/pi-01/messages/events/", 1, nil, 131, "0504"},
		{"request with QoS 1", "$iothub/twin/get", 1, correlated(2), 131, "0100"},
		{"request without Correlation Data", "$iothub/twin/get", 0, nil, 131, "0100"},
		{"Correlation Data of 17 bytes", "$iothub/twin/get", 0, correlated(17), 131, "0100"},
		{"Correlation Data of 17 bytes, QoS 1", "$iothub/telemetry", 9, correlated(17), 131, "0100"},
		{"response without response-code", "$iothub/responses", 0, correlated(2), 131, "0100"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				r, _ := connect5(t, h, c, c.hello5())
				ends := test.qos != 1
				r.publish5(test.topic, min(test.qos, 1), uint16(test.qos), "{}", test.p)
				if ends {
					r.ended(test.code, test.status)
					return
				}
				ack := get[*packets.Puback](r)
				if got := users(ack.Properties)["status"]; ack.ReasonCode != test.code || got != test.status {
					t.Errorf("PUBACK %d, status %q; want %d, %q", ack.ReasonCode, got, test.code, test.status)
				}
				r.open()
			})
		})
	}
}

func TestProblemInformationCanBeTurnedOff(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		p := c.hello5()
		p.Properties.RequestProblemInfo = ptr(byte(0))
		r, _ := connect5(t, h, c, p)
		r.publish5("nowhere", 1, 1, "", nil)
		if ack := get[*packets.Puback](r); ack.ReasonCode != 131 || len(ack.Properties.User) != 0 {
			t.Errorf("PUBACK %d %v", ack.ReasonCode, ack.Properties.User)
		}
	})
}

func TestWhatTheClientCannotTakeIsNotSent(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		p := c.hello5()
		p.Properties.MaximumPacketSize = ptr(uint32(80))
		r, _ := connect5(t, h, c, p)
		r.subscribe5("$iothub/twin/patch/desired")
		if _, err := h.PatchTwin(c.id(), json.RawMessage(`{"properties":{"desired":{"long":"`+strings.Repeat("x", 100)+`"}}}`), ""); err != nil {
			t.Fatal(err)
		}
		desired(t, h, c.id(), 1)
		if got := get[*packets.Publish](r); users(got.Properties)["version"] != "3" {
			t.Errorf("%v", got)
		}
		r.publish5("nowhere/"+strings.Repeat("x", 60), 1, 1, "", nil)
		if ack := get[*packets.Puback](r); ack.ReasonCode != 131 || len(ack.Properties.User) != 0 {
			t.Errorf("PUBACK %d %v", ack.ReasonCode, ack.Properties.User)
		}
	})
}

func TestSubscribe5(t *testing.T) {
	var filters []string
	var want []byte
	file := struct {
		Filters []struct {
			MQTT, Module, Filter string
			Code                 byte
		}
	}{}
	readVectors(t, "topics.json", &file)
	for _, v := range file.Filters {
		if v.MQTT == "5" && v.Module == "" {
			filters, want = append(filters, v.Filter), append(want, v.Code)
		}
	}
	if len(filters) < 5 {
		t.Fatal("topics.json has too few filters of MQTT 5")
	}
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		if got := r.subscribe5(filters...); !bytes.Equal(got, want) {
			t.Errorf("SUBACK %v, want %v for %q", got, want, filters)
		}
		r.put(&packets.Unsubscribe{PacketID: 3, Properties: &packets.Properties{}, Topics: []string{"$iothub/methods/+", "nowhere", "$iothub/responses"}})
		if ack := get[*packets.Unsuback](r); !bytes.Equal(ack.Reasons, []byte{0, 0x11, 0}) {
			t.Errorf("UNSUBACK %v", ack.Reasons)
		}
	})
}

func TestFiftySubscriptions(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		var filters []string
		for i := range 51 {
			filters = append(filters, fmt.Sprintf("$iothub/methods/m%d", i))
		}
		got := r.subscribe5(append(filters, "$iothub/responses")...)
		want := append(make([]byte, 50), 0x97, 0)
		if !bytes.Equal(got, want) {
			t.Errorf("SUBACK %v", got)
		}
	})
}

func TestTwin5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		p := r.request("$iothub/twin/get", "")
		r.wantUsers(p.Properties, map[string]string{})
		if string(p.Payload) != `{"desired":{"$version":1},"reported":{"$version":1}}` {
			t.Errorf("twin %s", p.Payload)
		}
		p = r.request("$iothub/twin/patch/reported", `{"a":1}`)
		r.wantUsers(p.Properties, map[string]string{"version": "2"})
		if len(p.Payload) != 0 {
			t.Errorf("payload %s", p.Payload)
		}
		r.wantUsers(r.request("$iothub/twin/patch/reported", `{"a":2}`, user("if-version", "2")...).Properties, map[string]string{"version": "3"})
		r.wantUsers(r.request("$iothub/twin/patch/reported", `{"a":2}`, user("if-version", "2")...).Properties, map[string]string{"status": "0104"})
		for _, bad := range []string{"x", "0", "-1", ""} {
			r.wantUsers(r.request("$iothub/twin/patch/reported", `{"a":2}`, user("if-version", bad)...).Properties, map[string]string{"status": "0100"})
		}
		r.wantUsers(r.request("$iothub/twin/patch/reported", `nonsense`).Properties, map[string]string{"status": "0100"})
		r.wantUsers(r.request("$iothub/twin/get", "", user("x", "1")...).Properties, map[string]string{"status": "0100"})

		r.subscribe5("$iothub/twin/patch/desired")
		desired(t, h, c.id(), 5)
		m := get[*packets.Publish](r)
		if m.Topic != "$iothub/twin/patch/desired" || m.QoS != 0 || users(m.Properties)["version"] != "2" || string(m.Payload) != `{"$version":2,"n":5}` {
			t.Errorf("%v", m)
		}
	})
}

func TestMethod5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		r.subscribe5("$iothub/methods/+")
		done := invoke(t, h, c.id(), "reboot", `{"delay":5}`)
		m := get[*packets.Publish](r)
		if m.Topic != "$iothub/methods/reboot" || m.QoS != 0 || string(m.Payload) != `{"delay":5}` || len(m.Properties.CorrelationData) == 0 || len(m.Properties.CorrelationData) > 16 {
			t.Errorf("%v", m)
		}
		r.publish5("$iothub/responses", 0, 0, `[1]`, &packets.Properties{CorrelationData: m.Properties.CorrelationData, User: user("response-code", "201")})
		if got := <-done; got != `{"status":201,"payload":[1]}` {
			t.Errorf("answer %s", got)
		}
		done = invoke(t, h, c.id(), "reboot", "1")
		m = get[*packets.Publish](r)
		r.publish5("$iothub/responses", 0, 0, "", &packets.Properties{CorrelationData: m.Properties.CorrelationData, User: user("status", "06A0")})
		if got := <-done; !strings.HasPrefix(got, "GatewayTimeout") {
			t.Errorf("answer of a client that is unavailable: %s", got)
		}
	})
}

func TestOneMethodByName(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		r.subscribe5("$iothub/methods/reboot")
		if got := <-invoke(t, h, c.id(), "other", "1"); !strings.HasPrefix(got, "GatewayTimeout") {
			t.Errorf("a method that the client does not take: %s", got)
		}
		invoke(t, h, c.id(), "reboot", "1")
		if m := get[*packets.Publish](r); m.Topic != "$iothub/methods/reboot" {
			t.Errorf("%v", m)
		}
	})
}
