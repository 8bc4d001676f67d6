package cctalk

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

// maxQueue is how many events wait one by one while the agent takes none; what comes then is counted by kind.
const maxQueue = 512

// message is one telemetry body. Members that do not belong to its event are left out.
type message struct {
	Event    string          `json:"event"`
	Seq      uint64          `json:"seq,omitempty"` // counts credits since the first start ever
	Coin     string          `json:"coin,omitempty"`
	Cents    *int            `json:"value_cents,omitempty"`
	Position int             `json:"position,omitempty"`
	Path     *int            `json:"path,omitempty"`
	Code     *int            `json:"code,omitempty"`
	Name     string          `json:"name,omitempty"`
	Lost     int             `json:"lost,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Last     *int            `json:"last_counter,omitempty"`
	Buffer   [][2]int        `json:"buffer,omitempty"`
	Coins    map[string]*lot `json:"coins,omitempty"`  // of a summary: by coin
	Errors   map[int]int     `json:"errors,omitempty"` // of a summary: by code
	Counter  int             `json:"counter"`
}

// lot is how many of one coin a summary stands for.
type lot struct {
	Count int  `json:"count"`
	Cents *int `json:"value_cents,omitempty"` // of one coin
}

// entry is one message on its way, with the state as of it.
type entry struct {
	body  message
	high  bool
	state record
	at    time.Time
}

// queue holds events between the acceptor and the agent, in order. It never makes the poll wait: an acceptor that
// is not polled for a second takes no coins. Only the module's goroutine uses it.
type queue struct {
	log     *slog.Logger
	bay     *modkit.Bay
	waiting []entry
	tickets []*modkit.Ticket // handed over, not yet accepted, in order
	refused uint64
}

// put appends an event and hands over what can be.
func (q *queue) put(e entry) {
	if len(q.waiting) >= maxQueue {
		q.summarise(e)
		return
	}
	q.waiting = append(q.waiting, e)
	q.flush()
}

// summarise counts e in the last entry, which then says so: each coin is still there, its order is not.
func (q *queue) summarise(e entry) {
	last := &q.waiting[len(q.waiting)-1]
	if last.body.Event != "summary" {
		q.waiting = append(q.waiting, entry{body: message{Event: "summary", Coins: map[string]*lot{}, Errors: map[int]int{}}})
		last = &q.waiting[len(q.waiting)-1]
	}
	s := &last.body
	switch e.body.Event {
	case "credit":
		name := e.body.Coin
		if name == "" {
			name = "unknown"
		}
		if s.Coins[name] == nil {
			s.Coins[name] = &lot{Cents: e.body.Cents}
		}
		s.Coins[name].Count++
		s.Seq = e.body.Seq
	case "error":
		s.Errors[*e.body.Code]++
	default:
		s.Lost += e.body.Lost
		s.Reason = e.body.Reason
	}
	s.Counter = e.body.Counter
	last.state, last.at, last.high = e.state, e.at, true
}

// flush hands over as much as the agent takes.
func (q *queue) flush() {
	for len(q.waiting) > 0 {
		t, err := q.bay.Send(q.waiting[0].encode())
		if errors.Is(err, modkit.ErrFull) || errors.Is(err, modkit.ErrEnded) {
			return
		}
		if err != nil {
			// Too large: the bounds of coins and codes rule it out, so it would be a bug, and repeating it no help.
			q.log.Error("an event cannot be handed over and is dropped", "event", q.waiting[0].body.Event, "error", err)
		} else {
			q.tickets = append(q.tickets, t)
		}
		q.waiting = q.waiting[1:]
	}
}

func (e entry) encode() modkit.Message {
	m := modkit.Message{Body: must(e.body), State: must(e.state), At: e.at}
	if e.high {
		m.Priority = modkit.High
	}
	return m
}

// must encodes what always has a JSON form.
func must(v any) json.RawMessage {
	p, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return p
}

// head is closed when the oldest message handed over is settled; nil, which blocks for ever, when there is none.
func (q *queue) head() <-chan struct{} {
	if len(q.tickets) == 0 {
		return nil
	}
	return q.tickets[0].Done()
}

// settle takes the messages that the agent has answered off the books, and fills the room.
func (q *queue) settle() {
	for len(q.tickets) > 0 {
		select {
		case <-q.tickets[0].Done():
		default:
			q.flush()
			return
		}
		if err := q.tickets[0].Err(); err != nil && !errors.Is(err, modkit.ErrEnded) {
			q.refused++
			q.log.Error("the agent refused an event, it will not reach the hub", "error", err, "refused_so_far", q.refused)
		}
		q.tickets = q.tickets[1:]
	}
	q.flush()
}

// empty is whether everything has been accepted.
func (q *queue) empty() bool { return len(q.waiting) == 0 && len(q.tickets) == 0 }

// clone keeps a caller's map from changing under the module.
func clone(m map[string]int) map[string]int {
	if m == nil {
		return map[string]int{}
	}
	return maps.Clone(m)
}
