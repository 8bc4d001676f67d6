package clock

import (
	"fmt"
	"math"
	"time"
)

// Status is the clock for people.
type Status struct {
	Source Source
	Offset time.Duration // the system's clock less the best known time; 0 when the source is System
	Note   string        // what is wrong and what is done about it; "" is nothing
}

// Status may be called at any time.
func (c *Clock) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.look()
	return Status{Source: c.source, Offset: c.seen.Sub(now), Note: c.note()}
}

func (c *Clock) note() string {
	sys := c.seen.UTC().Format("2006-01-02 15:04")
	off := about(c.seen.Sub(c.time(c.seen, c.seenAt)))
	switch {
	case c.source == Hub && c.trial != nil:
		return fmt.Sprintf("the clock seems to be wrong by about %s (it says %s UTC): trying the hub's time", off, sys)
	case c.source == Hub:
		return fmt.Sprintf("the clock is wrong by about %s (it says %s UTC): signing with the hub's time; set the clock, or look at the time server", off, sys)
	case c.source == Before:
		return fmt.Sprintf("the clock was set by about %s, to %s UTC, which cannot be right: signing with the time from before", off, sys)
	case c.source == Saved:
		return fmt.Sprintf("the clock says %s UTC, which is past: signing with the last known time until the hub's is known; set the clock, or look at the time server", sys)
	}
	return ""
}

// about is a difference in its largest unit, with its sign: "−3 h", "+1 y".
func about(d time.Duration) string {
	sign := "+"
	if d < 0 {
		sign, d = "−", -d
	}
	const day = 24 * time.Hour
	for _, unit := range []struct {
		d    time.Duration
		name string
	}{{365 * day, "y"}, {day, "days"}, {time.Hour, "h"}, {time.Minute, "min"}} {
		if d >= unit.d-unit.d/20 {
			return fmt.Sprintf("%s%.0f %s", sign, math.Round(float64(d)/float64(unit.d)), unit.name)
		}
	}
	return fmt.Sprintf("%s%.0f s", sign, d.Seconds())
}
