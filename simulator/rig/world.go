package rig

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twinbay/twinbay/simulator/chips"
)

// slug is a coin that no acceptor knows.
const slug = "slug"

// The climate of a cooled cabinet in a warm hall.
const (
	cabinetC    = 6.0
	hallC       = 23.0
	cabinetRH   = 48.0
	hallRH      = 61.0
	pressureKPa = 100.9

	openTau = 90 * time.Second  // the door is open: warm air comes in
	shutTau = 240 * time.Second // the door is shut: the cooling pulls it down again
	coldC   = -2.0              // what a compressor that never stops comes to
	idleTau = 30 * time.Minute  // the compressor is off: the hall's warmth comes in through the walls
	driftC  = 0.4               // of the shut cabinet, around its mean, over driftT
	driftT  = 10 * time.Minute
)

// How often things happen by themselves.
const (
	coinEvery = 6 * time.Second // on average
	doorEvery = time.Minute
	doorStays = 6 * time.Second
)

// world is what happens to the parts: by command, and by itself in run.
type world struct {
	coins      *chips.CoinAcceptor
	door, beam *chips.Line
	log        *slog.Logger
	vends      func() bool // somebody drives the spirals: then no product falls that they do not give out

	mu         sync.Mutex
	rng        *rand.Rand
	open       bool
	deliveries int
	base       chips.Air // what the shut cabinet tends to
	now        chips.Air // at the time when
	when       time.Time
	phase      float64 // of the drift
	drifting   bool
	cooling    bool // somebody drives the compressor; else the cabinet has a thermostat of its own
	compressor bool // as it is driven
}

func newWorld(rng *rand.Rand, coins *chips.CoinAcceptor, door, beam *chips.Line, log *slog.Logger) *world {
	base := chips.Air{Celsius: cabinetC, KPa: pressureKPa, Humidity: cabinetRH}
	return &world{
		coins: coins, door: door, beam: beam, log: log,
		vends: func() bool { return false }, rng: rng, base: base, now: base, when: time.Now(), phase: rng.Float64() * 2 * math.Pi,
	}
}

// air is the air in the cabinet now.
func (w *world) air() chips.Air {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breathe(time.Now())
	return w.now
}

// breathe brings the air up to now. The lock is held.
func (w *world) breathe(now time.Time) {
	dt := now.Sub(w.when)
	if dt <= 0 {
		return
	}
	w.when = now
	target, tau := w.base, shutTau
	if w.drifting {
		angle := 2*math.Pi*float64(now.UnixMilli()%driftT.Milliseconds())/float64(driftT.Milliseconds()) + w.phase
		target.Celsius += driftC * math.Sin(angle)
		target.Humidity -= 3 * math.Sin(angle)
		target.KPa += 0.05 * math.Cos(angle)
		w.now.KPa = target.KPa
	}
	if w.cooling {
		target.Celsius, tau = hallC, idleTau
		if w.compressor {
			target.Celsius, tau = coldC, shutTau
		}
	}
	if w.open {
		// A cabinet that somebody made hotter than the hall cools down with the door open.
		target.Celsius, target.Humidity, tau = hallC, hallRH, openTau
	}
	k := 1 - math.Exp(-dt.Seconds()/tau.Seconds())
	w.now.Celsius += (target.Celsius - w.now.Celsius) * k
	w.now.Humidity += (target.Humidity - w.now.Humidity) * k
}

// setAir sets values at once, and as what the cabinet will tend to.
func (w *world) setAir(a Air) error {
	for _, v := range []struct {
		name      string
		value     *float64
		low, high float64
	}{{"celsius", a.Celsius, -40, 85}, {"kpa", a.KPa, 30, 110}, {"humidity", a.Humidity, 0, 100}} {
		if v.value != nil && !(*v.value >= v.low && *v.value <= v.high) {
			return fmt.Errorf("%s %v is outside of the sensor's range, %v to %v", v.name, *v.value, v.low, v.high)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breathe(time.Now())
	set := func(v *float64, to ...*float64) {
		if v != nil {
			for _, p := range to {
				*p = *v
			}
		}
	}
	set(a.Celsius, &w.base.Celsius, &w.now.Celsius)
	set(a.KPa, &w.base.KPa, &w.now.KPa)
	set(a.Humidity, &w.base.Humidity, &w.now.Humidity)
	return nil
}

// moveDoor moves the door; the contact bounces for some milliseconds. The contact pulls the line low while open.
func (w *world) moveDoor(open bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if open == w.open {
		return
	}
	w.breathe(time.Now())
	w.open = open
	w.door.Bounce(!open, w.gaps(2+2*w.rng.IntN(4))...)
	w.log.Info("door", "open", open)
}

// cool is told how the compressor is driven, from the first time on that somebody drives it.
func (w *world) cool(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breathe(time.Now())
	if !w.cooling || on != w.compressor {
		w.log.Info("compressor", "on", on)
	}
	w.cooling, w.compressor = true, on
}

// compressing says whether somebody has the compressor run.
func (w *world) compressing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.compressor
}

// gaps are the times between bounces of a reed contact, half a millisecond to three.
func (w *world) gaps(n int) []time.Duration {
	g := make([]time.Duration, n)
	for i := range g {
		g[i] = 500*time.Microsecond + time.Duration(w.rng.Int64N(int64(2500*time.Microsecond)))
	}
	return g
}

// storm is n edges of a contact that vibrates; the door is where it was after that.
func (w *world) storm(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.door.Bounce(!w.open, w.gaps(n)...)
}

// deliver lets a product fall through the beam: it is dark for 20 to 80 ms.
func (w *world) deliver() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deliveries++
	w.beam.Pulse(false, 20*time.Millisecond+time.Duration(w.rng.Int64N(int64(60*time.Millisecond))))
	w.log.Info("delivery")
}

// fall is the product of a spiral: after so long it darkens the beam. With after < 0 what was to fall does not.
func (w *world) fall(after, dark time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if after < 0 {
		w.beam.Set(true)
		return
	}
	w.beam.Bounce(true, after, dark)
}

func (w *world) seen() (open bool, deliveries int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open, w.deliveries
}

// bytes is noise.
func (w *world) bytes(n int) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(w.rng.Uint32())
	}
	return p
}

// spread is a time from half of mean to one and a half.
func (w *world) spread(mean time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return mean/2 + time.Duration(w.rng.Int64N(int64(mean)))
}

// run lets things happen until ctx ends, if alive.
func (w *world) run(ctx context.Context, alive bool) {
	if !alive {
		return
	}
	w.mu.Lock()
	w.drifting = true
	w.mu.Unlock()
	coin, door := time.NewTimer(w.spread(2*time.Second)), time.NewTimer(w.spread(doorEvery/3))
	defer coin.Stop()
	defer door.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-coin.C:
			w.customer(ctx)
			coin.Reset(w.spread(coinEvery))
		case <-door.C:
			if open, _ := w.seen(); open {
				w.moveDoor(false)
				door.Reset(w.spread(doorEvery))
			} else {
				w.moveDoor(true)
				door.Reset(w.spread(doorStays))
			}
		}
	}
}

// customer throws in one coin, now and then a bad one, and one in three of the good ones buys something.
func (w *world) customer(ctx context.Context) {
	ids := w.coins.Coins()
	w.mu.Lock()
	id, buys := ids[w.rng.IntN(len(ids))], w.rng.IntN(3) == 0
	if w.rng.IntN(15) == 0 {
		id = slug
	}
	w.mu.Unlock()
	outcome := w.coins.Insert(id)
	w.log.Info("coin", "id", id, "outcome", string(outcome))
	if outcome == chips.Credited && buys {
		w.purchase(ctx)
	}
}

// purchase is a product that falls by itself, where nobody drives the spirals.
func (w *world) purchase(ctx context.Context) {
	if !w.vends() && pause(ctx, w.spread(time.Second)) {
		w.deliver()
	}
}
