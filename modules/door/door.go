// Package door watches a service door's switch and, where there is one, the delivery beam of a vending machine.
//
// Both are plain contacts on digital inputs: a reed or micro switch, and the open-collector output of a light barrier.
// A contact bounces for 5 to 30 ms, which the module waits out in software, so that the time can be changed while it
// runs. A falling product interrupts the beam for 5 to 100 ms.
package door

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// outputOpen is what other components may know of the door.
const outputOpen = "open"

const version = "0.1.0"

// Module is the door module. Make it with New.
type Module struct {
	handover modkit.Handover

	// Run's goroutine owns what follows; Apply and Invoke go there through handover.
	set settings
	bay *modkit.Bay // nil while not running
	job job
}

// New returns a module that touches no wire before Run.
func New() *Module { return &Module{set: defaults} }

// Describe says what the module is.
func (m *Module) Describe() modkit.Description {
	return modkit.Description{
		Name:     "door",
		Version:  version,
		Settings: settingsSchema,
		Wiring:   wiringSchema,
		Methods: []modkit.Method{
			{Name: "readState", Summary: "the door's state now, counts, and when it last moved", Deadline: 5 * time.Second},
		},
		Wires: []modkit.Wire{
			{Name: "switch", Kind: modkit.DigitalIn},
			{Name: "beam", Kind: modkit.DigitalIn, Optional: true},
		},
		Outputs: []modkit.OutputPort{{Name: outputOpen, Summary: "the door is open; unknown while its line cannot be read", Type: modkit.Boolean}},
	}
}

// Apply sets the settings; they count from the next edge on.
func (m *Module) Apply(ctx context.Context, s modkit.Settings) (modkit.Applied, error) {
	return modkit.Do(ctx, &m.handover, func() (modkit.Applied, error) {
		set, applied, err := decodeSettings(s.Doc, m.set)
		if err != nil {
			return nil, err
		}
		m.set = set
		m.job.rearm(set)
		return applied, nil
	})
}

// state is readState's answer.
type state struct {
	Open       *bool     `json:"open"`                  // null before the first reading
	Since      time.Time `json:"since,omitzero"`        // of the door being so
	DurationMS int64     `json:"duration_ms"`           // likewise
	Opened     int       `json:"opened_count"`          // since the module's start, as the others
	Deliveries int       `json:"delivery_count"`        //
	Bounces    int       `json:"bounces"`               // edges that were waited out
	Missed     int       `json:"missed_edges"`          // edges that the kernel had no room for
	Alarm      bool      `json:"alarm"`                 // open for too long
	BeamBroken *bool     `json:"beam_broken,omitempty"` // where there is a beam
}

// Invoke answers readState.
func (m *Module) Invoke(ctx context.Context, method string, _ json.RawMessage) (modkit.Answer, error) {
	if method != "readState" {
		return modkit.Answer{}, modkit.ErrNoMethod
	}
	return modkit.Do(ctx, &m.handover, func() (modkit.Answer, error) {
		payload, err := json.Marshal(m.job.state(time.Now()))
		return modkit.Answer{Status: 200, Payload: payload}, err
	})
}

// Run watches both lines until ctx ends. A line that cannot be opened, or goes, is opened again.
func (m *Module) Run(ctx context.Context, bay *modkit.Bay) error {
	w, err := decodeWiring(bay.Wiring)
	if err != nil {
		return err
	}
	calls, release := m.handover.Own()
	defer release()
	m.bay = bay
	m.job = newJob(m.set, w.Beam != "", m.send, bay.Output)
	defer m.job.stop()

	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan sight)
	watchers := 1
	go watch(ctx, bay.Wires, lineSwitch, w.Switch, w.mode(w.ActiveLow), seen)
	if w.Beam != "" {
		watchers++
		go watch(ctx, bay.Wires, lineBeam, w.Beam, w.mode(w.BeamActiveLow), seen)
	}
	defer func() { // the watchers end before Run does
		cancel()
		for watchers > 0 {
			if s := <-seen; s.ended {
				watchers--
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case call := <-calls:
			call()
		case s := <-seen:
			if s.ended {
				watchers--
				continue
			}
			m.job.see(s)
			bay.Health(m.job.health())
		case <-m.job.settle.C:
			m.job.settled(time.Now())
		case <-m.job.alarm.C:
			m.job.tooLong(time.Now())
		case <-m.job.dark.C:
			bay.Health(m.job.health())
		}
	}
}

// send hands a message over. The queue is full only when the agent has not answered for long: then the newest state
// matters, and the counters in the next message tell what is missing.
func (m *Module) send(e event, p modkit.Priority, at time.Time) {
	body, err := json.Marshal(e)
	if err != nil {
		m.bay.Log.Error("a message has no JSON form, this is a bug of the module", "error", err)
		return
	}
	if _, err := m.bay.Send(modkit.Message{Body: body, Priority: p, At: at}); err != nil {
		m.bay.Log.Warn("a message is not sent", "event", e.Event, "error", err)
	}
}

// Lines of the module, as people know them.
const (
	lineSwitch = "door switch"
	lineBeam   = "delivery beam"
)

// sight is what a watcher has to say of its line: a level read, an edge, or an error.
type sight struct {
	line  string
	level bool
	edge  bool // level is an edge's; else it was read, and what came before is unknown
	at    time.Time
	seq   uint32
	err   error
	ended bool // the watcher's last word
}

// Back-off between tries to open a line.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// watch reports a line's level and edges until ctx ends. Its last sight is ended, which its receiver waits for.
func watch(ctx context.Context, wires *hal.Wires, name, uri string, mode hal.InputMode, seen chan<- sight) {
	defer func() { seen <- sight{line: name, ended: true} }()
	retry := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := follow(ctx, wires, name, uri, mode, seen)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		seen <- sight{line: name, at: time.Now(), err: fmt.Errorf("door: %s on %s: %w", name, uri, err)}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// follow opens a line and reports it until it fails.
func follow(ctx context.Context, wires *hal.Wires, name, uri string, mode hal.InputMode, seen chan<- sight) error {
	line, err := wires.DigitalIn(ctx, uri, mode)
	if err != nil {
		return err
	}
	defer line.Close()
	level, err := line.Read(ctx)
	if err != nil {
		return err
	}
	seen <- sight{line: name, level: level, at: time.Now()}
	for last := uint32(0); ; {
		e, err := line.Next(ctx)
		if err != nil {
			return err
		}
		if e.Seq > last+1 { // edges were lost, and nobody knows which: the line itself knows where it stands
			if e.Level, err = line.Read(ctx); err != nil {
				return err
			}
		}
		last = e.Seq
		seen <- sight{line: name, level: e.Level, edge: true, at: e.At, seq: e.Seq}
	}
}
