// Package cctalk takes coins with a ccTalk coin acceptor on a serial line: Azkoyen Modular X6, Crane SR3 and SR5,
// Alberici AL55/66, CPI v² colibri and others.
//
// Sources: ccTalk Serial Communication Protocol, Generic Specification 4.7, parts 1 to 3 (Crane Payment Solutions);
// Azkoyen Modular X6 ccTalk manual; Money Controls SR3 (TSP005) and SR5 (TSP073) manuals; Alberici AL55/66 manual.
package cctalk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// Module is the acceptor's module. All but the handover belongs to Run's goroutine, or to the caller of Apply and
// Invoke while Run does not run.
type Module struct {
	handover modkit.Handover
	set      settings
	stats    stats
	session  *session // the acceptor that answers; nil while none does
}

// New returns the module. It touches no hardware.
func New() *Module {
	return &Module{set: defaults}
}

// Describe implements modkit.Module.
func (m *Module) Describe() modkit.Description {
	return modkit.Description{
		Name: "cctalk", Version: "0.1.0", Settings: settingsSchema, Wiring: wiringSchema,
		Methods: []modkit.Method{
			{Name: "selfTest", Summary: "run the acceptor's self-check and answer its fault code", Deadline: 10 * time.Second},
			{Name: "reset", Summary: "reset the acceptor, after taking what it has counted", Deadline: 10 * time.Second},
			{Name: "readCoinTable", Summary: "read the names and values of the coins it knows", Deadline: 20 * time.Second},
			{Name: "commsStats", Summary: "what went wrong on the line, counted at both ends", Deadline: 10 * time.Second},
		},
		Wires: []modkit.Wire{{Name: "port", Kind: modkit.Serial}},
	}
}

// Apply implements modkit.Module. With an acceptor at hand, its inhibit mask is set before the answer.
func (m *Module) Apply(ctx context.Context, s modkit.Settings) (modkit.Applied, error) {
	return modkit.Do(ctx, &m.handover, func() (modkit.Applied, error) {
		next, applied, err := decodeSettings(s.Doc, m.set)
		if err != nil {
			return nil, err
		}
		old := m.set
		m.set = next
		if m.session == nil {
			return applied, nil
		}
		if err := m.session.adopt(old); err != nil {
			why := fmt.Sprintf("the acceptor does not take the mask: %v", err)
			m.set.Enabled = refuse(applied, "enabled", old.Enabled, why)
			m.set.InhibitMask = refuse(applied, "inhibit_mask", old.InhibitMask, why)
		}
		return applied, nil
	})
}

// Invoke implements modkit.Module.
func (m *Module) Invoke(ctx context.Context, method string, payload json.RawMessage) (modkit.Answer, error) {
	f := map[string]func() modkit.Answer{
		"selfTest": m.selfTest, "reset": m.reset, "readCoinTable": m.readCoinTable, "commsStats": m.commsStats,
	}[method]
	if f == nil {
		return modkit.Answer{}, modkit.ErrNoMethod
	}
	var none struct{}
	if err := modkit.Decode(payload, &none); err != nil {
		return failed(400, fmt.Errorf("%s takes no arguments: %w", method, err)), nil
	}
	return modkit.Do(ctx, &m.handover, func() (modkit.Answer, error) { return f(), nil })
}

// Run implements modkit.Module. It lives on without an acceptor, or with one that comes and goes.
func (m *Module) Run(ctx context.Context, bay *modkit.Bay) error {
	w, err := decodeWiring(bay.Wiring)
	if err != nil {
		return err
	}
	calls, release := m.handover.Own()
	defer release()
	r := &runner{m: m, bay: bay, wiring: w, calls: calls, queue: queue{log: bay.Log, bay: bay}}
	r.recall()
	return r.loop(ctx)
}

// How long the module waits before it opens the line again.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 2 * time.Second
)

// runner is one Run: what outlives a connection to the acceptor.
type runner struct {
	m      *Module
	bay    *modkit.Bay
	wiring wiring
	calls  <-chan func()
	queue  queue

	record *record            // what was last seen of the acceptor; nil at the first start ever
	gap    string             // why the state could not be read; "" otherwise
	hold   bool               // no coins until the agent has the first record: they could not be credited after a crash
	asked  [positions + 1]int // how often a coin's name was asked for and nothing came
}

// recall reads the state of an earlier run.
func (r *runner) recall() {
	if len(r.bay.State) == 0 {
		return
	}
	rec, err := parseRecord(r.bay.State)
	if err != nil {
		r.gap = gapState
		r.bay.Log.Error("the state of the earlier run is unreadable: what it missed will not be credited", "error", err)
		return
	}
	r.record = &rec
}

func parseRecord(p []byte) (record, error) {
	var rec record
	if err := json.Unmarshal(p, &rec); err != nil {
		return record{}, fmt.Errorf("cctalk: state %q: %w", p, err)
	}
	if rec.Serial < -1 || rec.Serial > 0xffffff {
		return record{}, fmt.Errorf("cctalk: state %q: serial number out of range", p)
	}
	return rec, nil
}

// loop connects, works, and connects again, until ctx ends.
func (r *runner) loop(ctx context.Context) error {
	pause := firstPause
	starting := true // the acceptor may have got its power together with this machine, or with its plug
	for {
		worked, err := r.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if starting && errors.Is(err, errSilent) {
			starting = false
			if !r.wait(ctx, powerUp) {
				return nil
			}
			continue
		}
		starting = errors.Is(err, hal.ErrGone)
		r.bay.Health(modkit.Health{State: modkit.Faulted, Detail: r.advice(err)})
		if worked {
			pause = firstPause
		}
		if !r.wait(ctx, pause) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// connect opens the line and works until the acceptor or the line is gone. worked says whether it ever answered.
func (r *runner) connect(ctx context.Context) (worked bool, err error) {
	line, err := r.bay.Wires.Serial(ctx, r.wiring.Port, hal.SerialMode{})
	if err != nil {
		return false, err
	}
	defer func() {
		r.m.session = nil
		if cerr := line.Close(); cerr != nil && !errors.Is(cerr, hal.ErrGone) {
			r.bay.Log.Warn("close the line", "error", cerr)
		}
	}()
	s := &session{runner: r, ctx: ctx, lacks: make(map[byte]bool), bus: bus{
		line: line, address: byte(r.wiring.Address), crc: r.wiring.Checksum == "crc16", echo: r.wiring.Echo, stats: &r.m.stats,
	}}
	if err := s.begin(); err != nil {
		return false, err
	}
	r.m.session = s
	return true, s.work()
}

// wait lets d pass, serving calls and the queue meanwhile; false when ctx ends.
func (r *runner) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		case call := <-r.calls:
			call()
		case <-r.queue.head():
			r.queue.settle()
		}
	}
}

// advice is an error with the next step of whoever stands before the machine.
func (r *runner) advice(err error) string {
	step := "check the acceptor's supply and the data wire, and address and checksum in the wiring"
	switch {
	case errors.Is(err, hal.ErrGone), errors.Is(err, hal.ErrAbsent):
		step = "plug the adapter in again, it is tried until then"
	case errors.Is(err, hal.ErrDenied):
		step = "add the agent's user to the group dialout"
	case errors.Is(err, hal.ErrBusy):
		step = "stop the program that holds the port"
	case errors.Is(err, hal.ErrBadURI), errors.Is(err, hal.ErrUnsupported):
		step = "correct port in the wiring"
	case errors.Is(err, errEcho), errors.Is(err, errNoise):
		step = "check the data wire and its pull-up, and echo in the wiring"
	}
	return fmt.Sprintf("cctalk: acceptor at address %d on %s: %v: %s", r.wiring.Address, r.wiring.Port, err, step)
}
