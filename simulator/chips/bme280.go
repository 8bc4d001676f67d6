package chips

import (
	"sync"
	"time"
)

// Registers of the BME280: BST-BME280-DS002, section 5.3, table 18.
const (
	bmeCalib00  = 0x88 // to 0xA1
	bmeID       = 0xD0
	bmeReset    = 0xE0
	bmeCalib26  = 0xE1 // to 0xF0
	bmeCtrlHum  = 0xF2
	bmeStatus   = 0xF3
	bmeCtrlMeas = 0xF4
	bmeConfig   = 0xF5
	bmeData     = 0xF7 // press 3, temp 3, hum 2
	bmeDataEnd  = 0xFF
)

// Values of the same section.
const (
	bmeChipID    = 0x60
	bmeResetWord = 0xB6
	bmeMeasuring = 1 << 3
	bmeImUpdate  = 1 << 0

	bmeSkippedPT = 0x80000 // the reset value, and that of a skipped measurement
	bmeSkippedH  = 0x8000

	// Section 1.1, table 1: the time to the first communication, in which the NVM is copied.
	bmeStartup = 2 * time.Millisecond
)

// Modes, section 3.3, table 25. 01 and 10 are both forced.
const (
	bmeSleep  = 0
	bmeNormal = 3
)

// Air is what a climate sensor is in. The model clamps it to the sensor's range.
type Air struct {
	Celsius  float64 // −40 to 85
	KPa      float64 // 30 to 110
	Humidity float64 // relative, per cent
}

// BME280 is a Bosch BME280 climate sensor on I²C.
//
// Datasheet: BST-BME280-DS002, https://www.bosch-sensortec.com/products/environmental-sensors/humidity-sensors-bme280/
type BME280 struct {
	air   func() Air
	calib bmeCalibration

	mu      sync.Mutex
	pointer byte
	regs    [256]byte
	bootEnd time.Time
	hum     byte      // ctrl_hum in force: written, and latched by a write to ctrl_meas
	started time.Time // of the measurement, or of normal mode's first
	taken   int64     // measurements of normal mode already in the data registers
	filter  bmeRaw
	primed  bool // filter holds a value
	poison  bool
	flip    byte // XORed into each byte read, once
	stuck   map[byte]byte
}

// NewBME280 returns a sensor that has just been powered, in air, with the calibration of Bosch's worked example.
func NewBME280(air func() Air) *BME280 {
	b := &BME280{air: air, calib: exampleCalibration, stuck: make(map[byte]byte)}
	b.PowerOn()
	return b
}

// PowerOn is a power cycle: registers at their reset values, and the calibration comes back from the NVM.
func (b *BME280) PowerOn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reset(time.Now())
}

// Poison makes the sensor report the lowest raw values, as many do after a glitch on the supply (about −141 °C and
// 100 %), until a soft reset or a power cycle.
func (b *BME280) Poison() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.poison = true
}

// Stick makes a register read as v whatever is written or measured.
func (b *BME280) Stick(reg, v byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck[reg] = v
}

// Unstick ends Stick, for all registers.
func (b *BME280) Unstick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.stuck)
}

// Flip inverts bits in each byte of the next transaction that reads.
func (b *BME280) Flip(bits byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flip = bits
}

// Transfer implements Target, section 6.2: what is written is pairs of register and value, without auto-increment; a
// lone register sets the read pointer, and reading increments it.
func (b *BME280) Transfer(w, r []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.settle(now)
	if len(w) > 0 {
		b.pointer = w[len(w)-1]
		for i := 0; i+1 < len(w); i += 2 {
			b.write(now, w[i], w[i+1])
			b.pointer = w[i]
		}
		if len(w)%2 == 1 {
			b.pointer = w[len(w)-1]
		}
	}
	for i := range r {
		r[i] = b.read(now, b.pointer) ^ b.flip
		b.pointer++
	}
	if len(r) > 0 {
		b.flip = 0
	}
	return true
}

func (b *BME280) reset(now time.Time) {
	b.regs = [256]byte{bmeID: bmeChipID}
	b.hum, b.primed, b.poison, b.taken = 0, false, false, 0
	b.bootEnd = now.Add(bmeStartup)
	b.store(bmeRaw{p: bmeSkippedPT, t: bmeSkippedPT, h: bmeSkippedH})
	b.calib.put(&b.regs)
}

func (b *BME280) write(now time.Time, reg, v byte) {
	switch reg {
	case bmeReset:
		if v == bmeResetWord { // any other value does nothing: 5.4.2
			b.reset(now)
		}
	case bmeCtrlHum:
		b.regs[reg] = v & 0x07
	case bmeConfig:
		// 5.4.6: in normal mode writes may be ignored; the model ignores them, a driver must go to sleep first.
		if b.mode() != bmeNormal {
			b.regs[reg] = v &^ 0x02
		}
	case bmeCtrlMeas:
		b.regs[reg] = v
		b.hum = b.regs[bmeCtrlHum] // 5.4.3
		if b.mode() != bmeSleep {
			b.started, b.taken = now, 0
		}
	}
}

func (b *BME280) read(now time.Time, reg byte) byte {
	if v, ok := b.stuck[reg]; ok {
		return v
	}
	booting := now.Before(b.bootEnd)
	switch {
	case reg == bmeStatus:
		var s byte
		if booting {
			s |= bmeImUpdate
		}
		if b.measuring(now) {
			s |= bmeMeasuring
		}
		return s
	case booting && (reg >= bmeCalib00 && reg <= 0xA1 || reg >= bmeCalib26 && reg <= 0xF0):
		return 0 // the image registers are still being filled
	case b.poison && reg >= bmeData && reg < bmeDataEnd:
		return 0
	case reg == bmeReset:
		return 0 // 5.4.2
	}
	return b.regs[reg]
}

func (b *BME280) mode() byte { return b.regs[bmeCtrlMeas] & 3 }

func (b *BME280) oversampling() (t, p, h int) {
	return samples(b.regs[bmeCtrlMeas] >> 5), samples(b.regs[bmeCtrlMeas] >> 2 & 7), samples(b.hum & 7)
}

// samples decodes osrs_x, tables 20, 23 and 24.
func samples(osrs byte) int {
	if osrs == 0 {
		return 0
	}
	return 1 << (min(osrs, 5) - 1)
}

// measureTime is the typical duration of a measurement, section 9.1.
func (b *BME280) measureTime() time.Duration {
	t, p, h := b.oversampling()
	d := time.Millisecond + 2*time.Millisecond*time.Duration(t+p+h)
	if p > 0 {
		d += time.Millisecond / 2
	}
	if h > 0 {
		d += time.Millisecond / 2
	}
	return d
}

// standby is t_sb, table 27.
func (b *BME280) standby() time.Duration {
	ms := [8]float64{0.5, 62.5, 125, 250, 500, 1000, 10, 20}[b.regs[bmeConfig]>>5]
	return time.Duration(ms * float64(time.Millisecond))
}

// measuring says whether a conversion runs at now. settle has been called.
func (b *BME280) measuring(now time.Time) bool {
	switch b.mode() {
	case bmeSleep:
		return false
	case bmeNormal:
		return now.Sub(b.started)%(b.measureTime()+b.standby()) < b.measureTime()
	}
	return true // settle ends forced mode with the measurement
}

// settle brings the data registers up to now.
func (b *BME280) settle(now time.Time) {
	switch since, took := now.Sub(b.started), b.measureTime(); b.mode() {
	case bmeSleep:
	case bmeNormal:
		if since < took {
			return
		}
		done := int64((since-took)/(took+b.standby())) + 1
		b.sample(done - b.taken)
		b.taken = done
	default:
		if since >= took {
			b.sample(1)
			b.regs[bmeCtrlMeas] &^= 3 // back to sleep, 3.3.3
		}
	}
}

// sample measures n times in the same air.
func (b *BME280) sample(n int64) {
	if n <= 0 {
		return
	}
	raw := b.calib.invert(b.air())
	t, p, h := b.oversampling()
	raw.p = keepIf(p > 0, raw.p, bmeSkippedPT)
	raw.t = keepIf(t > 0, raw.t, bmeSkippedPT)
	raw.h = keepIf(h > 0, raw.h, bmeSkippedH)
	if c := int64(1) << (b.regs[bmeConfig] >> 2 & 7); c > 1 && b.primed { // 3.4.4, humidity is not filtered
		c = min(c, 16)
		smooth := b.filter
		for range min(n, 200) { // converged long before
			smooth.p = int32((int64(smooth.p)*(c-1) + int64(raw.p)) / c)
			smooth.t = int32((int64(smooth.t)*(c-1) + int64(raw.t)) / c)
		}
		raw.p = keepIf(p > 0, smooth.p, raw.p)
		raw.t = keepIf(t > 0, smooth.t, raw.t)
	}
	b.filter, b.primed = raw, p > 0 && t > 0
	b.store(raw)
}

func keepIf(ok bool, v, otherwise int32) int32 {
	if ok {
		return v
	}
	return otherwise
}

// store writes the data registers, big endian, 20 bits left aligned: 5.4.7 to 5.4.9.
func (b *BME280) store(raw bmeRaw) {
	d := b.regs[bmeData:]
	d[0], d[1], d[2] = byte(raw.p>>12), byte(raw.p>>4), byte(raw.p<<4)
	d[3], d[4], d[5] = byte(raw.t>>12), byte(raw.t>>4), byte(raw.t<<4)
	d[6], d[7] = byte(raw.h>>8), byte(raw.h)
}
