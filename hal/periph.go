package hal

import (
	"context"
	"fmt"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// Periph lets a driver of periph.io/x/devices run on bus. periph's calls carry no context: each one ends with ctx, or
// after a second. Errors arrive at the driver as bus gave them, so errors.Is works as far as the driver wraps them.
func Periph(ctx context.Context, bus I2C) i2c.Bus {
	return &periphBus{ctx: ctx, bus: bus}
}

type periphBus struct {
	ctx context.Context
	bus I2C
}

func (b *periphBus) String() string { return "hal.I2C" }

func (b *periphBus) Tx(addr uint16, w, r []byte) error {
	ctx, cancel := context.WithTimeout(b.ctx, callLimit)
	defer cancel()
	return b.bus.Tx(ctx, addr, w, r)
}

// SetSpeed fails: a Linux adapter's clock is set by the device tree, for everybody on the bus.
func (b *periphBus) SetSpeed(f physic.Frequency) error {
	return fmt.Errorf("set the bus clock to %s (it is fixed by the device tree: dtparam=i2c_arm_baudrate): %w", f, ErrUnsupported)
}
