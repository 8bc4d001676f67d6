package mqttd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

const (
	twinRes  = "$iothub/twin/res/#"
	getTwin  = "$iothub/twin/GET/?$rid="
	reported = "$iothub/twin/PATCH/properties/reported/?$rid="
)

func TestTelemetry(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		topic := c.base() + "/messages/events/"
		r.send(packet(0x32, str(topic+"%24.mid=3f-17&%24.ct=application%2Fjson&unit=%C2%B0C"), u16(7), []byte(`{"t":21.5}`)))
		r.expect(0x40, u16(7))
		e := h.Wait(t, kind("telemetry"))
		if e.DeviceID != "pi-01" || e.ModuleID != "bme280" || string(e.Body) != `{"t":21.5}` || e.Properties["unit"] != "°C" ||
			e.System["message-id"] != "3f-17" || e.System["content-type"] != "application/json" {
			t.Errorf("%+v", e)
		}

		if got, want := e.System["iothub-connection-auth-method"], `{"scope":"module","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}`; got != want ||
			e.System["iothub-connection-module-id"] != "bme280" || e.System["iothub-connection-auth-generation-id"] != h.Generation(c.id()) {
			t.Errorf("stamps %v", e.System)
		}
		// Nobody says himself who he is.
		r.send(packet(0x32, str(topic+"%24.cdid=other&%24.cmid=other&iothub-connection-device-id=other"), u16(7), []byte("1")))
		r.expect(0x40, u16(7))
		if e := h.Wait(t, kind("telemetry")); e.System["iothub-connection-device-id"] != "pi-01" || e.System["iothub-connection-module-id"] != "bme280" ||
			len(e.System) != 6 {
			t.Errorf("stamps %v", e.System)
		}

		r.send(packet(0x30, str(topic), []byte{0xff})) // QoS 0, not JSON
		if e := h.Wait(t, kind("telemetry")); !bytes.Equal(e.Base64, []byte{0xff}) {
			t.Errorf("%+v", e)
		}
		r.send(packet(0x33, str(topic), u16(8), []byte("1"))) // RETAIN
		r.expect(0x40, u16(8))
		if e := h.Wait(t, kind("telemetry")); !maps.Equal(e.Properties, map[string]string{"mqtt-retain": "true"}) {
			t.Errorf("properties of a retained message: %v", e.Properties)
		}
		r.send(packet(0x3a, str(topic), u16(8), []byte("1"))) // DUP: sent again, taken again
		r.expect(0x40, u16(8))
		h.Wait(t, kind("telemetry"))
	})
}

func TestAcknowledgementsKeepTheirOrder(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		var all []byte
		for id := uint16(1); id <= 500; id++ {
			all = append(all, packet(0x32, str("devices/pi-01/messages/events/"), u16(id), []byte("{}"))...)
		}
		go r.send(all)
		for id := uint16(1); id <= 500; id++ {
			r.expect(0x40, u16(id))
		}
	})
}

func TestLongestMessageAndOneLonger(t *testing.T) {
	for _, test := range []struct {
		name string
		size int
		ok   bool
	}{{"longest", 256 << 10, true}, {"longer by one", 256<<10 + 1, false}, {"longer than a frame", 400 << 10, false}} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := connect(t, h, device(t, h), hello{}, 0)
				p := packet(0x32, str("devices/pi-01/messages/events/"), u16(1), bytes.Repeat([]byte("1"), test.size))
				go func() { _, _ = r.Write(p) }() // which the hub may cut short
				if test.ok {
					r.expect(0x40, u16(1))
					return
				}
				r.closed()
				if n := count(h, "telemetry"); n != 0 {
					t.Errorf("%d messages were taken", n)
				}
			})
		})
	}
}

// vector is a row of topics.json.
type vector struct {
	MQTT, Device, Module, Topic, Meaning, Filter string
	Granted                                      bool
}

func vectors(t *testing.T) (file struct{ Publish, Filters []vector }) {
	t.Helper()
	readVectors(t, "topics.json", &file)
	return file
}

// readVectors reads one of the files that both sides of the wire are tested with.
func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "conformance", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// identity creates what a vector is about.
func identity(t *testing.T, h *hubtest.Hub, v vector) credential {
	t.Helper()
	if v.Module != "" {
		return parseCredential(t, h.Module(v.Device, v.Module))
	}
	return parseCredential(t, h.Device(v.Device))
}

func TestOnlyOwnTopicsKeepTheConnection(t *testing.T) {
	for _, v := range vectors(t).Publish {
		if v.MQTT != "3.1.1" {
			continue
		}
		t.Run(v.Device+v.Module+" "+v.Topic, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := connect(t, h, identity(t, h, v), hello{}, 0)
				r.publish(v.Topic, "{}")
				if v.Meaning == "none" {
					r.closed()
				} else {
					r.open()
				}
			})
		})
	}
}

func TestOnlyKnownFiltersKeepTheConnection(t *testing.T) {
	for _, v := range vectors(t).Filters {
		if v.MQTT != "3.1.1" {
			continue
		}
		t.Run(v.Device+v.Module+" "+v.Filter, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := connect(t, h, identity(t, h, v), hello{}, 0)
				r.send(packet(0x82, u16(1), str(v.Filter), []byte{1}))
				if v.Granted {
					r.expect(0x90, append(u16(1), 1))
				} else {
					r.closed()
				}
			})
		})
	}
}

func TestQoS2(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.send(packet(0x82, u16(1), str(twinRes), []byte{2}))
		r.expect(0x90, append(u16(1), 1))
		r.send(packet(0x34, str("devices/pi-01/messages/events/"), u16(2), []byte("{}")))
		r.closed()
	})
}

func TestSixthSubscriptionEndsTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		five := []string{twinRes, "$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#", c.base() + "/#", c.base() + "/inputs/#"}
		r.subscribe(five...)
		r.subscribe(five...) // the same again are none more
		r.send(packet(0x82, u16(1), str(c.base()+"/messages/devicebound/#"), []byte{0}))
		r.closed()
	})
}

func TestPacketsThatEndTheConnection(t *testing.T) {
	for name, p := range map[string][]byte{
		"second CONNECT":            packet(0x10, str("MQTT"), []byte{4, 2, 0, 0}, str("d")),
		"PUBREL":                    {0x62, 2, 0, 1},
		"CONNACK":                   {0x20, 2, 0, 0},
		"AUTH":                      {0xf0, 0},
		"PINGREQ with a body":       {0xc0, 1, 0},
		"PUBACK of packet id 0":     {0x40, 2, 0, 0},
		"SUBSCRIBE without filters": {0x82, 2, 0, 1},
		"reserved packet type":      {0x00, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := connect(t, h, device(t, h), hello{}, 0)
				r.send(p)
				if p[0] == 0xc0 {
					r.expect(0xd0, nil)
				}
				r.closed()
			})
		})
	}
}

func TestTwin(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe(twinRes, "$iothub/twin/PATCH/properties/desired/#")

		r.publish(getTwin+"1", " ") // as the Node and Python SDKs do
		topic, body := r.message()
		if topic != "$iothub/twin/res/200/?$rid=1" || body != `{"desired":{"$version":1},"reported":{"$version":1}}` {
			t.Errorf("GET: %s %s", topic, body)
		}

		r.publish(reported+"2", `{"a":1}`)
		if topic, body := r.message(); topic != "$iothub/twin/res/204/?$rid=2&$version=2" || body != "" {
			t.Errorf("PATCH: %s %s", topic, body)
		}
		r.send(packet(0x32, str(reported+"3&$version=2"), u16(4), []byte(`{"a":null,"b":2}`))) // QoS 1, as Python does
		if topic, _ := r.message(); topic != "$iothub/twin/res/204/?$rid=3&$version=3" {
			t.Errorf("PATCH with $version: %s", topic)
		}
		r.expect(0x40, u16(4))
		r.publish(reported+"4&$version=2", `{"b":3}`)
		if topic, _ := r.message(); topic != "$iothub/twin/res/412/?$rid=4" {
			t.Errorf("PATCH with an old $version: %s", topic)
		}

		desired(t, h, c.id(), 7)
		if topic, body := r.message(); topic != "$iothub/twin/PATCH/properties/desired/?$version=2" || body != `{"$version":2,"n":7}` {
			t.Errorf("desired: %s %s", topic, body)
		}
		r.publish(getTwin+"5", "")
		if _, body := r.message(); body != `{"desired":{"$version":2,"n":7},"reported":{"$version":3,"b":2}}` {
			t.Errorf("GET: %s", body)
		}
	})
}

func TestTwinErrors(t *testing.T) {
	for name, test := range map[string]struct{ topic, payload, status string }{
		"not JSON":              {reported + "1", `{"a":`, "400"},
		"not an object":         {reported + "1", `[1]`, "400"},
		"version inside":        {reported + "1", `{"$version":3}`, "400"},
		"$version is no number": {reported + "1&$version=x", `{"a":1}`, "400"},
		"$version 0":            {reported + "1&$version=0", `{"a":1}`, "400"},
		"longer than 32 KiB":    {reported + "1", `{"b":{` + manyKeys() + `}}`, "4.."},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := connect(t, h, device(t, h), hello{}, 0)
				r.subscribe(twinRes)
				r.publish(test.topic, test.payload)
				topic, body := r.message()
				if !regexp.MustCompile(`^\$iothub/twin/res/` + test.status + `/\?\$rid=1$`).MatchString(topic) {
					t.Errorf("topic %s, want status %s", topic, test.status)
				}
				var e struct {
					ErrorCode                         int
					TrackingID, Message, TimestampUTC string
				}
				if err := json.Unmarshal([]byte(body), &e); err != nil {
					t.Fatalf("body %q: %v", body, err)
				}
				tracking := regexp.MustCompile(`^[0-9A-F]{32}-G:6-TimeStamp:\d\d/\d\d/\d{4} \d\d:\d\d:\d\d$`)
				if e.ErrorCode/100000 != 4 || e.Message == "" || !tracking.MatchString(e.TrackingID) {
					t.Errorf("%s", body)
				}
				if _, err := time.Parse(time.RFC3339Nano, e.TimestampUTC); err != nil {
					t.Errorf("timestampUtc: %v", err)
				}
			})
		})
	}
}

// manyKeys is 40 KB of a JSON object's inside.
func manyKeys() string {
	var b strings.Builder
	for i := range 10 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"k` + string(rune('a'+i)) + `":"` + strings.Repeat("v", 4000) + `"`)
	}
	return b.String()
}

func TestTwinRequestsThatAreNotAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := connect(t, h, device(t, h), hello{}, 0)
		r.publish(getTwin+"1", "") // not subscribed
		r.publish(reported+"2", `{"a":1}`)
		r.open()
		r.subscribe(twinRes)
		r.publish("$iothub/twin/GET/", "") // no rid
		r.publish(getTwin+"3", "")
		if topic, body := r.message(); topic != "$iothub/twin/res/200/?$rid=3" || !strings.Contains(body, `"a":1`) {
			t.Errorf("%s %s: the patch without an answer was not carried out", topic, body)
		}
	})
}

// invoke calls a method in the background and hands its answer over.
func invoke(t *testing.T, h *hubtest.Hub, id hub.ID, name, payload string) <-chan string {
	done := make(chan string, 1)
	ctx := t.Context()
	go func() {
		got, err := h.Invoke(ctx, id, hub.MethodRequest{Name: name, Payload: json.RawMessage(payload)})
		if err != nil {
			done <- err.Error()
			return
		}
		b, _ := json.Marshal(got)
		done <- string(b)
	}()
	return done
}

func TestMethod(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		if got := <-invoke(t, h, c.id(), "reboot", "1"); !strings.HasPrefix(got, "DeviceNotOnline") {
			t.Errorf("before the subscription: %s", got)
		}
		r.subscribe("$iothub/methods/POST/#")
		for _, answer := range []struct{ body, want string }{
			{`{"ok":true}`, `{"status":207,"payload":{"ok":true}}`},
			{``, `{"status":207,"payload":null}`},
		} {
			done := invoke(t, h, c.id(), "reboot", `{"delay":5}`)
			topic, body := r.message()
			rid, ok := strings.CutPrefix(topic, "$iothub/methods/POST/reboot/?$rid=")
			if !ok || body != `{"delay":5}` || !regexp.MustCompile(`^[0-9a-zA-Z-]+$`).MatchString(rid) {
				t.Errorf("%s %s", topic, body)
			}
			r.publish("$iothub/methods/res/207/?$rid="+rid, answer.body)
			if got := <-done; got != answer.want {
				t.Errorf("answer %s, want %s", got, answer.want)
			}
		}
		r.publish("$iothub/methods/res/200/?$rid=unknown", "{}") // nobody waits
		r.open()
	})
}

func TestServiceGoneWhileAMethodRuns(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/methods/POST/#")
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = h.Invoke(ctx, c.id(), hub.MethodRequest{Name: "m"}) }()
		topic, body := r.message()
		if body != "" {
			t.Errorf("payload %q of a method without one", body)
		}
		cancel()
		synctest.Wait()
		_, rid, _ := strings.Cut(topic, "$rid=")
		r.publish("$iothub/methods/res/200/?$rid="+rid, "{}")
		r.open()
	})
}

// Over MQTT 3.1.1 a device is not told why its connection ends. The hub's event says it.
func TestEventSaysWhyAConnectionEnded(t *testing.T) {
	for _, tt := range []struct {
		name string
		send []byte
		want string
	}{
		{"foreign topic", packet(0x30, str("devices/other/messages/events/"), []byte("1")), "devices/other/messages/events/"},
		{"unknown filter", packet(0x82, u16(1), str("#"), []byte{0}), `SUBSCRIBE to "#"`},
		{"QoS 2", packet(0x34, str("devices/pi-01/messages/events/"), u16(1), []byte("1")), "QoS 2"},
		{"goodbye", []byte{0xe0, 0}, "the device's end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := connect(t, h, device(t, h), hello{}, 0)
				r.send(tt.send)
				r.closed()
				if e := h.Wait(t, kind("disconnected")); !strings.Contains(e.Detail, tt.want) {
					t.Errorf("the event says %q, want %q", e.Detail, tt.want)
				}
			})
		})
	}
}
