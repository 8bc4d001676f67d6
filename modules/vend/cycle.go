package vend

import "time"

// Results of a transaction: did the customer get the product?
const (
	resultOK      = "ok"      // the beam saw it fall; without a beam, the spiral made its turn
	resultNoDrop  = "no_drop" // the spiral turned, and nothing fell
	resultFailed  = "failed"  // the machine could not: fault says why
	resultUnknown = "unknown" // nobody can tell: the module ended on the way
)

// Faults of a slot.
const (
	faultStuckHome = "stuck_home" // the home switch did not open: jammed at home, or the switch is welded
	faultJam       = "jam"        // the spiral left home and did not come back
	faultHomeLost  = "home_lost"  // the product fell, and the home switch did not close after it
	faultReset     = "expander_reset"
	faultBus       = "bus"
	faultEnded     = "interrupted"
)

const (
	bounceGuard = 60 * time.Millisecond  // the home switch has to stay open for this to count
	jamRest     = 500 * time.Millisecond // before a spiral that stands is tried again
	afterDrop   = 700 * time.Millisecond // from the product's fall to home, at most
	quarterTurn = 400 * time.Millisecond // of a spiral of unknown speed
)

// mode is what a cycle is for.
type mode int

const (
	vending mode = iota
	probing      // one turn, for the technician
	homing       // on to the home switch
)

// plan is what a cycle may take.
type plan struct {
	leave   time.Duration // until the home switch opens
	home    time.Duration // until it closes again
	drop    time.Duration // until the product has fallen
	retries int           // quarter turns where nothing fell; at most 3, so that the next product stays where it is
	usual   time.Duration // a turn of this spiral as it was; 0 when it is not known
	sensor  bool          // the beam decides
}

// phase is where a cycle stands.
type phase int

const (
	leaving phase = iota // at home, the motor on
	cleared              // the switch has opened; it may bounce
	turning              // on the way home
	resting              // it did not come: motor off, then tried once more
	waiting              // home, motor off: does the product fall?
	jogging              // a quarter turn, because it did not
	falling              // something is wrong, motor off: has it fallen all the same?
	ended
)

// cycle is one product's way out as a pure state machine: step takes what is seen at a time, motor and deadline say what to do.
// Whatever happens, the spiral passes the place where a product falls once at most.
type cycle struct {
	plan
	mode  mode
	phase phase

	began time.Time
	since time.Time // of the phase
	left  time.Time // when leaving began, also after a bounce
	whole bool      // it began at home: the turn is a whole one
	again bool      // the one repetition after a jam has been used
	full  bool      // the turn is complete
	took  time.Duration
	jogs  int

	drops  int
	dropAt time.Time // of the first

	result string
	fault  string
	over   time.Time
}

// sample is what is seen at a time.
type sample struct {
	at      time.Time
	home    bool // the slot's home switch is closed
	dropped bool // something fell through the beam since the last sample
}

// begin starts a cycle.
func begin(p plan, m mode, at time.Time, home bool) cycle {
	c := cycle{plan: p, mode: m, began: at, since: at, left: at, phase: leaving}
	switch {
	case m == homing && home:
		c.full = true
		return c.end(at, resultOK)
	case !home:
		// Some way of the turn has been made already, by a quarter turn or by hand. What is left of it is this one's turn: to
		// add a whole one would give out two products where the beam misses one.
		c.phase = turning
	default:
		c.whole = true
	}
	return c
}

// motor is whether the motor is to be on.
func (c cycle) motor() bool {
	switch c.phase {
	case leaving, cleared, turning, jogging:
		return true
	}
	return false
}

// deadline is when the cycle wants to be asked at the latest, without anything having been seen; zero when it has ended.
func (c cycle) deadline() time.Time {
	switch c.phase {
	case leaving:
		return c.left.Add(c.leave)
	case cleared:
		return c.since.Add(bounceGuard)
	case turning:
		d := c.since.Add(c.limit())
		if c.drops > 0 && c.dropAt.Add(afterDrop).Before(d) {
			d = c.dropAt.Add(afterDrop)
		}
		return d
	case resting:
		return c.since.Add(jamRest)
	case waiting, falling:
		return c.since.Add(c.drop)
	case jogging:
		return c.since.Add(c.quarter())
	}
	return time.Time{}
}

// limit is how long the spiral may be on its way. Where its speed is known, the limits are such that it does not come round to the
// next product with a home switch that never closes: a fifth more than a turn, and two fifths after a jam; one turn where it
// was not at home.
func (c cycle) limit() time.Duration {
	switch {
	case c.usual == 0:
		return c.home
	case c.again:
		return min(c.home, c.usual*2/5)
	case !c.whole:
		return min(c.home, c.usual)
	}
	return min(c.home, c.usual*6/5)
}

func (c cycle) quarter() time.Duration {
	switch {
	case c.took > 0:
		return c.took / 4
	case c.usual > 0:
		return c.usual / 4
	}
	return quarterTurn
}

func (c cycle) to(p phase, at time.Time) cycle {
	c.phase, c.since = p, at
	return c
}

func (c cycle) end(at time.Time, result string) cycle {
	c = c.to(ended, at)
	c.result, c.over = result, at
	return c
}

// step takes in a sample.
func (c cycle) step(s sample) cycle {
	if c.phase == ended {
		return c
	}
	if s.dropped {
		if c.drops == 0 {
			c.dropAt = s.at
		}
		c.drops++
	}
	due := !s.at.Before(c.deadline())
	switch c.phase {
	case leaving:
		switch {
		case !s.home:
			return c.to(cleared, s.at)
		case c.drops > 0 || due: // fallen without having left home: the switch lies
			return c.fail(s.at, faultStuckHome)
		}
	case cleared:
		switch {
		case s.home:
			return c.to(leaving, s.at)
		case due:
			return c.to(turning, s.at)
		}
	case turning:
		switch {
		case s.home:
			return c.arrive(s.at)
		case due && c.drops > 0:
			return c.fail(s.at, faultHomeLost)
		case due && c.usual > 0 && c.whole && !c.again:
			c.again = true
			return c.to(resting, s.at)
		case due:
			return c.fail(s.at, faultJam)
		}
	case resting:
		if due {
			return c.to(turning, s.at)
		}
	case waiting:
		switch {
		case c.drops > 0:
			return c.end(s.at, resultOK)
		case due && c.jogs < c.retries:
			c.jogs++
			return c.to(jogging, s.at)
		case due:
			return c.end(s.at, resultNoDrop)
		}
	case jogging:
		if c.drops > 0 {
			return c.end(s.at, resultOK)
		}
		if due {
			return c.to(waiting, s.at)
		}
	case falling:
		if c.drops > 0 && c.mode == vending {
			return c.end(s.at, resultOK)
		}
		if due {
			return c.end(s.at, resultFailed)
		}
	}
	return c
}

// arrive is the end of the turn.
func (c cycle) arrive(at time.Time) cycle {
	c.full = true
	if c.whole && !c.again {
		c.took = at.Sub(c.began)
	}
	if c.mode != vending || !c.sensor || c.drops > 0 {
		return c.end(at, resultOK)
	}
	return c.to(waiting, at)
}

// fail switches the motor off for a fault. A product that is falling counts all the same: the customer has it.
func (c cycle) fail(at time.Time, fault string) cycle {
	if c.phase == ended || c.phase == falling {
		return c
	}
	c.fault = fault
	if c.mode != vending || !c.sensor {
		return c.end(at, resultFailed)
	}
	c = c.to(falling, at)
	if c.drops > 0 {
		return c.end(at, resultOK)
	}
	return c
}

// cut ends the cycle at once, because the module ends.
func (c cycle) cut(at time.Time) cycle {
	if c.phase == ended {
		return c
	}
	c.fault = faultEnded
	if c.drops > 0 {
		return c.end(at, resultOK)
	}
	return c.end(at, resultUnknown)
}

// turns is how far the spiral has turned, as far as is known.
func (c cycle) turns() float64 {
	n := 0.25 * float64(c.jogs)
	if c.full {
		n++
	}
	return n
}
