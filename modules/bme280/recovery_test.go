package bme280

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
)

func (r *registers) resetCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resets
}

// A chip that lost power for a moment answers as before, with its configuration gone: humidity is then computed from
// a measurement that was not made, and looks like weather.
func TestAPowerCutIsNoticedAndMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := newRegisters()
		b := start(t, chip, nil)
		next(t, b)
		before := chip.resetCount()
		chip.set(0xf2, 0)
		chip.set(0xf4, 0)
		if m := next(t, b); !near(m.HumidityPct, 51.7, 0.1) {
			t.Errorf("after the power cut: %+v", m)
		}
		if n := chip.resetCount() - before; n != 1 {
			t.Errorf("the chip was reset %d times, want once", n)
		}
	})
}

// The registers of a measurement that was skipped compensate to 26 °C and pleasant air.
func TestSkippedMeasurementsAreNoReadings(t *testing.T) {
	for name, raw := range map[string][3]uint32{
		"temperature": {0x80000, 415148, 29281}, "pressure": {519888, 0x80000, 29281}, "humidity": {519888, 415148, 0x8000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chip := newRegisters()
				chip.raw(raw[0], raw[1], raw[2])
				b := start(t, chip, nil)
				b.WaitHealth(modkit.Faulted)
				if p := b.Pending(); len(p) != 0 {
					t.Errorf("believed: %s", p[0].Message.Body)
				}
			})
		})
	}
}

func TestAnotherCalibrationIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := newRegisters()
		b := start(t, chip, nil)
		next(t, b)
		before := chip.resetCount()
		chip.set(0x88, 0x12)
		time.Sleep((recheckEvery + 2) * 5 * time.Second)
		if chip.resetCount() == before {
			t.Error("nobody noticed that the calibration has changed")
		}
	})
}

func TestAnEmptyCalibrationIsAFault(t *testing.T) {
	for _, fill := range []byte{0x00, 0xff} {
		synctest.Test(t, func(t *testing.T) {
			chip := newRegisters()
			for reg := 0x88; reg <= 0xa1; reg++ {
				chip.set(byte(reg), fill)
			}
			b := start(t, chip, nil)
			if h := b.WaitHealth(modkit.Faulted); !strings.Contains(h.Detail, "calibration is empty") {
				t.Errorf("health %q", h.Detail)
			}
		})
	}
}

// periph's driver waits for the end of a measurement without a limit of its own.
func TestAMeasurementThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := newRegisters()
		b := start(t, chip, nil)
		next(t, b)
		slow := slowBus{chip}
		c := chipOn(t, slow)
		chip.set(regStatus, 1<<3) // measuring, section 5.4.4
		begin := time.Now()
		if _, err := c.sense(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want the deadline", err)
		}
		if took := time.Since(begin); took > 2*senseLimit {
			t.Errorf("it took %s", took)
		}
		chip.set(regStatus, 0)
	})
}

// slowBus takes a millisecond for each transaction, as a bus does: without it, time stands still in the bubble.
type slowBus struct{ *registers }

func (b slowBus) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	select {
	case <-time.After(time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.registers.Tx(ctx, addr, w, r)
}

func chipOn(t *testing.T, bus hal.I2C) *chip {
	t.Helper()
	c := &chip{bus: bus, addr: 0x76}
	if err := c.begin(t.Context(), defaults); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIdentificationByBytes(t *testing.T) {
	for _, row := range []struct {
		name string
		ops  []haltest.Op
		want string // of the advice; "" for none
	}{
		{"a BME280", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, R: []byte{0x60}}}, ""},
		{"nothing", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, Err: hal.ErrAbsent}, {Addr: 0x77, W: []byte{0xd0}, Err: hal.ErrAbsent}},
			"bme280: nothing answers at 0x76 on i2c:x: check wiring and address"},
		{"at the other address", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, Err: hal.ErrAbsent}, {Addr: 0x77, W: []byte{0xd0}, R: []byte{0x60}}},
			"something does at 0x77: set address"},
		{"a BMP280", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, R: []byte{0x58}}}, "(BMP280), expected 0x60"},
		{"a BME680", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, R: []byte{0x61}}}, "(BME680)"},
		{"all ones", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, R: []byte{0xff}}}, "reads all ones"},
		{"no permission", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, Err: hal.ErrDenied}}, "group i2c"},
		{"a held bus", []haltest.Op{{Addr: 0x76, W: []byte{0xd0}, Err: hal.ErrTimeout}}, "pull-ups"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := chip{bus: haltest.I2C(t, row.ops...), addr: 0x76}
			r := runner{wiring: wiring{Bus: "i2c:x", Address: 0x76}}
			err := c.identify(t.Context())
			switch {
			case row.want == "" && err != nil:
				t.Errorf("err = %v", err)
			case row.want != "" && (err == nil || !strings.Contains(r.advice(err), row.want)):
				t.Errorf("err = %v, want advice with %q", err, row.want)
			}
		})
	}
}

func TestAlarms(t *testing.T) {
	for _, row := range []struct {
		before alarm
		t      Celsius
		want   alarm
	}{
		{normal, 5, normal}, {normal, 1.9, low}, {normal, 8.1, high}, {normal, 2, normal}, {normal, 8, normal},
		{low, 2.4, low}, {low, 2.5, normal}, {high, 7.6, high}, {high, 7.5, normal}, {low, 9, high}, {high, 1, low},
	} {
		if got := row.before.next(row.t, 2, 8); got != row.want {
			t.Errorf("%v at %g °C becomes %v, want %v", row.before, row.t, got, row.want)
		}
	}
}

func TestAnAlarmIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, newRegisters(), map[string]any{"alarm_low_c": 2, "alarm_high_c": 8})
		s := b.Next()
		if want := `{"event":"temperature_high","limit_c":8,"temperature_c":25.08}`; string(s.Message.Body) != want || s.Message.Priority != modkit.High {
			t.Errorf("first message %s, want %s of high priority", s.Message.Body, want)
		}
		for range 5 {
			next(t, b)
		}
		b.Apply(nil)
		if s := b.Next(); string(s.Message.Body) != `{"event":"temperature_normal","temperature_c":25.08}` {
			t.Errorf("with wider limits: %s", s.Message.Body)
		}
	})
}

func TestWetAirForLongIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := newRegisters()
		chip.raw(519888, 415148, 65534)
		b := start(t, chip, nil)
		if h := b.WaitHealth(modkit.OK); h.Detail == "" {
			t.Error("no detail")
		}
		time.Sleep(wetAfter * 5 * time.Second)
		b.WaitHealth(modkit.Degraded)
	})
}

// A jump is looked at twice: an open door is believed, a single glitch is not.
func TestASuddenChangeIsBelievedWhenItStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := newRegisters()
		b := start(t, chip, nil)
		next(t, b)
		chip.raw(560000, 415148, 29281)
		if m := next(t, b); m.TemperatureC < 35 {
			t.Errorf("got %+v, want the new temperature", m)
		}
	})
}

func TestDewPoint(t *testing.T) {
	for _, row := range []struct {
		t    Celsius
		h    Percent
		want float64
	}{{25, 100, 25}, {25, 50, 13.86}, {5, 80, 1.84}, {-10, 60, -16.4}} {
		if got, ok := dewPoint(row.t, row.h); !ok || math.Abs(float64(got)-row.want) > 0.2 {
			t.Errorf("%g °C, %g %%: dew point %g, want %g", row.t, row.h, got, row.want)
		}
	}
	if _, ok := dewPoint(20, 0); ok {
		t.Error("air without water has a dew point")
	}
}

func FuzzRaw(f *testing.F) {
	f.Add([]byte{0x65, 0x5a, 0xc0, 0x7e, 0xed, 0x00, 0x72, 0x61})
	f.Add([]byte{0x80, 0, 0, 0x80, 0, 0, 0x80, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		if err := checkRaw(p); err == nil && (len(p) != lenData || uniform(p)) {
			t.Errorf("% x passes for a measurement", p)
		}
	})
}
