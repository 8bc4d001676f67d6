package chips

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Addresses with IOCON.BANK 0.
const (
	ioDirA, ioDirB, intEnA, intEnB, defValB, intConB = 0x00, 0x01, 0x04, 0x05, 0x07, 0x09
	ioCon, intFB, intCapB, gpioA, gpioB, oLatA       = 0x0A, 0x0F, 0x11, 0x12, 0x13, 0x14
)

func regs(m *MCP23017, addr byte, n int) []byte {
	r := make([]byte, n)
	m.Transfer([]byte{addr}, r)
	return r
}

func TestMCP23017PowerOn(t *testing.T) {
	m := NewMCP23017(nil)
	m.Transfer([]byte{ioDirA, 0, 0}, nil)
	m.PowerOn()
	got := regs(m, 0, 22)
	for i, v := range got {
		want := byte(0)
		switch byte(i) {
		case ioDirA, ioDirB:
			want = 0xFF
		case gpioA, gpioB:
			want = 0x7F // pulled up; pin 7 is no input
		}
		if v != want {
			t.Errorf("register %#02x is %#02x after power-on, want %#02x", i, v, want)
		}
	}
	if !m.Int(0).Level() || !m.Int(1).Level() {
		t.Error("an interrupt is asserted after power-on")
	}
}

func TestMCP23017Outputs(t *testing.T) {
	var driven, level uint16
	calls := 0
	m := NewMCP23017(func(d, l uint16) { driven, level, calls = d, l, calls+1 })
	m.Transfer([]byte{oLatA, 0x05}, nil)
	if calls != 0 {
		t.Error("a latch behind inputs changed what is driven")
	}
	m.Transfer([]byte{ioDirA, 0xF0}, nil)
	if calls != 1 || driven != 0x0F || level != 0x05 {
		t.Errorf("driven %#x, level %#x in %d calls; want 0xf and 0x5 in one", driven, level, calls)
	}
	m.Transfer([]byte{gpioA, 0x0A}, nil) // writing the port writes the latch: 3.5.10
	if got := regs(m, oLatA, 1)[0]; got != 0x0A || level != 0x0A {
		t.Errorf("the latch is %#x, the pins are %#x, want 0xa", got, level)
	}
	m.Drive(0, true)
	if got := regs(m, gpioA, 1)[0] & 0x0F; got != 0x0A {
		t.Errorf("the port reads %#x, want what it drives", got)
	}
	m.PowerOn()
	if calls != 3 || driven != 0 {
		t.Errorf("after a power cycle %#x is driven, %d calls; want nothing, and 3", driven, calls)
	}
}

// TestMCP23017Pointer: section 3.2.1, in all four ways.
func TestMCP23017Pointer(t *testing.T) {
	m := NewMCP23017(nil)
	m.Transfer([]byte{oLatA, 0xA1, 0xB1, 0xF0}, nil) // past the end it begins anew, at IODIRA
	if got := regs(m, oLatA, 3); got[0] != 0xA1 || got[1] != 0xB1 || got[2] != 0xF0 {
		t.Errorf("sequential: % x", got)
	}
	m.Transfer([]byte{ioCon, expSeqOp}, nil)
	if got := regs(m, oLatA, 4); got[0] != 0xA1 || got[1] != 0xB1 || got[2] != 0xA1 || got[3] != 0xB1 {
		t.Errorf("byte mode toggles between the ports: % x", got)
	}
	m.Transfer([]byte{ioCon, expSeqOp | expBank}, nil)
	if got := regs(m, 0x1A, 2); got[0] != 0xB1 || got[1] != 0xB1 {
		t.Errorf("byte mode with banks stays: % x", got)
	}
	m.Transfer([]byte{0x15, expBank}, nil) // IOCON through port B
	if got := regs(m, 0x0A, 2); got[0] != 0xA1 || got[1] != 0xFF {
		t.Errorf("with banks, port B's IODIR follows port A's latch: % x", got)
	}
	if got := regs(m, 0x1A, 2); got[0] != 0xB1 || got[1] != 0xF0 {
		t.Errorf("with banks, port A's IODIR follows port B's latch: % x", got)
	}
}

func TestMCP23017InterruptOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMCP23017(nil)
		m.Transfer([]byte{ioCon, expMirror}, nil)
		m.Transfer([]byte{intEnB, 0x01}, nil)
		edges := m.Int(0).Watch(false, 0) // mirrored from port B
		start := time.Now()
		m.Drive(8, false)
		e, err := edges.Next(t.Context())
		if err != nil || e.Level || !e.At.Equal(start) {
			t.Fatalf("edge %+v, %v; want a falling one at once", e, err)
		}
		time.Sleep(300 * time.Millisecond)
		m.Drive(8, true)
		time.Sleep(time.Second)
		if f, c := regs(m, intFB, 1)[0], regs(m, intCapB, 1)[0]; f != 1 || c != 0x7E {
			t.Errorf("INTF %#x, INTCAP %#x; want pin 0, and it low as it was then", f, c)
		}
		if e, err = edges.Next(t.Context()); err != nil || !e.Level {
			t.Fatalf("edge %+v, %v; want a rising one after INTCAP was read", e, err)
		}
		// What moves later makes an interrupt then, while nobody asks.
		m.Drive(9, false) // not enabled
		start = time.Now()
		m.Drive(8, true, 2*time.Second, time.Second)
		if e, err = edges.Next(t.Context()); err != nil || e.Level || time.Since(start) != 2*time.Second {
			t.Fatalf("edge %+v, %v after %v; want a falling one after 2 s", e, err, time.Since(start))
		}
		if got := regs(m, gpioB, 1)[0]; got != 0x7C {
			t.Errorf("the port reads %#x, want 0x7c", got)
		}
		if e, err = edges.Next(t.Context()); err != nil || !e.Level {
			t.Fatalf("edge %+v, %v; reading the port ends an interrupt", e, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
		defer cancel()
		if e, err = edges.Next(ctx); err == nil {
			t.Errorf("edge %+v, want none before the pin moves back", e)
		}
	})
}

// TestMCP23017InterruptOnLevel: against DEFVAL the condition lasts, whatever is read: 3.6.5.
func TestMCP23017InterruptOnLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMCP23017(nil)
		m.Transfer([]byte{defValB, 0xFF}, nil)
		m.Transfer([]byte{intConB, 0xFF}, nil)
		m.Transfer([]byte{intEnB, 0x02}, nil)
		m.Drive(9, false)
		for range 3 {
			if m.Int(1).Level() || !m.Int(0).Level() {
				t.Fatalf("INTA %v, INTB %v; want INTB low alone", m.Int(0).Level(), m.Int(1).Level())
			}
			regs(m, gpioB, 1)
		}
		m.Drive(9, true)
		regs(m, gpioB, 1)
		if !m.Int(1).Level() {
			t.Error("the interrupt outlived its condition")
		}
		m.Transfer([]byte{ioCon, expIntPol}, nil)
		if m.Int(1).Level() {
			t.Error("active high and not asserted, it is high")
		}
		m.Drive(9, false)
		if !m.Int(1).Level() {
			t.Error("active high and asserted, it is low")
		}
	})
}

func TestMCP23017Faults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMCP23017(nil)
		m.HoldInt(0, true)
		if m.Int(0).Level() {
			t.Error("a held INT is high")
		}
		m.HoldInt(0, false)
		if !m.Int(0).Level() {
			t.Error("INT stayed low")
		}
		m.Stick(ioDirA, 0x55)
		m.Flip(0x01)
		if a, b := regs(m, ioDirA, 1)[0], regs(m, ioDirA, 1)[0]; a != 0x54 || b != 0x55 {
			t.Errorf("IODIRA reads %#x and %#x, want 0x54 and 0x55", a, b)
		}
		m.Unstick()
		if got := regs(m, ioDirA, 1)[0]; got != 0xFF {
			t.Errorf("IODIRA reads %#x", got)
		}
		if got := regs(m, intEnA+0x40, 1)[0]; got != 0 {
			t.Errorf("an address beyond the table reads %#x", got)
		}
	})
}
