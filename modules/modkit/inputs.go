package modkit

import (
	"context"
	"sync"
)

// inputs passes values from the stream's reader, which must never wait, to a module that may be slow. Per name only
// the newest value counts: a consumer wants to know how the door is, not how it was.
type inputs struct {
	out  chan Input
	more chan struct{} // capacity one

	mu      sync.Mutex
	pending []Input // at most one per name, oldest first
}

func newInputs() *inputs {
	return &inputs{out: make(chan Input), more: make(chan struct{}, 1)}
}

func (q *inputs) put(in Input) {
	q.mu.Lock()
	q.replace(in)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *inputs) replace(in Input) {
	for i := range q.pending {
		if q.pending[i].Name == in.Name {
			q.pending[i] = in
			return
		}
	}
	q.pending = append(q.pending, in)
}

func (q *inputs) take() (Input, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) == 0 {
		return Input{}, false
	}
	in := q.pending[0]
	q.pending = q.pending[1:]
	return in, true
}

// run hands the values out until ctx ends. A newer value that comes while one is being offered follows it.
func (q *inputs) run(ctx context.Context) {
	for {
		in, ok := q.take()
		if !ok {
			select {
			case <-q.more:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case q.out <- in:
		case <-ctx.Done():
			return
		}
	}
}
