package hub

import (
	"slices"
	"strings"
	"time"
)

// Fault is a rule that makes something go wrong on demand.
type Fault struct {
	On    string        // connect, publish, twin-get, report, desired, method, c2d, subscribe, rest, any event a door asks about
	Who   string        // "device" or "device/module", where * stands for any text; "" means everybody
	After int           // let this many pass first
	Times int           // then act this many times; 0 means always
	Do    string        // kick, refuse, drop (no answer), throttle, delay
	Delay time.Duration // with delay
}

var faultActions = []string{"kick", "refuse", "drop", "throttle", "delay"}

// faultRule is a Fault and what it has seen so far.
type faultRule struct {
	Fault
	passed, acted int
}

// AddFault adds a rule behind those that are there. A rule that could never act is an error, which a test may ignore.
func (h *Hub) AddFault(f Fault) error {
	switch {
	case f.On == "":
		return argument("a fault rule needs `on`: connect, publish, twin-get, report, desired, method, c2d or subscribe")
	case !slices.Contains(faultActions, f.Do):
		return argument("a fault rule does one of %s, not %q", strings.Join(faultActions, ", "), f.Do)
	case f.After < 0 || f.Times < 0 || f.Delay < 0:
		return argument("a fault rule counts from 0 up")
	}
	h.mu.Lock()
	defer h.unlock()
	h.faults = append(h.faults, &faultRule{Fault: f})
	return nil
}

// ClearFaults removes all rules.
func (h *Hub) ClearFaults() {
	h.mu.Lock()
	defer h.unlock()
	h.faults = nil
}

// Fault asks the rules about one event of an identity and counts it. The answer is the first rule that is due, or one
// whose Do is "". Every rule that matches counts the event against its After, whichever of them acts.
func (h *Hub) Fault(on string, id ID) Fault {
	h.mu.Lock()
	defer h.unlock()
	var due *faultRule
	for _, r := range h.faults {
		if r.On != on || !r.matches(id) {
			continue
		}
		if r.passed < r.After {
			r.passed++
			continue
		}
		if due == nil && (r.Times == 0 || r.acted < r.Times) {
			due = r
		}
	}
	if due == nil {
		return Fault{}
	}
	due.acted++
	return due.Fault
}

// Fault asks the fault rules about an event of this link's identity.
func (l *Link) Fault(on string) Fault { return l.hub.Fault(on, l.id) }

func (f *Fault) matches(id ID) bool { return f.Who == "" || glob(f.Who, id.String()) }

// glob tells whether * in pattern can be filled so that it reads text. It backs up to the last * only, so its time is
// bounded by the product of the lengths.
func glob(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
