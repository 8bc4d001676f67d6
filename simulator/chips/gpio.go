package chips

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Sizes of a line's memory.
const (
	lineHistory   = 1024 // changes kept for watchers that lag
	watcherEvents = 16   // Linux, gpiolib-cdev.c: the events kept for one line; the oldest is dropped
)

// Line is one line of a GPIO chip, at its pin: true is high. Its zero value is low since ever.
type Line struct {
	mu      sync.Mutex
	base    bool     // level before changes[0]
	first   uint64   // index of changes[0] among all changes ever
	changes []change // in order of time; some may lie ahead
	moved   chan struct{}
}

type change struct {
	at    time.Time
	level bool
}

// Set drives the line from now on. What was planned for later is off.
func (l *Line) Set(level bool) { l.plan(change{time.Now(), level}) }

// Bounce drives the line to level as a contact does: it changes now, and back or forth after each gap. After the last
// gap it is at level.
func (l *Line) Bounce(level bool, gaps ...time.Duration) {
	at := time.Now()
	train := []change{{at, level}}
	for i, g := range gaps {
		at = at.Add(g)
		train = append(train, change{at, level == (i%2 == 1)})
	}
	if len(gaps)%2 == 1 {
		train = append(train, change{at, level})
	}
	l.plan(train...)
}

// Pulse drives the line to level for d, and back.
func (l *Line) Pulse(level bool, d time.Duration) {
	now := time.Now()
	l.plan(change{now, level}, change{now.Add(d), !level})
}

// Level is the level now.
func (l *Line) Level() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at(time.Now())
}

// at needs the lock.
func (l *Line) at(now time.Time) bool {
	level := l.base
	for _, c := range l.changes {
		if c.at.After(now) {
			break
		}
		level = c.level
	}
	return level
}

func (l *Line) plan(list ...change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.changes = slices.DeleteFunc(l.changes, func(c change) bool { return c.at.After(now) })
	l.changes = append(l.changes, list...)
	if over := len(l.changes) - lineHistory; over > 0 {
		l.base = l.changes[over-1].level
		l.first += uint64(over)
		l.changes = slices.Delete(l.changes, 0, over)
	}
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// follow is plan for a line that is worked out anew at each occasion: nothing happens, and nobody is woken, when it says what
// was known.
func (l *Line) follow(list []change) {
	l.mu.Lock()
	now := time.Now()
	future := slices.DeleteFunc(slices.Clone(l.changes), func(c change) bool { return !c.at.After(now) })
	known := l.at(now) == list[0].level && slices.EqualFunc(future, list[1:], func(a, b change) bool { return a.at.Equal(b.at) && a.level == b.level })
	same := l.at(now) == list[0].level
	l.mu.Unlock()
	switch {
	case known:
	case same:
		l.plan(list[1:]...)
	default:
		l.plan(list...)
	}
}

// LineEdge is one edge as the kernel reports it.
type LineEdge struct {
	Level bool
	At    time.Time
	Seq   uint32 // from 1; a gap means that the reader was too slow
}

// Watcher is a line requested as an input with both edges: the part of Linux's gpiolib that lies between the pin and
// the reader, with its polarity, debounce and bounded event queue. One goroutine at a time may use it.
type Watcher struct {
	line      *Line
	activeLow bool
	debounce  time.Duration

	next   uint64 // index of the first change not yet looked at
	raw    bool   // the pin's level after the change before
	rawAt  time.Time
	stable bool // the debounced level
	seq    uint32
	queue  []LineEdge
}

// Watch requests the line as an input. Edges count from now.
func (l *Line) Watch(activeLow bool, debounce time.Duration) *Watcher {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	w := &Watcher{line: l, activeLow: activeLow, debounce: debounce, next: l.first}
	w.raw = l.at(now)
	w.stable = w.raw
	for _, c := range l.changes {
		if !c.at.After(now) {
			w.next++
		}
	}
	return w
}

// Level is the logical, debounced level.
func (w *Watcher) Level() bool {
	w.advance(time.Now())
	return w.stable != w.activeLow
}

// Next waits for the next edge.
func (w *Watcher) Next(ctx context.Context) (LineEdge, error) {
	for {
		if err := ctx.Err(); err != nil {
			return LineEdge{}, err
		}
		wake, moved := w.advance(time.Now())
		if len(w.queue) > 0 {
			e := w.queue[0]
			w.queue = slices.Delete(w.queue, 0, 1)
			return e, nil
		}
		var timer <-chan time.Time
		if !wake.IsZero() {
			t := time.NewTimer(time.Until(wake))
			timer = t.C
		}
		select {
		case <-ctx.Done():
		case <-timer:
		case <-moved:
		}
	}
}

// advance looks at all changes up to now. It returns when something may happen by itself, if ever, and a channel that is
// closed when somebody moves the line.
func (w *Watcher) advance(now time.Time) (wake time.Time, moved <-chan struct{}) {
	l := w.line
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.next < l.first { // too slow even for the history
		w.next, w.raw = l.first, l.base
	}
	for _, c := range l.changes[w.next-l.first:] {
		if c.at.After(now) {
			wake = c.at
			break
		}
		w.settle(c.at)
		w.next++
		if c.level != w.raw {
			w.raw, w.rawAt = c.level, c.at
		}
		if w.debounce == 0 {
			w.settle(c.at)
		}
	}
	w.settle(now)
	if due := w.rawAt.Add(w.debounce); w.raw != w.stable && (wake.IsZero() || due.Before(wake)) {
		wake = due
	}
	if l.moved == nil {
		l.moved = make(chan struct{})
	}
	return wake, l.moved
}

// settle takes the pin's level over once it has been steady for the debounce time. The kernel's timestamp is that of
// the end of the debounce time.
func (w *Watcher) settle(now time.Time) {
	due := w.rawAt.Add(w.debounce)
	if w.raw == w.stable || due.After(now) {
		return
	}
	w.stable = w.raw
	w.seq++
	if len(w.queue) == watcherEvents {
		w.queue = slices.Delete(w.queue, 0, 1)
	}
	w.queue = append(w.queue, LineEdge{Level: w.stable != w.activeLow, At: due, Seq: w.seq})
}
