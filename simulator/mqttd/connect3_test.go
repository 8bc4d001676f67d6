package mqttd_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

func TestDeviceAndModuleConnect(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		m := module(t, h)
		d := parseCredential(t, mustConnectionString(t, h, hub.ID{Device: "pi-01"}))
		for _, c := range []credential{d, m} {
			connect(t, h, c, hello{}, 0).open()
			e := h.Wait(t, kind("connected"))
			if e.DeviceID != c.device || e.ModuleID != c.module || e.Detail != "MQTT 3.1.1" {
				t.Errorf("event %+v for %s", e, c.clientID())
			}
		}
	})
}

func mustConnectionString(t testing.TB, h *hubtest.Hub, id hub.ID) string {
	t.Helper()
	text, err := h.ConnectionString(id)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRefusedConnections(t *testing.T) {
	other := func(c credential) credential { c.key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; return c }
	tests := []struct {
		name string
		how  func(m, d credential) (credential, hello)
	}{
		{"wrong key", func(m, d credential) (credential, hello) { return other(m), hello{} }},
		{"token run out", func(m, d credential) (credential, hello) { return m, hello{password: m.token(-time.Hour)} }},
		{"token of the device for its module", func(m, d credential) (credential, hello) { return m, hello{password: d.token(time.Hour)} }},
		{"key of the device for its module", func(m, d credential) (credential, hello) { m.key = d.key; return m, hello{} }},
		{"no password", func(m, d credential) (credential, hello) { return m, hello{password: "-"} }},
		{"no token", func(m, d credential) (credential, hello) { return m, hello{password: "secret"} }},
		{"unknown device", func(m, d credential) (credential, hello) { d.device = "pi-02"; return d, hello{} }},
		{"unknown module", func(m, d credential) (credential, hello) { m.module = "BME280"; return m, hello{} }},
		{"client id of another", func(m, d credential) (credential, hello) { return m, hello{clientID: "pi-01"} }},
		{"no api-version", func(m, d credential) (credential, hello) { return m, hello{user: m.host + "/pi-01/bme280/?"} }},
		{"another hub", func(m, d credential) (credential, hello) {
			return m, hello{user: "other.azure-devices.net/pi-01/bme280/?api-version=2021-04-12"}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				m := module(t, h)
				d := parseCredential(t, mustConnectionString(t, h, hub.ID{Device: "pi-01"}))
				c, how := test.how(m, d)
				r := dial(t, h, c)
				r.send(how.packet(c))
				r.expect(0x20, []byte{0, 5})
				r.closed()
			})
		})
	}
}

func TestUserNamesOfRealClients(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		for _, tail := range []string{
			"?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4",
			"?api-version=2020-09-30&model-id=dtmi%3Acom%3Aexample%3Bx&DeviceClientType=x",
			"api-version=2020-09-30",
		} {
			connect(t, h, c, hello{clean: true, user: c.host + "/pi-01/" + tail}, 0)
			want := ""
			if strings.Contains(tail, "model-id") {
				want = "dtmi:com:example;x"
			}
			if twin, err := h.Twin(c.id()); err != nil || twin.ModelID != want {
				t.Errorf("%s: modelId %q, %v; want %q", tail, twin.ModelID, err, want)
			}
		}
	})
}

func TestUnknownProtocolVersions(t *testing.T) {
	for name, first := range map[string][]byte{
		"level 3":  packet(0x10, str("MQTT"), []byte{3, 2, 0, 0}, str("d")),
		"level 6":  packet(0x10, str("MQTT"), []byte{6, 2, 0, 0}, str("d")),
		"MQTT 3.1": packet(0x10, str("MQIsdp"), []byte{3, 2, 0, 0}, str("d")),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := dial(t, h, device(t, h))
				r.send(first)
				r.expect(0x20, []byte{0, 1})
				r.closed()
			})
		})
	}
}

func TestWhatIsNoConnectEndsTheConnection(t *testing.T) {
	for name, first := range map[string][]byte{
		"PINGREQ":                 {0xc0, 0},
		"HTTP":                    []byte("GET / HTTP/1.1\r\n\r\n"),
		"CONNECT with flags":      packet(0x11, str("MQTT"), []byte{4, 2, 0, 0}, str("d")),
		"CONNECT cut short":       packet(0x10, str("MQTT"), []byte{4, 2, 0, 0}),
		"length of five bytes":    {0x10, 0xff, 0xff, 0xff, 0xff, 0x01},
		"length beyond the limit": {0x10, 0xff, 0xff, 0xff, 0x7f},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := dial(t, h, device(t, h))
				r.send(first)
				r.closed()
			})
		})
	}
}

func TestConnectMustComeWithin30Seconds(t *testing.T) {
	for name, first := range map[string][]byte{"nothing": nil, "half a packet": {0x10, 0x20, 0, 4}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				start := time.Now()
				r := dial(t, h, device(t, h))
				r.send(first)
				r.ends()
				if d := time.Since(start); d != 30*time.Second {
					t.Errorf("closed after %v", d)
				}
			})
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			start := time.Now()
			nc, err := h.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(nc); err != nil {
				t.Errorf("read: %v", err)
			}
			if d := time.Since(start); d != 30*time.Second {
				t.Errorf("closed after %v", d)
			}
		})
	})
}

func TestKeepAlive(t *testing.T) {
	tests := []struct {
		name string
		how  hello
		want time.Duration
	}{
		{"60 s", hello{keepAlive: 60}, 90 * time.Second},
		{"none: the hub's cap", hello{noKeepAlive: true}, 1767 * time.Second},
		{"longest: the hub's cap", hello{keepAlive: 65535}, 1767 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				how := test.how
				how.password = c.token(24 * time.Hour)
				r := connect(t, h, c, how, 0)
				time.Sleep(test.want - time.Second)
				r.open() // any packet begins the time anew
				start := time.Now()
				r.ends()
				if d := time.Since(start); d != test.want {
					t.Errorf("closed after %v, want %v", d, test.want)
				}
			})
		})
	}
}

func TestConnectionEndsWithItsToken(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		start := time.Now()
		r := connect(t, h, c, hello{password: c.token(10 * time.Minute), keepAlive: 1000}, 0)
		r.ends()
		if d := time.Since(start); d != 10*time.Minute {
			t.Errorf("closed after %v", d)
		}
	})
}

func TestNewestConnectionWins(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		first := connect(t, h, c, hello{}, 0)
		second := connect(t, h, c, hello{}, 1)
		first.closed()
		second.open()
		synctest.Wait()
		second.open() // the end of the first has not taken the second with it
	})
}

func TestDeviceAndModuleDoNotDisturbEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		m := connect(t, h, module(t, h), hello{}, 0)
		d := connect(t, h, parseCredential(t, mustConnectionString(t, h, hub.ID{Device: "pi-01"})), hello{}, 0)
		m.open()
		d.open()
	})
}

func TestSessions(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#")
		r.send([]byte{0xe0, 0})
		r.closed()

		// Kept: what comes is delivered without a new subscription.
		r = connect(t, h, c, hello{}, 1)
		desired(t, h, c.id(), 1)
		if topic, body := r.message(); topic != "$iothub/twin/PATCH/properties/desired/?$version=2" || body != `{"$version":2,"n":1}` {
			t.Errorf("%s %s", topic, body)
		}

		// Clean: forgotten, and not kept either.
		r = connect(t, h, c, hello{clean: true}, 0)
		desired(t, h, c.id(), 2)
		r.open()
		r = connect(t, h, c, hello{}, 0)
		desired(t, h, c.id(), 3)
		r.open()
	})
}

func TestSessionEndsWithItsIdentity(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/PATCH/properties/desired/#")
		if err := h.DeleteModule(c.id(), "*"); err != nil {
			t.Fatal(err)
		}
		r.closed()
		connect(t, h, module(t, h), hello{}, 0)
	})
}

func TestUnsubscribe(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/PATCH/properties/desired/#")
		r.send(packet(0xa2, u16(5), str("$iothub/twin/PATCH/properties/desired/#"), str("never/seen")))
		r.expect(0xb0, u16(5))
		desired(t, h, c.id(), 1)
		r.open()
	})
}

func TestWill(t *testing.T) {
	const topic = "devices/pi-01/messages/events/a=b"
	isWill := func(e hub.Event) bool { return e.Properties["iothub-MessageType"] == "Will" }
	t.Run("lost connection", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			r := connect(t, h, device(t, h), hello{willTopic: topic, willMsg: `{"gone":true}`, willFlags: 8}, 0)
			_ = r.Close()
			e := h.Wait(t, isWill)
			if string(e.Body) != `{"gone":true}` || e.Properties["a"] != "b" || e.Kind != "telemetry" {
				t.Errorf("%+v", e)
			}
		})
	})
	t.Run("keep-alive", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			connect(t, h, device(t, h), hello{willTopic: topic, willMsg: "x", keepAlive: 60}, 0)
			start := time.Now()
			h.Wait(t, isWill)
			if d := time.Since(start); d != 90*time.Second {
				t.Errorf("sent after %v", d)
			}
		})
	})
	// A connection that the hub ends has not said goodbye either.
	for name, c := range map[string]struct {
		end   func(*testing.T, *hubtest.Hub, credential)
		wills int
	}{
		"taken over": {func(t *testing.T, h *hubtest.Hub, c credential) { connect(t, h, c, hello{}, 0) }, 1},
		"token":      {func(*testing.T, *hubtest.Hub, credential) { time.Sleep(61 * time.Second) }, 1}, // within the keep-alive
		"disabled": {func(t *testing.T, h *hubtest.Hub, c credential) {
			if _, err := h.PutDevice(hub.Device{DeviceID: c.device, Status: "disabled"}, "*"); err != nil {
				t.Fatal(err)
			}
		}, 0},
		"made anew": {func(t *testing.T, h *hubtest.Hub, c credential) {
			if err := h.DeleteDevice(c.device, "*"); err != nil {
				t.Fatal(err)
			}
			if _, err := h.PutDevice(hub.Device{DeviceID: c.device}, ""); err != nil {
				t.Fatal(err)
			}
		}, 0},
		"fault": {func(t *testing.T, h *hubtest.Hub, c credential) {
			h.Fault(hub.Fault{On: "desired", Do: "kick"})
			desired(t, h, c.id(), 1)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				who := device(t, h)
				r := connect(t, h, who, hello{willTopic: topic, willMsg: "x", clean: true, password: who.token(time.Minute)}, 0)
				r.subscribe("$iothub/twin/PATCH/properties/desired/#")
				c.end(t, h, who)
				synctest.Wait()
				wills := 0
				for _, e := range h.Events() {
					if isWill(e) {
						wills++
					}
				}
				if wills != c.wills {
					t.Errorf("%d wills, want %d", wills, c.wills)
				}
			})
		})
	}
	t.Run("DISCONNECT", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			r := connect(t, h, device(t, h), hello{willTopic: topic, willMsg: "x"}, 0)
			r.send([]byte{0xe0, 0})
			r.closed()
			synctest.Wait()
			if n := count(h, "telemetry"); n != 0 {
				t.Errorf("%d wills after DISCONNECT", n)
			}
		})
	})
	t.Run("foreign topic", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			r := dial(t, h, c)
			r.send(hello{willTopic: "devices/pi-02/messages/events/", willMsg: "x"}.packet(c))
			r.closed()
		})
	})
}

func TestShutdownEndsConnections(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		start := time.Now()
		h.Down()
		r.closed()
		if _, err := h.DialTLS(t.Context()); err != hubtest.ErrDown {
			t.Errorf("dialling a hub that is down: %v", err)
		}
		h.Up()
		connect(t, h, c, hello{}, 1) // sessions are the hub's, not the connection's
		if d := time.Since(start); d != 0 {
			t.Errorf("took %v", d)
		}
	})
}

// A device that stops reading must hold up nobody: not the one who changes its twin, and not the next connection.
func TestDeviceThatDoesNotRead(t *testing.T) {
	for name, test := range map[string]struct {
		changes      int // of 3 KB each
		least, limit time.Duration
	}{
		"for ten seconds":        {100, 10 * time.Second, 12 * time.Second},
		"and lets a MiB heap up": {600, 0, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := module(t, h)
				r := connect(t, h, c, hello{}, 0)
				r.subscribe("$iothub/twin/PATCH/properties/desired/#")
				start := time.Now()
				patch := []byte(`{"properties":{"desired":{"s":"` + strings.Repeat("x", 3000) + `"}}}`)
				for range test.changes {
					if _, err := h.PatchTwin(c.id(), patch, ""); err != nil {
						t.Fatal(err)
					}
				}
				if d := time.Since(start); d != 0 {
					t.Errorf("the service waited %v for the device", d)
				}
				e := h.Wait(t, kind("disconnected"))
				if d := e.At.Sub(start); d < test.least || d > test.limit {
					t.Errorf("given up after %v, want %v to %v", d, test.least, test.limit)
				}
				connect(t, h, c, hello{}, 1)
			})
		})
	}
}
