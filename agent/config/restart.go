package config

import (
	"slices"
	"time"
)

// What restart = "limited" stands for: a module that ends at its start gets there in about a minute, since restarts back
// off; one that ends after a minute each time in ten.
const (
	DefaultEnds   = 10
	DefaultWithin = 10 * time.Minute
)

// maxEnds bounds what is remembered of a module's ends.
const maxEnds = 1000

// restart reads when a module that keeps ending is left alone.
func (d *decoder) restart(t map[string]any, at []string) Restart {
	const hint = `write restart = "always", restart = "limited" or restart = { ends = 10, within = "10m" }`
	v, ok := t["restart"]
	if !ok {
		return Restart{}
	}
	at = append(slices.Clip(at), "restart")
	switch v := v.(type) {
	case string:
		switch v {
		case "always":
			return Restart{}
		case "limited":
			return Restart{Ends: DefaultEnds, Within: DefaultWithin}
		}
	case map[string]any:
		d.keys(v, at, "ends", "within")
		r := Restart{Ends: DefaultEnds, Within: DefaultWithin}
		if n, ok := v["ends"]; ok {
			ends, isNumber := n.(int64)
			if !isNumber || ends < 1 || ends > maxEnds {
				d.fail(append(slices.Clip(at), "ends"), "write a number from 1 to 1000", "%v is no number of ends", n)
			}
			r.Ends = int(ends)
		}
		if span, ok := d.span(v, at, "within"); ok {
			if r.Within = span; span == 0 {
				d.fail(append(slices.Clip(at), "within"), `write it like "10m"`, "a time of no length")
			}
		}
		return r
	}
	d.fail(at, hint, "%v is no way to restart a module", v)
	return Restart{}
}
