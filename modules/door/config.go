package door

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
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
	DebounceMS int  `json:"debounce_ms"`
	OpenAlarmS int  `json:"open_alarm_s"`
	ReportBeam bool `json:"report_beam"`
	BeamGapMS  int  `json:"beam_gap_ms"`
}

var defaults = settings{DebounceMS: 20, OpenAlarmS: 300, ReportBeam: true, BeamGapMS: 150}

func (s settings) debounce() time.Duration { return time.Duration(s.DebounceMS) * time.Millisecond }
func (s settings) alarm() time.Duration    { return time.Duration(s.OpenAlarmS) * time.Second }
func (s settings) beamGap() time.Duration  { return time.Duration(s.BeamGapMS) * time.Millisecond }

// decodeSettings reads a whole document. The agent has held it against the schema; a number that would make the timers
// meaningless is refused here too, and keeps its old value.
func decodeSettings(raw json.RawMessage, old settings) (settings, modkit.Applied, error) {
	s := defaults
	if err := modkit.Decode(raw, &s); err != nil {
		return old, nil, fmt.Errorf("door: settings: %w", err)
	}
	applied := modkit.Applied{}
	keep := func(name string, v *int, old, most int) {
		if *v < 0 || *v > most {
			*v = old
			applied[name] = modkit.Setting{Value: json.RawMessage(fmt.Sprint(old)), Refused: true,
				Reason: fmt.Sprintf("must be 0 to %d", most)}
		}
	}
	keep("debounce_ms", &s.DebounceMS, old.DebounceMS, 1000)
	keep("open_alarm_s", &s.OpenAlarmS, old.OpenAlarmS, 86400)
	keep("beam_gap_ms", &s.BeamGapMS, old.BeamGapMS, 5000)
	return s, applied, nil
}

// wiring is the wiring table; wiring.schema.json explains it.
type wiring struct {
	Switch        string `json:"switch"`
	Beam          string `json:"beam"`
	ActiveLow     bool   `json:"active_low"`
	BeamActiveLow bool   `json:"beam_active_low"`
	Bias          string `json:"bias"`
}

var biases = map[string]hal.Bias{"pull-up": hal.PullUp, "pull-down": hal.PullDown, "none": hal.NoBias, "as-is": hal.BiasAsIs}

func decodeWiring(raw json.RawMessage) (wiring, error) {
	w := wiring{ActiveLow: true, BeamActiveLow: true, Bias: "pull-up"}
	if err := modkit.Decode(raw, &w); err != nil {
		return w, fmt.Errorf("door: wiring: %w", err)
	}
	if w.Switch == "" {
		return w, fmt.Errorf(`door: wiring: switch is missing; write switch = "gpio:pinctrl-bcm2711/17"`)
	}
	if _, ok := biases[w.Bias]; !ok {
		return w, fmt.Errorf(`door: wiring: bias %q; write "pull-up", "pull-down", "none" or "as-is"`, w.Bias)
	}
	return w, nil
}

func (w wiring) mode(activeLow bool) hal.InputMode {
	return hal.InputMode{ActiveLow: activeLow, Bias: biases[w.Bias], Consumer: "twinbay door"}
}
