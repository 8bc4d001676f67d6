package hub

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
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
	for _, f := range []Fault{{Do: "kick"}, {On: "publish"}, {On: "tea", Do: "kick"}, {On: "publish", Do: "kick", P: 1.5}, {On: "publish", Do: "kick", P: math.NaN()}, {On: "publish", Do: "kick", For: -1}, {On: "publish", Do: "explode"}, {On: "publish", Do: "kick", After: -1}, {On: "publish", Do: "kick", Times: -1}} {
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

func TestFaultsAreListedReplacedAndRemoved(t *testing.T) {
	h := newHub(t)
	a := ID{"pi-01", "a"}
	for _, f := range []Fault{
		{On: "publish", Do: "drop", After: 1},
		{ID: "mine", On: "report", Do: "kick", Who: "pi-01/*"},
		{On: "rest", Do: "throttle"},
	} {
		wantError(t, "add", h.AddFault(f), 0)
	}
	h.Fault("publish", a)
	h.Fault("publish", a)
	got := h.Faults()
	if len(got) != 3 || got[0].ID != "1" || got[0].Passed != 1 || got[0].Acted != 1 || got[1].ID != "mine" || got[2].ID != "2" {
		t.Fatalf("%+v", got)
	}
	wantError(t, "replace", h.AddFault(Fault{ID: "mine", On: "report", Do: "refuse"}), 0)
	if f := h.Fault("report", a); f.Do != "refuse" {
		t.Errorf("after replacing: %+v", f)
	}
	if !h.RemoveFault("mine") || h.RemoveFault("mine") {
		t.Error("a rule is removed once")
	}
	if f := h.Fault("report", a); f.Do != "" {
		t.Errorf("after removing: %+v", f)
	}
}

func TestFaultProbability(t *testing.T) {
	hits := func(seed uint64) (n int, pattern string) {
		h := New(Options{Seed: seed})
		wantError(t, "add", h.AddFault(Fault{On: "publish", Do: "drop", P: 0.25}), 0)
		for range 1000 {
			if h.Fault("publish", ID{Device: "d"}).Do == "drop" {
				n++
				pattern += "x"
			} else {
				pattern += "."
			}
		}
		return n, pattern
	}
	n, first := hits(7)
	if n < 200 || n > 300 {
		t.Errorf("%d of 1000 with probability 0.25", n)
	}
	if _, again := hits(7); again != first {
		t.Error("the same seed makes other faults")
	}
	if _, other := hits(8); other == first {
		t.Error("another seed makes the same faults")
	}
}

func TestFaultEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		wantError(t, "add", h.AddFault(Fault{On: "connect", Do: "kick", For: 30 * time.Second}), 0)
		time.Sleep(30*time.Second - 1)
		if f := h.Fault("connect", ID{Device: "pi-01"}); f.Do != "kick" {
			t.Errorf("before its end: %+v", f)
		}
		time.Sleep(1)
		if f := h.Fault("connect", ID{Device: "pi-01"}); f.Do != "" {
			t.Errorf("after its end: %+v", f)
		}
		if all := h.Faults(); len(all) != 0 {
			t.Errorf("still listed: %+v", all)
		}
	})
}
