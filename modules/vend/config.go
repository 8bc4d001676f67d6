package vend

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
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

const (
	maxSlots  = 7 // A0 to A6
	maxTurnMS = 10_000
)

// settings are the desired properties; settings.schema.json explains them.
type settings struct {
	Enabled            bool  `json:"enabled"`
	DisabledSlots      []int `json:"disabled_slots"`
	LeaveTimeoutMS     int   `json:"leave_timeout_ms"`
	HomeTimeoutMS      int   `json:"home_timeout_ms"`
	DropWaitMS         int   `json:"drop_wait_ms"`
	Retries            int   `json:"retries"`
	DropSensorRequired bool  `json:"drop_sensor_required"`
}

var defaults = settings{Enabled: true, LeaveTimeoutMS: 600, HomeTimeoutMS: 4000, DropWaitMS: 2000, Retries: 3, DropSensorRequired: true}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// plan is a cycle's, for a spiral whose turn takes so long; sensor says whether the beam works.
func (s settings) plan(turnMS int, sensor bool) plan {
	return plan{leave: ms(s.LeaveTimeoutMS), home: ms(s.HomeTimeoutMS), drop: ms(s.DropWaitMS), retries: s.Retries, usual: ms(turnMS), sensor: sensor}
}

// decodeSettings reads a whole document; each refused setting keeps its value in old.
func decodeSettings(raw json.RawMessage, old settings) (settings, modkit.Applied, error) {
	s := defaults
	if err := modkit.Decode(raw, &s); err != nil {
		return old, nil, fmt.Errorf("vend: settings: %w", err)
	}
	a := make(modkit.Applied)
	keep := func(name string, v *int, old, least, most int) {
		if *v < least || *v > most {
			*v = refuse(a, name, old, fmt.Sprintf("must be %d to %d", least, most))
		}
	}
	keep("leave_timeout_ms", &s.LeaveTimeoutMS, old.LeaveTimeoutMS, 100, 1500)
	keep("home_timeout_ms", &s.HomeTimeoutMS, old.HomeTimeoutMS, 500, maxTurnMS)
	keep("drop_wait_ms", &s.DropWaitMS, old.DropWaitMS, 100, 5000)
	keep("retries", &s.Retries, old.Retries, 0, 3)
	if slices.ContainsFunc(s.DisabledSlots, func(n int) bool { return n < 0 || n >= maxSlots }) {
		s.DisabledSlots = refuse(a, "disabled_slots", old.DisabledSlots, fmt.Sprintf("slots are 0 to %d", maxSlots-1))
	}
	return s, a, nil
}

func refuse[T any](a modkit.Applied, name string, keep T, why string) T {
	a[name] = modkit.Setting{Value: must(keep), Refused: true, Reason: why}
	return keep
}

// must encodes what always has a JSON form.
func must(v any) json.RawMessage {
	p, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return p
}

// wiring is the wiring table; wiring.schema.json explains it.
type wiring struct {
	Bus           string `json:"bus"`
	Address       int    `json:"address"`
	Interrupt     string `json:"interrupt"`
	Beam          string `json:"beam"`
	BeamActiveLow bool   `json:"beam_active_low"`
	Bias          string `json:"bias"`
	Slots         int    `json:"slots"`
}

var biases = map[string]hal.Bias{"pull-up": hal.PullUp, "pull-down": hal.PullDown, "none": hal.NoBias, "as-is": hal.BiasAsIs}

func decodeWiring(raw json.RawMessage) (wiring, error) {
	w := wiring{Address: 0x20, BeamActiveLow: true, Bias: "pull-up", Slots: maxSlots}
	if err := modkit.Decode(raw, &w); err != nil {
		return w, fmt.Errorf("vend: wiring: %w", err)
	}
	switch {
	case w.Bus == "":
		return w, fmt.Errorf(`vend: wiring: bus is missing; write bus = "i2c:/dev/i2c-1"`)
	case w.Interrupt == "":
		return w, fmt.Errorf(`vend: wiring: interrupt is missing; write interrupt = "gpio:pinctrl-bcm2711/22"`)
	case w.Address < 0x20 || w.Address > 0x27:
		return w, fmt.Errorf("vend: wiring: address %#02x; the chip has 0x20 to 0x27, by its pins A0 to A2", w.Address)
	case w.Slots < 1 || w.Slots > maxSlots:
		return w, fmt.Errorf("vend: wiring: %d slots; there can be 1 to %d", w.Slots, maxSlots)
	}
	if _, ok := biases[w.Bias]; !ok {
		return w, fmt.Errorf(`vend: wiring: bias %q; write "pull-up", "pull-down", "none" or "as-is"`, w.Bias)
	}
	return w, nil
}
