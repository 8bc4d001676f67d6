package iothub

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
)

// Bounds of the mailbox.
const (
	maxPatches = 64
	MaxMethods = 32 // direct methods that wait for the session's owner
	maxClouds  = 32
)

// mailbox holds the events that the owner has not yet taken. put never blocks, so the wire's reader never waits for the
// owner; and the box never holds more than a Down, an Up, maxPatches, MaxMethods and maxClouds, because newer events
// replace older ones:
//
//   - a Down replaces every Up, Down, patch and cloud-to-device message before it: the hub hands the last out again;
//   - an Up replaces every Up and patch before it, as the owner asks for the whole twin then;
//   - one patch too many becomes an Up;
//   - one method too many is answered with status 429 in place of the owner, as the owner's own limit is;
//   - one cloud-to-device message too many is left to the hub, which hands it out again.
type mailbox struct {
	mu      sync.Mutex
	queue   []Event
	up      bool // patches that come before Up are part of the twin that the owner asks for then
	patches int
	methods int
	clouds  int
	ready   chan struct{} // capacity one
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// put adds an event. It answers false when the event did not fit: a patch has become an Up, a method is refused.
func (b *mailbox) put(e Event) bool {
	fits := b.add(e)
	if m, ok := e.(MethodCall); ok && !fits {
		m.Answer(http.StatusTooManyRequests, json.RawMessage(`{"error":"too many direct methods wait at once; try again when one has ended"}`))
	}
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return fits
}

func (b *mailbox) add(e Event) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.(type) {
	case Up:
		b.up = true
		b.renew()
		return true
	case Down:
		b.up = false
		b.drop(func(e Event) bool { _, method := e.(MethodCall); return !method })
		b.patches, b.clouds = 0, 0
	case CloudMessage:
		if b.clouds == maxClouds {
			return false
		}
		b.clouds++
	case DesiredPatch:
		if !b.up {
			return true
		}
		if b.patches == maxPatches {
			b.renew()
			return false
		}
		b.patches++
	case MethodCall:
		if b.methods == MaxMethods {
			return false
		}
		b.methods++
	}
	b.queue = append(b.queue, e)
	return true
}

// renew puts an Up at the end, in place of every patch and Up before it.
func (b *mailbox) renew() {
	b.drop(func(e Event) bool {
		switch e.(type) {
		case Up, DesiredPatch:
			return true
		}
		return false
	})
	b.patches = 0
	b.queue = append(b.queue, Up{})
}

func (b *mailbox) drop(f func(Event) bool) { b.queue = slices.DeleteFunc(b.queue, f) }

func (b *mailbox) take() (Event, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return nil, false
	}
	e := b.queue[0]
	b.queue = slices.Delete(b.queue, 0, 1)
	switch e.(type) {
	case DesiredPatch:
		b.patches--
	case MethodCall:
		b.methods--
	case CloudMessage:
		b.clouds--
	}
	return e, true
}

// deliver hands the events over, one at a time and in order, until ctx ends.
func (b *mailbox) deliver(ctx context.Context, to chan<- Event) {
	for {
		e, ok := b.take()
		if !ok {
			select {
			case <-b.ready:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case to <- e:
		case <-ctx.Done():
			return
		}
	}
}
