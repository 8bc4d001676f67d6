package haltest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twinbay/twinbay/hal"
)

// Op is one I²C transaction. In a script, W is what the driver has to write and R what it reads; with Err set, R may
// be left nil and the driver's buffer stays as it is.
type Op struct {
	Addr uint16
	W, R []byte
	Err  error
}

// GoString is o as it stands in a script.
func (o Op) GoString() string {
	s := fmt.Sprintf("{Addr: %#02x", o.Addr)
	if o.W != nil {
		s += ", W: " + literal(o.W)
	}
	if o.R != nil {
		s += ", R: " + literal(o.R)
	}
	if o.Err != nil {
		s += fmt.Sprintf(", Err: errors.New(%q)", o.Err.Error())
	}
	return s + "}"
}

func literal(p []byte) string {
	parts := make([]string, len(p))
	for i, b := range p {
		parts[i] = fmt.Sprintf("%#02x", b)
	}
	return "[]byte{" + strings.Join(parts, ", ") + "}"
}

// Script is a bus that expects its Ops in order. Make it with I2C.
type Script struct {
	t testing.TB

	mu     sync.Mutex
	ops    []Op
	next   int
	broken bool // a mismatch was reported; what follows from it is not worth another line
	closed bool
	gone   bool
}

// I2C returns a bus on which exactly these transactions happen, in this order. Another one fails the test at once
// and is ErrAbsent for the driver; those that did not happen fail it at cleanup.
func I2C(t testing.TB, ops ...Op) *Script {
	t.Helper()
	s := &Script{t: t, ops: ops}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if left := s.ops[s.next:]; len(left) > 0 && !s.broken {
			t.Errorf("haltest: %d of %d transactions did not happen; the next would be %#v", len(left), len(s.ops), left[0])
		}
	})
	return s
}

// Then appends transactions to the script.
func (s *Script) Then(ops ...Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = append(s.ops, ops...)
}

// Left is how many transactions are still to happen.
func (s *Script) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ops) - s.next
}

// Unplug makes every call ErrGone until Plug; the driver has to close the bus and open it again.
func (s *Script) Unplug() { s.setGone(true) }

// Plug ends Unplug.
func (s *Script) Plug() { s.setGone(false) }

func (s *Script) setGone(gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = gone
	if gone {
		s.closed = true
	}
}

// Tx implements hal.I2C.
func (s *Script) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return hal.ErrGone
	}
	if s.closed {
		return hal.ErrClosed
	}
	if err := checkAddr(addr); err != nil {
		return err
	}
	got := Op{Addr: addr, W: w}
	if s.next == len(s.ops) {
		s.fail("haltest: transaction %d is one too many: %#v, reading %d bytes", s.next+1, got, len(r))
		return fmt.Errorf("not in the script: %w", hal.ErrAbsent)
	}
	want := s.ops[s.next]
	if want.Addr != addr || !bytes.Equal(want.W, w) || (len(want.R) != len(r) && (want.Err == nil || want.R != nil)) {
		s.fail("haltest: transaction %d is %#v, reading %d bytes; the script has %#v, reading %d bytes",
			s.next+1, got, len(r), want, len(want.R))
		return fmt.Errorf("not in the script: %w", hal.ErrAbsent)
	}
	s.next++
	if want.Err == nil {
		copy(r, want.R)
	}
	return want.Err
}

// fail reports by Errorf, because the driver may run on a goroutine of its own. The lock is held.
func (s *Script) fail(format string, args ...any) {
	s.t.Helper()
	if !s.broken {
		s.t.Errorf(format, args...)
	}
	s.broken = true
}

// Close implements hal.I2C.
func (s *Script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *Script) reopen(any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return hal.ErrGone
	}
	s.closed = false
	return nil
}

func checkAddr(addr uint16) error {
	if addr > 0x7f {
		return fmt.Errorf("address %#x has more than 7 bits: %w", addr, hal.ErrUnsupported)
	}
	return nil
}
