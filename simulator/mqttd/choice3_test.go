package mqttd_test

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// eachChoice runs f with a hub that was told nothing, and with one for each value of the choice.
func eachChoice(t *testing.T, name string, f func(t *testing.T, h *hubtest.Hub, value string)) {
	t.Helper()
	found := false
	for _, c := range hub.Choices() {
		if c.Name != name {
			continue
		}
		found = true
		for _, told := range append([]string{""}, c.Values...) {
			o, value := hub.Options{}, c.Values[0]
			if told != "" {
				o.Choices, value = map[string]string{name: told}, told
			}
			t.Run(name+"="+told, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { f(t, hubtest.New(t, o), value) })
			})
		}
	}
	if !found {
		t.Fatalf("no choice %q", name)
	}
}

func TestChoiceSixthSubscription(t *testing.T) {
	eachChoice(t, hub.SixthSubscription, func(t *testing.T, h *hubtest.Hub, value string) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#",
			"$iothub/credentials/res/#", "devices/+/messages/devicebound/#")
		r.subscribe("$iothub/twin/res/#") // again is no sixth
		sixth := packet(0x82, u16(9), str(devicebound), []byte{0})
		switch value {
		case "close":
			r.send(sixth)
			r.closed()
		case "refuse":
			r.send(sixth)
			r.expect(0x90, append(u16(9), 0x80))
			r.open()
		case "allow":
			r.subscribe(devicebound)
			r.send([]byte{0xe0, 0})
			r.closed()
			connect(t, h, c, hello{}, 1).open() // all six are kept
		}
	})
}

func TestChoiceSessionLifetime(t *testing.T) {
	eachChoice(t, hub.SessionLifetime, func(t *testing.T, h *hubtest.Hub, value string) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/PATCH/properties/desired/#")
		for _, away := range []time.Duration{59 * time.Minute, 61 * time.Minute} {
			kept := away < time.Hour || value == "forever"
			r.send([]byte{0xe0, 0})
			r.closed()
			time.Sleep(away)
			present := byte(0)
			if kept {
				present = 1
			}
			r = connect(t, h, c, hello{}, present)
			if _, err := h.PatchTwin(c.id(), json.RawMessage(`{"properties":{"desired":{"a":1}}}`), ""); err != nil {
				t.Fatal(err)
			}
			if kept {
				r.message()
				continue
			}
			r.open() // nothing comes
			r.subscribe("$iothub/twin/PATCH/properties/desired/#")
		}
	})
}

// TestChoiceDeliveryQoS has the packets of all three kinds, and a cloud-to-device message between them, whose packet id is
// none of theirs.
func TestChoiceDeliveryQoS(t *testing.T) {
	eachChoice(t, hub.DeliveryQoS, func(t *testing.T, h *hubtest.Hub, value string) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.ask(1, []byte{1, 1, 1, 1}, "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#", devicebound)
		send(t, h, c.id(), "mail")
		_, mail := r.command(0x32, "mail")
		seen := map[uint16]bool{mail: true}
		next := func(what, topic string) {
			t.Helper()
			f, b, err := r.next()
			want := map[string]byte{"0": 0x30, "granted": 0x32}[value]
			if err != nil || f != want {
				t.Fatalf("%s: %#x % x, %v; want %#x", what, f, b, err, want)
			}
			n := 2 + int(binary.BigEndian.Uint16(b))
			if !strings.HasPrefix(string(b[2:n]), topic) {
				t.Fatalf("%s: on %q", what, b[2:n])
			}
			if value == "granted" {
				id := binary.BigEndian.Uint16(b[n:])
				if id == 0 || seen[id] {
					t.Errorf("%s: packet id %d", what, id)
				}
				seen[id] = true
				r.puback(id)
			}
		}
		r.publish("$iothub/twin/GET/?$rid=1", "")
		next("answer", "$iothub/twin/res/200/?$rid=1")
		if _, err := h.PatchTwin(c.id(), json.RawMessage(`{"properties":{"desired":{"a":1}}}`), ""); err != nil {
			t.Fatal(err)
		}
		next("desired", "$iothub/twin/PATCH/properties/desired/?$version=2")
		done := make(chan error, 1)
		go func() {
			_, err := h.Invoke(t.Context(), c.id(), hub.MethodRequest{Name: "m"})
			done <- err
		}()
		next("method", "$iothub/methods/POST/m/?$rid=")
		time.Sleep(time.Minute) // the call is over
		if err := <-done; err == nil {
			t.Error("a method without an answer succeeded")
		}
		if n := pending(t, h, c.id()); n != 1 {
			t.Errorf("%d messages wait, want the one that was not acknowledged", n)
		}
	})
}

func TestChoiceC2DBeforeSubscription(t *testing.T) {
	eachChoice(t, hub.C2DBeforeSubscription, func(t *testing.T, h *hubtest.Hub, value string) {
		c := device(t, h)
		send(t, h, c.id(), "early")
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/res/#") // is about something else
		if n := pending(t, h, c.id()); n != 1 {
			t.Errorf("%d messages wait before the subscription, want 1", n)
		}
		r.ask(1, []byte{1}, devicebound)
		if value == "keep" {
			_, id := r.command(0x32, "early")
			r.puback(id)
		}
		r.open()
		if n := pending(t, h, c.id()); n != 0 {
			t.Errorf("%d messages wait, want 0", n)
		}
		r.ask(1, []byte{1}, devicebound) // a second time purges nothing
		send(t, h, c.id(), "late")
		r.command(0x32, "late")
		r.send([]byte{0xe0, 0})
		r.closed()
		r = connect(t, h, c, hello{}, 1) // the session has subscribed before
		r.command(0x3a, "late")
		r.ask(1, []byte{1}, "devices/+/messages/devicebound/#")
		if n := pending(t, h, c.id()); n != 1 {
			t.Errorf("%d messages wait after another filter for the same, want 1", n)
		}
	})
}

func TestChoiceC2DCleanSession(t *testing.T) {
	eachChoice(t, hub.C2DCleanSession, func(t *testing.T, h *hubtest.Hub, value string) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		send(t, h, c.id(), "mail")
		r.send([]byte{0xe0, 0})
		r.closed()
		r = connect(t, h, c, hello{}, 1) // with CleanSession 0 it waits on
		if n := pending(t, h, c.id()); n != 1 {
			t.Errorf("%d messages wait with CleanSession 0, want 1", n)
		}
		r.send([]byte{0xe0, 0})
		r.closed()
		r = connect(t, h, c, hello{clean: true}, 0)
		r.ask(1, []byte{1}, devicebound)
		if value == "keep" {
			r.command(0x32, "mail")
		}
		r.open()
		if n, want := pending(t, h, c.id()), map[string]int{"keep": 1, "purge": 0}[value]; n != want {
			t.Errorf("%d messages wait with CleanSession 1, want %d", n, want)
		}
	})
}

func TestFaultConnack(t *testing.T) {
	for code, want := range map[int]byte{0: 5, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 136: 5} {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			h.Fault(hub.Fault{On: "connect", Do: "refuse", Connack: code, Times: 1})
			r := dial(t, h, c)
			r.send(hello{}.packet(c))
			r.expect(0x20, []byte{0, want})
			r.closed()
			connect(t, h, c, hello{}, 0).open()
			synctest.Wait()
			if n := count(h, "fault"); n != 1 {
				t.Errorf("%d faults, want 1", n)
			}
		})
	}
}
