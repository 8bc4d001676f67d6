package hub

import (
	"context"
	"strconv"
	"time"
)

// waiting is how many events wait for a slow watcher.
const waiting = 4096

// watcher is one stream of events. Its channel always has room for one more, kept for telling of a loss.
type watcher struct {
	events chan Event
	lost   int
}

// Watch streams what happens from now on, in order, until ctx ends; then the channel is closed. The hub never waits for
// a watcher: one that falls behind misses events, and gets a lost event, whose Detail counts them, in their place.
func (h *Hub) Watch(ctx context.Context) <-chan Event {
	w := &watcher{events: make(chan Event, waiting)}
	h.mu.Lock()
	h.watchers[w] = struct{}{}
	h.watched.Add(1)
	h.unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.unlock()
		delete(h.watchers, w)
		h.watched.Add(-1)
		if w.lost > 0 {
			w.events <- w.gap(time.Now())
		}
		close(w.events)
	})
	return w.events
}

// emit tells the watchers. An event without a time is of now.
func (h *Hub) emit(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	for w := range h.watchers {
		w.put(e)
	}
}

// put never blocks: only emit and the end of Watch send, both under the hub's lock.
func (w *watcher) put(e Event) {
	need := 2 // the event, and the slot for a loss
	if w.lost > 0 {
		need++
	}
	if cap(w.events)-len(w.events) < need {
		w.lost++
		return
	}
	if w.lost > 0 {
		w.events <- w.gap(e.At)
		w.lost = 0
	}
	w.events <- e
}

func (w *watcher) gap(now time.Time) Event {
	return Event{At: now, Kind: "lost", Detail: strconv.Itoa(w.lost)}
}
