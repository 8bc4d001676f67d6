package hal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long a call may take when its context has no deadline. A bus transaction is milliseconds; a second is the
// time after which the wire, not the chip, is the problem.
const (
	openLimit = 3 * time.Second
	callLimit = time.Second
)

// grace is what a call may need to come back after its deadline, on a busy machine: less is no sign of a hang.
const grace = 250 * time.Millisecond

// Wires opens wires by URI with the drivers it is given, and knows of each call on them whether it is overdue. The
// zero value has no drivers. A Wires may be used by several goroutines; Drivers must not change after the first use.
type Wires struct {
	Drivers map[string]Driver // by URI scheme

	mu    sync.Mutex
	calls map[*call]struct{}
}

// call is one call on a wire that has not yet returned.
type call struct {
	ctx  context.Context
	kind string
	uri  string
	op   string
	addr int       // of I2C.Tx, else -1
	due  time.Time // zero while waiting is what the call is for
}

func (c *call) String() string {
	s := c.kind + " " + c.uri + ": " + c.op
	if c.addr >= 0 {
		s += fmt.Sprintf(" at %#02x", c.addr)
	}
	return s
}

// I2C opens an I²C bus.
func (w *Wires) I2C(ctx context.Context, uri string) (I2C, error) {
	bus, err := open(ctx, w, "i2c", uri, func(d Driver, target string) (I2C, error) { return d.OpenI2C(ctx, target) })
	if err != nil {
		return nil, err
	}
	return &watchedI2C{watched{w, "i2c", uri}, bus}, nil
}

// Serial opens a serial line.
func (w *Wires) Serial(ctx context.Context, uri string, mode SerialMode) (Serial, error) {
	line, err := open(ctx, w, "serial", uri, func(d Driver, target string) (Serial, error) { return d.OpenSerial(ctx, target, mode) })
	if err != nil {
		return nil, err
	}
	return &watchedSerial{watched{w, "serial", uri}, line}, nil
}

// DigitalIn opens an input line.
func (w *Wires) DigitalIn(ctx context.Context, uri string, mode InputMode) (DigitalIn, error) {
	in, err := open(ctx, w, "digital-in", uri, func(d Driver, target string) (DigitalIn, error) { return d.OpenDigitalIn(ctx, target, mode) })
	if err != nil {
		return nil, err
	}
	return &watchedIn{watched{w, "digital-in", uri}, in}, nil
}

// DigitalOut opens an output line and drives mode.Initial.
func (w *Wires) DigitalOut(ctx context.Context, uri string, mode OutputMode) (DigitalOut, error) {
	out, err := open(ctx, w, "digital-out", uri, func(d Driver, target string) (DigitalOut, error) { return d.OpenDigitalOut(ctx, target, mode) })
	if err != nil {
		return nil, err
	}
	return &watchedOut{watched{w, "digital-out", uri}, out}, nil
}

// Overdue returns the call that is furthest beyond its deadline at now, as "<kind> <uri>: <operation>", and by how
// much; "" and 0 when there is none. Each call has the deadline of its context, or else one by its kind. Waiting for
// an edge or for serial bytes is no overdue call, unless the context has ended and the wait has not.
func (w *Wires) Overdue(now time.Time) (string, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var worst *call
	for c := range w.calls {
		if c.due.IsZero() {
			if c.ctx.Err() != nil {
				c.due = now // seen here first; from now on it counts
			}
			continue
		}
		if now.Sub(c.due) > grace && (worst == nil || c.due.Before(worst.due)) {
			worst = c
		}
	}
	if worst == nil {
		return "", 0
	}
	return worst.String(), now.Sub(worst.due)
}

func open[T any](ctx context.Context, w *Wires, kind, uri string, f func(d Driver, target string) (T, error)) (T, error) {
	var none T
	d, target, err := w.driver(uri)
	if err != nil {
		return none, fmt.Errorf("open %s wire: %w", kind, err)
	}
	c := w.begin(ctx, &call{kind: kind, uri: uri, op: "open", addr: -1}, openLimit)
	defer w.end(c)
	wire, err := f(d, target)
	if err != nil {
		return none, fmt.Errorf("open %s wire %s: %w", kind, uri, err)
	}
	return wire, nil
}

func (w *Wires) driver(uri string) (Driver, string, error) {
	scheme, target, err := Split(uri)
	if err != nil {
		return nil, "", err
	}
	d, ok := w.Drivers[scheme]
	if !ok || d == nil {
		have := strings.Join(slices.Sorted(maps.Keys(w.Drivers)), ", ")
		if have == "" {
			have = "none"
		}
		return nil, "", fmt.Errorf("%w: %q has scheme %q; this program has drivers for: %s", ErrBadURI, uri, scheme, have)
	}
	return d, target, nil
}

// begin registers c. A limit of 0 means that waiting is what the call is for.
func (w *Wires) begin(ctx context.Context, c *call, limit time.Duration) *call {
	c.ctx = ctx
	if t, ok := ctx.Deadline(); ok {
		c.due = t
	} else if limit > 0 {
		c.due = time.Now().Add(limit)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == nil {
		w.calls = make(map[*call]struct{})
	}
	w.calls[c] = struct{}{}
	return c
}

func (w *Wires) end(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.calls, c)
}
