package hubtest

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// events are what has happened at the hub since the test began.
type events struct {
	mu      sync.Mutex
	all     []hub.Event
	taken   []bool        // by a Wait
	changed chan struct{} // closed and replaced when something is added
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
	for i := from; i < len(e.all); i++ {
		if !e.taken[i] && match(e.all[i]) {
			e.taken[i] = true
			return e.all[i], true, i, nil
		}
	}
	return hub.Event{}, false, len(e.all), e.changed
}

// Events are all events so far, in their order.
func (h *Hub) Events() []hub.Event {
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	return slices.Clone(h.events.all)
}

// Wait answers the first event that matches and that no Wait has answered before, however long ago it happened. It
// fails the test after ten seconds, or a day inside a bubble.
func (h *Hub) Wait(t testing.TB, match func(e hub.Event) bool) hub.Event {
	t.Helper()
	return h.wait(t, "an event that matches", match)
}

func (h *Hub) wait(t testing.TB, what string, match func(e hub.Event) bool) hub.Event {
	t.Helper()
	limit := time.NewTimer(waitLimit())
	defer limit.Stop()
	from := 0
	for {
		event, ok, seen, more := h.events.take(from, match)
		if ok {
			return event
		}
		from = seen
		select {
		case <-more:
		case <-limit.C:
			t.Fatalf("hubtest: %s has not come in %v; there have been:\n%s", what, waitLimit(), h.story())
		}
	}
}

// story is a line for each event.
func (h *Hub) story() string {
	var b strings.Builder
	for _, e := range h.Events() {
		b.WriteString("\t" + e.At.UTC().Format("15:04:05.000") + " " + e.Kind + " " + hub.ID{Device: e.DeviceID, Module: e.ModuleID}.String() + " " + e.Detail + " " + string(e.Body) + "\n")
	}
	return b.String()
}
