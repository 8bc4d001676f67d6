package rig

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twinbay/twinbay/simulator/chips"
)

// Addresses on the bus "machine", as boards come: A0 to A2 to ground.
const (
	SupplyAddr   = 0x40 // INA219: SBOS448G, table 1
	ExpanderAddr = 0x20 // MCP23017: DS20001952D, section 3.3
	CoolingAddr  = 0x18 // MCP9808: DS25095A, table 3-2
)

// Slots is how many spirals the machine has: a motor at each of the pins A0 to A6 of the expander, high turns, and its home
// switch at B0 to B6, which is low while the spiral is at home.
const Slots = 7

// One turn of a spiral. The motor leaves the home switch at the beginning, the product falls near the end, and then the
// switch closes again.
const (
	turnTime  = 1600 * time.Millisecond
	leaveHome = 0.06 // of a turn
	dropAt    = 0.85
	reachHome = 0.94

	slotStock = 10
)

// What draws current from the 24 V supply.
const (
	supplyVolts  = 24.0
	supplyOhms   = 0.15 // of the supply and its cable
	shuntOhms    = 0.01 // of the INA219's board
	idleAmperes  = 0.21 // board, lamps, validator
	motorAmperes = 0.55 // a spiral that turns
	stallAmperes = 1.6  // one that is jammed
	coolAmperes  = 3.4  // the compressor
)

// vending is the mechanics: what turns while the expander drives it.
type vending struct {
	expander *chips.MCP23017
	fall     func(after, dark time.Duration) // a product passes the beam; after < 0: none does after all

	mu    sync.Mutex
	rng   *rand.Rand
	slots [Slots]slot
	inUse bool // somebody has set the expander's motor pins up: products fall by their turning alone
}

type slot struct {
	turning bool
	since   time.Time
	angle   float64 // 0 is home, 1 a turn later; at since
	stock   int
	due     time.Time // the product of this turn falls; zero: none will
	jammed  bool
	welded  bool // the home switch stays closed
}

func newVending(rng *rand.Rand, fall func(after, dark time.Duration)) *vending {
	v := &vending{rng: rng, fall: fall}
	v.expander = chips.NewMCP23017(v.driven)
	for i := range v.slots {
		v.slots[i].stock = slotStock
		v.expander.Drive(8+i, false)
	}
	return v
}

// driven is told what the expander drives. It runs on the goroutine of a transfer, and may move the expander's pins later
// only: the models do not call back into themselves.
func (v *vending) driven(driven, level uint16) {
	v.mu.Lock()
	v.inUse = v.inUse || driven&(1<<Slots-1) != 0
	now := time.Now()
	type move struct {
		slot  int
		level bool
		gaps  []time.Duration
	}
	var moves []move
	for i := range v.slots {
		s := &v.slots[i]
		if on := driven&level&(1<<i) != 0; on != s.turning {
			s.advance(now)
			s.turning = on
			closed, gaps := s.home()
			moves = append(moves, move{i, !closed, gaps})
			v.drop(s, now)
		}
	}
	v.mu.Unlock()
	for _, m := range moves {
		v.expander.Drive(8+m.slot, m.level, m.gaps...)
	}
}

// advance turns the spiral up to now.
func (s *slot) advance(now time.Time) {
	if s.turning && !s.jammed {
		s.angle += now.Sub(s.since).Seconds() / turnTime.Seconds()
		s.angle -= math.Floor(s.angle)
	}
	if !s.due.IsZero() && !s.due.After(now) {
		s.stock--
		s.due = time.Time{}
	}
	s.since = now
}

// home says whether the switch is closed at the spiral's angle, and after what times it changes while the motor goes on. A
// motor that nobody stops goes on for ten turns; then its fuse blows.
func (s *slot) home() (closed bool, gaps []time.Duration) {
	closed = s.welded || s.angle < leaveHome || s.angle >= reachHome
	if !s.turning || s.jammed || s.welded {
		return closed, nil
	}
	at := s.angle
	for range 10 {
		for _, next := range []float64{leaveHome, reachHome} {
			if next > at {
				gaps = append(gaps, time.Duration((next-at)*float64(turnTime)))
				at = next
			}
		}
		at--
	}
	if len(gaps)%2 == 1 { // it ends where it began, as [chips.Line.Bounce] wants it
		gaps = gaps[:len(gaps)-1]
	}
	return closed, gaps
}

// drop plans the fall of the product, or calls it off.
func (v *vending) drop(s *slot, now time.Time) {
	left := dropAt - s.angle
	if left <= 0 {
		left++ // the next turn's: a motor stops where the home switch closes, which is behind the place where the last one fell
	}
	switch {
	case !s.turning && !s.due.IsZero():
		s.due = time.Time{}
		v.fall(-1, 0)
	case s.turning && !s.jammed && s.stock > 0:
		after := time.Duration(left*float64(turnTime)) + 100*time.Millisecond // and down
		s.due = now.Add(after)
		v.fall(after, 20*time.Millisecond+time.Duration(v.rng.Int64N(int64(40*time.Millisecond))))
	}
}

// jam stops a spiral where it is, or frees it; weld keeps its home switch closed; both are for slot n, counted from 0.
func (v *vending) jam(n int, jammed bool) { v.change(n, func(s *slot) { s.jammed = jammed }) }

func (v *vending) weld(n int, welded bool) { v.change(n, func(s *slot) { s.welded = welded }) }

func (v *vending) fill(n, stock int) { v.change(n, func(s *slot) { s.stock = stock }) }

func (v *vending) change(n int, f func(*slot)) {
	if n < 0 || n >= Slots {
		return
	}
	v.mu.Lock()
	now := time.Now()
	s := &v.slots[n]
	s.advance(now)
	f(s)
	if s.turning {
		if s.jammed && !s.due.IsZero() {
			s.due = time.Time{}
			v.fall(-1, 0)
		} else if s.due.IsZero() {
			v.drop(s, now)
		}
	}
	closed, gaps := s.home()
	v.mu.Unlock()
	v.expander.Drive(8+n, !closed, gaps...)
}

// used says whether somebody drives the motors.
func (v *vending) used() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.inUse
}

// amperes is what the motors draw.
func (v *vending) amperes() (sum float64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.slots {
		switch {
		case s.turning && s.jammed:
			sum += stallAmperes
		case s.turning:
			sum += motorAmperes
		}
	}
	return sum
}

// stock is what is left in each slot.
func (v *vending) stock() (left [Slots]int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.slots {
		v.slots[i].advance(time.Now())
		left[i] = v.slots[i].stock
	}
	return left
}
