package vend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// Registers with IOCON.BANK = 0: DS20001952D, table 3-5.
const (
	regIODIRA = 0x00
	regIOCON  = 0x0a
	regGPPUA  = 0x0c
	regGPIOA  = 0x12
	regOLATA  = 0x14

	// bankOneIOCON is IOCON where noise has set BANK: section 3.2.1. With BANK = 0 it is GPINTENB, which set-up writes anyway.
	bankOneIOCON = 0x05

	mirror = 1 << 6 // IOCON: INTA speaks for both ports; active low, push-pull
	homes  = 0x7f   // B0 to B6. A7 and B7 can be outputs only (table 1-1, note of 2022) and are driven low

	txLimit = 300 * time.Millisecond
	tries   = 3 // of a transaction that does no harm when it is repeated; all of ours are such
)

// directions is registers 0x00 to 0x09: IODIR, IPOL, GPINTEN, DEFVAL and INTCON of A and B. Port A drives, B0 to B6 are read
// and make an interrupt when they change.
var directions = []byte{0x00, homes, 0, 0, 0, homes, 0, 0, 0, 0}

// pulls is GPPU of A and B.
var pulls = []byte{0, homes}

// errForgot says that the chip is not as it was programmed. After a reset, all its pins are inputs: no motor turns, whatever
// the driver believes.
var errForgot = errors.New("the expander has lost its configuration, as after a reset by noise")

// expander is one MCP23017 with motors at port A and home switches at port B. It is used by one goroutine. It keeps no copy of
// what the chip holds: what matters is read from the chip.
type expander struct {
	bus  hal.I2C
	addr uint16
}

// tx repeats a transaction that failed, in case it was a disturbance. It goes on after the end of ctx when that is asked for by
// the caller, for switching off.
func (e *expander) tx(ctx context.Context, w, r []byte) error {
	var err error
	for range tries {
		err = func() error {
			ctx, cancel := context.WithTimeout(ctx, txLimit)
			defer cancel()
			return e.bus.Tx(ctx, e.addr, w, r)
		}()
		if err == nil || ctx.Err() != nil || errors.Is(err, hal.ErrGone) || errors.Is(err, hal.ErrClosed) {
			break
		}
	}
	if err == nil {
		return nil
	}
	verb := "write"
	if r != nil {
		verb = "read"
	}
	return fmt.Errorf("%s register %#02x: %w", verb, w[0], err)
}

func (e *expander) read(ctx context.Context, reg byte, n int) ([]byte, error) {
	p := make([]byte, n)
	return p, e.tx(ctx, []byte{reg}, p)
}

// begin switches all motors off, whatever ran before, then programs the chip, and checks that it is as programmed.
func (e *expander) begin(ctx context.Context) error {
	for _, w := range [][]byte{
		{bankOneIOCON, 0},
		{regOLATA, 0, 0}, // before the pins become outputs
		{regIOCON, mirror},
		append([]byte{regIODIRA}, directions...),
		append([]byte{regGPPUA}, pulls...),
	} {
		if err := e.tx(ctx, w, nil); err != nil {
			return err
		}
	}
	return e.verify(ctx, 0)
}

// verify reads back all that the module relies on, twice before it says that it is not so: a bit may flip on the way. motors is
// what port A is to drive.
func (e *expander) verify(ctx context.Context, motors byte) error {
	var wrong error
	for range 2 {
		p, err := e.read(ctx, regIODIRA, regGPPUA+2)
		if err != nil {
			return err
		}
		latch, err := e.read(ctx, regOLATA, 2)
		if err != nil {
			return err
		}
		if wrong = checkRegisters(p, latch, motors); wrong == nil {
			break
		}
	}
	return wrong
}

// checkRegisters compares registers 0x00 to 0x0d and OLAT with what they are to hold.
func checkRegisters(p, latch []byte, motors byte) error {
	want := append(append([]byte(nil), directions...), mirror, mirror)
	want = append(want, pulls...)
	if len(p) != len(want) || len(latch) != 2 {
		return fmt.Errorf("%w: %d and %d bytes read back", errForgot, len(p), len(latch))
	}
	for i := range want {
		if p[i] != want[i] {
			return fmt.Errorf("%w: register %#02x is %#02x, want %#02x", errForgot, i, p[i], want[i])
		}
	}
	if latch[0] != motors || latch[1] != 0 {
		return fmt.Errorf("%w: the output latches are % x, want %02x 00", errForgot, latch, motors)
	}
	return nil
}

// ports reads the home switches, which ends an interrupt (section 3.6.4), and makes sure that port A still drives motors.
// A set bit is a spiral at home. What differs from last, or from what is to be, counts when two readings in a row say so.
func (e *expander) ports(ctx context.Context, motors, last byte) (atHome byte, err error) {
	var before []byte
	for range 4 {
		p, err := e.read(ctx, regGPIOA, 4) // GPIOA, GPIOB, OLATA, OLATB
		if err != nil {
			return 0, err
		}
		atHome = ^p[1] & homes
		drives := p[2] == motors && p[0]&homes == motors
		switch {
		case drives && (atHome == last || bytes.Equal(p, before)):
			return atHome, nil
		case !drives && bytes.Equal(p, before):
			return atHome, fmt.Errorf("%w: port A drives %#02x with %#02x in its latch, want %#02x", errForgot, p[0], p[2], motors)
		}
		before = p
	}
	return last, nil // switches that bounce: the next look will see
}

// drive turns the motor of one slot and no other; none is all off. It reads the latch back.
func (e *expander) drive(ctx context.Context, slot int) error {
	bits := motorBits(slot)
	if err := e.tx(ctx, []byte{regOLATA, bits}, nil); err != nil {
		return err
	}
	var p []byte
	for range 2 { // a bit may flip on the way
		var err error
		if p, err = e.read(ctx, regOLATA, 1); err != nil || p[0] == bits {
			return err
		}
	}
	return fmt.Errorf("%w: the output latch is %#02x, want %#02x", errForgot, p[0], bits)
}

// none is the slot whose motor turns when none does.
const none = -1

// motorBits is port A with one motor on at most.
func motorBits(slot int) byte {
	if slot < 0 || slot >= maxSlots {
		return 0
	}
	return 1 << slot
}
