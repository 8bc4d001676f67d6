package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/rig"
)

// heard is what a hub has told of, over all its lives.
type heard struct {
	mu      sync.Mutex
	events  []admin.Event
	err     error         // why something may be missing
	changed chan struct{} // closed and replaced at each change
}

// listen adds what one life of the hub tells of, until stop.
func (h *heard) listen(ctx context.Context, hub *admin.Client) (stop context.CancelFunc, err error) {
	ctx, cancel := context.WithCancel(ctx)
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		err := hub.Events(ctx, func() { close(ready) }, h.add)
		if ctx.Err() == nil {
			h.fail(fmt.Errorf("the hub's events: %w", err))
		}
		done <- err
	}()
	select {
	case <-ready:
		return func() { cancel(); <-done }, nil
	case err := <-done:
		cancel()
		return nil, errors.Join(errors.New("the hub tells of no events"), err)
	}
}

func (h *heard) add(e admin.Event) error {
	if e.Kind == "lost" {
		h.fail(fmt.Errorf("this machine is too slow to hear all that happens at the hub: %s", e.Detail))
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	h.wake()
	return nil
}

func (h *heard) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = errors.Join(h.err, err)
	h.wake()
}

func (h *heard) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// all is what was heard until now, or why that is not all.
func (h *heard) all() ([]admin.Event, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events, h.changed, h.err
}

// wait waits for the tag of [torture.mark]: events come in the order in which they happened.
func (h *heard) wait(ctx context.Context, mark string) error {
	limit := time.After(patient)
	for seen := 0; ; {
		events, more, err := h.all()
		if err != nil {
			return err
		}
		for _, e := range events[seen:] {
			if e.Kind == "tags" && fields(e.Body)["mark"] == mark {
				return nil
			}
		}
		seen = len(events)
		select {
		case <-more:
		case <-limit:
			return fmt.Errorf("waited %s for the hub to tell of the tag %s", patient, mark)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ledger holds what was accepted and what the acceptor has counted against what the hub has received.
type ledger struct {
	accepted map[string]bool            // "component id", by the agent's log
	bodies   map[string]map[string]bool // by "component id"
	lacking  []string                   // accepted, and not received
	again    []time.Time                // when something came under an id that had come

	happened int // events of the acceptor, of which almost all are coins
	credited int // coins of these, by the acceptor
	baseline int // events before the module began to count; -1: it has not

	seqs                map[float64][]string // ids of the credits with one number
	credits, lost, gaps int                  // what messages tell of
	errors              int
}

// credit is what is read of the messages of the coins module.
type credit struct {
	Event   string
	Seq     float64
	Lost    int
	Last    *int `json:"last_counter"`
	Counter int
	Coins   map[string]struct{ Count int }
	Errors  map[string]int
}

func newLedger() *ledger {
	return &ledger{accepted: map[string]bool{}, bodies: map[string]map[string]bool{}, baseline: -1, seqs: map[float64][]string{}}
}

// ledger reads the agent's log first, and then waits for all that had come to the hub by then.
func (x *torture) ledger() (*ledger, error) {
	l := newLedger()
	var err error
	if l.accepted, err = accepted(x.agentLog.Name()); err != nil {
		return nil, err
	}
	s, err := rig.Client{Dir: x.hardware()}.Status(x.ctx)
	if err != nil {
		return nil, err
	}
	l.credited, l.happened = s.Coins.Credited, s.Coins.Credited+s.Coins.Inhibited+s.Coins.Rejected
	if err := x.mark(); err != nil {
		return nil, err
	}
	events, _, err := x.heard.all()
	if err != nil {
		return nil, err
	}
	l.read(events)
	return l, nil
}

// read takes all that the hub has told of.
func (l *ledger) read(events []admin.Event) {
	for _, e := range events {
		if e.Kind == "telemetry" {
			l.received(e)
		}
	}
	for id := range l.accepted {
		if l.bodies[id] == nil {
			l.lacking = append(l.lacking, id)
		}
	}
	slices.Sort(l.lacking)
}

// accepted reads which messages an agent has promised to deliver.
func accepted(path string) (map[string]bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line map[string]any
		if json.Unmarshal(lines.Bytes(), &line) == nil && line["msg"] == "accepted" { // Go's runtime writes there, too
			ids[fmt.Sprint(line[local.ComponentKey], " ", line["id"])] = true
		}
	}
	return ids, lines.Err()
}

func (l *ledger) received(e admin.Event) {
	id := e.ModuleID + " " + e.System["message-id"]
	if l.bodies[id] != nil {
		l.bodies[id][string(e.Body)] = true
		l.again = append(l.again, e.At)
		return
	}
	l.bodies[id] = map[string]bool{string(e.Body): true}
	var c credit
	if e.ModuleID != "coins" || json.Unmarshal(e.Body, &c) != nil {
		return
	}
	switch c.Event {
	case "baseline":
		l.baseline = c.Counter
	case "credit":
		if l.seqs[c.Seq] == nil {
			l.credits++
		}
		l.seqs[c.Seq] = append(l.seqs[c.Seq], id)
	case "error":
		l.errors++
	case "events_lost":
		l.lost += c.Lost
	case "credit_gap_unknown":
		if c.Last != nil {
			l.gaps += (c.Counter - *c.Last + 255) % 255 // 255 is followed by 1
		}
	case "summary":
		for _, lot := range c.Coins {
			l.credits += lot.Count
		}
		for _, n := range c.Errors {
			l.errors += n
		}
		l.lost += c.Lost
	}
}

// missing says what the hub should have and has not.
func (l *ledger) missing() error {
	if n := len(l.lacking); n > 0 {
		return fmt.Errorf("%d messages were accepted and have not come: %s", n, strings.Join(l.lacking[:min(10, n)], ", "))
	}
	if n := l.told(); n < l.happened-l.baseline {
		return fmt.Errorf("the acceptor has counted %d events, %d of them before the baseline, and the hub was told of %d", l.happened, l.baseline, n)
	}
	return nil
}

// told is how many events of the acceptor the hub was told of.
func (l *ledger) told() int { return l.credits + l.errors + l.lost + l.gaps }

// twice is how many coins came under more than one id.
func (l *ledger) twice() int {
	n := 0
	for _, ids := range l.seqs {
		if len(ids) > 1 {
			n++
		}
	}
	return n
}

// wrong says what the hub has and should not.
func (l *ledger) wrong() error {
	var all []error
	for id, bodies := range l.bodies {
		if len(bodies) > 1 {
			all = append(all, fmt.Errorf("%s came as %d different messages: %v", id, len(bodies), bodies))
		}
	}
	for seq, ids := range l.seqs {
		if len(ids) > 1 {
			all = append(all, fmt.Errorf("coin %v came under %d ids: %v", seq, len(ids), ids))
		}
	}
	if n := l.told(); n > l.happened-l.baseline {
		all = append(all, fmt.Errorf("the acceptor has counted %d events, %d of them before the baseline, and the hub was told of %d", l.happened, l.baseline, n))
	}
	return errors.Join(all...)
}

func (l *ledger) String() string {
	return fmt.Sprintf("%d messages accepted, %d lost, %d duplicates under one id, %d coins under two;\n"+
		"%d coins taken: %d credits, %d said to be missed by a module that was not there, %d other events",
		len(l.accepted), len(l.lacking), len(l.again), l.twice(), l.credited, l.credits, l.lost+l.gaps, l.errors)
}
