package vend_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/simbus"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
	"github.com/twinbay/twinbay/modules/vend"
	"github.com/twinbay/twinbay/simulator/rig"
)

// machine is the module on the simulator's rig, over its sockets.
type machine struct {
	*modtest.Bench
	t   *testing.T
	rig rig.Client
}

func start(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "vend") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r, err := rig.Start(t.Context(), rig.Config{Dir: dir, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	uri := func(wire string) string { return "sim:" + dir + "/" + rig.BusSocket + "#" + wire }
	m := &machine{t: t, rig: rig.Client{Dir: dir}}
	m.Bench = modtest.Run(t, vend.New(), modtest.Config{
		Drivers:  map[string]hal.Driver{"sim": simbus.Driver{}},
		Wiring:   map[string]any{"bus": uri("machine"), "interrupt": uri("expander"), "beam": uri("beam")},
		Settings: map[string]any{"drop_wait_ms": 700},
	})
	m.WaitHealth(modkit.OK)
	m.WaitReported(func(doc map[string]any) bool { b, _ := doc["beam"].(map[string]any); return b["ok"] == true })
	return m
}

func (m *machine) fault(name string, n int) {
	m.t.Helper()
	if err := m.rig.Fault(m.t.Context(), "vend", name, n, 0); err != nil {
		m.t.Fatal(err)
	}
}

// vend checks a transaction's result, its fault, and what is left in the slot.
func (m *machine) vend(tx string, slot int, result, fault string, left int) {
	m.t.Helper()
	a := m.Invoke("vend", fmt.Sprintf(`{"txId":%q,"slot":%d}`, tx, slot))
	var v struct{ Result, Fault string }
	if err := json.Unmarshal(a.Payload, &v); err != nil || v.Result != result || v.Fault != fault {
		m.t.Errorf("vend %s answers %d %s, want %s %q", tx, a.Status, a.Payload, result, fault)
	}
	s, err := m.rig.Status(m.t.Context())
	if err != nil || s.Vend.Stock[slot] != left {
		m.t.Errorf("slot %d has %v left, %v; want %d", slot, s.Vend.Stock, err, left)
	}
}

func TestOnTheRig(t *testing.T) {
	if testing.Short() {
		t.Skip("the rig's spirals turn by the wall clock")
	}
	for name, f := range map[string]func(m *machine){
		"one after the other": func(m *machine) {
			for n := range 3 {
				m.vend(fmt.Sprint("tx", n), 2, "ok", "", 9-n)
			}
			m.vend("tx1", 2, "ok", "", 7)
		},
		"empty": func(m *machine) {
			m.fault("empty", 1)
			m.vend("a", 1, "no_drop", "", 0)
			m.fault("refill", 1)
			if a := m.Invoke("homeAll", ""); a.Status != 200 {
				m.t.Errorf("homeAll answers %d %s", a.Status, a.Payload)
			}
		},
		"jam": func(m *machine) {
			m.fault("jam", 3)
			m.vend("a", 3, "failed", "stuck_home", 10)
			m.WaitHealth(modkit.Degraded)
			m.fault("unjam", 3)
			if a := m.Invoke("testMotor", `{"slot":3}`); a.Status != 200 {
				m.t.Errorf("testMotor answers %d %s", a.Status, a.Payload)
			}
			m.WaitHealth(modkit.OK)
		},
		"weld": func(m *machine) {
			m.fault("weld", 0)
			m.vend("a", 0, "failed", "stuck_home", 10)
		},
		"reset on the way": func(m *machine) {
			done := make(chan struct{})
			go func() { defer close(done); m.vend("a", 4, "failed", "expander_reset", 10) }()
			var doc map[string]any
			m.NextBody(&doc)
			time.AfterFunc(500*time.Millisecond, func() { m.rig.Fault(m.t.Context(), "vend", "reset", 0, 0) })
			<-done
		},
		"reset at rest": func(m *machine) {
			m.fault("reset", 0)
			m.vend("a", 5, "ok", "", 9)
		},
		"interrupt held": func(m *machine) {
			m.fault("intlow", 1)
			m.WaitHealth(modkit.Degraded)
			m.vend("a", 6, "ok", "", 9)
			m.fault("intlow", 0)
			m.WaitHealth(modkit.OK)
		},
		"nacks": func(m *machine) {
			m.fault("nack", 2)
			m.vend("a", 0, "ok", "", 9)
		},
		"a flipped bit": func(m *machine) {
			m.fault("bitflip", 1)
			m.vend("a", 0, "ok", "", 9)
		},
		"bits that flip on the way": func(m *machine) {
			done := make(chan struct{})
			go func() { defer close(done); m.vend("a", 0, "ok", "", 9) }()
			var doc map[string]any
			m.NextBody(&doc)
			for n := range 8 { // one in each of several looks
				<-time.After(100 * time.Millisecond)
				m.fault("bitflip", 1<<n)
			}
			<-done
		},
		"unplugged": func(m *machine) {
			if err := m.rig.Unplug(m.t.Context(), "vend"); err != nil {
				m.t.Error(err)
			}
			m.WaitHealth(modkit.Faulted)
			if a := m.Invoke("vend", `{"txId":"a","slot":0}`); a.Status != 409 {
				m.t.Errorf("vend without an expander answers %d %s", a.Status, a.Payload)
			}
			if err := m.rig.Plug(m.t.Context(), "vend"); err != nil {
				m.t.Error(err)
			}
			m.WaitHealth(modkit.OK)
			m.vend("a", 0, "ok", "", 9)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(start(t))
		})
	}
}
