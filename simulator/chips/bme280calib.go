package chips

// bmeRaw is one reading of the three converters.
type bmeRaw struct{ p, t, h int32 }

// bmeCalibration is the trimming of one sensor, BST-BME280-DS002, section 4.2.2, table 16.
type bmeCalibration struct {
	t1     uint16
	t2, t3 int16
	p1     uint16
	p      [8]int16 // dig_P2 to dig_P9
	h1     uint8
	h2     int16
	h3     uint8
	h4, h5 int16 // 12 bits
	h6     int8
}

// exampleCalibration has the temperature and pressure trimming of Bosch's worked example (BST-BMP280-DS001, section
// 3.12), in which raw 519888 and 415148 are 25.08 °C and 100653 Pa; the humidity trimming is that of a usual part.
var exampleCalibration = bmeCalibration{
	t1: 27504, t2: 26435, t3: -1000,
	p1: 36477, p: [8]int16{-10685, 3024, 2855, 140, -7, 15500, -14600, 6000},
	h1: 75, h2: 370, h3: 0, h4: 314, h5: 50, h6: 30,
}

// put fills the calibration registers, little endian; the nibbles of H4 and H5 share 0xE5.
func (c *bmeCalibration) put(regs *[256]byte) {
	at := byte(bmeCalib00)
	word := func(v uint16) {
		regs[at], regs[at+1] = byte(v), byte(v>>8)
		at += 2
	}
	word(c.t1)
	word(uint16(c.t2))
	word(uint16(c.t3))
	word(c.p1)
	for _, v := range c.p {
		word(uint16(v))
	}
	regs[0xA1] = c.h1
	at = bmeCalib26
	word(uint16(c.h2))
	regs[0xE3] = c.h3
	regs[0xE4] = byte(c.h4 >> 4)
	regs[0xE5] = byte(c.h4&0x0F) | byte(c.h5&0x0F)<<4
	regs[0xE6] = byte(c.h5 >> 4)
	regs[0xE7] = byte(c.h6)
}

// fine is the temperature in the unit that the other two formulas take: 5120 per °C. Double precision, section 8.1.
func (c *bmeCalibration) fine(raw int32) float64 {
	x := float64(raw)
	a := (x/16384 - float64(c.t1)/1024) * float64(c.t2)
	d := x/131072 - float64(c.t1)/8192
	return a + d*d*float64(c.t3)
}

func (c *bmeCalibration) celsius(raw int32) float64 { return c.fine(raw) / 5120 }

// pascal is the pressure, section 8.1.
func (c *bmeCalibration) pascal(raw int32, fine float64) float64 {
	p := func(n int) float64 { return float64(c.p[n-2]) }
	a := fine/2 - 64000
	b := a*a*p(6)/32768 + a*p(5)*2
	b = b/4 + p(4)*65536
	a = (p(3)*a*a/524288 + p(2)*a) / 524288
	a = (1 + a/32768) * float64(c.p1)
	if a == 0 {
		return 0
	}
	v := (1048576 - float64(raw) - b/4096) * 6250 / a
	return v + (p(9)*v*v/2147483648+v*p(8)/32768+p(7))/16
}

// relative is the humidity in per cent, section 8.1.
func (c *bmeCalibration) relative(raw int32, fine float64) float64 {
	x := fine - 76800
	x = (float64(raw) - (float64(c.h4)*64 + float64(c.h5)/16384*x)) *
		(float64(c.h2) / 65536 * (1 + float64(c.h6)/67108864*x*(1+float64(c.h3)/67108864*x)))
	x *= 1 - float64(c.h1)*x/524288
	return min(max(x, 0), 100)
}

// invert finds the raw values that stand for air: the formulas are monotonic, so it searches.
func (c *bmeCalibration) invert(air Air) bmeRaw {
	t := min(max(air.Celsius, -40), 85)
	p := min(max(air.KPa, 30), 110) * 1000
	h := min(max(air.Humidity, 0), 100)
	var raw bmeRaw
	raw.t = search(1<<20-1, func(x int32) bool { return c.celsius(x) >= t })
	fine := c.fine(raw.t)
	raw.p = search(1<<20-1, func(x int32) bool { return c.pascal(x, fine) <= p })
	raw.h = search(1<<16-1, func(x int32) bool { return c.relative(x, fine) >= h })
	return raw
}

// search is the smallest value from 0 to top for which ok is true, or top.
func search(top int32, ok func(int32) bool) int32 {
	low, high := int32(0), top
	for low < high {
		if mid := low + (high-low)/2; ok(mid) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}
