package power_test

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
	"github.com/twinbay/twinbay/modules/power"
	"github.com/twinbay/twinbay/simulator/chips"
)

// machine is the module against the model of the chip, in a supply that the test sets.
type machine struct {
	*modtest.Bench
	t    *testing.T
	bus  *chips.Bus
	chip *chips.INA219

	mu   sync.Mutex
	load chips.Supply
}

func start(t *testing.T, settings map[string]any) *machine {
	t.Helper()
	m := &machine{t: t, bus: new(chips.Bus), load: chips.Supply{Volts: 24, Amperes: 2}}
	m.chip = chips.NewINA219(0.01, func() chips.Supply {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.load
	})
	m.bus.Attach(0x40, m.chip)
	all := map[string]any{"shunt_mohm": 10, "max_a": 16}
	for k, v := range settings {
		all[k] = v
	}
	m.Bench = modtest.Run(t, power.New(), modtest.Config{
		Drivers:  map[string]hal.Driver{"test": haltest.Wires(map[string]any{"bus": m.bus})},
		Wiring:   map[string]any{"bus": "test:bus"},
		Settings: all,
	})
	return m
}

func (m *machine) set(volts, amperes float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load = chips.Supply{Volts: volts, Amperes: amperes}
}

// want waits for a reading near to volts and amperes, and skips none that is not.
func (m *machine) want(volts, amperes float64) {
	m.t.Helper()
	var doc map[string]any
	m.NextBody(&doc)
	v, _ := doc["voltage_v"].(float64)
	a, _ := doc["current_a"].(float64)
	w, _ := doc["power_w"].(float64)
	if doc["event"] != nil || math.Abs(v-volts) > 0.01 || math.Abs(a-amperes) > 0.01 || math.Abs(w-volts*amperes) > 0.2 {
		m.t.Errorf("got %v, want %g V and %g A", doc, volts, amperes)
	}
}

func (m *machine) event(name string, active bool) {
	m.t.Helper()
	var doc map[string]any
	if s := m.NextBody(&doc); doc["event"] != name || doc["active"] != active || s.Message.Priority != modkit.High {
		m.t.Errorf("got %v, want %s %v of high priority", doc, name, active)
	}
}

func (m *machine) restarts(n float64) {
	m.t.Helper()
	m.WaitReported(func(doc map[string]any) bool {
		chip, _ := doc["chip"].(map[string]any)
		return chip["restarts"] == n
	})
}

func TestMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, nil)
		m.want(24, 2)
		m.set(23.5, 5.4)
		m.want(23.5, 5.4)
		m.set(12, -1)
		time.Sleep(time.Second)
		if a := m.Invoke("readNow", ""); a.Status != 200 || string(a.Payload) != `{"voltage_v":12,"current_a":-1,"power_w":11.992}` { // the chip counts power in steps of 9.8 mW
			t.Errorf("readNow answers %d %s", a.Status, a.Payload)
		}
		if a := m.Invoke("readNow", `{"now":1}`); a.Status != 400 {
			t.Errorf("an argument that it does not have answers %d %s", a.Status, a.Payload)
		}
	})
}

// After a brown-out the chip answers 0 A, as a quiet machine does. No such reading may go out.
func TestABrownOutIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, nil)
		m.want(24, 2)
		for i := range 3 {
			m.chip.PowerOn()
			m.want(24, 2)
			m.restarts(float64(i + 1))
		}
		m.WaitHealth(modkit.OK)
	})
}

func TestFaultsAndRecovery(t *testing.T) {
	for name, c := range map[string]struct{ spoil, mend func(*machine) }{
		"unplugged":     {func(m *machine) { m.bus.Unplug(0x40, true) }, func(m *machine) { m.chip.PowerOn(); m.bus.Unplug(0x40, false) }},
		"nacks":         {func(m *machine) { m.bus.Nack(1000) }, func(m *machine) { m.bus.Nack(0) }},
		"voltage stuck": {func(m *machine) { m.chip.Stick(2, 0) }, func(m *machine) { m.chip.Unstick() }},
		"current stuck": {func(m *machine) { m.chip.Stick(4, 0) }, func(m *machine) { m.chip.Unstick() }},
		"no memory":     {func(m *machine) { m.chip.Stick(5, 0) }, func(m *machine) { m.chip.Unstick() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := start(t, nil)
				m.want(24, 2)
				c.spoil(m)
				if h := m.WaitHealth(modkit.Faulted); h.Detail == "" {
					t.Error("the fault has no detail")
				}
				time.Sleep(time.Minute)
				if p := m.Pending(); len(p) != 0 {
					t.Errorf("believed: %s", p[0].Message.Body)
				}
				if a := m.Invoke("readNow", ""); a.Status != 409 && a.Status != 502 {
					t.Errorf("readNow answers %d %s", a.Status, a.Payload)
				}
				c.mend(m)
				m.want(24, 2)
				m.WaitHealth(modkit.OK)
			})
		})
	}
	t.Run("a bit flips now and then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := start(t, nil)
			for range 50 {
				m.want(24, 2)
				m.chip.Flip(0x80)
			}
		})
	})
	t.Run("a held bus", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := start(t, nil)
			m.want(24, 2)
			m.bus.Hang(10 * time.Second)
			m.WaitHealth(modkit.Faulted)
			m.WaitHealth(modkit.OK)
			m.want(24, 2)
		})
	})
}

func TestAlarmsAndOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, map[string]any{"alarm_low_v": 22, "alarm_high_v": 25, "alarm_high_a": 8, "interval_ms": 1000})
		m.want(24, 2)
		m.set(21.5, 9)
		m.event("voltage_low", true)
		m.event("current_high", true)
		m.want(21.5, 9)
		m.want(21.5, 9) // said once
		m.set(23.5, 40) // beyond 16 A
		h := m.WaitHealth(modkit.Degraded)
		if a := m.Invoke("readNow", ""); h.Detail == "" || a.Status != 502 {
			t.Errorf("overload: health %q, readNow %d %s", h.Detail, a.Status, a.Payload)
		}
		if p := m.Pending(); len(p) != 0 {
			t.Errorf("believed: %s", p[0].Message.Body)
		}
		m.set(24, 2)
		m.event("voltage_low", false)
		m.event("current_high", false)
		m.want(24, 2)
		m.set(24, 40)
		m.event("current_high", true)
	})
}

// A shunt of another size is the calibration's business.
func TestSettingsReachTheChip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, nil)
		m.want(24, 2)
		m.Apply(map[string]any{"shunt_mohm": 20, "max_a": 16, "interval_ms": 20_000})
		m.restarts(1)
		begin := time.Now()
		m.want(24, 1) // the same drop at twice the shunt
		if took := time.Since(begin); took < 19*time.Second || took > 21*time.Second {
			t.Errorf("the next reading comes after %s, want 20 s", took)
		}
	})
}
