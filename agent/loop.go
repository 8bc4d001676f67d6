package agent

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// loop is the goroutine that owns a component's state, for one life: until it is asked to stop, or panics. Whatever may
// block runs away from it and comes back as a function, so that the owner needs no lock.
type loop struct {
	ctx   context.Context // ends with the life
	end   context.CancelFunc
	calls chan func()
	crash chan *crash
	wg    sync.WaitGroup
}

// crash is a panic that was caught.
type crash struct {
	value any
	stack []byte
}

// newCrash is made in the function that has recovered v, as long as the stack is still there.
func newCrash(v any) *crash { return &crash{value: v, stack: debug.Stack()} }

func (c *crash) Error() string { return fmt.Sprintf("panic: %v", c.value) }

func newLoop(ctx context.Context) *loop {
	ctx, end := context.WithCancel(ctx)
	return &loop{ctx: ctx, end: end, calls: make(chan func()), crash: make(chan *crash, 1)}
}

// away runs f on a goroutine of its own, and what f answers, unless nil, on the owner's.
func (l *loop) away(f func(ctx context.Context) func()) {
	l.wg.Go(func() {
		defer l.catch()
		if next := f(l.ctx); next != nil {
			l.call(l.ctx, next)
		}
	})
}

// catch keeps a panic from ending the other components too. It is deferred.
func (l *loop) catch() {
	if v := recover(); v != nil {
		select {
		case l.crash <- newCrash(v):
		default: // the life is over already
		}
	}
}

// call has the owner run f. It answers false when ctx or the life ended before the owner took it.
func (l *loop) call(ctx context.Context, f func()) bool {
	select {
	case l.calls <- f:
		return true
	case <-ctx.Done():
	case <-l.ctx.Done():
	}
	return false
}

// after has the owner run f after d, if the life lasts that long.
func (l *loop) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { l.call(l.ctx, f) })
}

// close ends the life and waits for all that runs away from it.
func (l *loop) close() {
	l.end()
	l.wg.Wait()
}
