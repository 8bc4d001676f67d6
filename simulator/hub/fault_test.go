package hub

import (
	"strings"
	"testing"
	"time"
)

func TestFaultCounts(t *testing.T) {
	h := newHub(t)
	a, b := ID{"pi-01", "a"}, ID{"pi-01", "b"}
	wantError(t, "kick", h.AddFault(Fault{On: "publish", Who: "pi-01/a", After: 2, Times: 1, Do: "kick"}), 0)
	wantError(t, "drop", h.AddFault(Fault{On: "publish", Who: "pi-01/*", After: 3, Do: "drop"}), 0)
	wantError(t, "delay", h.AddFault(Fault{On: "report", Do: "delay", Delay: time.Second}), 0)
	var got []string
	for range 3 {
		got = append(got, h.Fault("publish", a).Do)
	}
	got = append(got, h.Fault("publish", b).Do) // the second rule has let three pass
	got = append(got, h.Fault("publish", a).Do) // the first is used up
	got = append(got, h.Fault("publish", ID{Device: "pi-01"}).Do)
	got = append(got, h.Fault("twin-get", a).Do)
	if want := ",,kick,drop,drop,,"; strings.Join(got, ",") != want {
		t.Errorf("%q, want %q", strings.Join(got, ","), want)
	}
	l, _ := attach(t, h, a, time.Hour)
	if f := l.Fault("report"); f.Do != "delay" || f.Delay != time.Second {
		t.Errorf("report: %+v", f)
	}
	h.ClearFaults()
	if f := l.Fault("report"); f.Do != "" {
		t.Errorf("after clearing: %+v", f)
	}
}

func TestAddFaultRefuses(t *testing.T) {
	for _, f := range []Fault{{Do: "kick"}, {On: "publish"}, {On: "publish", Do: "explode"}, {On: "publish", Do: "kick", After: -1}, {On: "publish", Do: "kick", Times: -1}} {
		wantError(t, "rule", New(Options{}).AddFault(f), 400004)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "pi-01/a", true},
		{"*", "", true},
		{"pi-01", "pi-01", true},
		{"pi-01", "pi-01/a", false},
		{"pi-01", "PI-01", false},
		{"pi-01/*", "pi-01/a", true},
		{"pi-01/*", "pi-01", false},
		{"*/a", "pi-01/a", true},
		{"*/a", "pi-01/aa", false},
		{"p*1/*b*", "pi-01/abc", true},
		{"p*1/*b*", "pi-01/ac", false},
		{"a*a*a*a*b", strings.Repeat("a", 200), false},
		{"**", "x", true},
	} {
		if got := glob(c.pattern, c.text); got != c.want {
			t.Errorf("glob(%q, %.20q) = %v", c.pattern, c.text, got)
		}
	}
}
