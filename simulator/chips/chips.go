// Package chips has models of hardware parts, written from their datasheets: registers, frames, timing, and what goes
// wrong in the field.
//
// A model has no goroutine: it works out its state from the time when it is asked, so it runs on the wall clock and in
// a testing/synctest bubble alike. Models may be used by several goroutines. They know nothing of the drivers that
// will talk to them; simulator/rig puts them behind sockets and ptys.
package chips

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// Target is a part on an I²C bus.
type Target interface {
	// Transfer is one transaction: w is written, then r is read. False means that the part does not acknowledge.
	Transfer(w, r []byte) bool
}

// Bus is an I²C bus with its parts, as the adapter sees it. Its zero value has none. It is a hal.I2C.
type Bus struct {
	mu     sync.Mutex
	parts  map[uint16]Target
	absent map[uint16]bool
	nacks  int           // transactions that nobody will acknowledge
	stuck  time.Time     // SDA is held low until then
	freed  chan struct{} // closed when stuck changes
}

// Attach puts a part on the bus.
func (b *Bus) Attach(addr uint16, p Target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parts == nil {
		b.parts = make(map[uint16]Target)
		b.absent = make(map[uint16]bool)
	}
	b.parts[addr] = p
}

// Unplug takes the part at addr off the bus, or puts it back.
func (b *Bus) Unplug(addr uint16, off bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.absent == nil {
		b.absent = make(map[uint16]bool)
	}
	b.absent[addr] = off
}

// Nack lets the next n transactions go unacknowledged, as noise on a long cable does.
func (b *Bus) Nack(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nacks = n
}

// Hang holds SDA low for d: no transaction comes to an end. Zero frees the bus.
func (b *Bus) Hang(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = time.Now().Add(d)
	if b.freed != nil {
		close(b.freed)
	}
	b.freed = make(chan struct{})
}

// Tx implements hal.I2C.
func (b *Bus) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if addr > 0x7f {
		return fmt.Errorf("address %#x has more than 7 bits: %w", addr, hal.ErrUnsupported)
	}
	if err := b.wait(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	p := b.parts[addr]
	ok := p != nil && !b.absent[addr]
	if b.nacks > 0 {
		b.nacks--
		ok = false
	}
	b.mu.Unlock()
	if !ok {
		return hal.ErrAbsent
	}
	if !p.Transfer(w, r) {
		return hal.ErrAbsent
	}
	return nil
}

// wait returns when the bus is not stuck.
func (b *Bus) wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		left, freed := time.Until(b.stuck), b.freed
		b.mu.Unlock()
		if left <= 0 {
			return nil
		}
		t := time.NewTimer(left)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-freed:
		case <-t.C:
		}
		t.Stop()
	}
}

// Close implements hal.I2C; a model has nothing to let go.
func (b *Bus) Close() error { return nil }
