package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// beamFault is how long a beam may be interrupted before it is a fault: no product takes that long to fall.
const beamFault = 2 * time.Second

// event is a telemetry message.
type event struct {
	Event      string `json:"event"`                  // state (the first), opened, closed, open_too_long, delivery
	Open       *bool  `json:"open,omitempty"`         // of the door, after the event
	DurationMS *int64 `json:"duration_ms,omitempty"`  // how long the door had been as it was before
	Count      int    `json:"count,omitempty"`        // of opened and delivery events since the module's start
	Bounces    int    `json:"bounces,omitempty"`      // edges that were waited out since the last message
	Missed     int    `json:"missed_edges,omitempty"` // edges that nobody saw since the last message: something may be missing
}

// job turns what the lines do into events. It is used by one goroutine.
type job struct {
	set  settings
	send func(e event, p modkit.Priority, at time.Time)
	tell func(modkit.Output)

	known  bool // the door's state has been read
	open   bool // the settled state
	since  time.Time
	raw    bool      // the contact's level after the last edge
	moved  time.Time // the first edge of the train that is being waited out; zero when none is
	settle *time.Timer
	alarm  *time.Timer
	loud   bool // the alarm has been raised

	hasBeam  bool
	beam     *bool // nil before the first reading
	beamEdge time.Time
	dark     *time.Timer

	opened, deliveries   int
	bounces, missed      int // in all
	toldBounce, toldMiss int // in messages
	seq                  map[string]uint32
	failed               map[string]error
}

func newJob(set settings, hasBeam bool, send func(event, modkit.Priority, time.Time), tell func(modkit.Output)) job {
	idle := func() *time.Timer {
		t := time.NewTimer(0)
		t.Stop()
		return t
	}
	return job{set: set, hasBeam: hasBeam, send: send, tell: tell, settle: idle(), alarm: idle(), dark: idle(),
		seq: map[string]uint32{}, failed: map[string]error{}}
}

func (j *job) stop() {
	j.settle.Stop()
	j.alarm.Stop()
	j.dark.Stop()
}

// rearm puts new settings in force. An alarm that is due already comes at once.
func (j *job) rearm(set settings) {
	j.set = set
	if j.alarm != nil && j.known && j.open && !j.loud {
		j.arm()
	}
}

func (j *job) arm() {
	j.alarm.Stop()
	if j.set.OpenAlarmS > 0 {
		j.alarm.Reset(time.Until(j.since.Add(j.set.alarm())))
	}
}

// see takes in what a watcher saw.
func (j *job) see(s sight) {
	j.failed[s.line] = s.err
	if s.err != nil {
		j.seq[s.line] = 0 // a line that is opened again counts anew
		if s.line == lineSwitch {
			j.tell(modkit.Output{Name: outputOpen, At: s.at, Reason: s.err.Error()})
		}
		return
	}
	if s.edge {
		if last := j.seq[s.line]; s.seq > last+1 {
			j.missed += int(s.seq - last - 1)
		}
		j.seq[s.line] = s.seq
	}
	if s.line == lineBeam {
		j.seeBeam(s)
		return
	}
	j.seeSwitch(s)
}

func (j *job) seeSwitch(s sight) {
	j.raw = s.level
	if !s.edge { // read: nobody knows when it came to be so
		j.moved = time.Time{}
		j.settle.Stop()
		j.turn(s.level, s.at)
		j.output(s.at) // also where nothing has changed since the line was last read
		return
	}
	if j.moved.IsZero() {
		j.moved = s.at
	} else {
		j.bounces++
	}
	j.settle.Reset(j.set.debounce())
}

// settled is the end of a train of edges: the contact has been quiet for the debounce time.
func (j *job) settled(now time.Time) {
	if j.moved.IsZero() {
		return
	}
	at := j.moved
	j.moved = time.Time{}
	if j.known && j.raw == j.open {
		j.bounces++ // it went and came back
		return
	}
	if at.After(now) {
		at = now // the kernel's clock and ours may differ by a step of the wall clock
	}
	j.turn(j.raw, at)
}

// turn is a door that is known to be open or closed from at on.
func (j *job) turn(open bool, at time.Time) {
	if j.known && open == j.open {
		return
	}
	e := event{Event: "state", Open: &open}
	if j.known {
		ms := max(0, at.Sub(j.since).Milliseconds())
		e.DurationMS = &ms
		e.Event = "closed"
		if open {
			j.opened++
			e.Event, e.Count = "opened", j.opened
		}
	}
	j.known, j.open, j.since, j.loud = true, open, at, false
	j.alarm.Stop()
	if open {
		j.arm()
	}
	j.output(at)
	j.message(e, modkit.Normal, at)
}

// output tells other components how the door is. It holds until the next change: the agent sees when the module does not
// run any more.
func (j *job) output(at time.Time) {
	value := json.RawMessage("false")
	if j.open {
		value = json.RawMessage("true")
	}
	j.tell(modkit.Output{Name: outputOpen, Value: value, At: at, Quality: modkit.Good})
}

// tooLong raises the alarm, once for each time that the door is open.
func (j *job) tooLong(now time.Time) {
	if !j.known || !j.open || j.loud {
		return
	}
	j.loud = true
	ms := now.Sub(j.since).Milliseconds()
	j.message(event{Event: "open_too_long", Open: &j.open, DurationMS: &ms}, modkit.High, now)
}

func (j *job) seeBeam(s sight) {
	broken := s.level
	first := j.beam == nil
	again := !j.beamEdge.IsZero() && s.at.Sub(j.beamEdge) < j.set.beamGap()
	j.beam = &broken
	if s.edge || broken {
		j.beamEdge = s.at
	}
	if !broken {
		j.dark.Stop()
		return
	}
	j.dark.Reset(beamFault)
	if first || !s.edge || again {
		return // blocked at rest, or the same product once more
	}
	j.deliveries++
	if j.set.ReportBeam {
		j.message(event{Event: "delivery", Count: j.deliveries}, modkit.Normal, s.at)
	}
}

func (j *job) message(e event, p modkit.Priority, at time.Time) {
	e.Bounces, e.Missed = j.bounces-j.toldBounce, j.missed-j.toldMiss
	j.toldBounce, j.toldMiss = j.bounces, j.missed
	j.send(e, p, at)
}

func (j *job) state(now time.Time) state {
	s := state{Opened: j.opened, Deliveries: j.deliveries, Bounces: j.bounces, Missed: j.missed, Alarm: j.loud, BeamBroken: j.beam}
	if j.known {
		s.Open, s.Since, s.DurationMS = &j.open, j.since, now.Sub(j.since).Milliseconds()
	}
	return s
}

// health says whether both lines can be believed.
func (j *job) health() modkit.Health {
	if err := j.failed[lineSwitch]; err != nil {
		return modkit.Health{State: modkit.Faulted, Detail: fmt.Sprintf("%v; %s", err, nextStep(err))}
	}
	if err := j.failed[lineBeam]; err != nil {
		return modkit.Health{State: modkit.Degraded, Detail: fmt.Sprintf("%v; %s", err, nextStep(err))}
	}
	if j.beam != nil && *j.beam && time.Since(j.beamEdge) >= beamFault {
		return modkit.Health{State: modkit.Degraded,
			Detail: "door: delivery beam: interrupted at rest: clean and align it, look for a stuck product, check beam_active_low"}
	}
	return modkit.Health{State: modkit.OK}
}

func nextStep(err error) string {
	switch {
	case errors.Is(err, hal.ErrBusy):
		return "gpioinfo tells who holds the line"
	case errors.Is(err, hal.ErrDenied):
		return "put the agent's user into the group gpio"
	case errors.Is(err, hal.ErrGone):
		return "check that the chip is there (gpiodetect), and its plug"
	case errors.Is(err, hal.ErrBadURI):
		return "correct the wiring in the device file"
	}
	return "check the wiring"
}
