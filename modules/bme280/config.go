package bme280

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
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
	IntervalMS   int     `json:"interval_ms"`
	OffsetC      float64 `json:"offset_c"`
	Oversampling int     `json:"oversampling"`
	Filter       int     `json:"filter"`
	AlarmLowC    float64 `json:"alarm_low_c"`
	AlarmHighC   float64 `json:"alarm_high_c"`
}

var defaults = settings{IntervalMS: 5000, Oversampling: 4, AlarmLowC: -40, AlarmHighC: 85}

func (s settings) interval() time.Duration {
	return time.Duration(s.IntervalMS) * time.Millisecond
}

// decodeSettings reads a whole document; each refused setting keeps its value in old.
func decodeSettings(raw json.RawMessage, old settings) (settings, modkit.Applied, error) {
	s := defaults
	if err := modkit.Decode(raw, &s); err != nil {
		return old, nil, fmt.Errorf("bme280: settings: %w", err)
	}
	a := make(modkit.Applied)
	if s.IntervalMS < 200 || s.IntervalMS > 3_600_000 {
		s.IntervalMS = refuse(a, "interval_ms", old.IntervalMS, "must be 200 to 3600000")
	}
	if s.OffsetC < -20 || s.OffsetC > 20 {
		s.OffsetC = refuse(a, "offset_c", old.OffsetC, "must be -20 to 20")
	}
	if !slices.Contains([]int{1, 2, 4, 8, 16}, s.Oversampling) {
		s.Oversampling = refuse(a, "oversampling", old.Oversampling, "must be 1, 2, 4, 8 or 16")
	}
	if !slices.Contains([]int{0, 2, 4, 8, 16}, s.Filter) {
		s.Filter = refuse(a, "filter", old.Filter, "must be 0, 2, 4, 8 or 16")
	}
	if s.AlarmLowC >= s.AlarmHighC {
		why := fmt.Sprintf("alarm_low_c (%g) must be below alarm_high_c (%g)", s.AlarmLowC, s.AlarmHighC)
		s.AlarmLowC = refuse(a, "alarm_low_c", old.AlarmLowC, why)
		s.AlarmHighC = refuse(a, "alarm_high_c", old.AlarmHighC, why)
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
	w := wiring{Address: 0x76}
	if err := modkit.Decode(raw, &w); err != nil {
		return w, fmt.Errorf("bme280: wiring: %w", err)
	}
	if w.Bus == "" {
		return w, fmt.Errorf(`bme280: wiring: bus is missing; write bus = "i2c:/dev/i2c-1"`)
	}
	if w.Address != 0x76 && w.Address != 0x77 {
		return w, fmt.Errorf("bme280: wiring: address %#02x; the chip has 0x76 (SDO to ground) or 0x77 (SDO to supply)", w.Address)
	}
	return w, nil
}
