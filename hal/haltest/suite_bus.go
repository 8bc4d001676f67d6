package haltest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// short is a wait that must end by its context; plenty is one that must not.
const (
	short  = 30 * time.Millisecond
	plenty = 10 * time.Second
)

// I2CBench is a bus set up for TestI2C: a part at Present that answers W by R, each time, and nothing at Absent.
type I2CBench struct {
	Bus     hal.I2C
	Present uint16
	W, R    []byte
	Absent  uint16
	Unplug  func() // takes the whole bus away; nil if that cannot be done
}

// TestI2C is what each hal.I2C has to do. open makes a fresh bench for each part of the suite.
func TestI2C(t *testing.T, open func(*testing.T) I2CBench) {
	read := func(t *testing.T, b I2CBench) {
		t.Helper()
		r := make([]byte, len(b.R))
		if err := b.Bus.Tx(limit(t), b.Present, b.W, r); err != nil || !bytes.Equal(r, b.R) {
			t.Errorf("Tx(%#02x, % x) read % x, err %v; want % x", b.Present, b.W, r, err, b.R)
		}
	}
	t.Run("transaction", func(t *testing.T) { read(t, open(t)) })
	t.Run("empty address", func(t *testing.T) {
		b := open(t)
		r := []byte{0x5a}
		if err := b.Bus.Tx(limit(t), b.Absent, []byte{0}, r); !errors.Is(err, hal.ErrAbsent) {
			t.Errorf("err = %v, want ErrAbsent", err)
		}
		if r[0] != 0x5a {
			t.Errorf("a failed transaction wrote %#02x into the buffer", r[0])
		}
		read(t, b) // and the bus still works
	})
	t.Run("address of more than 7 bits", func(t *testing.T) {
		if err := open(t).Bus.Tx(limit(t), 0x80, nil, make([]byte, 1)); !errors.Is(err, hal.ErrUnsupported) {
			t.Errorf("err = %v, want ErrUnsupported", err)
		}
	})
	t.Run("ended context", func(t *testing.T) {
		b := open(t)
		if err := b.Bus.Tx(ended(), b.Present, b.W, make([]byte, len(b.R))); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want Canceled", err)
		}
		read(t, b)
	})
	t.Run("closed", func(t *testing.T) {
		b := open(t)
		closeTwice(t, b.Bus.Close)
		if err := b.Bus.Tx(limit(t), b.Present, b.W, make([]byte, len(b.R))); !errors.Is(err, hal.ErrClosed) {
			t.Errorf("err = %v, want ErrClosed", err)
		}
	})
	t.Run("unplugged", func(t *testing.T) {
		b := open(t)
		if b.Unplug == nil {
			t.Skip("this bus cannot be unplugged")
		}
		read(t, b)
		b.Unplug()
		if err := b.Bus.Tx(limit(t), b.Present, b.W, make([]byte, len(b.R))); !errors.Is(err, hal.ErrGone) {
			t.Errorf("err = %v, want ErrGone", err)
		}
		closeTwice(t, b.Bus.Close)
	})
}

// SerialBench is a line set up for TestSerial, with the other end in the test's hands.
type SerialBench struct {
	Line    hal.Serial
	Send    func(p []byte)                                             // makes bytes arrive
	Sent    func(ctx context.Context, n int) (written []byte, e error) // takes the next n bytes that the line wrote
	Unplug  func()
	Stalled func(t *testing.T) // makes writing block sooner or later; nil if that cannot be done
}

// TestSerial is what each hal.Serial has to do.
func TestSerial(t *testing.T, open func(*testing.T) SerialBench) {
	t.Run("both ways", func(t *testing.T) { serialBothWays(t, open(t)) })
	t.Run("no byte lost by the end of a context", func(t *testing.T) { serialTimeout(t, open(t)) })
	t.Run("flush", func(t *testing.T) {
		b := open(t)
		b.Send([]byte{1, 2})
		if got := readN(t, b.Line, 1); got[0] != 1 { // now both are there
			t.Errorf("read % x, want 01", got)
		}
		if err := b.Line.Flush(limit(t)); err != nil {
			t.Fatal(err)
		}
		b.Send([]byte{3})
		if got := readN(t, b.Line, 1); got[0] != 3 {
			t.Errorf("after Flush read % x, want 03", got)
		}
	})
	t.Run("closed", func(t *testing.T) {
		b := open(t)
		waiting := make(chan error, 1)
		go func() {
			_, err := b.Line.Read(limit(t), make([]byte, 1))
			waiting <- err
		}()
		closeTwice(t, b.Line.Close)
		if err := <-waiting; !errors.Is(err, hal.ErrClosed) {
			t.Errorf("waiting read: err = %v, want ErrClosed", err)
		}
		if _, err := b.Line.Read(limit(t), make([]byte, 1)); !errors.Is(err, hal.ErrClosed) {
			t.Errorf("read: err = %v, want ErrClosed", err)
		}
		if err := b.Line.Write(limit(t), []byte{1}); !errors.Is(err, hal.ErrClosed) {
			t.Errorf("write: err = %v, want ErrClosed", err)
		}
		if err := b.Line.Flush(limit(t)); !errors.Is(err, hal.ErrClosed) {
			t.Errorf("flush: err = %v, want ErrClosed", err)
		}
	})
	t.Run("unplugged", func(t *testing.T) {
		b := open(t)
		b.Unplug()
		if _, err := b.Line.Read(limit(t), make([]byte, 1)); !errors.Is(err, hal.ErrGone) {
			t.Errorf("read: err = %v, want ErrGone", err)
		}
		if err := b.Line.Write(limit(t), []byte{1}); !errors.Is(err, hal.ErrGone) {
			t.Errorf("write: err = %v, want ErrGone", err)
		}
		closeTwice(t, b.Line.Close)
	})
	t.Run("stalled write", func(t *testing.T) {
		b := open(t)
		if b.Stalled == nil {
			t.Skip("this line cannot be stalled")
		}
		b.Stalled(t)
		ctx, cancel := context.WithTimeout(t.Context(), short)
		defer cancel()
		if err := b.Line.Write(ctx, make([]byte, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want DeadlineExceeded", err)
		}
		closeTwice(t, b.Line.Close)
	})
}

// serialBothWays sends each byte value, so that a line discipline that translates some of them is found.
func serialBothWays(t *testing.T, b SerialBench) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if err := b.Line.Write(limit(t), all); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Sent(limit(t), len(all)); err != nil || !bytes.Equal(got, all) {
		t.Errorf("the other end got % x, %v", got, err)
	}
	b.Send(all)
	if got := readN(t, b.Line, len(all)); !bytes.Equal(got, all) {
		t.Errorf("read % x, want each byte value in order", got)
	}
}

func serialTimeout(t *testing.T, b SerialBench) {
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	if n, err := b.Line.Read(ctx, make([]byte, 8)); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read %d bytes, err %v; want DeadlineExceeded", n, err)
	}
	if _, err := b.Line.Read(ended(), make([]byte, 8)); !errors.Is(err, context.Canceled) {
		t.Errorf("read with an ended context: err = %v, want Canceled", err)
	}
	if err := b.Line.Write(ended(), []byte{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("write with an ended context: err = %v, want Canceled", err)
	}
	b.Send([]byte("late"))
	if got := readN(t, b.Line, 4); string(got) != "late" {
		t.Errorf("read %q, want %q", got, "late")
	}
}

func readN(t *testing.T, l hal.Serial, n int) []byte {
	t.Helper()
	var got []byte
	buf := make([]byte, n)
	for len(got) < n {
		k, err := l.Read(limit(t), buf[:n-len(got)])
		if err != nil {
			t.Fatalf("after % x: %v", got, err)
		}
		got = append(got, buf[:k]...)
	}
	return got
}

// limit is a context that ends only where something hangs.
func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), plenty)
	t.Cleanup(cancel)
	return ctx
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func closeTwice(t *testing.T, closeWire func() error) {
	t.Helper()
	for range 2 {
		if err := closeWire(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
