package cctalk

import (
	_ "embed"
	"encoding/json"
	"fmt"

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
	Enabled        bool           `json:"enabled"`
	InhibitMask    int            `json:"inhibit_mask"`
	PollIntervalMS int            `json:"poll_interval_ms"`
	CoinValues     map[string]int `json:"coin_values"`
}

var defaults = settings{Enabled: true, InhibitMask: 0xffff, PollIntervalMS: 200}

// mask is what the acceptor is told: no coin while the module is not enabled.
func (s settings) mask() uint16 {
	if !s.Enabled {
		return 0
	}
	return uint16(s.InhibitMask)
}

// decodeSettings reads a whole document. What the schema says is checked again here, because a poll beyond a second
// would stop the acceptor: each refused setting keeps its value in old.
func decodeSettings(raw json.RawMessage, old settings) (settings, modkit.Applied, error) {
	s := defaults
	if err := modkit.Decode(raw, &s); err != nil {
		return old, nil, fmt.Errorf("cctalk: settings: %w", err)
	}
	s.CoinValues = clone(s.CoinValues)
	a := make(modkit.Applied)
	if s.InhibitMask < 0 || s.InhibitMask > 0xffff {
		s.InhibitMask = refuse(a, "inhibit_mask", old.InhibitMask, "must be 0 to 65535, a bit for each coin position")
	}
	if s.PollIntervalMS < 100 || s.PollIntervalMS > 900 {
		s.PollIntervalMS = refuse(a, "poll_interval_ms", old.PollIntervalMS, "must be 100 to 900: the acceptor stops after a second without a poll")
	}
	for id, v := range s.CoinValues {
		if v < 0 {
			s.CoinValues = refuse(a, "coin_values", old.CoinValues, fmt.Sprintf("%s has the negative value %d", id, v))
			break
		}
	}
	return s, a, nil
}

func refuse[T any](a modkit.Applied, name string, keep T, why string) T {
	a[name] = modkit.Setting{Value: must(keep), Refused: true, Reason: why}
	return keep
}

// wiring is the wiring table; wiring.schema.json explains it.
type wiring struct {
	Port     string `json:"port"`
	Address  int    `json:"address"`
	Checksum string `json:"checksum"`
	Echo     string `json:"echo"`
}

func decodeWiring(raw json.RawMessage) (wiring, error) {
	w := wiring{Address: 2, Checksum: "simple", Echo: echoAuto}
	if err := modkit.Decode(raw, &w); err != nil {
		return w, fmt.Errorf("cctalk: wiring: %w", err)
	}
	switch {
	case w.Port == "":
		return w, fmt.Errorf(`cctalk: wiring: port is missing; write port = "serial:/dev/serial/by-id/…"`)
	case w.Address < 2 || w.Address > 255:
		return w, fmt.Errorf("cctalk: wiring: address %d; a coin acceptor has 2 to 255, as a rule 2", w.Address)
	case w.Checksum != "simple" && w.Checksum != "crc16":
		return w, fmt.Errorf(`cctalk: wiring: checksum %q; write "simple" or "crc16"`, w.Checksum)
	case w.Echo != echoAuto && w.Echo != echoOn && w.Echo != echoOff:
		return w, fmt.Errorf(`cctalk: wiring: echo %q; write "auto", "on" or "off"`, w.Echo)
	}
	return w, nil
}
