package hubtest

import (
	"slices"
	"sync"

	"github.com/twinbay/twinbay/simulator/hub"
)

// events are what has happened at the hub since the test began.
type events struct {
	mu      sync.Mutex
	all     []hub.Event
	taken   []bool        // by a Wait
	changed chan struct{} // closed and replaced when something is added

	asked chan chan struct{} // by flush; what it sends is closed as the answer
	ended chan struct{}      // closed when the hub tells no more
}

func newEvents() *events {
	return &events{changed: make(chan struct{}), asked: make(chan chan struct{}), ended: make(chan struct{})}
}

func (e *events) add(event hub.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	e.taken = append(e.taken, false)
	close(e.changed)
	e.changed = make(chan struct{})
}

// take answers the first event that matches and has not been taken, or a channel that is closed when there is more.
func (e *events) take(from int, match func(hub.Event) bool) (found hub.Event, ok bool, seen int, more <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := min(from, len(e.all)); i < len(e.all); i++ {
		if !e.taken[i] && match(e.all[i]) {
			e.taken[i] = true
			return e.all[i], true, i, nil
		}
	}
	return hub.Event{}, false, len(e.all), e.changed
}

// of answers whether something that may concern an identity has happened since from (-1: say yes), how much there is, and
// a channel that is closed when there is more.
func (e *events) of(from int, id hub.ID) (seen int, news bool, more <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	news = from < 0 || slices.ContainsFunc(e.all[min(from, len(e.all)):], func(e hub.Event) bool {
		return e.Kind == "lost" || e.DeviceID == id.Device && (e.ModuleID == id.Module || e.ModuleID == "")
	})
	return len(e.all), news, e.changed
}

// keep takes over what a hub tells, until its stream ends.
func (e *events) keep(stream <-chan hub.Event) {
	defer close(e.ended)
	for {
		select {
		case event, ok := <-stream:
			if !ok {
				return
			}
			e.add(event)
		case done := <-e.asked:
			for more := true; more; {
				select {
				case event, ok := <-stream:
					if !ok {
						return
					}
					e.add(event)
				default:
					more = false
				}
			}
			close(done)
		}
	}
}

// flush returns when everything that had happened before has been taken over.
func (e *events) flush() {
	done := make(chan struct{})
	select {
	case e.asked <- done:
		select {
		case <-done:
		case <-e.ended:
		}
	case <-e.ended:
	}
}

// Events are all events so far, in their order.
func (h *Hub) Events() []hub.Event {
	h.events.flush()
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	return slices.Clone(h.events.all)
}

// Forget forgets all events so far, taken or not: a test of hours would keep them in memory otherwise. It is not for the
// time in which somebody waits.
func (h *Hub) Forget() {
	h.events.flush()
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	h.events.all, h.events.taken = nil, nil
}
