package haltest

import (
	"context"
	"sync"

	"github.com/twinbay/twinbay/hal"
)

// Fault is what goes wrong with some calls. Exactly one of Err, Hang and Corrupt does it.
type Fault struct {
	After   int            // calls that pass unharmed first
	Times   int            // calls that are harmed then; 0 means all
	Err     error          // the call fails without reaching the wire
	Hang    bool           // the call blocks until its context ends
	Corrupt func(p []byte) // changes the bytes read
}

// faults applies each fault by its own count.
type faults struct {
	mu    sync.Mutex
	list  []Fault
	calls int
}

// hit counts a call and returns the fault that harms it, or nil.
func (f *faults) hit() *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.calls
	f.calls++
	for i, x := range f.list {
		if n >= x.After && (x.Times == 0 || n < x.After+x.Times) {
			return &f.list[i]
		}
	}
	return nil
}

// before says whether a call ends here, and with what.
func (x *Fault) before(ctx context.Context) (bool, error) {
	switch {
	case x == nil:
		return false, nil
	case x.Err != nil:
		return true, x.Err
	case x.Hang:
		<-ctx.Done()
		return true, ctx.Err()
	}
	return false, nil
}

func (x *Fault) after(p []byte, err error) {
	if x != nil && x.Corrupt != nil && err == nil {
		x.Corrupt(p)
	}
}

// Faulty is bus with faults in its transactions, counted from 0.
func Faulty(bus hal.I2C, list ...Fault) hal.I2C {
	return &faultyI2C{bus, faults{list: list}}
}

type faultyI2C struct {
	hal.I2C
	faults faults
}

func (f *faultyI2C) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	x := f.faults.hit()
	if done, err := x.before(ctx); done {
		return err
	}
	err := f.I2C.Tx(ctx, addr, w, r)
	x.after(r, err)
	return err
}

func (f *faultyI2C) reopen(mode any) error { return reopenInner(f.I2C, mode) }

// FaultySerial is line with faults in its writes. Corrupt changes what goes out, on a copy.
func FaultySerial(line hal.Serial, list ...Fault) hal.Serial {
	return &faultySerial{line, faults{list: list}}
}

type faultySerial struct {
	hal.Serial
	faults faults
}

func (f *faultySerial) Write(ctx context.Context, p []byte) error {
	x := f.faults.hit()
	if done, err := x.before(ctx); done {
		return err
	}
	if x != nil && x.Corrupt != nil {
		p = append([]byte(nil), p...)
		x.Corrupt(p)
	}
	return f.Serial.Write(ctx, p)
}

func (f *faultySerial) reopen(mode any) error { return reopenInner(f.Serial, mode) }

func reopenInner(wire, mode any) error {
	if o, ok := wire.(opener); ok {
		return o.reopen(mode)
	}
	return nil
}
