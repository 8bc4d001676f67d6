package chips

import (
	"testing"
	"testing/synctest"
	"time"
)

// word reads a register of two bytes.
func word(t *testing.T, p Target, reg byte) uint16 {
	t.Helper()
	var r [2]byte
	if !p.Transfer([]byte{reg}, r[:]) {
		t.Fatal("no acknowledge")
	}
	return uint16(r[0])<<8 | uint16(r[1])
}

func putWord(p Target, reg byte, v uint16) { p.Transfer([]byte{reg, byte(v >> 8), byte(v)}, nil) }

// TestMCP9808Ambient: DS25095A, section 5.1.3, equation 5-1. The limits are 0 after power-on, hence the flags.
func TestMCP9808Ambient(t *testing.T) {
	for _, v := range []struct {
		celsius float64
		want    uint16
	}{
		{25.25, 0xC194}, {0, 0x8000}, {-0.0625, 0x3FFF}, {-25.25, 0x3E6C}, {125, 0xC7D0}, {4000, 0xC7D0}, {-4000, 0x3D80}, {25.30, 0xC194},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := NewMCP9808(func() float64 { return v.celsius })
			if got := word(t, m, mcpAmbient); got != 0x8000 {
				t.Errorf("before the first conversion it reads %#04x, want 0 °C", got)
			}
			time.Sleep(250 * time.Millisecond)
			if got := word(t, m, mcpAmbient); got != v.want {
				t.Errorf("%g °C reads %#04x, want %#04x", v.celsius, got, v.want)
			}
		})
	}
}

func TestMCP9808Registers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMCP9808(func() float64 { return 4 })
		for reg, want := range map[byte]uint16{mcpConfig: 0, mcpUpper: 0, mcpMaker: 0x0054, mcpDevice: 0x0400, 0: 0xFFFF, 9: 0xFFFF} {
			if got := word(t, m, reg); got != want {
				t.Errorf("register %d reads %#04x, want %#04x", reg, got, want)
			}
		}
		putWord(m, mcpUpper, 0xFFFF)
		if got := word(t, m, mcpUpper); got != 0x1FFC {
			t.Errorf("an upper limit of all ones reads %#04x", got)
		}
		putWord(m, mcpUpper, 5*16)
		putWord(m, mcpCritical, 8*16)
		putWord(m, mcpLower, 0x1FF0) // −1 °C
		time.Sleep(time.Second)
		if got := word(t, m, mcpAmbient); got != 4*16 {
			t.Errorf("4 °C between its limits reads %#04x, want no flag", got)
		}
		m.Transfer([]byte{mcpResolution, 0}, nil)
		var r [1]byte
		if m.Transfer([]byte{mcpResolution}, r[:]); r[0] != 0 {
			t.Errorf("the resolution reads %d, want 0", r[0])
		}
		m.PowerOn()
		if m.Transfer([]byte{mcpResolution}, r[:]); r[0] != 3 || word(t, m, mcpUpper) != 0 {
			t.Error("a power cycle left something as it was")
		}
	})
}

func TestMCP9808Resolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := 20.4
		m := NewMCP9808(func() float64 { return now })
		putWord(m, mcpUpper, 100*16)
		putWord(m, mcpCritical, 100*16)
		m.Transfer([]byte{mcpResolution, 0}, nil) // 0.5 °C in 30 ms
		time.Sleep(29 * time.Millisecond)
		if got := word(t, m, mcpAmbient); got != 0 {
			t.Errorf("after 29 ms %#04x, want nothing measured", got)
		}
		time.Sleep(time.Millisecond)
		if got := word(t, m, mcpAmbient); got != 20*16 {
			t.Errorf("20.4 °C in halves reads %#04x, want 20", got)
		}
		now = 30
		if got := word(t, m, mcpAmbient); got != 20*16 {
			t.Error("it measured between two conversions")
		}
		putWord(m, mcpConfig, mcpShutdown)
		time.Sleep(time.Minute)
		if got := word(t, m, mcpAmbient); got != 20*16 {
			t.Errorf("a sensor that is shut down measured: %#04x", got)
		}
		putWord(m, mcpConfig, 0)
		time.Sleep(30 * time.Millisecond)
		if got := word(t, m, mcpAmbient); got != 30*16 {
			t.Errorf("after the wake-up it reads %#04x, want 30 °C", got)
		}
	})
}

func TestMCP9808Locks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMCP9808(func() float64 { return 0 })
		putWord(m, mcpConfig, mcpWindowLock|mcpIntClear|mcpAlertStat)
		if got := word(t, m, mcpConfig); got != mcpWindowLock {
			t.Errorf("the configuration reads %#04x, want the lock alone", got)
		}
		putWord(m, mcpUpper, 16)
		putWord(m, mcpCritical, 32)
		putWord(m, mcpConfig, mcpShutdown)
		if word(t, m, mcpUpper) != 0 || word(t, m, mcpCritical) != 32 || word(t, m, mcpConfig) != mcpWindowLock {
			t.Error("a locked window was written, or what is not locked was not, or the lock came off")
		}
		m.PowerOn()
		if word(t, m, mcpConfig) != 0 {
			t.Error("the lock outlived the power")
		}
	})
}

func TestWordFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMCP9808(func() float64 { return 0 })
		m.Stick(mcpMaker, 0)
		if got := word(t, m, mcpMaker); got != 0 {
			t.Errorf("stuck at 0 it reads %#04x", got)
		}
		m.Unstick()
		m.Flip(0x80)
		if got := word(t, m, mcpMaker); got != 0x80D4 {
			t.Errorf("with flipped bits it reads %#04x, want 0x80d4", got)
		}
		if got := word(t, m, mcpMaker); got != 0x0054 {
			t.Errorf("then it reads %#04x, want 0x0054", got)
		}
		m.Transfer([]byte{mcpUpper, 1}, nil) // half a register
		if got := word(t, m, mcpUpper); got != 0 {
			t.Errorf("half a register was written: %#04x", got)
		}
	})
}
