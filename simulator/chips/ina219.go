package chips

import (
	"math"
	"time"
)

// Registers of the INA219: SBOS448G, section 8.6.1, table 2.
const (
	inaConfig      = 0
	inaShunt       = 1 // 10 µV, signed
	inaBus         = 2 // 4 mV in bits 15 to 3, conversion ready in bit 1, overflow in bit 0
	inaPower       = 3
	inaCurrent     = 4
	inaCalibration = 5

	inaReset    = 1 << 15
	inaPOR      = 0x399F
	inaReady    = 1 << 1
	inaOverflow = 1 << 0
)

// Supply is what a current sensor is wired into.
type Supply struct {
	Volts   float64 // at the load, to ground: 0 to 26
	Amperes float64 // through the shunt; negative backwards
}

// INA219 is a Texas Instruments INA219 current and voltage sensor on I²C.
//
// Datasheet: SBOS448G, https://www.ti.com/product/INA219
type INA219 struct {
	words
	supply func() Supply
	ohms   float64 // the shunt's

	regs  [6]uint16
	since time.Time // the conversions began
	taken int64     // conversions whose results are in the registers
	ready bool
}

// NewINA219 returns a sensor that has just been powered, with a shunt of so many ohms in the supply.
func NewINA219(ohms float64, supply func() Supply) *INA219 {
	i := &INA219{ohms: ohms, supply: supply}
	i.words = words{get: i.read, set: i.write, size: func(reg byte) int {
		if reg <= inaCalibration {
			return 2
		}
		return 0
	}}
	i.PowerOn()
	return i
}

// PowerOn is a power cycle, or a brown-out: the calibration is gone, and with it current and power.
func (i *INA219) PowerOn() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reset()
}

func (i *INA219) reset() {
	i.regs = [6]uint16{inaConfig: inaPOR}
	i.since, i.taken, i.ready = time.Now(), 0, false
}

func (i *INA219) write(reg byte, v uint16) {
	i.settle(time.Now())
	switch reg {
	case inaConfig:
		if v&inaReset != 0 {
			i.reset()
			return
		}
		i.regs[inaConfig] = v
		if m := v & 7; m != 0 && m != 4 { // power-down and ADC off leave what was converted: section 8.6.3.2
			i.since, i.taken, i.ready = time.Now(), 0, false
		}
	case inaCalibration:
		i.regs[inaCalibration] = v &^ 1 // bit 0 is always 0: section 8.6.4.1
		i.multiply()
	}
}

func (i *INA219) read(reg byte) uint16 {
	i.settle(time.Now())
	v := i.regs[reg]
	if reg == inaBus && i.ready {
		v |= inaReady
	}
	if reg == inaPower {
		i.ready = false
	}
	return v
}

// mode is what is converted, and whether again and again.
func (i *INA219) mode() (shunt, bus, continuous bool) {
	m := i.regs[inaConfig] & 7
	return m&1 != 0, m&2 != 0, m > 4
}

// conversion is how long both take together, section 8.6.2.1, table 5.
func (i *INA219) conversion() time.Duration {
	one := func(bits uint16) time.Duration {
		if bits&8 == 0 {
			return [4]time.Duration{84, 148, 276, 532}[bits&3] * time.Microsecond
		}
		return [8]time.Duration{532, 1060, 2130, 4260, 8510, 17020, 34050, 68100}[bits&7] * time.Microsecond
	}
	var took time.Duration
	shunt, bus, _ := i.mode()
	if shunt {
		took += one(i.regs[inaConfig] >> 3 & 15)
	}
	if bus {
		took += one(i.regs[inaConfig] >> 7 & 15)
	}
	return took
}

// settle brings the data registers up to now.
func (i *INA219) settle(now time.Time) {
	took := i.conversion()
	if took == 0 {
		return
	}
	done := int64(now.Sub(i.since) / took)
	if _, _, continuous := i.mode(); !continuous {
		done = min(done, 1)
	}
	if done <= i.taken {
		return
	}
	i.taken, i.ready = done, true
	i.convert(i.supply())
}

// convert is one measurement: 12 bits whatever the resolution, which only changes the noise.
func (i *INA219) convert(s Supply) {
	shunt, bus, _ := i.mode()
	if shunt {
		full := float64(int(4000) << (i.regs[inaConfig] >> 11 & 3)) // ±40, 80, 160 or 320 mV: table 4
		i.regs[inaShunt] = uint16(int16(max(-full, min(math.Round(s.Amperes*i.ohms*1e5), full))))
	}
	if bus {
		full := 16.0 // section 8.6.3.2, BRNG
		if i.regs[inaConfig]&(1<<13) != 0 {
			full = 32
		}
		i.regs[inaBus] = uint16(math.Floor(max(0, min(s.Volts, full))/0.004)) << 3
	}
	i.multiply()
}

// multiply is the chip's arithmetic on what has been converted: sections 8.6.3.4 and 8.6.3.5.
func (i *INA219) multiply() {
	current := int64(int16(i.regs[inaShunt])) * int64(i.regs[inaCalibration]) / 4096
	power := max(current, -current) * int64(i.regs[inaBus]>>3) / 5000
	i.regs[inaBus] &^= inaOverflow
	if current != int64(int16(current)) || power > math.MaxUint16 {
		i.regs[inaBus] |= inaOverflow
	}
	i.regs[inaCurrent], i.regs[inaPower] = uint16(current), uint16(power)
}
