package mqttd_test

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

func TestProtocolErrors5(t *testing.T) {
	for name, test := range map[string]struct {
		p    packets.Packet
		code byte
	}{
		"QoS 2":                   {&packets.Publish{Topic: "$iothub/telemetry", QoS: 2, PacketID: 1, Properties: &packets.Properties{}}, 155},
		"RETAIN":                  {&packets.Publish{Topic: "$iothub/telemetry", Retain: true, Properties: &packets.Properties{}}, 154},
		"no topic":                {&packets.Publish{Properties: &packets.Properties{}}, 130},
		"packet too large":        {&packets.Publish{Topic: "$iothub/telemetry", Payload: make([]byte, 262144), Properties: &packets.Properties{}}, 149},
		"subscription identifier": {&packets.Subscribe{PacketID: 1, Properties: &packets.Properties{SubscriptionIdentifier: ptr(1)}, Subscriptions: []packets.SubOptions{{Topic: "$iothub/commands"}}}, 161},
		"SUBSCRIBE of nothing":    {&packets.Subscribe{PacketID: 1, Properties: &packets.Properties{}}, 129},
		"PUBREL":                  {&packets.Pubrel{PacketID: 1, Properties: &packets.Properties{}}, 129},
		"second CONNECT":          {credential{}.hello5(), 130},
		"AUTH out of turn":        {&packets.Auth{ReasonCode: 0x18, Properties: &packets.Properties{AuthMethod: "SAS"}}, 130},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				r, _ := connect5(t, h, c, c.hello5())
				go func() { _, _ = test.p.WriteTo(r) }()
				d := get[*packets.Disconnect](r)
				if d.ReasonCode != test.code {
					t.Errorf("DISCONNECT %d %v, want %d", d.ReasonCode, users(d.Properties), test.code)
				}
			})
		})
	}
}

func TestDisconnectCodes(t *testing.T) {
	t.Run("taken over", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			r, _ := connect5(t, h, c, c.hello5())
			next, _ := connect5(t, h, c, c.hello5())
			r.ended(142, "")
			next.open()
		})
	})
	t.Run("taken over by 3.1.1", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			r, _ := connect5(t, h, c, c.hello5())
			connect(t, h, c, hello{}, 0)
			r.ended(142, "")
		})
	})
	t.Run("keep-alive", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			p := c.hello5()
			p.KeepAlive = 60
			r, _ := connect5(t, h, c, p)
			start := time.Now()
			r.endedLater(141, "")
			if d := time.Since(start); d != 90*time.Second {
				t.Errorf("after %v", d)
			}
		})
	})
	t.Run("shutdown", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			r, _ := connect5(t, h, c, c.hello5())
			h.Down()
			r.ended(139, "")
		})
	})
	t.Run("identity deleted", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := module(t, h)
			r, _ := connect5(t, h, c, c.hello5())
			if err := h.DeleteModule(c.id(), "*"); err != nil {
				t.Fatal(err)
			}
			r.ended(135, "0101")
		})
	})
	t.Run("fault", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := module(t, h)
			r, _ := connect5(t, h, c, c.hello5())
			h.Fault(hub.Fault{On: "publish", Do: "kick"})
			r.publish5("$iothub/telemetry", 1, 1, "{}", nil)
			if _, err := r.r.ReadByte(); err != io.EOF { // a network that breaks says nothing
				t.Errorf("%v", err)
			}
		})
	})
}

func TestWill5(t *testing.T) {
	for name, test := range map[string]struct {
		leave func(*raw5)
		wills int
	}{
		"lost":       {func(r *raw5) { _ = r.Close() }, 1},
		"DISCONNECT": {func(r *raw5) { r.put(&packets.Disconnect{Properties: &packets.Properties{}}); r.closed() }, 0},
		"DISCONNECT 4": {func(r *raw5) {
			r.put(&packets.Disconnect{ReasonCode: 4, Properties: &packets.Properties{}})
			r.closed()
		}, 1},
		"empty DISCONNECT":  {func(r *raw5) { r.send([]byte{0xe0, 0}); r.closed() }, 0},
		"protocol violated": {func(r *raw5) { r.send([]byte{0, 0}); r.ended(129, "") }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				p := c.hello5()
				p.WillFlag, p.WillTopic, p.WillMessage = true, "$iothub/telemetry", []byte(`"gone"`)
				p.WillProperties = &packets.Properties{User: user("@a", "b")}
				r, _ := connect5(t, h, c, p)
				test.leave(r)
				synctest.Wait()
				wills := 0
				for _, e := range h.Events() {
					if e.Properties["iothub-MessageType"] == "Will" && e.Properties["a"] == "b" && string(e.Body) == `"gone"` {
						wills++
					}
				}
				if wills != test.wills {
					t.Errorf("%d wills, want %d", wills, test.wills)
				}
			})
		})
	}
}

func TestFaultConnack5(t *testing.T) {
	for code, want := range map[int]byte{0: 135, 3: 135, 136: 136, 159: 159} {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			h.Fault(hub.Fault{On: "connect", Do: "refuse", Connack: code, Times: 1})
			r := &raw5{dial(t, h, c)}
			r.put(c.hello5())
			status := ""
			if want == 135 {
				status = "0101"
			}
			if ack := get[*packets.Connack](r); ack.ReasonCode != want || users(ack.Properties)["status"] != status {
				t.Errorf("%d: CONNACK %d %v", code, ack.ReasonCode, users(ack.Properties))
			}
			r.closed()
			r, _ = connect5(t, h, c, c.hello5())
			r.open()
		})
	}
}

func TestFaults5(t *testing.T) {
	telemetry := func(code byte, status string) func(*raw5) {
		return func(r *raw5) {
			r.t.Helper()
			r.publish5("$iothub/telemetry", 1, 1, "{}", nil)
			if ack := get[*packets.Puback](r); ack.ReasonCode != code || users(ack.Properties)["status"] != status {
				r.t.Errorf("PUBACK %d %v", ack.ReasonCode, users(ack.Properties))
			}
		}
	}
	request := func(topic, status string) func(*raw5) {
		return func(r *raw5) {
			r.t.Helper()
			if got := users(r.request(topic, "{}").Properties)["status"]; got != status {
				r.t.Errorf("status %q, want %q", got, status)
			}
		}
	}
	silence := func(topic string, qos byte) func(*raw5) {
		return func(r *raw5) {
			r.t.Helper()
			r.publish5(topic, qos, uint16(qos), "{}", &packets.Properties{CorrelationData: []byte{1}})
			r.open()
		}
	}
	subscribe := func(code byte) func(*raw5) {
		return func(r *raw5) {
			r.t.Helper()
			if got := r.subscribe5("$iothub/methods/+"); !bytes.Equal(got, []byte{code}) {
				r.t.Errorf("SUBACK %v", got)
			}
		}
	}
	for _, test := range []struct {
		on, do string
		then   func(*raw5)
	}{
		{"publish", "refuse", telemetry(131, "0100")},
		{"publish", "throttle", telemetry(151, "0501")},
		{"publish", "drop", silence("$iothub/telemetry", 1)},
		{"puback", "drop", silence("$iothub/telemetry", 1)},
		{"twin-get", "refuse", request("$iothub/twin/get", "0100")},
		{"twin-get", "throttle", request("$iothub/twin/get", "0501")},
		{"twin-get", "drop", silence("$iothub/twin/get", 0)},
		{"report", "refuse", request("$iothub/twin/patch/reported", "0100")},
		{"report", "throttle", request("$iothub/twin/patch/reported", "0501")},
		{"report", "drop", silence("$iothub/twin/patch/reported", 0)},
		{"subscribe", "refuse", subscribe(131)},
		{"subscribe", "throttle", subscribe(151)},
	} {
		t.Run(test.on+" "+test.do, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				r, _ := connect5(t, h, c, c.hello5())
				h.Fault(hub.Fault{On: test.on, Do: test.do, Times: 1})
				test.then(r)
				r.open()
			})
		})
	}
	for do, code := range map[string]byte{"refuse": 135, "throttle": 159} {
		t.Run("connect "+do, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				h.Fault(hub.Fault{On: "connect", Do: do, Times: 1})
				r := dial5(t, h, c)
				r.put(c.hello5())
				if ack := get[*packets.Connack](r); ack.ReasonCode != code {
					t.Errorf("CONNACK %d, want %d", ack.ReasonCode, code)
				}
			})
		})
	}
}
