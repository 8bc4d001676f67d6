package clock

import (
	"runtime/debug"
	"time"
)

// released is the floor of a program that does not know when it was built.
var released = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Built is a time at which this program was not there yet: of the commit that it was built from, where the build says so.
func Built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return released
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil && t.After(released) {
				return t
			}
		}
	}
	return released
}
