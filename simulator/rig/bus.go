package rig

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/simbus"
	"github.com/twinbay/twinbay/simulator/chips"
)

const (
	openLimit  = 5 * time.Second        // for a client to say what it wants
	writeLimit = 5 * time.Second        // for a client to take an answer
	busyLimit  = 500 * time.Millisecond // for the last owner of a line to be seen gone
)

// wire is a GPIO line as the bus serves it. Like the kernel, it gives it to one owner at a time.
type wire struct {
	line   *chips.Line
	output bool
	owner  chan struct{} // holds a token while the line is owned
	driven func(bool)    // of an output: told the level at the pin, when it has an owner; nil: nobody asks

	mu      sync.Mutex
	plugged chan struct{} // closed by unplug; nil while unplugged
}

func newWire(level, output bool) *wire {
	w := &wire{line: new(chips.Line), output: output, owner: make(chan struct{}, 1), plugged: make(chan struct{})}
	w.line.Set(level)
	return w
}

// in returns a channel that is closed when the wire is unplugged; false means that it is.
func (w *wire) in() (<-chan struct{}, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plugged, w.plugged != nil
}

func (w *wire) plug(in bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case in && w.plugged == nil:
		w.plugged = make(chan struct{})
	case !in && w.plugged != nil:
		close(w.plugged)
		w.plugged = nil
	}
}

// drive sets an output.
func (w *wire) drive(level bool) {
	w.line.Set(level)
	if w.driven != nil {
		w.driven(level)
	}
}

// take waits a little for the line: the connection of a killed owner may not have ended yet.
func (w *wire) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()
	select {
	case w.owner <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another program owns the line: %w", hal.ErrBusy)
	}
}

func (w *wire) release() { <-w.owner }

// opening is a client's first frame.
type opening struct {
	kind, mode byte
	debounce   time.Duration
	name       string
}

func parseOpening(typ byte, p []byte) (opening, error) {
	switch {
	case typ != simbus.TypeOpen || len(p) < 7:
		return opening{}, fmt.Errorf("the first frame has type %#02x and %d bytes; Open is wanted", typ, len(p))
	case p[0] != simbus.Version:
		return opening{}, fmt.Errorf("protocol version %d, this rig speaks %d", p[0], simbus.Version)
	}
	µs := binary.BigEndian.Uint32(p[3:])
	return opening{kind: p[1], mode: p[2], debounce: time.Duration(µs) * time.Microsecond, name: string(p[7:])}, nil
}

// busConn is one client's connection.
type busConn struct {
	nc net.Conn
	mu sync.Mutex // for whole frames
}

func (b *busConn) send(typ byte, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nc.SetWriteDeadline(time.Now().Add(writeLimit))
	return simbus.WriteFrame(b.nc, typ, payload)
}

func (b *busConn) result(id uint32, data []byte, err error) error {
	p := binary.BigEndian.AppendUint32(nil, id)
	p = append(p, simbus.CodeOf(err))
	if err != nil {
		data = []byte(err.Error())
	}
	return b.send(simbus.TypeResult, append(p, data...))
}

// serveBus serves one wire to one client.
func (r *Rig) serveBus(ctx context.Context, nc net.Conn) {
	b := &busConn{nc: nc}
	br := bufio.NewReaderSize(nc, 512)
	nc.SetReadDeadline(time.Now().Add(openLimit))
	typ, payload, err := simbus.ReadFrame(br)
	if err != nil {
		r.log.Debug("a client of the bus said nothing", "err", err)
		return
	}
	o, err := parseOpening(typ, payload)
	if err != nil {
		b.result(0, nil, err)
		return
	}
	nc.SetReadDeadline(time.Time{})
	switch line, i2c := r.wires[o.name], r.buses[o.name]; {
	case i2c != nil && o.kind == simbus.KindI2C:
		if b.result(0, nil, nil) == nil {
			r.requests(ctx, b, br, transfers(i2c))
		}
	case line != nil && o.kind == simbus.KindDigitalIn && !line.output,
		line != nil && o.kind == simbus.KindDigitalOut && line.output:
		r.serveLine(ctx, b, br, line, o)
	case line != nil || i2c != nil:
		b.result(0, nil, fmt.Errorf("wire %q is of another kind: %w", o.name, hal.ErrUnsupported))
	default:
		b.result(0, nil, fmt.Errorf("the rig has wires %s, not %q: %w", strings.Join(r.wireNames(), ", "), o.name, hal.ErrBadURI))
	}
}

// handler carries out one request.
type handler func(ctx context.Context, typ byte, p []byte) ([]byte, error)

// requests reads requests and has them carried out, in order, until the client goes. Reading goes on meanwhile, so
// that the end of the connection ends a transfer that hangs.
func (r *Rig) requests(ctx context.Context, b *busConn, br *bufio.Reader, handle handler) {
	ctx, cancel := context.WithCancel(ctx)
	type request struct {
		typ byte
		id  uint32
		p   []byte
	}
	queue := make(chan request, 16)
	var worker sync.WaitGroup
	defer worker.Wait()
	defer cancel()
	worker.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case q := <-queue:
				data, err := handle(ctx, q.typ, q.p)
				if ctx.Err() != nil || b.result(q.id, data, err) != nil {
					b.nc.Close()
					return
				}
			}
		}
	})
	for {
		typ, p, err := simbus.ReadFrame(br)
		if err != nil || len(p) < 4 {
			return
		}
		select {
		case queue <- request{typ, binary.BigEndian.Uint32(p), p[4:]}:
		case <-ctx.Done():
			return
		}
	}
}

// wireNames are the names of all wires.
func (r *Rig) wireNames() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(r.buses)), maps.Keys(r.wires))
	slices.Sort(names)
	return names
}

func transfers(bus *chips.Bus) handler {
	return func(ctx context.Context, typ byte, p []byte) ([]byte, error) {
		if typ != simbus.TypeTransfer || len(p) < 4 {
			return nil, fmt.Errorf("frame type %#02x with %d bytes is no transfer: %w", typ, len(p), hal.ErrUnsupported)
		}
		n := binary.BigEndian.Uint16(p[2:])
		if n > simbus.MaxData {
			return nil, fmt.Errorf("read %d bytes: %w", n, hal.ErrUnsupported)
		}
		data := make([]byte, n)
		err := bus.Tx(ctx, binary.BigEndian.Uint16(p), p[4:], data)
		return data, err
	}
}

func (r *Rig) serveLine(ctx context.Context, b *busConn, br *bufio.Reader, w *wire, o opening) {
	unplugged, ok := w.in()
	if !ok {
		b.result(0, nil, fmt.Errorf("wire %q is unplugged: %w", o.name, hal.ErrGone))
		return
	}
	if err := w.take(ctx); err != nil {
		b.result(0, nil, err)
		return
	}
	defer w.release()
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	helpers.Go(func() {
		select {
		case <-unplugged:
			b.nc.Close()
		case <-ctx.Done():
		}
	})
	activeLow := o.mode&simbus.ModeActiveLow != 0
	if w.output {
		w.drive((o.mode&simbus.ModeInitial != 0) != activeLow)
		if b.result(0, nil, nil) == nil {
			r.requests(ctx, b, br, outputHandler(w, activeLow))
		}
		return
	}
	levels, edges := w.line.Watch(activeLow, o.debounce), w.line.Watch(activeLow, o.debounce)
	if b.result(0, nil, nil) != nil {
		return
	}
	helpers.Go(func() { sendEdges(ctx, b, edges) })
	r.requests(ctx, b, br, inputHandler(levels))
}

func sendEdges(ctx context.Context, b *busConn, w *chips.Watcher) {
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return
		}
		p := append(make([]byte, 0, 13), bit(e.Level))
		p = binary.BigEndian.AppendUint64(p, uint64(e.At.UnixNano()))
		p = binary.BigEndian.AppendUint32(p, e.Seq)
		if b.send(simbus.TypeEdgeSeen, p) != nil {
			b.nc.Close()
			return
		}
	}
}

func inputHandler(w *chips.Watcher) handler {
	return func(_ context.Context, typ byte, _ []byte) ([]byte, error) {
		if typ != simbus.TypeRead {
			return nil, fmt.Errorf("frame type %#02x on an input: %w", typ, hal.ErrUnsupported)
		}
		return []byte{bit(w.Level())}, nil
	}
}

func outputHandler(w *wire, activeLow bool) handler {
	return func(_ context.Context, typ byte, p []byte) ([]byte, error) {
		switch {
		case typ == simbus.TypeSet && len(p) == 1 && p[0] <= 1:
			w.drive((p[0] == 1) != activeLow)
			return nil, nil
		case typ == simbus.TypeRead:
			return []byte{bit(w.line.Level() != activeLow)}, nil
		}
		return nil, fmt.Errorf("frame type %#02x with %d bytes on an output: %w", typ, len(p), hal.ErrUnsupported)
	}
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}
