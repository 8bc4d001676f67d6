package bme280

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/bmxx80"

	"github.com/twinbay/twinbay/hal"
)

// Registers: DS002, table 18.
const (
	regCalib1  = 0x88 // T1 to P9, reserved, H1: 0x88 to 0xA1
	lenCalib1  = 26
	regID      = 0xd0
	regReset   = 0xe0
	regCalib2  = 0xe1 // H2 to H6: 0xE1 to 0xE7
	lenCalib2  = 7
	regCtrlHum = 0xf2
	regStatus  = 0xf3
	regData    = 0xf7 // pressure 20 bits, temperature 20, humidity 16: 0xF7 to 0xFE
	lenData    = 8

	idBME280  = 0x60   // section 5.4.1
	doReset   = 0xb6   // section 5.4.2
	copying   = 1 << 0 // section 5.4.4: the calibration is being copied from the chip's memory
	startTime = 2 * time.Millisecond

	// Section 5.4.7 to 5.4.9: what the data registers hold when nothing was measured.
	skipped20 = 0x80000
	skipped16 = 0x8000
)

// How long things may take. The chip needs 113 ms for a reading with everything sixteen times.
const (
	txLimit    = 500 * time.Millisecond
	senseLimit = 1500 * time.Millisecond
)

// What can be wrong with the chip itself.
var (
	errCalibration = errors.New("the calibration is empty: the chip is damaged, or its supply is too weak")
	errChanged     = errors.New("the calibration is not what it was: another chip, or a disturbed bus")
	errForgot      = errors.New("the chip has lost its configuration, as after a power cut")
	errNothing     = errors.New("the data registers hold no measurement")
	errCopying     = errors.New("the chip does not come to the end of its start")
)

// otherAddressError is a chip that answers where it should not be.
type otherAddressError struct {
	addr uint16
	err  error
}

func (e *otherAddressError) Error() string { return e.err.Error() }
func (e *otherAddressError) Unwrap() error { return e.err }

// wrongChipError is a chip of another kind.
type wrongChipError struct{ id byte }

func (e *wrongChipError) Error() string {
	name := map[byte]string{0x55: "BMP180", 0x56: "BMP280 (sample)", 0x57: "BMP280 (sample)", 0x58: "BMP280", 0x61: "BME680", 0xff: "none, the bus reads all ones"}[e.id]
	if name == "" {
		name = "unknown"
	}
	return fmt.Sprintf("chip id %#02x (%s), expected %#02x of a BME280", e.id, name, idBME280)
}

// chip is one BME280. It is used by one goroutine.
type chip struct {
	bus  hal.I2C
	addr uint16
	port port
	dev  *bmxx80.Dev
	hum  byte   // ctrl_hum as configured
	sum  uint32 // of the calibration
}

// port is the bus as periph's driver sees it. The driver keeps its bus for life and drops the kind of an error: port
// gives each call its own deadline and remembers the error.
type port struct {
	ctx context.Context
	bus hal.I2C
	err error
}

func (p *port) String() string { return "bme280" }

func (p *port) Tx(addr uint16, w, r []byte) error {
	err := hal.Periph(p.ctx, p.bus).Tx(addr, w, r)
	if err != nil && p.err == nil {
		p.err = err
	}
	return err
}

// SetSpeed is never asked for by the driver.
func (p *port) SetSpeed(physic.Frequency) error { return hal.ErrUnsupported }

var _ i2c.Bus = (*port)(nil)

// with runs a call of periph's driver within limit. Its error is the bus's own where there is one.
func (c *chip) with(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c.port = port{ctx: ctx, bus: c.bus}
	if err := f(); err != nil {
		if c.port.err != nil {
			return c.port.err
		}
		return err
	}
	return nil
}

func (c *chip) read(ctx context.Context, reg byte, n int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, txLimit)
	defer cancel()
	p := make([]byte, n)
	if err := c.bus.Tx(ctx, c.addr, []byte{reg}, p); err != nil {
		return nil, fmt.Errorf("read register %#02x: %w", reg, err)
	}
	return p, nil
}

func (c *chip) write(ctx context.Context, reg, value byte) error {
	ctx, cancel := context.WithTimeout(ctx, txLimit)
	defer cancel()
	if err := c.bus.Tx(ctx, c.addr, []byte{reg, value}, nil); err != nil {
		return fmt.Errorf("write register %#02x: %w", reg, err)
	}
	return nil
}

// identify makes sure that the chip is a BME280. Where nothing answers, it looks at the other address: that is the
// most common mistake.
func (c *chip) identify(ctx context.Context) error {
	id, err := c.read(ctx, regID, 1)
	if errors.Is(err, hal.ErrAbsent) {
		other := chip{bus: c.bus, addr: c.addr ^ 1} // 0x76 and 0x77
		if _, oerr := other.read(ctx, regID, 1); oerr == nil {
			return &otherAddressError{addr: other.addr, err: err}
		}
	}
	if err != nil {
		return err
	}
	if id[0] != idBME280 {
		return &wrongChipError{id: id[0]}
	}
	return nil
}

// begin resets the chip, checks it, and configures it.
func (c *chip) begin(ctx context.Context, s settings) error {
	if err := c.identify(ctx); err != nil {
		return err
	}
	if err := c.reset(ctx); err != nil {
		return err
	}
	sum, err := c.calibration(ctx)
	if err != nil {
		return err
	}
	c.sum = sum
	opts := options(s)
	c.hum = byte(opts.Humidity)
	return c.with(ctx, senseLimit, func() error {
		c.dev, err = bmxx80.NewI2C(&c.port, c.addr, opts)
		return err
	})
}

// reset brings the chip to its power-on state: some come up wrong after sleep or a weak supply.
func (c *chip) reset(ctx context.Context) error {
	if err := c.write(ctx, regReset, doReset); err != nil {
		return err
	}
	for range 10 {
		if err := sleep(ctx, startTime); err != nil {
			return err
		}
		status, err := c.read(ctx, regStatus, 1)
		if err != nil {
			return err
		}
		if status[0]&copying == 0 {
			return nil
		}
	}
	return errCopying
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// calibration is a checksum of the chip's calibration, which never changes.
func (c *chip) calibration(ctx context.Context) (uint32, error) {
	a, err := c.read(ctx, regCalib1, lenCalib1)
	if err != nil {
		return 0, err
	}
	b, err := c.read(ctx, regCalib2, lenCalib2)
	if err != nil {
		return 0, err
	}
	if uniform(a) || uniform(b) {
		return 0, errCalibration
	}
	return crc32.ChecksumIEEE(append(a, b...)), nil
}

// uniform is whether all bytes are the same, as on a bus that reads all ones.
func uniform(p []byte) bool {
	for _, b := range p {
		if b != p[0] {
			return false
		}
	}
	return true
}

// recheck makes sure that it is still the same chip.
func (c *chip) recheck(ctx context.Context) error {
	if err := c.identify(ctx); err != nil {
		return err
	}
	sum, err := c.calibration(ctx)
	if err != nil {
		return err
	}
	if sum != c.sum {
		return errChanged
	}
	return nil
}

// sense takes one reading and refuses one that is none.
func (c *chip) sense(ctx context.Context) (reading, error) {
	var e physic.Env
	if err := c.with(ctx, senseLimit, func() error { return c.dev.Sense(&e) }); err != nil {
		return reading{}, err
	}
	// After a power cut the chip still answers, without humidity: the driver would compute one from nothing.
	hum, err := c.read(ctx, regCtrlHum, 1)
	if err != nil {
		return reading{}, err
	}
	if hum[0]&7 != c.hum {
		return reading{}, errForgot
	}
	raw, err := c.read(ctx, regData, lenData)
	if err != nil {
		return reading{}, err
	}
	if err := checkRaw(raw); err != nil {
		return reading{}, err
	}
	r := fromEnv(e)
	return r, r.check()
}

// checkRaw refuses data registers that hold no measurement. Their values look like good weather once compensated.
func checkRaw(p []byte) error {
	if len(p) != lenData || uniform(p) {
		return errNothing
	}
	pressure := uint32(p[0])<<12 | uint32(p[1])<<4 | uint32(p[2])>>4
	temperature := uint32(p[3])<<12 | uint32(p[4])<<4 | uint32(p[5])>>4
	humidity := uint32(p[6])<<8 | uint32(p[7])
	if pressure == skipped20 || temperature == skipped20 || humidity == skipped16 {
		return errNothing
	}
	return nil
}

// options are periph's, from the settings.
func options(s settings) *bmxx80.Opts {
	o := map[int]bmxx80.Oversampling{1: bmxx80.O1x, 2: bmxx80.O2x, 4: bmxx80.O4x, 8: bmxx80.O8x, 16: bmxx80.O16x}[s.Oversampling]
	f := map[int]bmxx80.Filter{2: bmxx80.F2, 4: bmxx80.F4, 8: bmxx80.F8, 16: bmxx80.F16}[s.Filter]
	opts := &bmxx80.Opts{Temperature: o, Pressure: o, Humidity: o, Filter: f}
	if f != bmxx80.NoFilter {
		opts.Standby = min(s.interval(), time.Second) // the filter works on measurements, not on readings
	}
	return opts
}
