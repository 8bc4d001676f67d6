package haltest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// spy is a testing.TB that keeps what a helper reports.
type spy struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (s *spy) Helper()                      {}
func (s *spy) Failed() bool                 { return len(s.errors) > 0 }
func (s *spy) Cleanup(f func())             { s.cleanups = append(s.cleanups, f) }
func (s *spy) Errorf(f string, args ...any) { s.errors = append(s.errors, f) }
func (s *spy) end() int {
	for _, f := range s.cleanups {
		f()
	}
	return len(s.errors)
}

func TestScriptFailsTheTest(t *testing.T) {
	script := []Op{{Addr: 0x48, W: []byte{0}, R: []byte{1, 2}}}
	for _, c := range []struct {
		name string
		use  func(*Script)
		want int // errors of the test
	}{
		{"as written", func(s *Script) { s.Tx(t.Context(), 0x48, []byte{0}, make([]byte, 2)) }, 0},
		{"wrong address", func(s *Script) { s.Tx(t.Context(), 0x49, []byte{0}, make([]byte, 2)) }, 1},
		{"wrong bytes", func(s *Script) { s.Tx(t.Context(), 0x48, []byte{1}, make([]byte, 2)) }, 1},
		{"wrong length", func(s *Script) { s.Tx(t.Context(), 0x48, []byte{0}, make([]byte, 3)) }, 1},
		{"left over", func(s *Script) {}, 1},
		{"one too many", func(s *Script) {
			for range 2 {
				s.Tx(t.Context(), 0x48, []byte{0}, make([]byte, 2))
			}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb := &spy{TB: t}
			c.use(I2C(tb, script...))
			if n := tb.end(); n != c.want {
				t.Errorf("%d errors, want %d: %v", n, c.want, tb.errors)
			}
		})
	}
}

func TestSerialScriptFailsTheTest(t *testing.T) {
	for _, c := range []struct {
		name  string
		write string
		want  int
	}{{"as written", "abc", 0}, {"another byte", "abd", 1}, {"too little", "ab", 1}, {"too much", "abcd", 1}} {
		t.Run(c.name, func(t *testing.T) {
			tb := &spy{TB: t}
			l := Serial(tb, Exchange{W: []byte("abc"), R: []byte("xyz"), Echo: true})
			if err := l.Write(t.Context(), []byte(c.write)); err != nil {
				t.Fatal(err)
			}
			if n := tb.end(); n != c.want {
				t.Errorf("%d errors, want %d: %v", n, c.want, tb.errors)
			}
			if c.want == 0 {
				if got := readN(t, l, 6); string(got) != "abcxyz" {
					t.Errorf("read %q, want the echo and the answer", got)
				}
			}
		})
	}
}

func TestRecordPlaysBack(t *testing.T) {
	ops := []Op{
		{Addr: 0x76, W: []byte{0xd0}, R: []byte{0x60}},
		{Addr: 0x77, W: []byte{0xd0}, Err: hal.ErrAbsent},
	}
	rec := Record(I2C(t, ops...))
	use := func(bus hal.I2C) (id [1]byte, err error) {
		bus.Tx(t.Context(), 0x76, []byte{0xd0}, id[:])
		return id, bus.Tx(t.Context(), 0x77, []byte{0xd0}, make([]byte, 1))
	}
	use(rec)
	if want := "haltest.Op{Addr: 0x76, W: []byte{0xd0}, R: []byte{0x60}},\n"; !strings.HasPrefix(rec.String(), want) {
		t.Errorf("recording starts %q, want %q", rec, want)
	}
	id, err := use(I2C(t, rec.Ops()...))
	if id[0] != 0x60 || !errors.Is(err, hal.ErrAbsent) {
		t.Errorf("played back: id %#02x, err %v", id, err)
	}
}

func TestFaulty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := Op{Addr: 1, R: []byte{7}}
		bus := Faulty(I2C(t, good, good, good),
			Fault{After: 1, Times: 1, Err: hal.ErrArbitration},
			Fault{After: 2, Times: 1, Hang: true},
			Fault{After: 3, Times: 1, Corrupt: func(p []byte) { p[0] = 9 }})
		var got [5]byte
		var errs [5]error
		for i := range got {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			errs[i] = bus.Tx(ctx, 1, nil, got[i:i+1])
			cancel()
		}
		if got != [5]byte{7, 0, 0, 9, 7} || !errors.Is(errs[1], hal.ErrArbitration) || !errors.Is(errs[2], context.DeadlineExceeded) {
			t.Errorf("read %v, errors %v", got, errs)
		}
	})
}

func TestFaultySerial(t *testing.T) {
	line := Serial(t)
	bad := FaultySerial(line, Fault{Times: 1, Corrupt: func(p []byte) { p[0] ^= 1 }})
	p := []byte{2}
	for range 2 {
		if err := bad.Write(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := line.Sent(t.Context(), 2); err != nil || got[0] != 3 || got[1] != 2 || p[0] != 2 {
		t.Errorf("sent % x (%v), the driver's buffer % x; want 03 02 and 02", got, err, p)
	}
}

func TestWires(t *testing.T) {
	in, out, bus := Input(t, false), Output(t), I2C(t)
	w := hal.Wires{Drivers: map[string]hal.Driver{"test": Wires(map[string]any{"in": in, "out": out, "bus": bus, "line": Serial(t)})}}
	if _, err := w.I2C(t.Context(), "test:in"); !errors.Is(err, hal.ErrUnsupported) {
		t.Errorf("another kind: err = %v, want ErrUnsupported", err)
	}
	if _, err := w.I2C(t.Context(), "test:none"); !errors.Is(err, hal.ErrGone) {
		t.Errorf("unknown: err = %v, want ErrGone", err)
	}
	if _, err := w.DigitalOut(t.Context(), "test:out", hal.OutputMode{Initial: true}); err != nil || !out.Level() {
		t.Errorf("open: %v, level %v, want the initial true", err, out.Level())
	}
	mode := hal.InputMode{ActiveLow: true, Debounce: time.Millisecond}
	d, err := w.DigitalIn(t.Context(), "test:in", mode)
	if err != nil || in.Mode() != mode {
		t.Fatalf("open: %v, mode %+v", err, in.Mode())
	}
	in.Unplug()
	if _, err := d.Read(t.Context()); !errors.Is(err, hal.ErrGone) {
		t.Errorf("unplugged: err = %v, want ErrGone", err)
	}
	if _, err := w.DigitalIn(t.Context(), "test:in", mode); !errors.Is(err, hal.ErrGone) {
		t.Errorf("open while unplugged: err = %v, want ErrGone", err)
	}
	in.Plug()
	if d, err = w.DigitalIn(t.Context(), "test:in", mode); err != nil {
		t.Fatal(err)
	}
	in.Push(true)
	if e, err := d.Next(t.Context()); err != nil || !e.Level || e.Seq != 1 {
		t.Errorf("after the plug edge = %+v, %v; want active, seq 1", e, err)
	}
	if _, err := w.Serial(t.Context(), "test:line", hal.SerialMode{Baud: 19200}); err != nil {
		t.Error(err)
	}
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
	if b, err := w.I2C(t.Context(), "test:bus"); err != nil || b.Close() != nil {
		t.Errorf("a closed wire opens again: %v", err)
	}
}

func TestLostEdges(t *testing.T) {
	in := Input(t, false)
	in.Push(true)
	in.Lose(3, true)
	in.Push(false)
	for _, want := range []uint32{1, 5} {
		if e, err := in.Next(t.Context()); err != nil || e.Seq != want {
			t.Errorf("edge = %+v, %v; want seq %d", e, err, want)
		}
	}
}

// The suites run over this package's own wires.

func TestI2CSuite(t *testing.T) {
	TestI2C(t, func(t *testing.T) I2CBench {
		tb := &spy{TB: t} // the suite asks for less than the script of some parts
		op := Op{Addr: 0x76, W: []byte{0xd0}, R: []byte{0x60}}
		s := I2C(tb)
		switch {
		case strings.HasSuffix(t.Name(), "empty_address"):
			s.Then(Op{Addr: 0x51, W: []byte{0}, Err: hal.ErrAbsent}, op)
		default:
			s.Then(op)
		}
		return I2CBench{Bus: s, Present: 0x76, W: op.W, R: op.R, Absent: 0x51, Unplug: s.Unplug}
	})
}

func TestSerialSuite(t *testing.T) {
	TestSerial(t, func(t *testing.T) SerialBench {
		l := Serial(t)
		return SerialBench{Line: l, Send: func(p []byte) { l.Push(p...) }, Sent: l.Sent, Unplug: l.Unplug,
			Stalled: func(*testing.T) { l.Stall(true) }}
	})
}

func TestDigitalSuites(t *testing.T) {
	TestDigitalIn(t, func(t *testing.T) InBench {
		l := Input(t, false)
		return InBench{In: l, Set: l.Push, Unplug: l.Unplug}
	})
	TestDigitalOut(t, func(t *testing.T) OutBench {
		l := Output(t)
		if _, err := Wires(map[string]any{"x": l}).OpenDigitalOut(t.Context(), "x", hal.OutputMode{Initial: true}); err != nil {
			t.Fatal(err)
		}
		return OutBench{Out: l, Seen: l.Level, Unplug: l.Unplug}
	})
}
