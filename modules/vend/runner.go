package vend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

const (
	firstPause = 500 * time.Millisecond // until the bus is opened again
	lastPause  = 10 * time.Second
	// adriftPause is for a motor that could not be switched off: each turn is a product.
	adriftPause = 100 * time.Millisecond
	checkEvery  = 5 * time.Second       // that the chip is as programmed, while nothing turns
	sampleTime  = 20 * time.Millisecond // while a motor turns: the interrupt is faster, but it may be stuck
	intTries    = 10                    // readings of the ports until an interrupt that stays counts as stuck
	beamFault   = 2 * time.Second       // no product takes that long to fall
	beamGap     = 150 * time.Millisecond
	offLimit    = time.Second // for switching off, when everything else has ended
)

// runner is one Run. It belongs to Run's goroutine.
type runner struct {
	m      *Module
	bay    *modkit.Bay
	ctx    context.Context
	wiring wiring
	timer  *time.Timer

	chip    *expander // nil while there is none
	broken  error     // why there is none
	pause   time.Duration
	retryAt time.Time
	checkAt time.Time
	homes   byte // as last read
	resets  int  // of the chip, noticed and mended
	adrift  int  // the slot whose motor could not be switched off; none when all are off

	interrupt struct {
		err    error
		active bool
		tries  int
	}
	beam struct {
		err   error
		known bool
		dark  bool
		since time.Time // of the last edge
		falls int       // since the cycle's last sample
	}

	book   book
	job    *job
	unsent []modkit.Message
	ticket *modkit.Ticket // of the newest message handed over
	last   *record        // as reported
	said   string         // the reported document
}

func newRunner(ctx context.Context, m *Module, bay *modkit.Bay, w wiring) *runner {
	t := time.NewTimer(0)
	t.Stop()
	return &runner{m: m, bay: bay, ctx: ctx, wiring: w, timer: t, pause: firstPause, adrift: none,
		broken: errors.New("the bus has not been opened yet")}
}

// recall reads the state of an earlier run. A transaction that it had begun is never begun again.
func (r *runner) recall() {
	if len(r.bay.State) == 0 {
		return
	}
	b, err := parseBook(r.bay.State)
	if err != nil {
		r.bay.Log.Error("the state of the earlier run is unreadable: its transactions are not known any more", "error", err)
		r.post(map[string]any{"event": "state_lost"})
		return
	}
	r.book = b
	if b.pending() != nil {
		r.last = r.settle(r.book.interrupted())
	}
}

// arm sets the timer for whatever comes next by itself.
func (r *runner) arm(now time.Time) {
	next := now.Add(checkEvery)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	switch {
	case r.chip == nil:
		sooner(r.retryAt)
	case r.job == nil: // a job looks at the chip by itself
		sooner(r.checkAt)
		if r.interrupt.active && r.interrupt.tries < intTries {
			sooner(now.Add(sampleTime))
		}
	}
	if len(r.unsent) > 0 {
		sooner(now.Add(time.Second))
	}
	if r.beam.dark && now.Sub(r.beam.since) < beamFault {
		sooner(r.beam.since.Add(beamFault))
	}
	if j := r.job; j != nil {
		sooner(j.until)
		if j.stage == moving {
			sooner(now.Add(sampleTime))
			sooner(j.cycle.deadline())
		}
	}
	r.timer.Reset(max(0, next.Sub(now)))
}

// tick does what is due.
func (r *runner) tick(now time.Time) {
	if r.chip == nil && !now.Before(r.retryAt) {
		r.connect(now)
	}
	r.flush()
	if r.job != nil {
		r.advance(now)
		return
	}
	if r.chip == nil {
		return
	}
	switch {
	case !now.Before(r.checkAt):
		r.ready(now)
	case r.interrupt.active && r.interrupt.tries < intTries:
		r.interrupt.tries++
		r.look(now, none)
	}
}

// connect opens the bus and programs the chip: its first act switches the motors off, whatever ran before.
func (r *runner) connect(now time.Time) {
	bus, err := r.bay.Wires.I2C(r.ctx, r.wiring.Bus)
	if err != nil {
		r.broken = err
		r.retryLater(now)
		return
	}
	r.chip = &expander{bus: bus, addr: uint16(r.wiring.Address)}
	if err := r.chip.begin(r.ctx); err != nil {
		r.lose(now, err)
		return
	}
	r.adrift, r.broken, r.pause = none, nil, firstPause
	r.checkAt = now.Add(checkEvery)
	r.look(now, none)
}

func (r *runner) retryLater(now time.Time) {
	if r.adrift != none {
		r.retryAt = now.Add(adriftPause)
		return
	}
	r.retryAt = now.Add(r.pause)
	r.pause = min(2*r.pause, lastPause)
}

// lose gives the bus up, after a last try to switch the motors off.
func (r *runner) lose(now time.Time, err error) {
	if r.ctx.Err() != nil {
		return // it is the run that ends, and stop does the rest
	}
	r.broken = err
	r.off()
	if cerr := r.chip.bus.Close(); cerr != nil && !errors.Is(cerr, hal.ErrGone) {
		r.bay.Log.Warn("close the bus", "error", cerr)
	}
	r.chip = nil
	r.retryLater(now)
}

// off switches the motors off, also after the end of the run.
func (r *runner) off() {
	if r.chip == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), offLimit)
	defer cancel()
	if err := r.chip.drive(ctx, none); err != nil && !errors.Is(err, errForgot) {
		r.bay.Log.Error("the motors are not certainly off", "error", err)
		if j := r.job; j != nil && j.stage == moving {
			r.adrift = j.slot
		}
		return
	}
	r.adrift = none
}

// ready makes sure, while nothing turns, that the chip is as programmed, and programs it anew where it is not. It says whether
// a motor may be turned.
func (r *runner) ready(now time.Time) error {
	if r.chip == nil {
		return r.broken
	}
	r.checkAt = now.Add(checkEvery)
	err := r.chip.verify(r.ctx, 0)
	if errors.Is(err, errForgot) {
		err = r.mend(err)
	}
	if err == nil {
		r.homes, err = r.chip.ports(r.ctx, 0, r.homes)
	}
	if err != nil {
		r.lose(now, err)
	}
	return err
}

// mend programs a chip that has lost its configuration.
func (r *runner) mend(why error) error {
	r.resets++
	r.bay.Log.Warn("the expander is programmed anew", "because", why)
	return r.chip.begin(r.ctx)
}

// look reads the home switches, with the motor of a slot on or none, and ends the interrupt by that.
func (r *runner) look(now time.Time, slot int) error {
	homes, err := r.chip.ports(r.ctx, motorBits(slot), r.homes)
	if errors.Is(err, errForgot) {
		if merr := r.mend(err); merr != nil {
			r.lose(now, merr)
		}
		return err
	}
	if err != nil {
		r.lose(now, err)
		return err
	}
	r.homes = homes
	return nil
}

// see takes in what a watcher saw.
func (r *runner) see(s sight) {
	if s.line == lineInterrupt {
		r.interrupt.err, r.interrupt.active = s.err, s.err == nil && s.level
		if !r.interrupt.active || s.edge {
			r.interrupt.tries = 0
		}
		return
	}
	b := &r.beam
	b.err = s.err
	if s.err != nil {
		b.known, b.dark = false, false
		return
	}
	// Edges that were lost are edges: something passed.
	if s.edge && (s.level && !b.dark || s.missed) && (b.since.IsZero() || s.at.Sub(b.since) >= beamGap) {
		b.falls++
	}
	if s.edge || s.level {
		b.since = s.at
	}
	b.known, b.dark = true, s.level
}

// beamTrouble says why the beam cannot be believed; "" when it can.
func (r *runner) beamTrouble() string {
	switch {
	case r.wiring.Beam == "":
		return "there is no drop sensor in the wiring"
	case r.beam.err != nil:
		return r.beam.err.Error()
	case !r.beam.known:
		return "the drop sensor has not been read yet"
	case r.beam.dark:
		return "the drop sensor is interrupted at rest: clean and align it, look for a stuck product"
	}
	return ""
}

// post hands a message over, with the state as of it, now or when the agent takes it.
func (r *runner) post(body any) {
	r.unsent = append(r.unsent, modkit.Message{Body: must(body), State: must(r.book), Priority: modkit.High, At: time.Now()})
	r.flush()
}

func (r *runner) flush() {
	for len(r.unsent) > 0 {
		t, err := r.bay.Send(r.unsent[0])
		if errors.Is(err, modkit.ErrFull) || errors.Is(err, modkit.ErrEnded) {
			return
		}
		if err != nil { // too large: the bounds of the book rule it out, so it would be a bug, and repeating it no help
			r.bay.Log.Error("a message cannot be handed over and is dropped", "error", err)
		} else {
			r.ticket = t
		}
		r.unsent = r.unsent[1:]
	}
}

// accepted is closed when the newest message is durable, or refused, and a job waits for that; else it blocks for ever.
func (r *runner) accepted() <-chan struct{} {
	j := r.job
	if j == nil || j.stage != recording && j.stage != closing || r.ticket == nil || len(r.unsent) > 0 {
		return nil
	}
	return r.ticket.Done()
}

// stop ends everything, motors first.
func (r *runner) stop() {
	r.off()
	r.timer.Stop()
	if j := r.job; j != nil {
		now := time.Now()
		switch {
		case j.kind == kindVend && j.stage == recording:
			rec := r.book.interrupted()
			r.book.Blocked[rec.Slot] = "" // no motor has turned
			r.settle(rec)
			j.answer = resultAnswer(rec, false)
		case j.kind == kindVend && j.stage == moving:
			r.settle(r.book.close(j.cycle.cut(now)))
			j.answer = failed(503, errEnding) // whether the result will be durable is not known: the next run answers
		case j.stage != closing:
			j.answer = failed(503, errEnding)
		}
		r.reply()
	}
	if r.chip != nil {
		if err := r.chip.bus.Close(); err != nil && !errors.Is(err, hal.ErrGone) {
			r.bay.Log.Warn("close the bus", "error", err)
		}
		r.chip = nil
	}
}

// settle tells the hub how a transaction ended.
func (r *runner) settle(rec record) *record {
	r.post(struct {
		Event string `json:"event"`
		record
	}{"vend", rec})
	r.last = &rec
	return &rec
}

// say brings health and reported properties up to date.
func (r *runner) say(now time.Time) {
	r.bay.Health(r.health(now))
	if r.job != nil && r.job.stage == moving {
		return // the home switches move: what they say then is no news
	}
	doc := map[string]any{
		"expander": map[string]any{"ok": r.chip != nil, "resets": r.resets, "interrupt_stuck": r.interrupt.tries >= intTries},
		"slots":    r.slots(),
	}
	if r.wiring.Beam != "" {
		doc["beam"] = map[string]any{"ok": r.beam.known && !r.beam.dark, "interrupted": r.beam.dark}
	}
	if r.last != nil {
		doc["last_vend"] = r.last
	}
	text, err := json.Marshal(doc)
	if err == nil && string(text) != r.said {
		r.said = string(text)
		r.bay.Report(doc)
	}
}

// slotState is one slot as reported.
type slotState struct {
	State string `json:"state"` // ready, blocked, disabled
	Fault string `json:"fault,omitempty"`
	Home  *bool  `json:"home,omitempty"`
}

func (r *runner) slots() []slotState {
	list := make([]slotState, r.wiring.Slots)
	for i := range list {
		list[i] = slotState{State: "ready", Fault: r.book.Blocked[i]}
		switch {
		case r.m.set.disabled(i):
			list[i].State = "disabled"
		case list[i].Fault != "":
			list[i].State = "blocked"
		}
		if r.chip != nil {
			home := r.homes&(1<<i) != 0
			list[i].Home = &home
		}
	}
	return list
}

// health says what a technician should look at, the worst first.
func (r *runner) health(now time.Time) modkit.Health {
	where := fmt.Sprintf("%#02x on %s", r.wiring.Address, r.wiring.Bus)
	bad := func(state modkit.HealthState, format string, args ...any) modkit.Health {
		return modkit.Health{State: state, Detail: "vend: " + fmt.Sprintf(format, args...)}
	}
	switch {
	case r.adrift != none:
		return bad(modkit.Faulted, "expander %s: %v: the motor of slot %d may still turn: cut its supply", where, r.broken, r.adrift)
	case r.chip == nil:
		return bad(modkit.Faulted, "expander %s: %v: %s", where, r.broken, nextStep(r.broken))
	case r.interrupt.err != nil:
		return bad(modkit.Degraded, "%v: %s; the switches are polled meanwhile", r.interrupt.err, nextStep(r.interrupt.err))
	case r.interrupt.tries >= intTries:
		return bad(modkit.Degraded, "the interrupt line stays low although the ports have been read: look for a short circuit of INTA; the switches are polled meanwhile")
	case r.wiring.Beam != "" && r.beam.err != nil:
		return bad(modkit.Degraded, "%v: %s", r.beam.err, nextStep(r.beam.err))
	case r.beam.dark && now.Sub(r.beam.since) >= beamFault:
		return bad(modkit.Degraded, "%s", r.beamTrouble())
	}
	for i, fault := range r.book.Blocked {
		if fault != "" && i < r.wiring.Slots {
			return bad(modkit.Degraded, "slot %d is blocked (%s): look at its spiral, then call testMotor or homeAll", i, fault)
		}
	}
	return modkit.Health{State: modkit.OK, Detail: "vend: the expander answers"}
}

func nextStep(err error) string {
	switch {
	case errors.Is(err, hal.ErrAbsent):
		return "check wiring, power and address"
	case errors.Is(err, hal.ErrGone):
		return "check that the adapter or chip is there, and its plug"
	case errors.Is(err, hal.ErrTimeout):
		return "something holds the bus: check the pull-ups, and switch the machine off and on"
	case errors.Is(err, hal.ErrDenied):
		return "add the agent's user to the groups i2c and gpio"
	case errors.Is(err, hal.ErrBusy):
		return "find out who holds it: gpioinfo, or a kernel driver that has the address"
	case errors.Is(err, hal.ErrBadURI), errors.Is(err, hal.ErrUnsupported):
		return "correct the wiring in the device file"
	case errors.Is(err, errForgot):
		return "look for interference by motors and relays: capacitors, ground, cable"
	}
	return "check the wiring"
}
