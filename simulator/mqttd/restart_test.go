package mqttd_test

import (
	"bufio"
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/mqttd"
)

// unkept is a journal that keeps nothing.
type unkept struct{}

func (unkept) Append([]hub.Record) {}
func (unkept) Sync()               {}

// A session outlives the hub's process: what was subscribed to is delivered at once, as after any reconnect.
func TestSessionsOutliveTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer synctest.Wait()
		defer cancel()
		var h *hub.Hub
		var door *mqttd.Server
		start := func(records []hub.Record) {
			t.Helper()
			var err error
			if h, err = hub.Open(hub.Options{}, unkept{}, records); err != nil {
				t.Fatal(err)
			}
			door = mqttd.New(h, nil)
		}
		restart := func() {
			t.Helper()
			var records []hub.Record
			if err := h.Records(func(r hub.Record) error { records = append(records, r); return nil }); err != nil {
				t.Fatal(err)
			}
			start(records)
		}
		start(nil)
		if _, err := h.PutDevice(hub.Device{DeviceID: "pi-01"}, ""); err != nil {
			t.Fatal(err)
		}
		text, err := h.ConnectionString(hub.ID{Device: "pi-01"})
		if err != nil {
			t.Fatal(err)
		}
		c := parseCredential(t, text)
		open := func(how hello, present byte) *raw {
			t.Helper()
			client, server := net.Pipe()
			go door.ServeConn(ctx, server)
			_ = client.SetDeadline(time.Now().Add(time.Hour))
			r := &raw{t, c, client, bufio.NewReader(client)}
			r.send(how.packet(c))
			r.expect(0x20, []byte{present, 0})
			return r
		}
		r := open(hello{}, 0)
		r.ask(1, []byte{1, 1, 1}, devicebound, "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#")
		r.send(packet(0xa2, u16(3), str("$iothub/methods/POST/#")))
		r.expect(0xb0, u16(3))
		if err := h.SendC2D(c.id(), hub.C2D{Message: hub.Message{Body: []byte("queued")}}); err != nil {
			t.Fatal(err)
		}
		r.command(0x32, "queued")
		_ = r.Close()

		restart()
		r = open(hello{}, 1)
		_, id := r.command(0x32, "queued")
		r.puback(id)
		if _, err := h.PatchTwin(c.id(), []byte(`{"properties":{"desired":{"n":1}}}`), ""); err != nil {
			t.Fatal(err)
		}
		r.message()
		_ = r.Close()

		_ = open(hello{clean: true}, 0).Close() // forgets it for good
		restart()
		_ = open(hello{}, 0).Close()
		restart()
		_ = open(hello{}, 1).Close() // one without a subscription is one, too
		if err := h.DeleteDevice("pi-01", "*"); err != nil {
			t.Fatal(err)
		}
		restart()
		if s := h.KeptSession(c.id()); s != nil {
			t.Errorf("a session of a deleted device: %+v", s)
		}
	})
}
