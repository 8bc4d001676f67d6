package power

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

//go:embed settings.schema.json
var settingsSchema []byte

//go:embed wiring.schema.json
var wiringSchema []byte

// Sample is the module's block of a device file, with comments.
//
//go:embed sample.toml
var Sample string

// settings are the desired properties; settings.schema.json explains them.
type settings struct {
	IntervalMS int     `json:"interval_ms"`
	ShuntMOhm  float64 `json:"shunt_mohm"`
	MaxA       float64 `json:"max_a"`
	AlarmLowV  float64 `json:"alarm_low_v"`
	AlarmHighV float64 `json:"alarm_high_v"`
	AlarmHighA float64 `json:"alarm_high_a"`
}

var defaults = settings{IntervalMS: 5000, ShuntMOhm: 100, MaxA: 3.2, AlarmHighV: 32, AlarmHighA: 100}

func (s settings) interval() time.Duration {
	return time.Duration(s.IntervalMS) * time.Millisecond
}

// What the shunt may drop at max_a: no more than the chip's widest range, and enough for its calibration register.
const (
	leastDrop = 0.021 // V: SBOS448G, equation 1, with 65534 in the register
	mostDrop  = 0.32  // V: section 8.6.2.1, PG
)

// decodeSettings reads a whole document; each refused setting keeps its value in old.
func decodeSettings(raw json.RawMessage, old settings) (settings, modkit.Applied, error) {
	s := defaults
	if err := modkit.Decode(raw, &s); err != nil {
		return old, nil, fmt.Errorf("power: settings: %w", err)
	}
	a := make(modkit.Applied)
	if s.IntervalMS < 200 || s.IntervalMS > 3_600_000 {
		s.IntervalMS = refuse(a, "interval_ms", old.IntervalMS, "must be 200 to 3600000")
	}
	if drop := s.MaxA * s.ShuntMOhm / 1000; s.ShuntMOhm < 0.1 || s.ShuntMOhm > 1000 || s.MaxA < 0.1 || s.MaxA > 200 || drop < leastDrop || drop > mostDrop+1e-9 {
		why := fmt.Sprintf("%g A at %g mΩ drop %.3f V; the chip measures with %g to %g V", s.MaxA, s.ShuntMOhm, drop, leastDrop, mostDrop)
		s.ShuntMOhm = refuse(a, "shunt_mohm", old.ShuntMOhm, why)
		s.MaxA = refuse(a, "max_a", old.MaxA, why)
	}
	if s.AlarmLowV >= s.AlarmHighV {
		why := fmt.Sprintf("alarm_low_v (%g) must be below alarm_high_v (%g)", s.AlarmLowV, s.AlarmHighV)
		s.AlarmLowV = refuse(a, "alarm_low_v", old.AlarmLowV, why)
		s.AlarmHighV = refuse(a, "alarm_high_v", old.AlarmHighV, why)
	}
	return s, a, nil
}

func refuse[T any](a modkit.Applied, name string, keep T, why string) T {
	a[name] = modkit.Setting{Value: must(keep), Refused: true, Reason: why}
	return keep
}

// wiring is the wiring table; wiring.schema.json explains it.
type wiring struct {
	Bus     string `json:"bus"`
	Address int    `json:"address"`
}

func decodeWiring(raw json.RawMessage) (wiring, error) {
	w := wiring{Address: 0x40}
	if err := modkit.Decode(raw, &w); err != nil {
		return w, fmt.Errorf("power: wiring: %w", err)
	}
	if w.Bus == "" {
		return w, fmt.Errorf(`power: wiring: bus is missing; write bus = "i2c:/dev/i2c-1"`)
	}
	if w.Address < 0x40 || w.Address > 0x4f {
		return w, fmt.Errorf("power: wiring: address %#02x; the chip has 0x40 to 0x4f, by its pins A0 and A1", w.Address)
	}
	return w, nil
}
