//go:build linux

package linux

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gpiocdev "github.com/warthog618/go-gpiocdev"
	"golang.org/x/sys/unix"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/hal/internal/edges"
)

// cdevLine stands in for a gpiocdev.Line.
type cdevLine struct {
	mu     sync.Mutex
	value  int
	err    error
	closed int
}

func (l *cdevLine) Value() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.err
}

func (l *cdevLine) SetValue(v int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed > 0:
		return gpiocdev.ErrClosed
	case l.err != nil:
		return l.err
	}
	l.value = v
	return nil
}

func (l *cdevLine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed++; l.closed > 1 {
		return gpiocdev.ErrClosed
	}
	return nil
}

func (l *cdevLine) set(v int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value, l.err = v, err
}

func TestGPIOInSuite(t *testing.T) {
	haltest.TestDigitalIn(t, func(t *testing.T) haltest.InBench {
		l, q := new(cdevLine), edges.New()
		seq := uint32(0)
		return haltest.InBench{
			In: &gpioIn{line: l, edges: q, check: 20 * time.Millisecond},
			Set: func(active bool) {
				l.set(value(active), nil)
				seq++
				e := gpiocdev.LineEvent{Timestamp: monotonic(), Type: gpiocdev.LineEventFallingEdge, LineSeqno: seq}
				if active {
					e.Type = gpiocdev.LineEventRisingEdge
				}
				q.Push(edgeOf(e, monotonic(), time.Now()))
			},
			Unplug: func() { l.set(0, unix.ENODEV) },
		}
	})
}

func TestGPIOOutSuite(t *testing.T) {
	haltest.TestDigitalOut(t, func(t *testing.T) haltest.OutBench {
		l := &cdevLine{value: 1}
		out := &gpioOut{line: l}
		out.level.Store(true)
		return haltest.OutBench{
			Out:    out,
			Seen:   func() bool { v, _ := l.Value(); return v == 1 },
			Unplug: func() { l.set(0, unix.ENODEV) },
		}
	})
}

// TestVanishedChip: the kernel sends no edge when a chip goes, so a wait has to find out by itself.
func TestVanishedChip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(cdevLine)
		in := &gpioIn{line: l, edges: edges.New(), check: goneCheck}
		time.AfterFunc(time.Minute, func() { l.set(0, unix.ENODEV) })
		start := time.Now()
		_, err := in.Next(t.Context())
		if d := time.Since(start); !errors.Is(err, hal.ErrGone) || d > time.Minute+goneCheck {
			t.Errorf("err = %v after %v, want ErrGone within %v of the minute", err, d, goneCheck)
		}
		if l.closed != 1 {
			t.Errorf("the dead line was closed %d times, want once", l.closed)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestEdgeTime(t *testing.T) {
	now := time.Now()
	e := edgeOf(gpiocdev.LineEvent{Timestamp: 90 * time.Second, Type: gpiocdev.LineEventRisingEdge, LineSeqno: 7}, 100*time.Second, now)
	if !e.At.Equal(now.Add(-10*time.Second)) || !e.Level || e.Seq != 7 {
		t.Errorf("edge = %+v, want 10 s ago, active, seq 7", e)
	}
}

func TestGPIOErrors(t *testing.T) {
	for err, want := range map[error]error{
		unix.EBUSY:                   hal.ErrBusy,
		unix.EACCES:                  hal.ErrDenied,
		unix.ENODEV:                  hal.ErrGone,
		unix.EINVAL:                  hal.ErrUnsupported,
		gpiocdev.ErrClosed:           hal.ErrClosed,
		gpiocdev.ErrPermissionDenied: gpiocdev.ErrPermissionDenied,
	} {
		if got := gpioError("x", err); !errors.Is(got, want) {
			t.Errorf("%v became %v, want %v", err, got, want)
		}
	}
}

func TestGPIOOpenErrors(t *testing.T) {
	for target, want := range map[string]error{"17": hal.ErrBadURI, "/17": hal.ErrBadURI, "no such chip/17": hal.ErrGone} {
		if _, err := (GPIO{}).OpenDigitalIn(t.Context(), target, hal.InputMode{}); !errors.Is(err, want) {
			t.Errorf("input %q: err = %v, want %v", target, err, want)
		}
		if _, err := (GPIO{}).OpenDigitalOut(t.Context(), target, hal.OutputMode{}); !errors.Is(err, want) {
			t.Errorf("output %q: err = %v, want %v", target, err, want)
		}
	}
}

func TestOtherKinds(t *testing.T) {
	ctx := context.Background()
	for scheme, d := range Drivers() {
		_, i2c := d.OpenI2C(ctx, "no such bus")
		_, serial := d.OpenSerial(ctx, "/no/such/line", hal.SerialMode{})
		_, in := d.OpenDigitalIn(ctx, "no/line", hal.InputMode{})
		_, out := d.OpenDigitalOut(ctx, "no/line", hal.OutputMode{})
		supported := 0
		for _, err := range []error{i2c, serial, in, out} {
			if !errors.Is(err, hal.ErrUnsupported) {
				supported++
			}
		}
		if want := map[string]int{"i2c": 1, "serial": 1, "gpio": 2}[scheme]; supported != want {
			t.Errorf("%s has %d kinds of wire, want %d", scheme, supported, want)
		}
	}
}
