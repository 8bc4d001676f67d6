package haltest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// InBench is an input set up for TestDigitalIn, inactive.
type InBench struct {
	In     hal.DigitalIn
	Set    func(active bool) // moves the line, without bouncing
	Unplug func()
}

// TestDigitalIn is what each hal.DigitalIn has to do.
func TestDigitalIn(t *testing.T, open func(*testing.T) InBench) {
	t.Run("edges", func(t *testing.T) { inputEdges(t, open(t)) })
	t.Run("ended context", func(t *testing.T) {
		b := open(t)
		ctx, cancel := context.WithTimeout(t.Context(), short)
		defer cancel()
		if _, err := b.In.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("next: err = %v, want DeadlineExceeded", err)
		}
		if _, err := b.In.Read(ended()); !errors.Is(err, context.Canceled) {
			t.Errorf("read: err = %v, want Canceled", err)
		}
		b.Set(true)
		if e, err := b.In.Next(limit(t)); err != nil || !e.Level || e.Seq != 1 {
			t.Errorf("edge = %+v, %v; want active, seq 1", e, err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		b := open(t)
		waiting := make(chan error, 1)
		go func() {
			_, err := b.In.Next(limit(t))
			waiting <- err
		}()
		closeTwice(t, b.In.Close)
		if err := <-waiting; !errors.Is(err, hal.ErrClosed) {
			t.Errorf("waiting: err = %v, want ErrClosed", err)
		}
		inputEnded(t, b.In, hal.ErrClosed)
	})
	t.Run("unplugged", func(t *testing.T) {
		b := open(t)
		b.Unplug()
		inputEnded(t, b.In, hal.ErrGone)
		closeTwice(t, b.In.Close)
	})
}

func inputEdges(t *testing.T, b InBench) {
	if level, err := b.In.Read(limit(t)); err != nil || level {
		t.Fatalf("Read = %v, %v; want inactive", level, err)
	}
	before := time.Now()
	for i := range 6 { // all of them before the first is asked for
		b.Set(i%2 == 0)
	}
	after := time.Now()
	for i := range 6 {
		e, err := b.In.Next(limit(t))
		if err != nil || e.Level != (i%2 == 0) || e.Seq != uint32(i+1) {
			t.Fatalf("edge %d = %+v, %v; want level %v, seq %d", i, e, err, i%2 == 0, i+1)
		}
		// A millisecond for clocks that are not ours.
		if e.At.Before(before.Add(-time.Millisecond)) || e.At.After(after.Add(time.Millisecond)) {
			t.Errorf("edge %d at %v, want between %v and %v", i, e.At, before, after)
		}
	}
	b.Set(true)
	if e, err := b.In.Next(limit(t)); err != nil || !e.Level {
		t.Fatalf("edge = %+v, %v; want active", e, err)
	}
	if level, err := b.In.Read(limit(t)); err != nil || !level {
		t.Errorf("Read = %v, %v; want active", level, err)
	}
}

func inputEnded(t *testing.T, in hal.DigitalIn, want error) {
	t.Helper()
	if _, err := in.Next(limit(t)); !errors.Is(err, want) {
		t.Errorf("next: err = %v, want %v", err, want)
	}
	if _, err := in.Read(limit(t)); !errors.Is(err, want) {
		t.Errorf("read: err = %v, want %v", err, want)
	}
}

// OutBench is an output set up for TestDigitalOut: opened with Initial true.
type OutBench struct {
	Out    hal.DigitalOut
	Seen   func() bool // the logical level at the far end
	Unplug func()
}

// TestDigitalOut is what each hal.DigitalOut has to do.
func TestDigitalOut(t *testing.T, open func(*testing.T) OutBench) {
	t.Run("levels", func(t *testing.T) {
		b := open(t)
		if !b.Out.Level() || !b.Seen() {
			t.Errorf("after the open Level = %v, at the far end %v; want the initial true", b.Out.Level(), b.Seen())
		}
		for _, level := range []bool{false, true, true, false} {
			if err := b.Out.Set(limit(t), level); err != nil || b.Out.Level() != level || b.Seen() != level {
				t.Errorf("Set(%v): Level = %v, at the far end %v, err %v", level, b.Out.Level(), b.Seen(), err)
			}
		}
	})
	t.Run("ended context", func(t *testing.T) {
		b := open(t)
		if err := b.Out.Set(ended(), false); !errors.Is(err, context.Canceled) || !b.Out.Level() {
			t.Errorf("err = %v, Level = %v; want Canceled, and the level as it was", err, b.Out.Level())
		}
	})
	t.Run("closed", func(t *testing.T) {
		b := open(t)
		closeTwice(t, b.Out.Close)
		if err := b.Out.Set(limit(t), false); !errors.Is(err, hal.ErrClosed) {
			t.Errorf("err = %v, want ErrClosed", err)
		}
	})
	t.Run("unplugged", func(t *testing.T) {
		b := open(t)
		b.Unplug()
		if err := b.Out.Set(limit(t), false); !errors.Is(err, hal.ErrGone) {
			t.Errorf("err = %v, want ErrGone", err)
		}
		closeTwice(t, b.Out.Close)
	})
}
