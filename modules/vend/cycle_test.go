package vend

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var usualPlan = plan{leave: 600 * time.Millisecond, home: 4 * time.Second, drop: 2 * time.Second, retries: 3, usual: 1600 * time.Millisecond, sensor: true}

// act is something that happens in a table's row: at so many milliseconds the switch opens or closes, or a product falls.
type act struct {
	at      int
	home    int // 1 closed, -1 open, 0 as before
	dropped bool
}

// play runs a cycle against a time line, asking it at each event and deadline, and answers it with the time its motor was on.
func play(p plan, m mode, home bool, acts []act) (cycle, time.Duration) {
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := begin(p, m, t0, home)
	now, on := t0, time.Duration(0)
	for c.phase != ended {
		next := c.deadline()
		var a act
		if len(acts) > 0 && !t0.Add(ms(acts[0].at)).After(next) {
			a, acts = acts[0], acts[1:]
			next = t0.Add(ms(a.at))
		}
		if c.motor() {
			on += next.Sub(now)
		}
		now = next
		if a.home != 0 {
			home = a.home > 0
		}
		c = c.step(sample{now, home, a.dropped})
	}
	return c, on
}

func TestCycle(t *testing.T) {
	blind := usualPlan
	blind.sensor = false
	first := usualPlan
	first.usual = 0
	once := usualPlan
	once.retries = 1
	for _, row := range []struct {
		name   string
		plan   plan
		mode   mode
		home   bool
		acts   []act
		result string
		fault  string
		jogs   int
		on     int // ms of the motor
	}{
		{"as it should be", usualPlan, vending, true, []act{{100, -1, false}, {1450, 0, true}, {1500, 1, false}}, resultOK, "", 0, 1500},
		{"it falls late", usualPlan, vending, true, []act{{100, -1, false}, {1500, 1, false}, {3400, 0, true}}, resultOK, "", 0, 1500},
		{"the switch bounces", usualPlan, vending, true, []act{{100, -1, false}, {103, 1, false}, {106, -1, false}, {1450, 0, true}, {1500, 1, false}}, resultOK, "", 0, 1500},
		{"nothing falls", usualPlan, vending, true, []act{{100, -1, false}, {1500, 1, false}, {3600, -1, false}}, resultNoDrop, "", 3, 1500 + 3*375},
		{"a quarter turn helps", usualPlan, vending, true, []act{{100, -1, false}, {1500, 1, false}, {3700, 0, true}}, resultOK, "", 1, 1700},
		{"one retry", once, vending, true, []act{{100, -1, false}, {1500, 1, false}}, resultNoDrop, "", 1, 1875},
		{"jammed at home", usualPlan, vending, true, nil, resultFailed, faultStuckHome, 0, 600},
		{"welded, and it falls", usualPlan, vending, true, []act{{500, 0, true}}, resultOK, faultStuckHome, 0, 500},
		{"welded, and it falls late", usualPlan, vending, true, []act{{700, 0, true}}, resultOK, faultStuckHome, 0, 600},
		{"jammed on the way", usualPlan, vending, true, []act{{100, -1, false}}, resultFailed, faultJam, 0, 160 + 1920 + 640},
		{"jammed, then free", usualPlan, vending, true, []act{{100, -1, false}, {2800, 0, true}, {2900, 1, false}}, resultOK, "", 0, 2080 + 320},
		{"jammed for the first time", first, vending, true, []act{{100, -1, false}}, resultFailed, faultJam, 0, 160 + 4000},
		{"home is never reached after the fall", usualPlan, vending, true, []act{{100, -1, false}, {1450, 0, true}}, resultOK, faultHomeLost, 0, 2080},
		{"not at home", usualPlan, vending, false, []act{{1000, 0, true}, {1050, 1, false}}, resultOK, "", 0, 1050},
		{"not at home, nothing falls", once, vending, false, []act{{50, 1, false}}, resultNoDrop, "", 1, 450},
		{"not at home, and never", usualPlan, vending, false, nil, resultFailed, faultJam, 0, 1600},
		{"a double drop", usualPlan, vending, true, []act{{100, -1, false}, {1300, 0, true}, {1450, 0, true}, {1500, 1, false}}, resultOK, "", 0, 1500},
		{"no beam", blind, vending, true, []act{{100, -1, false}, {1500, 1, false}}, resultOK, "", 0, 1500},
		{"no beam, jammed at home", blind, vending, true, nil, resultFailed, faultStuckHome, 0, 600},
		{"a test", usualPlan, probing, true, []act{{100, -1, false}, {1500, 1, false}}, resultOK, "", 0, 1500},
		{"a test that jams", usualPlan, probing, true, nil, resultFailed, faultStuckHome, 0, 600},
		{"home already", usualPlan, homing, true, nil, resultOK, "", 0, 0},
		{"on to home", usualPlan, homing, false, []act{{700, 1, false}}, resultOK, "", 0, 700},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, on := play(row.plan, row.mode, row.home, row.acts)
			if c.result != row.result || c.fault != row.fault || c.jogs != row.jogs || on != ms(row.on) || c.motor() {
				t.Errorf("%s %q after %d quarter turns, motor on for %v; want %s %q, %d, %d ms", c.result, c.fault, c.jogs, on, row.result, row.fault, row.jogs, row.on)
			}
		})
	}
}

func TestCutAndFail(t *testing.T) {
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := begin(usualPlan, vending, t0, true)
	if got := c.cut(t0.Add(time.Second)); got.result != resultUnknown || got.fault != faultEnded || got.motor() {
		t.Errorf("cut on the way: %s %q", got.result, got.fault)
	}
	fell := c.step(sample{t0.Add(10 * time.Millisecond), false, true})
	if got := fell.cut(t0.Add(time.Second)); got.result != resultOK || got.fault != faultEnded {
		t.Errorf("cut after the fall: %s %q", got.result, got.fault)
	}
	if got := fell.fail(t0.Add(time.Second), faultReset); got.result != resultOK || got.fault != faultReset {
		t.Errorf("a reset after the fall: %s %q", got.result, got.fault)
	}
	falling := c.fail(t0.Add(time.Second), faultReset)
	if falling.motor() || falling.phase == ended {
		t.Errorf("a reset on the way: %+v, want the motor off and the beam watched", falling)
	}
	if got := falling.step(sample{t0.Add(2 * time.Second), false, true}); got.result != resultOK || got.fault != faultReset {
		t.Errorf("it fell after the reset: %s %q", got.result, got.fault)
	}
	if got := falling.step(sample{t0.Add(3 * time.Second), false, false}); got.result != resultFailed {
		t.Errorf("nothing fell after the reset: %s %q", got.result, got.fault)
	}
}

// spiral is a spiral's mechanics: angle 0 is home, the product of a turn falls at 0.85 of it.
type spiral struct {
	turn   time.Duration
	angle  float64
	given  int
	welded bool // the switch is closed always
	broken bool // the switch is open always
	jamAt  float64
	blind  bool // the beam sees nothing
}

func (s *spiral) home() bool {
	f := s.angle - math.Floor(s.angle)
	return s.welded || !s.broken && (f < 0.06 || f >= 0.94)
}

// move turns it; fell says that the beam saw something.
func (s *spiral) move(d time.Duration) (fell bool) {
	before := math.Floor(s.angle + 0.15)
	to := s.angle + d.Seconds()/s.turn.Seconds()
	if s.jamAt > 0 {
		to = min(to, max(s.angle, s.jamAt))
	}
	s.angle = to
	n := int(math.Floor(s.angle+0.15) - before)
	s.given += n
	return n > 0 && !s.blind
}

// TestNeverTwoProducts lets spirals of all speeds, with switches and beams that lie and jams anywhere, go through transactions:
// a transaction ends, with its motor off, and gives out one product at most; ok says that one was seen.
func TestNeverTwoProducts(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	results := map[string]int{}
	for n := range 20_000 {
		s := spiral{turn: 800*time.Millisecond + time.Duration(rng.Int64N(int64(2200*time.Millisecond)))}
		s.angle = []float64{0, 0.97, 0.01, rng.Float64()}[rng.IntN(4)]
		s.blind = rng.IntN(3) == 0
		switch rng.IntN(6) {
		case 0:
			s.welded = true
		case 1:
			s.broken = true
		case 2:
			s.jamAt = s.angle + 2*rng.Float64()
		}
		p := usualPlan
		p.usual = time.Duration(float64(s.turn) * 0.95)
		p.sensor = rng.IntN(5) > 0
		p.retries = rng.IntN(4)
		lost := rng.IntN(20) == 0 // the expander, on the way
		saw := s                  // as it was
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		c := begin(p, vending, now, s.home())
		for began := now; c.phase != ended; {
			d := 5*time.Millisecond + time.Duration(rng.Int64N(int64(20*time.Millisecond)))
			fell := false
			if c.motor() {
				fell = s.move(d)
			}
			now = now.Add(d)
			if lost && rng.IntN(100) == 0 {
				c = c.fail(now, faultReset)
			}
			c = c.step(sample{now, s.home(), fell})
			if now.Sub(began) > time.Minute {
				t.Fatalf("%d: %+v has not ended after a minute: %+v", n, saw, c)
			}
		}
		results[c.result+" "+c.fault]++
		if s.given > 1 {
			t.Fatalf("%d: %d products of %+v: %+v", n, s.given, saw, c)
		}
		if c.motor() || p.sensor && (c.result == resultOK) != (c.drops > 0) || c.result == resultOK && p.sensor && s.given != 1 {
			t.Fatalf("%d: %s with %d seen and %d given by %+v: %+v", n, c.result, c.drops, s.given, saw, c)
		}
	}
	for _, want := range []string{"ok ", "no_drop ", "failed jam", "failed stuck_home", "ok home_lost", "ok expander_reset", "failed expander_reset"} {
		if results[want] == 0 {
			t.Errorf("the property has not met %q: %v", want, results)
		}
	}
}
