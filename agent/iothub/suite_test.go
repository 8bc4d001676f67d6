package iothub_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/mqtt3"
	"github.com/twinbay/twinbay/agent/iothub/mqtt5"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// everyWire runs a test over both wires, each in a bubble: with a real hub, real TLS, and no wall time. A goroutine that
// is left behind at the end fails it.
func everyWire(t *testing.T, test func(*testing.T, *bench)) {
	for _, w := range []struct {
		name string
		open iothub.Open
	}{{"3.1.1", mqtt3.Open}, {"5", mqtt5.Open}} {
		t.Run(w.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test(t, &bench{Hub: hubtest.New(t), name: w.name, open: w.open})
			})
		})
	}
}

// bench is a hub and the wire under test.
type bench struct {
	*hubtest.Hub
	name string
	open iothub.Open
}

// owner is a session that runs, and reads its events.
type owner struct {
	*iothub.Session
	t    testing.TB
	id   hub.ID
	stop func() // ends Run, and checks how quickly
}

func credential(t testing.TB, connectionString string) identity.Credential {
	t.Helper()
	c, err := identity.ParseConnectionString(connectionString)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// session runs a session with a connection string.
func (b *bench) session(t testing.TB, connectionString string, dial iothub.Dial) *owner {
	t.Helper()
	if dial == nil {
		dial = b.DialTLS
	}
	return b.sessionWith(t, iothub.Config{Credential: credential(t, connectionString), Dial: dial})
}

// sessionWith runs a session with the hub and the wire of the bench.
func (b *bench) sessionWith(t testing.TB, cfg iothub.Config) *owner {
	t.Helper()
	c := cfg.Credential
	cfg.Host, cfg.Wire = b.Host(), b.open
	s := iothub.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	o := &owner{Session: s, t: t, id: hub.ID{Device: c.ID.Device, Module: c.ID.Module}}
	o.stop = func() {
		if stopped {
			return
		}
		stopped = true
		start := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v, want nil", err)
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("the end of Run took %v", took)
		}
	}
	t.Cleanup(o.stop)
	return o
}

// module runs the session of a module that is made for it, and waits until it is up.
func (b *bench) module(t testing.TB, device, module string) *owner {
	t.Helper()
	o := b.session(t, b.Module(device, module), nil)
	o.up()
	return o
}

func (o *owner) next() iothub.Event {
	o.t.Helper()
	select {
	case e := <-o.Events():
		return e
	case <-time.After(time.Hour):
		o.t.Fatalf("%s: no event in an hour", o.id)
		return nil
	}
}

func expect[E iothub.Event](o *owner) E {
	o.t.Helper()
	e, ok := o.next().(E)
	if !ok {
		o.t.Fatalf("%s: event %#v, want %T", o.id, e, *new(E))
	}
	return e
}

func (o *owner) up() { o.t.Helper(); expect[iothub.Up](o) }

func (o *owner) down() iothub.Down { o.t.Helper(); return expect[iothub.Down](o) }

// recover reads Downs until the session is up again, and answers the last error.
func (o *owner) recover() error {
	o.t.Helper()
	var last error
	for {
		switch e := o.next().(type) {
		case iothub.Up:
			return last
		case iothub.Down:
			last = e.Err
		default:
			o.t.Fatalf("%s: event %#v, want Up or Down", o.id, e)
		}
	}
}

func (o *owner) message(id string) iothub.Message {
	return iothub.Message{ID: id, Body: []byte(`{"id":"` + id + `"}`), Created: time.Now()}
}

func (o *owner) publish(id string) error { return o.Publish(o.t.Context(), o.message(id)) }

// of matches the telemetry of an identity.
func of(id hub.ID, kind string) func(hub.Event) bool {
	return func(e hub.Event) bool { return e.Kind == kind && e.DeviceID == id.Device && e.ModuleID == id.Module }
}

func mustBe(t testing.TB, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %q", what, err, kind)
	}
}

// own is the connection string of a device that exists.
func (b *bench) own(t testing.TB, device string) string {
	t.Helper()
	text, err := b.ConnectionString(hub.ID{Device: device})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// desire merges desired properties.
func (b *bench) desire(t testing.TB, id hub.ID, desired string) {
	t.Helper()
	if _, err := b.PatchTwin(id, json.RawMessage(`{"properties":{"desired":`+desired+`}}`), ""); err != nil {
		t.Fatal(err)
	}
}
