package chips

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func still(a Air) func() Air { return func() Air { return a } }

// get reads n registers from reg on.
func get(t *testing.T, b *BME280, reg byte, n int) []byte {
	t.Helper()
	r := make([]byte, n)
	if !b.Transfer([]byte{reg}, r) {
		t.Fatal("no acknowledge")
	}
	return r
}

func put(b *BME280, pairs ...byte) { b.Transfer(pairs, nil) }

// raws decodes the data registers.
func raws(t *testing.T, b *BME280) bmeRaw {
	d := get(t, b, bmeData, 8)
	return bmeRaw{
		p: int32(d[0])<<12 | int32(d[1])<<4 | int32(d[2])>>4,
		t: int32(d[3])<<12 | int32(d[4])<<4 | int32(d[5])>>4,
		h: int32(d[6])<<8 | int32(d[7]),
	}
}

// TestBoschExample holds the formulas to the worked example of BST-BMP280-DS001, section 3.12.
func TestBoschExample(t *testing.T) {
	c := exampleCalibration
	if got := c.celsius(519888); math.Abs(got-25.08) > 0.005 {
		t.Errorf("raw 519888 is %.4f °C, want 25.08", got)
	}
	if got := c.pascal(415148, c.fine(519888)); math.Abs(got-100653.27) > 0.5 {
		t.Errorf("raw 415148 is %.2f Pa, want 100653.27", got)
	}
	if got := c.relative(29281, c.fine(519888)); math.Abs(got-51.7) > 0.1 { // not Bosch's
		t.Errorf("raw 29281 is %.2f %%, want 51.7", got)
	}
	raw := c.invert(Air{Celsius: c.celsius(519888), KPa: c.pascal(415148, c.fine(519888)) / 1000, Humidity: 51.7})
	if raw.t != 519888 || raw.p != 415148 {
		t.Errorf("inverted to %+v, want 519888 and 415148", raw)
	}
}

// TestInvertAnyAir: the raw values that are found stand for the air, as far as their steps allow.
func TestInvertAnyAir(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := exampleCalibration
	for range 2000 {
		air := Air{Celsius: -40 + rng.Float64()*125, KPa: 30 + rng.Float64()*80, Humidity: 1 + rng.Float64()*98}
		raw := c.invert(air)
		fine := c.fine(raw.t)
		got := Air{c.celsius(raw.t), c.pascal(raw.p, fine) / 1000, c.relative(raw.h, fine)}
		if math.Abs(got.Celsius-air.Celsius) > 0.01 || math.Abs(got.KPa-air.KPa) > 0.01 || math.Abs(got.Humidity-air.Humidity) > 0.02 {
			t.Fatalf("%+v became %+v, which is %+v", air, raw, got)
		}
	}
	low, high := c.invert(Air{-300, 0, -5}), c.invert(Air{900, 900, 900})
	if c.celsius(low.t) < -40.01 || c.celsius(high.t) > 85.01 {
		t.Errorf("beyond the range: %.1f °C and %.1f °C", c.celsius(low.t), c.celsius(high.t))
	}
}

func TestCalibrationRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBME280(still(Air{}))
		time.Sleep(bmeStartup)
		want := []byte{0x70, 0x6b, 0x43, 0x67, 0x18, 0xfc, 0x7d, 0x8e, 0x43, 0xd6, 0xd0, 0x0b, 0x27, 0x0b,
			0x8c, 0x00, 0xf9, 0xff, 0x8c, 0x3c, 0xf8, 0xc6, 0x70, 0x17, 0x00, 75} // the example, by hand
		for i, v := range get(t, b, bmeCalib00, 26) {
			if v != want[i] {
				t.Errorf("register %#02x is %#02x, want %#02x", bmeCalib00+i, v, want[i])
			}
		}
		// H2 370, H3 0, H4 314 = 0x13A, H5 50 = 0x032, H6 30
		want = []byte{0x72, 0x01, 0x00, 0x13, 0x2a, 0x03, 30}
		for i, v := range get(t, b, bmeCalib26, 7) {
			if v != want[i] {
				t.Errorf("register %#02x is %#02x, want %#02x", bmeCalib26+i, v, want[i])
			}
		}
	})
}

func TestStartup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBME280(still(Air{}))
		if s := get(t, b, bmeStatus, 1)[0]; s != bmeImUpdate {
			t.Errorf("status after power-on is %#02x, want the NVM copy", s)
		}
		if c := get(t, b, bmeCalib00, 1)[0]; c != 0 {
			t.Errorf("calibration reads %#02x while it is copied, want 0", c)
		}
		time.Sleep(bmeStartup)
		if s := get(t, b, bmeStatus, 1)[0]; s != 0 {
			t.Errorf("status after 2 ms is %#02x, want 0", s)
		}
		if id := get(t, b, bmeID, 1)[0]; id != 0x60 {
			t.Errorf("id %#02x, want 0x60", id)
		}
		if raw := raws(t, b); raw != (bmeRaw{0x80000, 0x80000, 0x8000}) {
			t.Errorf("data before a measurement is %+v, want the reset values", raw)
		}
	})
}

func TestForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		air := Air{Celsius: 21.5, KPa: 98.7, Humidity: 40}
		b := NewBME280(func() Air { return air })
		put(b, bmeCtrlHum, 1, bmeCtrlMeas, 1<<5|1<<2|1) // all once, forced
		if s := get(t, b, bmeStatus, 1)[0] & bmeMeasuring; s == 0 {
			t.Error("the measuring bit is off")
		}
		const typical = 8 * time.Millisecond // 1 + 2 + 2.5 + 2.5, section 9.1
		time.Sleep(typical - time.Microsecond)
		if raw := raws(t, b); raw.t != 0x80000 {
			t.Error("data came before the measurement's end")
		}
		time.Sleep(time.Microsecond)
		want := b.calib.invert(air)
		if raw := raws(t, b); raw != want {
			t.Errorf("data %+v, want %+v", raw, want)
		}
		if c := get(t, b, bmeCtrlMeas, 1)[0]; c&3 != 0 {
			t.Errorf("ctrl_meas is %#02x, want sleep after a forced measurement", c)
		}
		air.Celsius = 70
		time.Sleep(time.Hour)
		if raw := raws(t, b); raw != want {
			t.Error("a sleeping sensor measured")
		}
	})
}

func TestHumidityLatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBME280(still(Air{20, 100, 50}))
		put(b, bmeCtrlMeas, 1<<5|1<<2|1)
		put(b, bmeCtrlHum, 1) // too late: 5.4.3
		time.Sleep(time.Second)
		if raw := raws(t, b); raw.h != bmeSkippedH || raw.t == bmeSkippedPT {
			t.Errorf("data %+v, want humidity skipped", raw)
		}
		put(b, bmeCtrlMeas, 1<<5|0<<2|1)
		time.Sleep(time.Second)
		if raw := raws(t, b); raw.h == bmeSkippedH || raw.p != bmeSkippedPT {
			t.Errorf("data %+v, want pressure skipped", raw)
		}
	})
}

func TestNormalModeAndFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		air := Air{20, 100, 50}
		b := NewBME280(func() Air { return air })
		put(b, bmeConfig, 4<<5|2<<2, bmeCtrlHum, 1, bmeCtrlMeas, 1<<5|1<<2|3) // 500 ms, filter 4
		time.Sleep(8 * time.Millisecond)
		first := raws(t, b)
		if first != b.calib.invert(air) {
			t.Errorf("first sample %+v, want it unfiltered", first)
		}
		air.Celsius = 30
		target := b.calib.invert(air)
		time.Sleep(508 * time.Millisecond)
		if got, want := raws(t, b).t, (first.t*3+target.t)/4; got != want {
			t.Errorf("one sample later %d, want a quarter of the step: %d", got, want)
		}
		time.Sleep(time.Minute)
		if got := raws(t, b).t; math.Abs(float64(got-target.t)) > 4 {
			t.Errorf("after a minute %d, want nearly %d", got, target.t)
		}
		put(b, bmeConfig, 0)
		if c := get(t, b, bmeConfig, 1)[0]; c != 4<<5|2<<2 {
			t.Errorf("config is %#02x; normal mode ignores writes", c)
		}
	})
}

func TestSoftReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBME280(still(Air{20, 100, 50}))
		put(b, bmeCtrlHum, 1, bmeCtrlMeas, 1<<5|1<<2|3)
		time.Sleep(time.Second)
		b.Poison()
		if raw := raws(t, b); raw != (bmeRaw{}) {
			t.Errorf("poisoned data %+v, want zeros", raw)
		}
		put(b, bmeReset, 0x12) // not the word
		if raws(t, b) != (bmeRaw{}) || get(t, b, bmeCtrlMeas, 1)[0] == 0 {
			t.Error("another value than 0xB6 reset the sensor")
		}
		put(b, bmeReset, bmeResetWord)
		if s := get(t, b, bmeStatus, 1)[0]; s != bmeImUpdate {
			t.Errorf("status after the reset is %#02x, want the NVM copy alone", s)
		}
		time.Sleep(bmeStartup)
		if c := get(t, b, bmeCtrlHum, 3); c[0]|c[2] != 0 {
			t.Errorf("registers F2 to F4 are % x, want 00", c)
		}
		put(b, bmeCtrlMeas, 1<<5|1<<2|1)
		time.Sleep(time.Second)
		if got := b.calib.celsius(raws(t, b).t); math.Abs(got-20) > 0.01 {
			t.Errorf("%.2f °C after the reset, want 20", got)
		}
	})
}

func TestBME280Faults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBME280(still(Air{20, 100, 50}))
		b.Flip(0x01)
		if id := get(t, b, bmeID, 1)[0]; id != 0x61 {
			t.Errorf("flipped id %#02x, want 0x61", id)
		}
		b.Stick(bmeID, 0xff)
		if id := get(t, b, bmeID, 1)[0]; id != 0xff {
			t.Errorf("stuck id %#02x, want 0xff", id)
		}
		b.Unstick()
		if id := get(t, b, bmeID, 1)[0]; id != 0x60 {
			t.Errorf("id %#02x, want 0x60", id)
		}
		put(b, bmeCtrlHum, 1, bmeCtrlMeas, 1<<5|1<<2|3)
		time.Sleep(time.Second)
		b.PowerOn()
		if c := get(t, b, bmeCtrlMeas, 1)[0]; c != 0 {
			t.Errorf("ctrl_meas after a power cycle is %#02x, want 0", c)
		}
	})
}

func FuzzBME280(f *testing.F) {
	f.Add([]byte{bmeCtrlHum, 1, bmeCtrlMeas, 0x25}, uint8(8))
	f.Add([]byte{bmeConfig, 0xff, bmeCtrlMeas, 0xff, bmeData}, uint8(255))
	f.Add([]byte{}, uint8(3))
	f.Fuzz(func(t *testing.T, w []byte, n uint8) {
		b := NewBME280(still(Air{20, 100, 50}))
		b.bootEnd = time.Time{}
		b.Transfer(w, make([]byte, n))
		b.started = b.started.Add(-time.Hour) // whatever was started is over, many times
		b.Transfer(nil, make([]byte, n))
		if id := get(t, b, bmeID, 1)[0]; id != bmeChipID {
			t.Errorf("writes changed the id to %#02x", id)
		}
	})
}
