package bme280

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

func TestContract(t *testing.T) {
	modtest.Contract(t, func() modkit.Module { return New() }, Sample)
}

// registers is a chip as bytes: what is written can be read again. Its calibration and raw values are Bosch's example of
// 25.08 °C and 100653 Pa (BST-BME280-DS002, appendix; BST-BMP280-DS001, chapter 3.12).
type registers struct {
	mu     sync.Mutex
	m      [256]byte
	err    error // every transaction's, while not nil
	resets int
}

func newRegisters() *registers {
	r := &registers{}
	r.m[0xd0] = 0x60
	for i, v := range []int{27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000} {
		binary.LittleEndian.PutUint16(r.m[0x88+2*i:], uint16(v))
	}
	r.m[0xa1] = 75
	copy(r.m[0xe1:], []byte{370 & 0xff, 370 >> 8, 0, 314 >> 4, 314&15 | 50&15<<4, 50 >> 4, 30})
	r.raw(519888, 415148, 29281)
	return r
}

func (r *registers) raw(temperature, pressure, humidity uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, v := range []uint32{pressure, temperature} {
		copy(r.m[0xf7+3*i:], []byte{byte(v >> 12), byte(v >> 4), byte(v << 4)})
	}
	binary.BigEndian.PutUint16(r.m[0xfd:], uint16(humidity))
}

func (r *registers) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// Tx implements hal.I2C.
func (r *registers) Tx(_ context.Context, addr uint16, w, p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if addr != 0x76 {
		return hal.ErrAbsent
	}
	if len(p) > 0 {
		copy(p, r.m[w[0]:])
		return nil
	}
	for i := 0; i+1 < len(w); i += 2 { // pairs of register and value
		if w[i] == 0xe0 && w[i+1] == 0xb6 {
			r.resets++
			r.m[0xf2], r.m[0xf4], r.m[0xf5] = 0, 0, 0
			continue
		}
		r.m[w[i]] = w[i+1]
	}
	return nil
}

// Close implements hal.I2C.
func (r *registers) Close() error { return nil }

func start(t *testing.T, chip *registers, settings map[string]any) *modtest.Bench {
	t.Helper()
	return modtest.Run(t, New(), modtest.Config{
		Drivers:  map[string]hal.Driver{"test": haltest.Wires(map[string]any{"bus": chip})},
		Wiring:   map[string]any{"bus": "test:bus"},
		Settings: settings,
	})
}

type message struct {
	TemperatureC, HumidityPct, PressureHPa, DewPointC float64
}

func next(t *testing.T, b *modtest.Bench) message {
	t.Helper()
	var m map[string]any
	b.NextBody(&m)
	f := func(name string) float64 {
		v, ok := m[name].(float64)
		if !ok {
			t.Fatalf("the message has no %s: %v", name, m)
		}
		return v
	}
	return message{f("temperature_c"), f("humidity_pct"), f("pressure_hpa"), f("dew_point_c")}
}

func near(a, b, within float64) bool { return math.Abs(a-b) <= within }

func TestBoschsExample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, newRegisters(), map[string]any{"interval_ms": 20_000})
		m := next(t, b)
		if !near(m.TemperatureC, 25.08, 0.01) || !near(m.PressureHPa, 1006.53, 0.1) || !near(m.HumidityPct, 51.7, 0.1) ||
			!near(m.DewPointC, 14.3, 0.3) {
			t.Errorf("got %+v, want 25.08 °C, 1006.53 hPa, 51.7 %%, dew point 14.3 °C", m)
		}
		begin := time.Now()
		next(t, b)
		if took := time.Since(begin); took < 19*time.Second || took > 21*time.Second {
			t.Errorf("the next reading comes after %s, want 20 s", took)
		}
	})
}

func TestOffsetIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, newRegisters(), map[string]any{"offset_c": -1.5})
		if m := next(t, b); !near(m.TemperatureC, 23.58, 0.01) {
			t.Errorf("got %g °C, want 23.58", m.TemperatureC)
		}
	})
}

// What is wrong with the chip is the component's health, and the module goes on once it is right again.
func TestFaultsAndRecovery(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*registers)
		mend  func(*registers)
	}{
		{"nothing answers", func(r *registers) { r.fail(hal.ErrAbsent) }, func(r *registers) { r.fail(nil) }},
		{"the adapter is gone", func(r *registers) { r.fail(hal.ErrGone) }, func(r *registers) { r.fail(nil) }},
		{"the bus is held", func(r *registers) { r.fail(hal.ErrTimeout) }, func(r *registers) { r.fail(nil) }},
		{"another chip", func(r *registers) { r.set(0xd0, 0x58) }, func(r *registers) { r.set(0xd0, 0x60) }},
		{"poison", func(r *registers) { r.raw(0, 0, 0xffff) }, func(r *registers) { r.raw(519888, 415148, 29281) }},
	} {
		t.Run("at the start: "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chip := newRegisters()
				tt.spoil(chip)
				b := start(t, chip, nil)
				if h := b.WaitHealth(modkit.Faulted); h.Detail == "" {
					t.Error("the fault has no detail")
				}
				tt.mend(chip)
				b.WaitHealth(modkit.OK)
				next(t, b)
			})
		})
		t.Run("later: "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chip := newRegisters()
				b := start(t, chip, nil)
				next(t, b)
				tt.spoil(chip)
				time.Sleep(5 * time.Minute) // the chip's identity is looked at now and then only
				b.WaitHealth(modkit.Faulted)
				for len(b.Pending()) > 0 {
					next(t, b) // believed before the fault was noticed
				}
				tt.mend(chip)
				b.WaitHealth(modkit.OK)
				if m := next(t, b); !near(m.TemperatureC, 25.08, 0.01) {
					t.Errorf("after the fault: %+v", m)
				}
			})
		})
	}
}

func (r *registers) set(reg, value byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m[reg] = value
}

func TestSoftResetMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := newRegisters()
		b := start(t, chip, nil)
		next(t, b)
		a, err := b.Remote.Invoke(t.Context(), "softReset", nil)
		chip.mu.Lock()
		resets := chip.resets
		chip.mu.Unlock()
		if err != nil || a.Status != 200 || resets == 0 {
			t.Errorf("softReset answers %d %s, %v; the chip was reset %d times", a.Status, a.Payload, err, resets)
		}
		if a, err := b.Remote.Invoke(t.Context(), "readNow", nil); err != nil || a.Status != 200 {
			t.Errorf("readNow answers %d %s, %v", a.Status, a.Payload, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"interval_ms":1000}`), []byte(`{"bus":"i2c:/dev/i2c-1","address":118}`))
	f.Fuzz(func(t *testing.T, set, wire []byte) {
		if s, _, err := decodeSettings(set, defaults); err == nil && s.interval() < 200*time.Millisecond {
			t.Errorf("an interval of %s is in force", s.interval())
		}
		if w, err := decodeWiring(wire); err == nil && w.Bus == "" {
			t.Error("wiring without a bus passes")
		}
	})
}
