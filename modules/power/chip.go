package power

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/ina219"

	"github.com/twinbay/twinbay/hal"
)

// Registers: SBOS448G, table 2. All have 16 bits, the high byte first.
const (
	regConfig      = 0x00
	regCalibration = 0x05

	doReset  = 0x8000 // section 8.6.2.1: as a power-on
	afterPOR = 0x399f // likewise: what the register holds then. The part has no id, this is the nearest thing to one
	// inUse is the range of 32 V, ±320 mV at the shunt, and 128 samples of each. periph's driver writes 0x1fff, the range of
	// 16 V: at 24 V it would answer 16.
	inUse = 0x3fff
	// firstReading is two conversions of 128 samples: table 5, 68.1 ms each.
	firstReading = 150 * time.Millisecond

	txLimit    = 500 * time.Millisecond
	senseLimit = 1500 * time.Millisecond
)

// What can be wrong with the chip itself.
var (
	errOther    = errors.New("the chip is no INA219: after a reset its configuration is not 0x399f")
	errForgot   = errors.New("the chip has lost its calibration, as after a brown-out")
	errDisobeys = errors.New("the chip does not keep the calibration that is written to it")
	errOverload = errors.New("more current than max_a, or than the shunt can show")
)

// chip is one INA219. It is used by one goroutine.
type chip struct {
	bus  hal.I2C
	addr uint16
	port port
	dev  *ina219.Dev
	set  settings // that it was programmed with
	cal  uint16   // what the calibration register holds since
}

// port is the bus as periph's driver sees it. The driver keeps its bus for life and puts an error of its own in the place
// of the bus's: port gives each call its own deadline and remembers what really happened.
type port struct {
	ctx context.Context
	bus hal.I2C
	err error
}

func (p *port) String() string { return "power" }

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

// with runs a call of periph's driver. Its error is the bus's own where there is one.
func (c *chip) with(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, senseLimit)
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

func (c *chip) read(ctx context.Context, reg byte) (uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, txLimit)
	defer cancel()
	var p [2]byte
	if err := c.bus.Tx(ctx, c.addr, []byte{reg}, p[:]); err != nil {
		return 0, fmt.Errorf("read register %#02x: %w", reg, err)
	}
	return binary.BigEndian.Uint16(p[:]), nil
}

func (c *chip) write(ctx context.Context, reg byte, v uint16) error {
	ctx, cancel := context.WithTimeout(ctx, txLimit)
	defer cancel()
	if err := c.bus.Tx(ctx, c.addr, []byte{reg, byte(v >> 8), byte(v)}, nil); err != nil {
		return fmt.Errorf("write register %#02x: %w", reg, err)
	}
	return nil
}

// begin resets the chip, makes sure that it is one, programs it, and waits for its first reading. periph's driver would
// take any chip, and none.
func (c *chip) begin(ctx context.Context, s settings) error {
	if err := c.write(ctx, regConfig, doReset); err != nil {
		return err
	}
	switch got, err := c.read(ctx, regConfig); {
	case err != nil:
		return err
	case got != afterPOR:
		return fmt.Errorf("%w but %#04x", errOther, got)
	}
	err := c.with(ctx, func() (err error) {
		c.dev, err = ina219.New(&c.port, &ina219.Opts{Address: int(c.addr),
			SenseResistor: physic.ElectricResistance(math.Round(s.ShuntMOhm * float64(physic.MilliOhm))),
			MaxCurrent:    physic.ElectricCurrent(math.Round(s.MaxA * float64(physic.Ampere)))})
		return err
	})
	if err != nil {
		return err
	}
	if err := c.write(ctx, regConfig, inUse); err != nil {
		return err
	}
	c.set = s
	if c.cal, err = c.read(ctx, regCalibration); err != nil {
		return err
	}
	// Section 8.5.1, equation 1, with a current LSB of max_a / 2^15; bit 0 of the register is always 0.
	if want := 0.04096 / (s.MaxA / (1 << 15) * s.ShuntMOhm / 1000); math.Abs(float64(c.cal)-want) > 2+want/1000 {
		return fmt.Errorf("%w: register %#02x holds %d, want %.0f", errDisobeys, regCalibration, c.cal, want)
	}
	return sleep(ctx, firstReading)
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

// sense takes one reading and refuses one that is none. That the chip still has its programming is checked after the
// reading: what is there then was there before. Without it, a chip answers 0 A, which looks like a quiet machine.
func (c *chip) sense(ctx context.Context) (reading, error) {
	var pm ina219.PowerMonitor
	err := c.with(ctx, func() (err error) {
		pm, err = c.dev.Sense()
		return err
	})
	if err != nil && c.port.err != nil {
		return reading{}, err
	}
	for _, own := range []struct {
		reg  byte
		want uint16
	}{{regConfig, inUse}, {regCalibration, c.cal}} {
		got, rerr := c.read(ctx, own.reg)
		if rerr != nil {
			return reading{}, rerr
		}
		if got != own.want {
			return reading{}, fmt.Errorf("%w: register %#02x is %#04x, want %#04x", errForgot, own.reg, got, own.want)
		}
	}
	if err != nil { // with the bus in order, the chip's overflow flag is all that the driver complains of
		return reading{}, errOverload
	}
	return fromMonitor(pm), check(pm, c.set)
}
