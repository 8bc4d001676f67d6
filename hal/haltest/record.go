package haltest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/twinbay/twinbay/hal"
)

// Recorder passes transactions on to a bus, on a bench with the real part, and keeps them. Its String is the script
// for I2C that plays them back.
type Recorder struct {
	bus hal.I2C

	mu  sync.Mutex
	ops []Op
}

// Record returns a recorder over bus.
func Record(bus hal.I2C) *Recorder { return &Recorder{bus: bus} }

// Tx implements hal.I2C.
func (r *Recorder) Tx(ctx context.Context, addr uint16, wr, rd []byte) error {
	err := r.bus.Tx(ctx, addr, wr, rd)
	op := Op{Addr: addr, W: bytes.Clone(wr), Err: err}
	if err == nil {
		op.R = bytes.Clone(rd)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
	return err
}

// Close implements hal.I2C.
func (r *Recorder) Close() error { return r.bus.Close() }

// Ops is what happened so far.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Op(nil), r.ops...)
}

// String is Ops as Go source, a transaction a line.
func (r *Recorder) String() string {
	var b strings.Builder
	for _, op := range r.Ops() {
		fmt.Fprintf(&b, "haltest.Op%#v,\n", op)
	}
	return b.String()
}
