package vend

import (
	"errors"
	"slices"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

const (
	recordLimit = 5 * time.Second  // for the agent to write a transaction down; then no motor turns
	closeLimit  = 3 * time.Second  // for it to write the result down; then the answer goes out all the same
	beamTest    = 10 * time.Second // of testBeam
)

// Fault of a transaction that could not be written down, or lost its expander meanwhile: it is over, and nothing has moved.
const faultNotBegun = "not_begun"

// kind is what a job is for.
type kind int

const (
	kindVend kind = iota
	kindHome
	kindMotor
	kindBeam
)

// stage is where a job stands.
type stage int

const (
	recording stage = iota // of a vend: until the agent has its transaction on disk
	moving
	listening // of testBeam
	closing   // until the agent has the result on disk
)

// job is what the module does; there is one at most, so one motor at most.
type job struct {
	kind    kind
	stage   stage
	slot    int
	plan    plan
	cycle   cycle
	until   time.Time // of recording, listening and closing
	rest    []int     // of homeAll: the slots after this one
	turned  []motorResult
	answer  modkit.Answer
	waiters []promise
}

// motorResult is what became of a spiral, for a technician.
type motorResult struct {
	Slot   int    `json:"slot"`
	Result string `json:"result"`
	Fault  string `json:"fault,omitempty"`
	TurnMS int64  `json:"turnMs,omitempty"`
	Drops  int    `json:"drops,omitempty"`
}

// start puts a job in, and promises its answer.
func (r *runner) start(j *job) promise {
	p := make(promise, 1)
	j.waiters = []promise{p}
	r.job = j
	return p
}

// reply answers whoever waits for the job, which is over.
func (r *runner) reply() {
	for _, p := range r.job.waiters {
		p <- r.job.answer
	}
	r.job = nil
}

func (s settings) disabled(slot int) bool { return slices.Contains(s.DisabledSlots, slot) }

// resultAnswer is a transaction's answer; it is the same each time that it is asked for, but for repeated.
func resultAnswer(rec record, repeated bool) modkit.Answer {
	status := 200
	if rec.Result != resultOK {
		status = 502
	}
	return modkit.Answer{Status: status, Payload: must(struct {
		record
		Repeated bool `json:"repeated,omitempty"`
	}{rec, repeated})}
}

// vend answers a transaction that there was, joins one that runs, or begins a new one. What is refused has not been begun:
// its id may be used again.
func (r *runner) vend(o order) promise {
	slot := *o.Slot
	switch rec, known, forgotten := r.book.find(o.TX); {
	case forgotten:
		return refused(410, "transaction %s was handled before; its result is not kept any more", o.TX)
	case known && rec.Slot != slot:
		return refused(409, "transaction %s was for slot %d", o.TX, rec.Slot)
	case known && rec.done() && (r.job == nil || r.job.kind != kindVend || r.book.Recent[len(r.book.Recent)-1].TX != o.TX):
		return promised(resultAnswer(rec, true))
	case known:
		p := make(promise, 1)
		r.job.waiters = append(r.job.waiters, p)
		return p
	}
	now := time.Now()
	trouble := r.beamTrouble()
	switch {
	case r.job != nil:
		return refused(409, "another motor turns: try again when it has ended")
	case slot >= r.wiring.Slots:
		return refused(400, "there is no slot %d: the wiring has %d, from 0 on", slot, r.wiring.Slots)
	case !r.m.set.Enabled:
		return refused(409, "vends are disabled: setting enabled")
	case r.m.set.disabled(slot):
		return refused(409, "slot %d is disabled: setting disabled_slots", slot)
	case r.book.Blocked[slot] != "":
		return refused(409, "slot %d is blocked (%s): look at its spiral, then call testMotor or homeAll", slot, r.book.Blocked[slot])
	case trouble != "" && (r.m.set.DropSensorRequired || r.beam.dark):
		return refused(409, "%s", trouble)
	case len(r.unsent) > 0:
		return refused(503, "the agent takes no messages at the moment")
	}
	if err := r.ready(now); err != nil {
		return refused(409, "the expander is not ready: %v", err)
	}
	r.book.open(o.TX, slot)
	r.post(map[string]any{"event": "vend_started", "txId": o.TX, "slot": slot})
	plan := r.m.set.plan(r.book.TurnMS[slot], trouble == "")
	return r.start(&job{kind: kindVend, stage: recording, slot: slot, plan: plan, until: now.Add(recordLimit)})
}

// free says whether a technician's job may begin; else what to answer.
func (r *runner) free(now time.Time) promise {
	if r.job != nil {
		return refused(409, "another motor turns: try again when it has ended")
	}
	if err := r.ready(now); err != nil {
		return refused(409, "the expander is not ready: %v", err)
	}
	return nil
}

func (r *runner) homeAll(order) promise {
	now := time.Now()
	if p := r.free(now); p != nil {
		return p
	}
	j := &job{kind: kindHome}
	for i := range r.wiring.Slots {
		j.rest = append(j.rest, i)
	}
	p := r.start(j)
	r.nextHome(now)
	return p
}

func (r *runner) testMotor(o order) promise {
	now := time.Now()
	if *o.Slot >= r.wiring.Slots {
		return refused(400, "there is no slot %d: the wiring has %d, from 0 on", *o.Slot, r.wiring.Slots)
	}
	if p := r.free(now); p != nil {
		return p
	}
	p := r.start(&job{kind: kindMotor, slot: *o.Slot, plan: r.m.set.plan(0, false)})
	r.move(now, probing)
	return p
}

func (r *runner) testBeam(order) promise {
	switch trouble := r.beamTrouble(); {
	case r.job != nil:
		return refused(409, "a motor turns: try again when it has ended")
	case trouble != "":
		return promised(modkit.Answer{Status: 502, Payload: must(map[string]any{"ok": false, "error": trouble})})
	}
	r.beam.falls = 0
	return r.start(&job{kind: kindBeam, stage: listening, until: time.Now().Add(beamTest)})
}

// move begins the job's cycle.
func (r *runner) move(now time.Time, m mode) {
	j := r.job
	r.beam.falls = 0
	j.stage, j.until = moving, time.Time{}
	j.cycle = begin(j.plan, m, now, r.homes&(1<<j.slot) != 0)
	r.act(now, false)
}

// nextHome goes on with the next slot of homeAll.
func (r *runner) nextHome(now time.Time) {
	j := r.job
	j.slot, j.rest = j.rest[0], j.rest[1:]
	j.plan = r.m.set.plan(r.book.TurnMS[j.slot], false)
	r.move(now, homing)
}

// advance brings the job on.
func (r *runner) advance(now time.Time) {
	j := r.job
	var durable, answered bool
	if r.ticket != nil && len(r.unsent) == 0 {
		select {
		case <-r.ticket.Done():
			answered, durable = true, r.ticket.Err() == nil
		default:
		}
	}
	late := !j.until.IsZero() && !now.Before(j.until)
	switch j.stage {
	case recording:
		switch {
		case answered && durable && r.chip != nil:
			r.move(now, vending)
		case answered || late:
			r.abandon(now)
		}
	case moving:
		r.sample(now)
	case listening:
		if r.beam.falls > 0 || late {
			j.answer = modkit.Answer{Status: 200, Payload: must(map[string]any{"ok": r.beam.falls > 0, "interruptions": r.beam.falls})}
			r.reply()
		}
	case closing:
		if answered || late {
			r.reply()
		}
	}
}

// abandon ends a transaction that is not certainly on disk, before anything has moved.
func (r *runner) abandon(now time.Time) {
	j := r.job
	rec := r.book.interrupted()
	r.book.Blocked[j.slot] = ""
	rec.Result, rec.Fault = resultFailed, faultNotBegun
	r.book.Recent[len(r.book.Recent)-1] = rec
	r.settle(rec)
	j.answer = resultAnswer(rec, false)
	j.stage, j.until = closing, now.Add(closeLimit)
}

// sample looks at the switches and the beam, and lets the cycle decide.
func (r *runner) sample(now time.Time) {
	j := r.job
	on := none
	if j.cycle.motor() {
		on = j.slot
	}
	if r.chip != nil {
		if err := r.look(now, on); r.ctx.Err() != nil {
			return
		} else if err != nil {
			j.cycle = j.cycle.fail(now, faultOf(err))
			r.act(now, on != none)
			return
		}
	}
	was := j.cycle.motor()
	j.cycle = j.cycle.step(sample{at: now, home: r.homes&(1<<j.slot) != 0, dropped: r.beam.falls > 0})
	for ; r.beam.falls > 1; r.beam.falls-- { // two at once
		j.cycle.drops++
	}
	r.beam.falls = 0
	r.act(now, was)
}

func faultOf(err error) string {
	if errors.Is(err, errForgot) {
		return faultReset
	}
	return faultBus
}

// act drives the motor as the cycle wants it, and ends the job with the cycle. was is whether the motor is on already.
func (r *runner) act(now time.Time, was bool) {
	j := r.job
	if on := j.cycle.motor(); on != was && r.chip != nil {
		slot := none
		if on {
			slot = j.slot
		}
		if err := r.chip.drive(r.ctx, slot); r.ctx.Err() != nil {
			return
		} else if err != nil {
			if errors.Is(err, errForgot) {
				if merr := r.mend(err); merr != nil {
					r.lose(now, merr)
				}
			} else {
				r.lose(now, err)
			}
			j.cycle = j.cycle.fail(now, faultOf(err))
		}
	}
	if j.cycle.phase == ended {
		r.finish(now)
	}
}

// finish writes down how the cycle ended.
func (r *runner) finish(now time.Time) {
	j, c := r.job, r.job.cycle
	if j.kind == kindVend {
		rec := r.book.close(c)
		r.settle(rec)
		j.answer = resultAnswer(rec, false)
		j.stage, j.until = closing, now.Add(closeLimit)
		return
	}
	j.turned = append(j.turned, motorResult{Slot: j.slot, Result: c.result, Fault: c.fault, TurnMS: c.took.Milliseconds(), Drops: c.drops})
	welded := r.book.Blocked[j.slot] == faultStuckHome && j.kind == kindHome // a closed switch is no proof that it opens
	switch {
	case c.fault != "":
		r.book.Blocked[j.slot] = c.fault
	case c.result == resultOK && !welded:
		r.book.Blocked[j.slot] = ""
	}
	r.book.learn(j.slot, c)
	if len(j.rest) > 0 && r.chip != nil {
		r.nextHome(now)
		return
	}
	name, status := "motor_tested", 200
	var doc any = j.turned[0]
	if j.kind == kindHome {
		name, doc = "homed", map[string]any{"slots": j.turned}
	}
	if len(j.rest) > 0 || slices.ContainsFunc(j.turned, func(m motorResult) bool { return m.Result != resultOK }) {
		status = 502
	}
	r.post(map[string]any{"event": name, "slots": j.turned})
	j.answer = modkit.Answer{Status: status, Payload: must(doc)}
	j.stage, j.until = closing, now.Add(closeLimit)
}
