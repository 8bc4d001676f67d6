// Package linux has the real wires: I²C through i2c-dev, serial lines, and GPIO through the character device (uAPI v2).
//
// Each scheme has its driver: [I2C] for i2c, [Serial] for serial, [GPIO] for gpio. A driver answers
// hal.ErrUnsupported for the kinds of wire that it does not have.
//
// Sources: the kernel's Documentation/i2c/dev-interface.rst, Documentation/userspace-api/gpio/chardev.rst and tty_ioctl(2).
package linux

import (
	"context"

	"github.com/twinbay/twinbay/hal"
)

// Drivers is a driver for each scheme of this package, for hal.Wires.
func Drivers() map[string]hal.Driver {
	return map[string]hal.Driver{"i2c": I2C{}, "serial": Serial{}, "gpio": GPIO{}}
}

// none has no wires. The drivers embed it and override the kinds that they have.
type none struct{}

func (none) OpenI2C(context.Context, string) (hal.I2C, error) {
	return nil, hal.ErrUnsupported
}

func (none) OpenSerial(context.Context, string, hal.SerialMode) (hal.Serial, error) {
	return nil, hal.ErrUnsupported
}

func (none) OpenDigitalIn(context.Context, string, hal.InputMode) (hal.DigitalIn, error) {
	return nil, hal.ErrUnsupported
}

func (none) OpenDigitalOut(context.Context, string, hal.OutputMode) (hal.DigitalOut, error) {
	return nil, hal.ErrUnsupported
}
