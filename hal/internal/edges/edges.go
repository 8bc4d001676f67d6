// Package edges keeps the edges of one input line until somebody asks for them: bounded, in order, never blocking the
// side that reports them.
package edges

import (
	"context"
	"sync"

	"github.com/twinbay/twinbay/hal"
)

// Depth is how many edges are kept. A bounce train is a dozen; the kernel keeps 16 per line by default.
const Depth = 64

// Queue is the edges of one line. Make it with New.
type Queue struct {
	mu    sync.Mutex
	kept  []hal.Edge
	err   error
	wake  chan struct{} // holds a token while there may be something to take
	ended chan struct{} // closed with err set
}

// New returns an empty queue.
func New() *Queue {
	return &Queue{wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Push adds e. When Depth edges wait, the oldest is dropped, as the kernel does: Seq shows the gap.
func (q *Queue) Push(e hal.Edge) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	if len(q.kept) == Depth {
		q.kept = append(q.kept[:0], q.kept[1:]...)
	}
	q.kept = append(q.kept, e)
	q.signal()
}

// End makes Next return err once the kept edges are taken; with drop, at once. The first End counts, but a later one
// with drop still drops.
func (q *Queue) End(err error, drop bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if drop {
		q.kept, q.err = nil, nil
	}
	if q.err == nil {
		q.err = err
	}
	select {
	case <-q.ended:
	default:
		close(q.ended)
	}
}

// Next waits for the next edge, the end of the queue, or the end of ctx.
func (q *Queue) Next(ctx context.Context) (hal.Edge, error) {
	for {
		if err := ctx.Err(); err != nil {
			return hal.Edge{}, err
		}
		if e, ok, err := q.take(); ok || err != nil {
			return e, err
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-q.ended:
		}
	}
}

func (q *Queue) take() (hal.Edge, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.kept) == 0 {
		return hal.Edge{}, false, q.err
	}
	e := q.kept[0]
	q.kept = append(q.kept[:0], q.kept[1:]...)
	if len(q.kept) > 0 {
		q.signal() // for another waiter
	}
	return e, true, nil
}

// signal puts the token there. The lock is held.
func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
