package mqttd_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

const devicebound = "devices/pi-01/messages/devicebound/#"

func send(t testing.TB, h *hubtest.Hub, id hub.ID, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		m := hub.C2D{Message: hub.Message{Body: []byte(body), System: map[string]string{"message-id": body}}, Ack: "full"}
		if err := h.SendC2D(id, m); err != nil {
			t.Fatal(err)
		}
	}
}

// command expects a cloud-to-device message with this first byte and body, and answers its topic and packet id, which is
// 0 with QoS 0.
func (r *raw) command(first byte, body string) (topic string, id uint16) {
	r.t.Helper()
	f, b, err := r.next()
	if err != nil || f != first {
		r.t.Fatalf("got %#x % x (%q), %v\nwant %#x with %q", f, b, b, err, first, body)
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	topic, b = string(b[2:n]), b[n:]
	if first&6 != 0 {
		id, b = binary.BigEndian.Uint16(b), b[2:]
		if id == 0 {
			r.t.Error("packet id 0")
		}
	}
	if string(b) != body || !strings.HasPrefix(topic, r.c.base()+"/messages/devicebound/%24.to=") {
		r.t.Fatalf("%q on %q, want %q", b, topic, body)
	}
	return topic, id
}

func (r *raw) puback(id uint16) {
	r.t.Helper()
	r.send(packet(0x40, u16(id)))
}

// ask subscribes and expects these codes.
func (r *raw) ask(qos byte, codes []byte, filters ...string) {
	r.t.Helper()
	parts := [][]byte{u16(8)}
	for _, f := range filters {
		parts = append(parts, str(f), []byte{qos})
	}
	r.send(packet(0x82, parts...))
	r.expect(0x90, append(u16(8), codes...))
}

// pending is how many messages wait for an identity.
func pending(t testing.TB, h *hubtest.Hub, id hub.ID) int {
	t.Helper()
	synctest.Wait()
	twin, err := h.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	return twin.CloudToDeviceMessageCount
}

func TestCloudToDevice(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		send(t, h, c.id(), "queued")
		r := connect(t, h, c, hello{}, 0)
		r.open() // nothing comes before the subscription
		r.ask(2, []byte{1}, devicebound)
		topic, id := r.command(0x32, "queued")
		if want := "devices/pi-01/messages/devicebound/%24.to=%2Fdevices%2Fpi-01%2Fmessages%2Fdevicebound&%24.mid=queued&iothub-ack=full"; topic != want {
			t.Errorf("topic %q, want %q", topic, want)
		}
		if n := pending(t, h, c.id()); n != 1 {
			t.Errorf("%d messages before PUBACK, want 1", n)
		}
		r.puback(id)
		r.puback(id) // again means nothing
		r.puback(4711)
		r.open()
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages after PUBACK, want 0", n)
		}
		send(t, h, c.id(), "live")
		_, second := r.command(0x32, "live")
		if second == id {
			t.Errorf("packet id %d twice", id)
		}
		n, ok := h.ReceiveFeedback()
		if !ok || !strings.Contains(string(n.Body), `"originalMessageId":"queued"`) || !strings.Contains(string(n.Body), `"statusCode":"Success"`) {
			t.Errorf("feedback %s", n.Body)
		}
	})
}

func TestCloudToDeviceWithQoS0(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.ask(0, []byte{0}, "devices/+/messages/devicebound/#") // as azure-sdk-for-c writes it
		send(t, h, c.id(), "1", "2")
		r.command(0x30, "1")
		r.command(0x30, "2")
		if n := pending(t, h, c.id()); n != 0 { // sent is done
			t.Errorf("%d messages, want 0", n)
		}
		r.ask(1, []byte{1}, devicebound) // two filters that match: once, with the higher QoS
		send(t, h, c.id(), "3")
		_, id := r.command(0x32, "3")
		r.puback(id)
		r.open()
	})
}

func TestCloudToDeviceIsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.ask(1, []byte{1}, devicebound)
		send(t, h, c.id(), "1", "2")
		_, one := r.command(0x32, "1")
		_, two := r.command(0x32, "2")
		r.puback(two)
		r.open()
		_ = r.Close()
		h.Wait(t, kind("disconnected"))
		send(t, h, c.id(), "3")

		r = connect(t, h, c, hello{}, 1) // the session is kept: right after CONNACK, without a SUBSCRIBE
		_, again := r.command(0x3a, "1")
		_, three := r.command(0x32, "3")
		if again != one || three == one {
			t.Errorf("packet ids %d and %d, want %d and another", again, three, one)
		}
		time.Sleep(time.Minute) // the locks run out
		_, again = r.command(0x3a, "1")
		_, more := r.command(0x3a, "3")
		if again != one || more != three {
			t.Errorf("packet ids %d and %d, want %d and %d", again, more, one, three)
		}
		r.puback(one)
		r.puback(three)
		r.open()
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}

		send(t, h, c.id(), "4")
		r.command(0x32, "4")
		_ = r.Close()
		r = connect(t, h, c, hello{clean: true}, 0)
		r.open()
		r.ask(1, []byte{1}, devicebound)
		r.command(0x32, "4") // a new session: for this one it is the first time
	})
}

func TestCloudToDeviceSurvivesATakeover(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		old := connect(t, h, c, hello{}, 0)
		old.ask(1, []byte{1}, devicebound)
		send(t, h, c.id(), "1")
		_, id := old.command(0x32, "1")
		r := connect(t, h, c, hello{}, 1)
		old.closed()
		_, again := r.command(0x3a, "1")
		if again != id {
			t.Errorf("packet id %d, want %d", again, id)
		}
		r.puback(again)
		r.open()
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}
	})
}

func TestCloudToDeviceEndsWithItsSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.ask(1, []byte{1}, devicebound)
		r.send(packet(0xa2, u16(3), str(devicebound)))
		r.expect(0xb0, u16(3))
		send(t, h, c.id(), "1")
		r.open()
		if n := pending(t, h, c.id()); n != 1 {
			t.Errorf("%d messages, want 1", n)
		}
	})
}

func TestCloudToModule(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.ask(1, []byte{1, 1}, c.base()+"/#", c.base()+"/inputs/#") // what C, C#, Python and Node subscribe to
		send(t, h, c.id(), "1")
		send(t, h, hub.ID{Device: "pi-01"}, "the device's")
		r.open() // it is no input
		r.ask(1, []byte{1}, c.base()+"/messages/devicebound/#")
		_, id := r.command(0x32, "1")
		r.puback(id)
		r.open()
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}
	})
}

func TestFullQueueOfLargeMessages(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		large := strings.Repeat("x", 60<<10)
		for range 50 {
			if err := h.SendC2D(c.id(), hub.C2D{Message: hub.Message{Body: []byte(large)}}); err != nil {
				t.Fatal(err)
			}
		}
		r := connect(t, h, c, hello{}, 0)
		r.ask(1, []byte{1}, devicebound)
		for range 50 {
			_, id := r.command(0x32, large)
			r.puback(id)
		}
		r.open()
	})
}

func TestPropertiesThatFitNoTopic(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.ask(1, []byte{1}, devicebound)
		m := hub.C2D{Ack: "full", Message: hub.Message{Properties: map[string]string{"k": strings.Repeat("/", 30<<10)}}}
		if err := h.SendC2D(c.id(), m); err != nil {
			t.Fatal(err)
		}
		send(t, h, c.id(), "next")
		r.command(0x32, "next")
		if n, ok := h.ReceiveFeedback(); !ok || !strings.Contains(string(n.Body), "Rejected") {
			t.Errorf("feedback %s", n.Body)
		}
	})
}

func TestCloudToDeviceFaults(t *testing.T) {
	for _, test := range []struct {
		do   string
		then func(*raw)
	}{
		{"kick", (*raw).closed},
		{"drop", func(r *raw) { r.open(); r.command(0x3a, "1") }}, // comes again when its lock has run out
		{"delay", func(r *raw) { r.command(0x32, "1") }},
	} {
		t.Run(test.do, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				r := connect(t, h, c, hello{}, 0)
				r.ask(1, []byte{1}, devicebound)
				h.Fault(hub.Fault{On: "c2d", Who: "pi-01", Times: 1, Do: test.do, Delay: 30 * time.Second})
				send(t, h, c.id(), "1")
				test.then(r)
			})
		})
	}
}

// TestNeverAcknowledged holds that a session does not remember forever what was purged without a PUBACK.
func TestNeverAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.ask(1, []byte{1}, devicebound)
		for i := range 200 {
			body := fmt.Sprint(i)
			send(t, h, c.id(), body)
			r.command(0x32, body)
			if _, err := h.PurgeC2D(c.id()); err != nil {
				t.Fatal(err)
			}
		}
		send(t, h, c.id(), "last")
		_, id := r.command(0x32, "last")
		r.puback(id)
		r.open()
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages, want 0", n)
		}
	})
}
