package simbus

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/internal/edges"
)

// Driver opens the wires of scheme sim: "<socket>#<wire>". The rig's serial lines are ptys: serial:<path>.
type Driver struct{}

// OpenI2C implements hal.Driver.
func (Driver) OpenI2C(ctx context.Context, target string) (hal.I2C, error) {
	c, err := open(ctx, target, opening(KindI2C, 0, 0), nil)
	if err != nil {
		return nil, err
	}
	return bus{c}, nil
}

// OpenSerial implements hal.Driver: there is none.
func (Driver) OpenSerial(context.Context, string, hal.SerialMode) (hal.Serial, error) {
	return nil, fmt.Errorf("the simulator's serial lines are ptys, write serial:<path>: %w", hal.ErrUnsupported)
}

// OpenDigitalIn implements hal.Driver.
func (Driver) OpenDigitalIn(ctx context.Context, target string, mode hal.InputMode) (hal.DigitalIn, error) {
	bits := byte(mode.Bias) << ModeBiasShift
	if mode.ActiveLow {
		bits |= ModeActiveLow
	}
	c, err := open(ctx, target, opening(KindDigitalIn, bits, mode.Debounce), edges.New())
	if err != nil {
		return nil, err
	}
	return input{c}, nil
}

// OpenDigitalOut implements hal.Driver.
func (Driver) OpenDigitalOut(ctx context.Context, target string, mode hal.OutputMode) (hal.DigitalOut, error) {
	var bits byte
	if mode.ActiveLow {
		bits |= ModeActiveLow
	}
	if mode.Initial {
		bits |= ModeInitial
	}
	c, err := open(ctx, target, opening(KindDigitalOut, bits, 0), nil)
	if err != nil {
		return nil, err
	}
	out := &output{conn: c}
	out.level.Store(mode.Initial)
	return out, nil
}

func opening(kind, mode byte, debounce time.Duration) []byte {
	µs := min(max(debounce.Microseconds(), 0), math.MaxUint32)
	return binary.BigEndian.AppendUint32([]byte{Version, kind, mode}, uint32(µs))
}

type bus struct{ *conn }

// Tx implements hal.I2C.
func (b bus) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if addr > 0x7f {
		return fmt.Errorf("address %#x has more than 7 bits: %w", addr, hal.ErrUnsupported)
	}
	if len(w) > MaxData || len(r) > MaxData {
		return fmt.Errorf("write %d and read %d bytes in one transaction, at most %d go: %w", len(w), len(r), MaxData, hal.ErrUnsupported)
	}
	p := binary.BigEndian.AppendUint16(nil, addr)
	p = binary.BigEndian.AppendUint16(p, uint16(len(r)))
	data, err := b.call(ctx, TypeTransfer, append(p, w...))
	if err == nil && len(data) != len(r) {
		err = fmt.Errorf("the simulator answered %d bytes", len(data))
	}
	if err != nil {
		return fmt.Errorf("write %d, read %d at %#02x: %w", len(w), len(r), addr, err)
	}
	copy(r, data)
	return nil
}

type input struct{ *conn }

// Read implements hal.DigitalIn.
func (i input) Read(ctx context.Context) (bool, error) {
	data, err := i.call(ctx, TypeRead, nil)
	if err == nil && len(data) != 1 {
		err = fmt.Errorf("the simulator answered %d bytes, 1 is a level", len(data))
	}
	if err != nil {
		return false, fmt.Errorf("read the line: %w", err)
	}
	return data[0] != 0, nil
}

// Next implements hal.DigitalIn.
func (i input) Next(ctx context.Context) (hal.Edge, error) {
	e, err := i.edges.Next(ctx)
	if err != nil {
		return e, fmt.Errorf("wait for an edge: %w", err)
	}
	return e, nil
}

type output struct {
	*conn
	level atomic.Bool
}

// Set implements hal.DigitalOut.
func (o *output) Set(ctx context.Context, level bool) error {
	p := []byte{0}
	if level {
		p[0] = 1
	}
	if _, err := o.call(ctx, TypeSet, p); err != nil {
		return fmt.Errorf("set the line: %w", err)
	}
	o.level.Store(level)
	return nil
}

// Level implements hal.DigitalOut.
func (o *output) Level() bool { return o.level.Load() }
