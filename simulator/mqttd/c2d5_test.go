package mqttd_test

import (
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

const commands = "$iothub/commands"

// command5 expects a command with this body.
func (r *raw5) command5(body string, qos byte, again bool) *packets.Publish {
	r.t.Helper()
	p := get[*packets.Publish](r)
	if p.Topic != commands || string(p.Payload) != body || p.QoS != qos || p.Duplicate != again {
		r.t.Fatalf("got %v, want %q with QoS %d, DUP %v", p, body, qos, again)
	}
	return p
}

func (r *raw5) settle(p *packets.Publish, code byte, u ...packets.User) {
	r.t.Helper()
	r.put(&packets.Puback{PacketID: p.PacketID, ReasonCode: code, Properties: &packets.Properties{User: u}})
}

func (r *raw5) ping() {
	r.t.Helper()
	r.put(&packets.Pingreq{})
	get[*packets.Pingresp](r)
}

func TestCommands5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r, _ := connect5(t, h, c, c.hello5())
		if got := r.subscribe5(commands); got[0] != 1 {
			t.Errorf("SUBACK %v, want QoS 1", got)
		}
		m := hub.C2D{Message: hub.Message{Body: []byte("1"), Properties: map[string]string{"k": "v", "empty": ""}, System: map[string]string{
			"message-id": "m", "user-id": "u", "correlation-id": "c", "content-type": "text/plain", "content-encoding": "utf-8",
			"iothub-creation-time-utc": "2000-01-01T00:00:00Z",
		}}}
		if err := h.SendC2D(c.id(), m); err != nil {
			t.Fatal(err)
		}
		p := r.command5("1", 1, false)
		want := map[string]string{"sequence-no": "1", "enqueued-time": strconv.FormatInt(time.Now().UnixMilli(), 10), "delivery-count": "0",
			"creation-time": "946684800000", "message-id": "m", "user-id": "u", "correlation-id": "c", "content-encoding": "utf-8", "@k": "v", "@empty": ""}
		if got := users(p.Properties); !maps.Equal(got, want) || p.Properties.ContentType != "text/plain" {
			t.Errorf("%v, content type %q\nwant %v", got, p.Properties.ContentType, want)
		}
		r.settle(p, 0)
		r.ping()
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}

		send(t, h, c.id(), "2")
		p = r.command5("2", 1, false)
		r.settle(p, 131, user("status", "0603")...)
		p = r.command5("2", 1, true)
		if got := users(p.Properties)["delivery-count"]; got != "1" {
			t.Errorf("delivery-count %s, want 1", got)
		}
		r.settle(p, 131, user("status", "0100")...)
		r.ping()
		if n, ok := h.ReceiveFeedback(); !ok || !strings.Contains(string(n.Body), "Rejected") {
			t.Errorf("feedback %s", n.Body)
		}
	})
}

func TestCommandsKeepToReceiveMaximum(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		hello := c.hello5()
		hello.Properties.ReceiveMaximum = ptr(uint16(2))
		hello.Properties.SessionExpiryInterval = ptr(uint32(100))
		r, _ := connect5(t, h, c, hello)
		r.subscribe5(commands)
		send(t, h, c.id(), "1", "2", "3")
		p := r.command5("1", 1, false)
		r.command5("2", 1, false)
		r.ping()
		r.settle(p, 0)
		r.command5("3", 1, false)
		_ = r.Close()

		hello = c.hello5() // without the limit
		hello.Properties.SessionExpiryInterval = ptr(uint32(100))
		r, ack := connect5(t, h, c, hello)
		if !ack.SessionPresent {
			t.Error("the session is gone")
		}
		r.command5("2", 1, true)
		r.command5("3", 1, true)

		zero := c.hello5()
		zero.Properties.ReceiveMaximum = ptr(uint16(0))
		r = dial5(t, h, c)
		r.put(zero)
		if ack := get[*packets.Connack](r); ack.ReasonCode != 0x82 {
			t.Errorf("CONNACK %#x to Receive Maximum 0, want 0x82", ack.ReasonCode)
		}
	})
}

func TestCommandsWithQoS0AndTooLongOnes(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		hello := c.hello5()
		hello.Properties.MaximumPacketSize = ptr(uint32(200))
		r, _ := connect5(t, h, c, hello)
		r.put(&packets.Subscribe{PacketID: 1, Properties: &packets.Properties{}, Subscriptions: []packets.SubOptions{{Topic: commands}}})
		if got := get[*packets.Suback](r).Reasons; got[0] != 0 {
			t.Errorf("SUBACK %v, want QoS 0", got)
		}
		if err := h.SendC2D(c.id(), hub.C2D{Message: hub.Message{Body: make([]byte, 300)}, Ack: "full"}); err != nil {
			t.Fatal(err)
		}
		send(t, h, c.id(), "short")
		r.command5("short", 0, false)
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}
		if n, ok := h.ReceiveFeedback(); !ok || !strings.Contains(string(n.Body), "Rejected") {
			t.Errorf("feedback %s", n.Body)
		}
	})
}
