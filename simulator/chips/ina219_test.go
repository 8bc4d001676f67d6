package chips

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestINA219Example is the worked example of SBOS448G, section 8.5.1: 12 V and 10 A with 2 mΩ, calibrated to 1 mA.
func TestINA219Example(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := NewINA219(0.002, func() Supply { return Supply{Volts: 11.98, Amperes: 10} })
		if got := word(t, i, inaConfig); got != 0x399F {
			t.Errorf("the configuration after power-on is %#04x, want 0x399f", got)
		}
		if word(t, i, inaShunt) != 0 || word(t, i, inaBus) != 0 {
			t.Error("something was measured at once")
		}
		time.Sleep(1064 * time.Microsecond)
		if got := word(t, i, inaCurrent); got != 0 {
			t.Errorf("without calibration the current is %d", got)
		}
		putWord(i, inaCalibration, 20480|1)
		for reg, want := range map[byte]uint16{inaShunt: 2000, inaBus: 2995<<3 | inaReady, inaCurrent: 10000, inaCalibration: 20480, 6: 0xFFFF} {
			if got := word(t, i, reg); got != want {
				t.Errorf("register %d reads %d, want %d", reg, got, want)
			}
		}
		if got := word(t, i, inaPower); got != 5990 {
			t.Errorf("the power is %d, want 5990: 119.8 W", got)
		}
		if got := word(t, i, inaBus); got&inaReady != 0 {
			t.Error("reading the power did not clear conversion ready")
		}
		time.Sleep(time.Second)
		if got := word(t, i, inaBus); got&inaReady == 0 {
			t.Error("the next conversion is not ready after a second")
		}
	})
}

func TestINA219Limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Supply{Volts: 24, Amperes: -1}
		i := NewINA219(0.1, func() Supply { return s })
		putWord(i, inaConfig, 0x199F|15<<3) // 16 V, ±320 mV, 128 samples of the shunt
		putWord(i, inaCalibration, 4096)
		time.Sleep(68 * time.Millisecond)
		if got := word(t, i, inaBus); got&inaReady != 0 {
			t.Error("128 samples were taken in 68 ms")
		}
		time.Sleep(10 * time.Millisecond)
		if got := int16(word(t, i, inaShunt)); got != -10000 {
			t.Errorf("−100 mV reads %d, want -10000", got)
		}
		if got := word(t, i, inaBus) >> 3; got != 4000 {
			t.Errorf("24 V in a range of 16 reads %d, want 4000", got)
		}
		putWord(i, inaConfig, 0x2000|1<<3|7) // 32 V, ±40 mV
		time.Sleep(time.Millisecond)
		if got := int16(word(t, i, inaShunt)); got != -4000 {
			t.Errorf("−100 mV in a range of 40 reads %d, want -4000", got)
		}
		s.Amperes = 3.2
		putWord(i, inaConfig, inaPOR)
		putWord(i, inaCalibration, 0xFFFE)
		time.Sleep(time.Second)
		if got := word(t, i, inaBus); got&inaOverflow == 0 {
			t.Errorf("the bus register reads %#04x, want the overflow", got)
		}
	})
}

func TestINA219TriggeredAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Supply{Volts: 5}
		i := NewINA219(0.1, func() Supply { return s })
		putWord(i, inaConfig, inaPOR&^7|3) // both, once
		time.Sleep(2 * time.Millisecond)
		first := word(t, i, inaBus) >> 3
		s.Volts = 12
		time.Sleep(time.Hour)
		if got := word(t, i, inaBus) >> 3; first != 1250 || got != first {
			t.Errorf("triggered it reads %d and then %d, want 1250 twice", first, got)
		}
		putWord(i, inaConfig, inaPOR&^7) // power-down
		time.Sleep(time.Hour)
		if got := word(t, i, inaBus) >> 3; got != first {
			t.Errorf("powered down it reads %d", got)
		}
		putWord(i, inaCalibration, 4096)
		i.PowerOn() // a brown-out
		time.Sleep(time.Second)
		if word(t, i, inaCalibration) != 0 || word(t, i, inaCurrent) != 0 || word(t, i, inaBus)>>3 != 3000 {
			t.Error("after a brown-out it measures volts and knows no calibration")
		}
		putWord(i, inaCalibration, 4096)
		putWord(i, inaConfig, 0x8000)
		if word(t, i, inaCalibration) != 0 || word(t, i, inaConfig) != inaPOR {
			t.Error("the reset bit did not reset")
		}
	})
}
