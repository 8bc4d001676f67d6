package iothub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const drainTime = 5 * time.Second // for what is under way when a connection is given up on purpose

// live is one connection that stands, with what is under way on it.
type live struct {
	wire    Wire
	expires time.Time       // of the token; of Run alone
	since   <-chan struct{} // closed when the clock has gone another way since the token was first signed; of Run alone
	made    time.Time       // progress counts from here, by the monotonic clock
	slots   chan struct{}
	given   chan struct{} // closed by kill

	progress atomic.Int64 // nanoseconds after made of the last sign that the hub works on what it is sent
	bytes    atomic.Int64 // of the messages in flight

	mu    sync.Mutex
	cause error         // why this side gave the connection up
	busy  int           // messages, requests and methods under way
	idle  chan struct{} // made by drain, closed when busy is 0; nothing begins once it is there
}

func newLive(expires time.Time) *live {
	return &live{expires: expires, made: time.Now(), slots: make(chan struct{}, MaxInFlight), given: make(chan struct{})}
}

// begin counts something that should end before the connection does; false when it is being given up.
func (l *live) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle != nil {
		return false
	}
	l.busy++
	return true
}

func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	if l.busy == 0 && l.idle != nil {
		close(l.idle)
	}
}

// drain lets nothing begin any more, and waits a while for what is under way.
func (l *live) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if q, ok := l.wire.(Quieter); ok {
		_ = q.Quiet(ctx) // without it a method that comes now may stay without an answer, and nothing else is lost
	}
	idle := make(chan struct{})
	l.mu.Lock()
	l.idle = idle
	if l.busy == 0 {
		close(idle)
	}
	l.mu.Unlock()
	select {
	case <-idle:
	case <-l.wire.Done():
	case <-ctx.Done():
	}
}

// track makes a method part of what is under way until it is answered, and lets only the first answer through.
func (l *live) track(m MethodCall) MethodCall {
	counted := l.begin() // also false while draining: such a method is answered late or never
	var once sync.Once
	answer := m.Answer
	m.Answer = func(status int, payload json.RawMessage) {
		once.Do(func() {
			answer(status, payload)
			if counted {
				l.end()
			}
		})
	}
	return m
}

func (l *live) heard() { l.progress.Store(int64(time.Since(l.made))) }

// kill gives the connection up: Run closes it.
func (l *live) kill(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		l.cause = err
		close(l.given)
	}
}

// close ends the wire of a connection that was made.
func (l *live) close() {
	if l != nil {
		l.wire.Close()
	}
}

// reason says why the connection ended.
func (l *live) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return l.cause
	}
	return l.wire.Err()
}

// explain maps the wire's error: what the hub has answered stands, and everything else after the end is the end.
func (l *live) explain(err error) error {
	for _, known := range []error{ErrUnauthorized, ErrThrottled, ErrRejected, ErrStale, ErrOffline} {
		if errors.Is(err, known) {
			return err
		}
	}
	select {
	case <-l.wire.Done():
		return fmt.Errorf("%w any more: %w", ErrOffline, l.reason())
	default:
		return err
	}
}

func (l *live) publish(ctx context.Context, m Message, size int) error {
	if !l.begin() {
		return ErrOffline
	}
	defer l.end()
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return ctx.Err()
	case <-l.wire.Done():
		return fmt.Errorf("publish: %w", l.explain(ErrOffline))
	}
	// A slow link takes its time for a large message, and for all those before it.
	patience := ackTime + time.Duration(l.bytes.Add(int64(size)))*time.Second/slowestLink
	defer l.bytes.Add(-int64(size))
	defer l.watch(patience).stop()

	err := l.wire.Publish(ctx, m)
	if err == nil {
		l.heard()
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("publish %s: %w", m.ID, l.explain(err))
}

// watchdog gives the connection up when, for so long, nothing at all has been acknowledged: the other end has gone
// without a word, or it takes messages and loses them.
type watchdog struct {
	live     *live
	patience time.Duration
	start    time.Time

	mu    sync.Mutex
	timer *time.Timer
	done  bool
}

func (l *live) watch(patience time.Duration) *watchdog {
	w := &watchdog{live: l, patience: patience, start: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(patience, w.bark)
	return w
}

func (w *watchdog) bark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	since := w.start
	if p := w.live.made.Add(time.Duration(w.live.progress.Load())); p.After(since) {
		since = p
	}
	if quiet := time.Since(since); quiet < w.patience {
		w.timer.Reset(w.patience - quiet)
		return
	}
	w.live.kill(fmt.Errorf("the hub has acknowledged nothing for %v", w.patience.Round(time.Second)))
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.timer.Stop()
}
