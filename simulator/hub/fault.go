package hub

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is a rule that makes something go wrong on demand.
//
// On names what the doors ask about: connect, subscribe, publish (telemetry), puback (the hub has taken a message and the
// device has not been told yet), twin-get, report, desired, method, c2d, and rest (any request of the service API).
//
// Do is one of
//   - kick: the connection ends at once;
//   - refuse, throttle, quota: the door's own error of the kind 400 or 503, 429 and 403002; where MQTT 3.1.1 has no
//     error, the connection ends;
//   - drop: neither carried out nor answered; with puback and for what the hub sends, lost;
//   - delay: what it is about waits, and what comes behind it;
//   - freeze: the connection is half open. The hub reads no more and sends no more, and the socket stays, until the
//     identity would have been silent for too long.
type Fault struct {
	ID    string        // names the rule; a new rule replaces one of the same name; "" gets a number
	On    string        // the event
	Who   string        // "device" or "device/module", where * stands for any text; "" means everybody
	After int           // let this many pass first
	Times int           // then act this many times; 0 means always
	P     float64       // then act with this probability, by Options.Seed; 0 means 1
	Do    string        // the action
	Delay time.Duration // with delay
	For   time.Duration // the rule ends so long after it was added; 0 means never

	// Connack, with connect and refuse, is the code of the CONNACK: of MQTT 3.1.1 with 1 to 5, a reason code of MQTT 5 with 128 or
	// more. A connection by the other protocol, and every one with 0, has 5 or 135, with which the hub refuses everybody
	// (azure-iot-sdk-c, doc/connection_and_messaging_reliability.md), though SDKs know the others.
	Connack int
}

// FaultState is a rule and what it has seen so far.
type FaultState struct {
	Fault
	Passed int // events let through by After or P
	Acted  int
}

var (
	faultEvents  = []string{"connect", "subscribe", "publish", "puback", "twin-get", "report", "desired", "method", "c2d", "rest"}
	faultActions = []string{"kick", "refuse", "throttle", "quota", "drop", "delay", "freeze"}
)

// faultRule is a rule in force.
type faultRule struct {
	FaultState
	only       *ID       // instead of Who: this identity alone
	begin, end time.Time // when it is in force; zero means without limit
}

// AddFault adds a rule behind those that are there. A rule that could never act is an error, which a test may ignore.
func (h *Hub) AddFault(f Fault) error {
	switch {
	case !slices.Contains(faultEvents, f.On):
		return argument("a fault rule's `on` is one of %s, not %q", strings.Join(faultEvents, ", "), f.On)
	case !slices.Contains(faultActions, f.Do):
		return argument("a fault rule does one of %s, not %q", strings.Join(faultActions, ", "), f.Do)
	case f.After < 0 || f.Times < 0 || f.Delay < 0 || f.For < 0:
		return argument("a fault rule counts from 0 up")
	case !(f.P >= 0 && f.P <= 1):
		return argument("a fault rule's probability is from 0 to 1")
	case f.Connack != 0 && (f.On != "connect" || f.Do != "refuse"):
		return argument("a fault rule's connack is for connect and refuse")
	case f.Connack != 0 && !isConnack(f.Connack):
		return argument("a fault rule's connack is a code of MQTT 3.1.1, 1 to 5, or one of MQTT 5: 128 to 138, 140, 144, 149, 151, 153 to 157, 159")
	}
	h.mu.Lock()
	defer h.unlock()
	r := &faultRule{FaultState: FaultState{Fault: f}}
	if f.For > 0 {
		r.end = time.Now().Add(f.For)
	}
	h.addRule(r)
	return nil
}

// isConnack tells whether a CONNACK refuses a connection with this code: MQTT 3.1.1, section 3.2.2.3; MQTT 5, section 3.2.2.2.
func isConnack(code int) bool {
	return code >= 1 && code <= 5 || code >= 128 && code <= 138 || code >= 153 && code <= 157 ||
		slices.Contains([]int{140, 144, 149, 151, 159}, code)
}

func (h *Hub) addRule(r *faultRule) {
	if r.ID == "" {
		h.faultIDs++
		r.ID = strconv.FormatUint(h.faultIDs, 10)
	}
	h.faults = slices.DeleteFunc(h.faults, func(old *faultRule) bool { return old.ID == r.ID })
	h.faults = append(h.faults, r)
}

// Faults are the rules in force, in the order in which they are asked.
func (h *Hub) Faults() []FaultState {
	h.mu.Lock()
	defer h.unlock()
	h.expireFaults(time.Now())
	states := []FaultState{}
	for _, r := range h.faults {
		states = append(states, r.FaultState)
	}
	return states
}

// RemoveFault removes a rule by its name and says whether it was there.
func (h *Hub) RemoveFault(id string) bool {
	h.mu.Lock()
	defer h.unlock()
	n := len(h.faults)
	h.faults = slices.DeleteFunc(h.faults, func(r *faultRule) bool { return r.ID == id })
	return len(h.faults) < n
}

// ClearFaults removes all rules.
func (h *Hub) ClearFaults() {
	h.mu.Lock()
	defer h.unlock()
	h.faults = nil
}

func (h *Hub) expireFaults(now time.Time) {
	h.faults = slices.DeleteFunc(h.faults, func(r *faultRule) bool { return !r.end.IsZero() && !now.Before(r.end) })
}

// Fault asks the rules about one event of an identity and counts it. The answer is the first rule that is due, or one
// whose Do is "". Every rule that matches counts the event against its After, whichever of them acts.
func (h *Hub) Fault(on string, id ID) Fault {
	h.mu.Lock()
	defer h.unlock()
	if len(h.faults) == 0 {
		return Fault{}
	}
	now := time.Now()
	h.expireFaults(now)
	var due *faultRule
	for _, r := range h.faults {
		if r.On == on && r.matches(id) && !now.Before(r.begin) && h.dueNow(r, due != nil) {
			due = cmp.Or(due, r)
		}
	}
	if due == nil {
		return Fault{}
	}
	due.Acted++
	h.emit(Event{Kind: "fault", DeviceID: id.Device, ModuleID: id.Module, Detail: on + ": " + due.Do + " by rule " + due.ID})
	return due.Fault
}

// dueNow counts an event that matches a rule and says whether the rule acts on it, if no rule before it does.
func (h *Hub) dueNow(r *faultRule, taken bool) bool {
	if r.Passed < r.After {
		r.Passed++
		return false
	}
	if taken || r.Times > 0 && r.Acted >= r.Times {
		return false
	}
	if r.P > 0 && h.dice.Float64() >= r.P {
		r.Passed++
		return false
	}
	return true
}

// Fault asks the fault rules about an event of this link's identity.
func (l *Link) Fault(on string) Fault { return l.hub.Fault(on, l.id) }

func (r *faultRule) matches(id ID) bool {
	if r.only != nil {
		return *r.only == id
	}
	return r.Who == "" || glob(r.Who, id.String())
}

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
