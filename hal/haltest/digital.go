package haltest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/internal/edges"
)

// InputLine is an input whose level the test sets. Make it with Input.
type InputLine struct {
	mu     sync.Mutex
	mode   hal.InputMode
	level  bool
	seq    uint32
	gone   bool
	closed bool
	queue  *edges.Queue
}

// Input returns an input line with a logical level. The test speaks in logical levels too: what ActiveLow and
// Debounce would do has been done already.
func Input(t testing.TB, level bool) *InputLine {
	t.Helper()
	return &InputLine{level: level, queue: edges.New()}
}

// Push is an edge to level, now. It is an edge even where the level stays, as after a bounce shorter than the
// kernel's sampling.
func (l *InputLine) Push(level bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level = level
	l.seq++
	l.queue.Push(hal.Edge{Level: level, At: time.Now(), Seq: l.seq})
}

// Lose is n edges that nobody will see, and the level after them: the next edge shows a gap.
func (l *InputLine) Lose(n uint32, level bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level = level
	l.seq += n
}

// Mode is how the driver opened the line last, through Wires.
func (l *InputLine) Mode() hal.InputMode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode
}

// Unplug makes every call ErrGone until Plug and a new open.
func (l *InputLine) Unplug() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	l.queue.End(hal.ErrGone, true)
}

// Plug ends Unplug.
func (l *InputLine) Plug() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone, l.closed = false, true
	l.queue.End(hal.ErrGone, true)
}

// Read implements hal.DigitalIn.
func (l *InputLine) Read(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.gone:
		return false, hal.ErrGone
	case l.closed:
		return false, hal.ErrClosed
	}
	return l.level, nil
}

// Next implements hal.DigitalIn.
func (l *InputLine) Next(ctx context.Context) (hal.Edge, error) {
	l.mu.Lock()
	q := l.queue
	l.mu.Unlock()
	return q.Next(ctx)
}

// Close implements hal.DigitalIn.
func (l *InputLine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.queue.End(hal.ErrClosed, true)
	return nil
}

func (l *InputLine) reopen(mode any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return hal.ErrGone
	}
	l.mode, _ = mode.(hal.InputMode)
	if l.closed {
		l.closed, l.seq, l.queue = false, 0, edges.New()
	}
	return nil
}

// OutputLine is an output that remembers what it was set to. Make it with Output.
type OutputLine struct {
	mu     sync.Mutex
	mode   hal.OutputMode
	levels []bool
	gone   bool
	closed bool
}

// Output returns an output line, driven low until it is opened or set.
func Output(t testing.TB) *OutputLine {
	t.Helper()
	return &OutputLine{}
}

// Levels is each level driven so far, the initial one of an open through Wires included.
func (l *OutputLine) Levels() []bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.levels)
}

// Mode is how the driver opened the line last, through Wires.
func (l *OutputLine) Mode() hal.OutputMode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode
}

// Unplug makes every call ErrGone until Plug and a new open.
func (l *OutputLine) Unplug() { l.setGone(true) }

// Plug ends Unplug.
func (l *OutputLine) Plug() { l.setGone(false) }

func (l *OutputLine) setGone(gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone, l.closed = gone, true
}

// Set implements hal.DigitalOut.
func (l *OutputLine) Set(ctx context.Context, level bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.gone:
		return hal.ErrGone
	case l.closed:
		return hal.ErrClosed
	}
	l.levels = append(l.levels, level)
	return nil
}

// Level implements hal.DigitalOut.
func (l *OutputLine) Level() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.levels) > 0 && l.levels[len(l.levels)-1]
}

// Close implements hal.DigitalOut.
func (l *OutputLine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}

func (l *OutputLine) reopen(mode any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return hal.ErrGone
	}
	l.closed = false
	l.mode, _ = mode.(hal.OutputMode)
	l.levels = append(l.levels, l.mode.Initial)
	return nil
}
