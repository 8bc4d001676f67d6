package hal_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/physic"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
)

func wires(t map[string]any) *hal.Wires {
	return &hal.Wires{Drivers: map[string]hal.Driver{"test": haltest.Wires(t)}}
}

// hung is a bus whose transactions ignore their context, as an ioctl does.
type hung struct{ free chan struct{} }

func (h hung) Tx(context.Context, uint16, []byte, []byte) error { <-h.free; return nil }
func (h hung) Close() error                                     { return nil }

func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hung{make(chan struct{})}
		w := wires(map[string]any{"bus": h})
		bus, err := w.I2C(t.Context(), "test:bus")
		if err != nil {
			t.Fatal(err)
		}
		go bus.Tx(t.Context(), 0x76, []byte{0xd0}, make([]byte, 1))
		synctest.Wait()
		time.Sleep(time.Second)
		if call, by := w.Overdue(time.Now()); call != "" || by != 0 {
			t.Errorf("at its deadline: %q, %v; want none", call, by)
		}
		time.Sleep(2 * time.Second)
		if call, by := w.Overdue(time.Now()); call != "i2c test:bus: transaction at 0x76" || by != 2*time.Second {
			t.Errorf("Overdue = %q, %v; want the transaction by 2s", call, by)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go bus.Tx(ctx, 0x77, nil, nil) // has more time than usual
		synctest.Wait()
		time.Sleep(3 * time.Second)
		if call, by := w.Overdue(time.Now()); !strings.HasSuffix(call, "0x76") || by != 5*time.Second {
			t.Errorf("Overdue = %q, %v; want the oldest, by 5s", call, by)
		}
		close(h.free)
		synctest.Wait()
		if call, by := w.Overdue(time.Now()); call != "" || by != 0 {
			t.Errorf("after the end: %q, %v; want none", call, by)
		}
	})
}

func TestWaitingIsNotOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wires(map[string]any{"in": haltest.Input(t, false), "line": haltest.Serial(t)})
		in, err := w.DigitalIn(t.Context(), "test:in", hal.InputMode{})
		if err != nil {
			t.Fatal(err)
		}
		line, err := w.Serial(t.Context(), "test:line", hal.SerialMode{})
		if err != nil {
			t.Fatal(err)
		}
		go in.Next(t.Context())
		go line.Read(t.Context(), make([]byte, 1))
		synctest.Wait()
		time.Sleep(time.Hour)
		if call, by := w.Overdue(time.Now()); call != "" {
			t.Errorf("Overdue = %q, %v; want none", call, by)
		}
		in.Close()
		line.Close()
	})
}

// deaf is an input whose wait does not end with its context.
type deaf struct {
	*haltest.InputLine
}

func (d deaf) Next(context.Context) (hal.Edge, error) { return d.InputLine.Next(context.Background()) }

func TestWaitingBeyondItsContextIsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := haltest.Input(t, false)
		w := wires(map[string]any{"in": deaf{line}})
		in, err := w.DigitalIn(t.Context(), "test:in", hal.InputMode{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go in.Next(ctx)
		synctest.Wait()
		cancel()
		w.Overdue(time.Now()) // a heartbeat sees that the context has ended
		time.Sleep(time.Second)
		if call, by := w.Overdue(time.Now()); call != "digital-in test:in: wait for an edge" || by != time.Second {
			t.Errorf("Overdue = %q, %v; want the wait by 1s", call, by)
		}
		line.Push(true)
	})
}

func TestErrorsNameTheWire(t *testing.T) {
	s := haltest.I2C(t)
	w := wires(map[string]any{"bus": s})
	bus, err := w.I2C(t.Context(), "test:bus")
	if err != nil {
		t.Fatal(err)
	}
	s.Unplug()
	err = bus.Tx(t.Context(), 1, nil, nil)
	if !errors.Is(err, hal.ErrGone) || !strings.HasPrefix(err.Error(), "test:bus: ") {
		t.Errorf("err = %v, want ErrGone after the wire's URI", err)
	}
	if _, err := w.I2C(t.Context(), "test:bus"); !errors.Is(err, hal.ErrGone) || !strings.Contains(err.Error(), "test:bus") {
		t.Errorf("open: err = %v, want ErrGone with the URI", err)
	}
	for uri, hint := range map[string]string{"bus": "no scheme", "i2c:/dev/i2c-1": "drivers for: test"} {
		if _, err := w.I2C(t.Context(), uri); !errors.Is(err, hal.ErrBadURI) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: err = %v, want ErrBadURI with %q", uri, err, hint)
		}
	}
}

func TestWiresPassTheSuites(t *testing.T) {
	haltest.TestSerial(t, func(t *testing.T) haltest.SerialBench {
		l := haltest.Serial(t)
		s, err := wires(map[string]any{"l": l}).Serial(t.Context(), "test:l", hal.SerialMode{})
		if err != nil {
			t.Fatal(err)
		}
		return haltest.SerialBench{Line: s, Send: func(p []byte) { l.Push(p...) }, Sent: l.Sent, Unplug: l.Unplug}
	})
	haltest.TestDigitalIn(t, func(t *testing.T) haltest.InBench {
		l := haltest.Input(t, false)
		in, err := wires(map[string]any{"l": l}).DigitalIn(t.Context(), "test:l", hal.InputMode{})
		if err != nil {
			t.Fatal(err)
		}
		return haltest.InBench{In: in, Set: l.Push, Unplug: l.Unplug}
	})
	haltest.TestDigitalOut(t, func(t *testing.T) haltest.OutBench {
		l := haltest.Output(t)
		out, err := wires(map[string]any{"l": l}).DigitalOut(t.Context(), "test:l", hal.OutputMode{Initial: true})
		if err != nil {
			t.Fatal(err)
		}
		return haltest.OutBench{Out: out, Seen: l.Level, Unplug: l.Unplug}
	})
}

func TestPeriph(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := haltest.I2C(t,
			haltest.Op{Addr: 0x76, W: []byte{0xd0}, R: []byte{0x60}},
			haltest.Op{Addr: 0x77, W: []byte{0xd0}, Err: hal.ErrAbsent})
		p := hal.Periph(t.Context(), haltest.Faulty(s, haltest.Fault{After: 2, Hang: true}))
		var id [1]byte
		if err := p.Tx(0x76, []byte{0xd0}, id[:]); err != nil || id[0] != 0x60 {
			t.Errorf("read %#02x, %v", id[0], err)
		}
		if err := p.Tx(0x77, []byte{0xd0}, id[:]); !errors.Is(err, hal.ErrAbsent) {
			t.Errorf("err = %v, want ErrAbsent", err)
		}
		start := time.Now()
		if err := p.Tx(0x76, nil, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("a bus that hangs: %v after %v, want DeadlineExceeded after 1s", err, time.Since(start))
		}
		if err := p.SetSpeed(400 * physic.KiloHertz); !errors.Is(err, hal.ErrUnsupported) {
			t.Errorf("SetSpeed: err = %v, want ErrUnsupported", err)
		}
	})
}
