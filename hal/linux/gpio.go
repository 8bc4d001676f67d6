//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gpiocdev "github.com/warthog618/go-gpiocdev"
	"golang.org/x/sys/unix"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/internal/edges"
)

// goneCheck is how often a waiting input asks whether its chip is still there. The kernel sends no event when a chip
// goes, and a removed chip must not look like a door that stays closed.
const goneCheck = 2 * time.Second

// GPIO opens the lines of scheme gpio: "<chip label>/<line>", where the line is an offset or a line name. gpiodetect
// and gpioinfo list both. Chips are never taken by number: it changes from kernel to kernel (on the Raspberry Pi 5 it
// was 4 and became 0).
type GPIO struct{ none }

// gpioLine is what we use of a gpiocdev.Line.
type gpioLine interface {
	Value() (int, error)
	SetValue(int) error
	Close() error
}

// OpenDigitalIn implements hal.Driver.
func (GPIO) OpenDigitalIn(ctx context.Context, target string, mode hal.InputMode) (hal.DigitalIn, error) {
	q := edges.New()
	opts := append(inputOptions(mode), gpiocdev.WithEventHandler(func(e gpiocdev.LineEvent) { q.Push(edgeOf(e, monotonic(), time.Now())) }))
	l, err := requestLine(ctx, target, opts)
	if err != nil {
		return nil, err
	}
	return &gpioIn{line: l, edges: q, check: goneCheck}, nil
}

// OpenDigitalOut implements hal.Driver. The initial level is part of the request: the line never shows another one.
func (GPIO) OpenDigitalOut(ctx context.Context, target string, mode hal.OutputMode) (hal.DigitalOut, error) {
	opts := []gpiocdev.LineReqOption{gpiocdev.WithConsumer(consumer(mode.Consumer))}
	if mode.ActiveLow {
		opts = append(opts, gpiocdev.AsActiveLow)
	}
	opts = append(opts, gpiocdev.AsOutput(value(mode.Initial)))
	l, err := requestLine(ctx, target, opts)
	if err != nil {
		return nil, err
	}
	out := &gpioOut{line: l}
	out.level.Store(mode.Initial)
	return out, nil
}

func inputOptions(mode hal.InputMode) []gpiocdev.LineReqOption {
	opts := []gpiocdev.LineReqOption{
		gpiocdev.WithConsumer(consumer(mode.Consumer)),
		gpiocdev.AsInput,
		gpiocdev.WithBothEdges,
		gpiocdev.WithMonotonicEventClock,
		gpiocdev.WithEventBufferSize(edges.Depth),
	}
	if mode.ActiveLow {
		opts = append(opts, gpiocdev.AsActiveLow)
	}
	switch mode.Bias {
	case hal.PullUp:
		opts = append(opts, gpiocdev.WithPullUp)
	case hal.PullDown:
		opts = append(opts, gpiocdev.WithPullDown)
	case hal.NoBias:
		opts = append(opts, gpiocdev.WithBiasDisabled)
	}
	if mode.Debounce > 0 {
		opts = append(opts, gpiocdev.WithDebounce(mode.Debounce))
	}
	return opts
}

func consumer(name string) string {
	if name == "" {
		return "twinbay"
	}
	return name
}

func value(level bool) int {
	if level {
		return 1
	}
	return 0
}

func requestLine(ctx context.Context, target string, opts []gpiocdev.LineReqOption) (gpioLine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	label, name, ok := strings.Cut(target, "/")
	if !ok || label == "" || name == "" {
		return nil, fmt.Errorf("%w: write gpio:<chip label>/<line offset or name>", hal.ErrBadURI)
	}
	chip, err := chipByLabel(label)
	if err != nil {
		return nil, err
	}
	defer chip.Close()
	offset, err := strconv.Atoi(name)
	if err != nil {
		if offset, err = chip.FindLine(name); err != nil {
			return nil, fmt.Errorf("chip %s has no line %q, see gpioinfo %s: %w (%w)", label, name, chip.Name, hal.ErrGone, err)
		}
	}
	l, err := chip.RequestLine(offset, opts...)
	if errors.Is(err, gpiocdev.ErrInvalidOffset) {
		return nil, fmt.Errorf("%w: chip %s has lines 0 to %d", hal.ErrBadURI, label, chip.Lines()-1)
	}
	if err != nil {
		return nil, gpioError("request the line", err)
	}
	return l, nil
}

func chipByLabel(label string) (*gpiocdev.Chip, error) {
	var have []string
	var denied error
	for _, name := range gpiocdev.Chips() {
		c, err := gpiocdev.NewChip(name)
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				denied = err
			}
			continue
		}
		if c.Label == label {
			return c, nil
		}
		have = append(have, c.Label)
		c.Close()
	}
	if denied != nil {
		return nil, gpioError("open the chip", denied)
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("this machine has no GPIO chip: %w", hal.ErrGone)
	}
	return nil, fmt.Errorf("no chip has label %q; here are %s: %w", label, strings.Join(have, ", "), hal.ErrGone)
}

func gpioError(op string, err error) error {
	switch {
	case errors.Is(err, gpiocdev.ErrClosed):
		return hal.ErrClosed
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w (is the user in group gpio?): %w", op, hal.ErrDenied, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w, gpioinfo shows whose: %w", op, hal.ErrBusy, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: %w", op, hal.ErrGone, err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w: %w", op, hal.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// edgeOf converts a kernel event; its timestamp is on the monotonic clock, whose reading at now is given.
func edgeOf(e gpiocdev.LineEvent, mono time.Duration, now time.Time) hal.Edge {
	age := max(mono-e.Timestamp, 0)
	return hal.Edge{Level: e.Type == gpiocdev.LineEventRisingEdge, At: now.Add(-age), Seq: e.LineSeqno}
}

func monotonic() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// gpioIn is an open input.
type gpioIn struct {
	edges *edges.Queue
	check time.Duration // goneCheck

	mu     sync.Mutex
	line   gpioLine
	closed bool
	gone   bool
}

// Read implements hal.DigitalIn.
func (g *gpioIn) Read(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return false, hal.ErrClosed
	case g.gone:
		return false, hal.ErrGone
	}
	v, err := g.line.Value()
	if err == nil {
		return v != 0, nil
	}
	err = gpioError("read the line", err)
	if errors.Is(err, hal.ErrGone) {
		// The library's watcher would spin on the dead descriptor until the line is closed.
		g.gone = true
		g.edges.End(err, false)
		g.line.Close()
	}
	return false, err
}

// Next implements hal.DigitalIn.
func (g *gpioIn) Next(ctx context.Context) (hal.Edge, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, g.check)
		e, err := g.edges.Next(wait)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return e, err
		}
		if _, err := g.Read(ctx); err != nil {
			return hal.Edge{}, err
		}
	}
}

// Close implements hal.DigitalIn.
func (g *gpioIn) Close() error {
	g.edges.End(hal.ErrClosed, true)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	if g.gone {
		return nil
	}
	return g.line.Close()
}

// gpioOut is an open output.
type gpioOut struct {
	line  gpioLine
	level atomic.Bool
}

// Set implements hal.DigitalOut.
func (g *gpioOut) Set(ctx context.Context, level bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := g.line.SetValue(value(level)); err != nil {
		return gpioError("set the line", err)
	}
	g.level.Store(level)
	return nil
}

// Level implements hal.DigitalOut.
func (g *gpioOut) Level() bool { return g.level.Load() }

// Close implements hal.DigitalOut. The line's level after that is the chip's own affair.
func (g *gpioOut) Close() error {
	if err := g.line.Close(); err != nil && !errors.Is(err, gpiocdev.ErrClosed) {
		return err
	}
	return nil
}
