package power

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/ina219"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

func TestContract(t *testing.T) { modtest.Contract(t, func() modkit.Module { return New() }, Sample) }

func wr(reg byte, v uint16) haltest.Op {
	return haltest.Op{Addr: 0x40, W: []byte{reg, byte(v >> 8), byte(v)}}
}

func rd(reg byte, v uint16) haltest.Op {
	return haltest.Op{Addr: 0x40, W: []byte{reg}, R: []byte{byte(v >> 8), byte(v)}}
}

func failing(op haltest.Op, err error) haltest.Op {
	op.R, op.Err = nil, err
	return op
}

// found is what goes over the wire until the chip measures: 3.2 A at 100 mΩ have the calibration 4194.
func found() []haltest.Op {
	return []haltest.Op{wr(0, 0x8000), rd(0, 0x399f), wr(5, 4194), wr(0, 0x1fff), wr(0, 0x3fff), rd(5, 4194)}
}

func TestBeginByBytes(t *testing.T) {
	with := func(i int, op haltest.Op) []haltest.Op { return append(found()[:i:i], op) }
	for _, row := range []struct {
		name string
		ops  []haltest.Op
		want error
		say  string // in the advice
	}{
		{"an INA219", found(), nil, ""},
		{"nothing", with(0, failing(wr(0, 0x8000), hal.ErrAbsent)), hal.ErrAbsent, "wiring, power and address"},
		{"another chip", with(1, rd(0, 0x00ff)), errOther, "is not 0x399f but 0x00ff: correct address"},
		{"the driver cannot calibrate", with(2, failing(wr(5, 4194), hal.ErrTimeout)), hal.ErrTimeout, "pull-ups"},
		{"the driver cannot configure", with(3, failing(wr(0, 0x1fff), hal.ErrGone)), hal.ErrGone, "plug the adapter"},
		{"no range", with(4, failing(wr(0, 0x3fff), hal.ErrArbitration)), hal.ErrArbitration, "wiring"},
		{"not kept", with(5, rd(5, 0)), errDisobeys, "must not sag"},
		{"a bit of it lost", with(5, rd(5, 4194^1<<9)), errDisobeys, "holds 4706, want 4194"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := chip{bus: haltest.I2C(t, row.ops...), addr: 0x40}
				err := c.begin(t.Context(), defaults)
				if !errors.Is(err, row.want) {
					t.Errorf("err = %v, want %v", err, row.want)
				}
				r := runner{wiring: wiring{Bus: "i2c:x", Address: 0x40}}
				if err != nil && !strings.Contains(r.advice(err), row.say) {
					t.Errorf("advice %q, want it to say %q", r.advice(err), row.say)
				}
			})
		})
	}
}

// measured is a reading of 12 V and 1 A: 100 mV at the shunt, and the multiplication of SBOS448G, section 8.5.1.
func measured() []haltest.Op {
	return []haltest.Op{rd(1, 10_000), rd(2, 3000<<3|2), rd(4, 10_240), rd(3, 6144), rd(0, 0x3fff), rd(5, 4194)}
}

func TestSenseByBytes(t *testing.T) {
	with := func(change map[int]haltest.Op) []haltest.Op {
		ops := measured()
		for i, op := range change {
			ops[i] = op
		}
		return ops
	}
	for _, row := range []struct {
		name string
		ops  []haltest.Op
		want string // of the error; "" for none
	}{
		{"12 V, 1 A", measured(), ""},
		{"the current flows back", with(map[int]haltest.Op{0: rd(1, 0xd8f0), 2: rd(4, 0xd800)}), ""}, // -10000, -10240
		{"0 A after a brown-out", with(map[int]haltest.Op{2: rd(4, 0), 3: rd(3, 0), 5: rd(5, 0)}), errForgot.Error()},
		{"configuration lost", with(map[int]haltest.Op{4: rd(0, 0x399f)})[:5], errForgot.Error()},
		{"current stuck", with(map[int]haltest.Op{2: rd(4, 0), 3: rd(3, 0)}), "0.000 A, and 100.00 mV"},
		{"voltage stuck", with(map[int]haltest.Op{1: rd(2, 0)}), "of 0.00 V"},
		{"all ones", with(map[int]haltest.Op{0: rd(1, 0xffff), 1: rd(2, 0xfffe), 2: rd(4, 0xffff), 3: rd(3, 0xffff)}), "outside 0 to 26"},
		{"overflow", append([]haltest.Op{rd(1, 30_000), rd(2, 3000<<3|3)}, measured()[4:]...), errOverload.Error()},
		{"the shunt's range is used up", with(map[int]haltest.Op{0: rd(1, 32_000), 2: rd(4, 32_767), 3: rd(3, 19_660)}), errOverload.Error()},
		{"nack at the voltage", []haltest.Op{rd(1, 10_000), failing(rd(2, 0), hal.ErrAbsent)}, hal.ErrAbsent.Error()},
		{"nack at the read back", with(map[int]haltest.Op{5: failing(rd(5, 0), hal.ErrAbsent)}), hal.ErrAbsent.Error()},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := chip{bus: haltest.I2C(t, append(found(), row.ops...)...), addr: 0x40}
				if err := c.begin(t.Context(), defaults); err != nil {
					t.Fatal(err)
				}
				r, err := c.sense(t.Context())
				if row.want == "" {
					if err != nil || math.Abs(float64(r.voltage)-12) > 0.001 || math.Abs(math.Abs(float64(r.current))-1) > 0.001 || math.Abs(float64(r.power)-12) > 0.01 {
						t.Errorf("%+v, %v; want 12 V, 1 A, 12 W", r, err)
					}
				} else if err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("%+v, %v; want %q", r, err, row.want)
				}
			})
		})
	}
}

func TestAlarmLimits(t *testing.T) {
	s := settings{AlarmLowV: 22, AlarmHighV: 25, AlarmHighA: 8}
	for _, row := range []struct {
		was  [3]bool
		r    reading
		want [3]bool
	}{
		{[3]bool{}, reading{voltage: 24, current: 8}, [3]bool{}},
		{[3]bool{}, reading{voltage: 21.9, current: 8.1}, [3]bool{true, false, true}},
		{[3]bool{true, false, true}, reading{voltage: 22.1, current: 7.7}, [3]bool{true, false, true}},
		{[3]bool{true, false, true}, reading{voltage: 22.2, current: 7.6}, [3]bool{}},
		{[3]bool{}, reading{voltage: 25.1}, [3]bool{false, true, false}},
		{[3]bool{false, true, false}, reading{voltage: 24.9}, [3]bool{false, true, false}},
		{[3]bool{false, true, false}, reading{voltage: 24.8}, [3]bool{}},
	} {
		if got := next(row.was, row.r, s); got != row.want {
			t.Errorf("after %v, %+v is %v, want %v", row.was, row.r, got, row.want)
		}
	}
}

func TestRefusedSettingsKeepTheirValue(t *testing.T) {
	for doc, name := range map[string]string{
		`{"interval_ms":100}`: "interval_ms", `{"max_a":10}`: "max_a", `{"shunt_mohm":1}`: "shunt_mohm",
		`{"alarm_low_v":25,"alarm_high_v":24}`: "alarm_low_v", `{"max_a":0.1}`: "max_a",
	} {
		s, applied, err := decodeSettings(json.RawMessage(doc), defaults)
		if err != nil || !applied[name].Refused || applied[name].Reason == "" || s != defaults {
			t.Errorf("%s: in force %+v, %s %+v, %v; want it refused and the old values kept", doc, s, name, applied[name], err)
		}
	}
	if s, applied, err := decodeSettings(json.RawMessage(`{"shunt_mohm":10,"max_a":16}`), defaults); err != nil || len(applied) != 0 || s.MaxA != 16 {
		t.Errorf("16 A at 10 mΩ: %+v, %v, %v", s, applied, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"shunt_mohm":10,"max_a":16}`), []byte(`{"bus":"i2c:/dev/i2c-1","address":64}`))
	f.Fuzz(func(t *testing.T, set, wire []byte) {
		if s, _, err := decodeSettings(set, defaults); err == nil {
			// Whatever is in force has a calibration that the register can hold.
			cal := 0.04096 / (s.MaxA / (1 << 15) * s.ShuntMOhm / 1000)
			if s.interval() < 200*time.Millisecond || !(cal >= 1 && cal < 1<<16) {
				t.Errorf("in force: %+v, calibration %g", s, cal)
			}
		}
		if w, err := decodeWiring(wire); err == nil && (w.Bus == "" || w.Address < 0x40 || w.Address > 0x4f) {
			t.Errorf("wiring %+v passes", w)
		}
	})
}

// FuzzCheck holds that no registers make the check invent a reading: what passes agrees with itself.
func FuzzCheck(f *testing.F) {
	f.Add(int16(10_000), uint16(3000), int16(10_240), uint16(6144))
	f.Fuzz(func(t *testing.T, shunt int16, bus uint16, current int16, power uint16) {
		pm := ina219.PowerMonitor{
			Shunt:   physic.ElectricPotential(shunt) * 10 * physic.MicroVolt,
			Voltage: physic.ElectricPotential(bus>>3) * 4 * physic.MilliVolt,
			Current: physic.ElectricCurrent(current) * 97_656 * physic.NanoAmpere,
			Power:   physic.Power(power) * 1_953_125 * physic.NanoWatt,
		}
		if check(pm, defaults) != nil {
			return
		}
		r := fromMonitor(pm)
		if r.voltage > 26 || math.Abs(float64(r.current)-float64(shunt)*1e-5/0.1) > 0.1 {
			t.Errorf("%+v passes with %d at the shunt", r, shunt)
		}
	})
}
