package modkit

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/twinbay/twinbay/modules/modkit/internal/modpb"
)

// maxPongs bounds the answers that wait while the agent does not read. The agent counts a missing answer as a hang
// anyway, so the oldest may go.
const maxPongs = 16

// link is the way up of one Run. The module's goroutines fill it, one writer empties it into the stream: so nothing
// that the module says ever waits for the agent. It is bounded by MaxOutstanding messages and the newest of the rest.
type link struct {
	more chan struct{} // capacity one: there may be something to write

	mu       sync.Mutex
	seq      uint64
	waiting  map[uint64]*Ticket // sent or to be sent, not yet accepted
	messages []*modpb.Message
	pongs    []*modpb.Pong
	healthUp *modpb.Health
	saidLast Health
	said     bool
	doc      json.RawMessage
	outputs  []*modpb.Output // at most one per name, oldest first
	ended    bool
}

func newLink() *link {
	return &link{more: make(chan struct{}, 1), waiting: make(map[uint64]*Ticket)}
}

// put changes the link under its lock and wakes the writer.
func (l *link) put(f func()) {
	l.mu.Lock()
	f()
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *link) send(m Message) (t *Ticket, err error) {
	if m.At.IsZero() {
		m.At = time.Now()
	}
	l.put(func() {
		switch {
		case l.ended:
			err = ErrEnded
			return
		case len(l.waiting) >= MaxOutstanding:
			err = ErrFull
			return
		}
		l.seq++
		t = &Ticket{done: make(chan struct{})}
		l.waiting[l.seq] = t
		l.messages = append(l.messages, messageToPB(l.seq, m))
	})
	return t, err
}

func (l *link) health(h Health) {
	l.put(func() {
		if l.said && h == l.saidLast {
			return
		}
		l.said, l.saidLast = true, h
		l.healthUp = &modpb.Health{State: modpb.Health_State(h.State), Detail: h.Detail}
	})
}

func (l *link) report(doc json.RawMessage) {
	l.put(func() { l.doc = doc })
}

// output replaces what was said of the same port and is not yet written: others want to know how the door is, not how it
// was.
func (l *link) output(o Output) {
	if o.At.IsZero() {
		o.At = time.Now()
	}
	up := outputToPB(o)
	l.put(func() {
		for i := range l.outputs {
			if l.outputs[i].GetName() == o.Name {
				l.outputs[i] = up
				return
			}
		}
		l.outputs = append(l.outputs, up)
	})
}

func (l *link) pong(p *modpb.Pong) {
	l.put(func() {
		if len(l.pongs) >= maxPongs {
			l.pongs = l.pongs[1:]
		}
		l.pongs = append(l.pongs, p)
	})
}

// accepted resolves a ticket. An agent that names a message twice, or one that never was, does no harm.
func (l *link) accepted(a *modpb.Accepted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.waiting[a.GetSeq()]
	if !ok {
		return
	}
	delete(l.waiting, a.GetSeq())
	if a.GetRefused() != "" {
		t.resolve(&Refused{Reason: a.GetRefused()})
		return
	}
	t.resolve(nil)
}

// end resolves what still waits: nobody will answer it any more.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, t := range l.waiting {
		t.resolve(ErrEnded)
	}
	clear(l.waiting)
}

// next is what to write next, nil when there is nothing. A pong goes first, because its lateness is taken for a hang.
func (l *link) next() *modpb.Up {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.pongs) > 0:
		p := l.pongs[0]
		l.pongs = l.pongs[1:]
		return &modpb.Up{Kind: &modpb.Up_Pong{Pong: p}}
	case len(l.outputs) > 0:
		o := l.outputs[0]
		l.outputs = l.outputs[1:]
		return &modpb.Up{Kind: &modpb.Up_Output{Output: o}}
	case l.healthUp != nil:
		h := l.healthUp
		l.healthUp = nil
		return &modpb.Up{Kind: &modpb.Up_Health{Health: h}}
	case l.doc != nil:
		d := l.doc
		l.doc = nil
		return &modpb.Up{Kind: &modpb.Up_Reported{Reported: &modpb.Reported{Properties: d}}}
	case len(l.messages) > 0:
		m := l.messages[0]
		l.messages = l.messages[1:]
		return &modpb.Up{Kind: &modpb.Up_Message{Message: m}}
	}
	return nil
}

// write empties the link into send until quit is closed and nothing is left, or send fails.
func (l *link) write(send func(*modpb.Up) error, quit <-chan struct{}) error {
	for {
		for up := l.next(); up != nil; up = l.next() {
			if err := send(up); err != nil {
				return err
			}
		}
		select {
		case <-l.more:
		case <-quit:
			if up := l.next(); up == nil {
				return nil
			} else if err := send(up); err != nil {
				return err
			}
		}
	}
}
