// Package haltest has wires for tests: scripts that a driver's bytes must follow, recordings, faults, and the suites
// that each implementation of hal's interfaces has to pass.
//
// Each wire comes with both ends. The driver under test holds the hal interface; the test holds the other end and
// feeds bytes or edges, unplugs the wire and plugs it in again. All of them work inside a testing/synctest bubble.
package haltest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twinbay/twinbay/hal"
)

// Wires is a hal.Driver that hands out the given wires by target: with Wires(map[string]any{"bus": b}) as the driver
// of scheme "test", the URI test:bus opens b. Each value is a hal.I2C, hal.Serial, hal.DigitalIn or hal.DigitalOut. A
// wire of this package may be opened again after Close; while it is unplugged, opening it is ErrGone.
func Wires(wires map[string]any) hal.Driver { return drawer(wires) }

type drawer map[string]any

// opener is what this package's own wires do when they are opened.
type opener interface{ reopen(mode any) error }

func (d drawer) OpenI2C(ctx context.Context, target string) (hal.I2C, error) {
	return take[hal.I2C](ctx, d, target, nil)
}

func (d drawer) OpenSerial(ctx context.Context, target string, mode hal.SerialMode) (hal.Serial, error) {
	return take[hal.Serial](ctx, d, target, mode)
}

func (d drawer) OpenDigitalIn(ctx context.Context, target string, mode hal.InputMode) (hal.DigitalIn, error) {
	return take[hal.DigitalIn](ctx, d, target, mode)
}

func (d drawer) OpenDigitalOut(ctx context.Context, target string, mode hal.OutputMode) (hal.DigitalOut, error) {
	return take[hal.DigitalOut](ctx, d, target, mode)
}

func take[T any](ctx context.Context, d drawer, target string, mode any) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	wire, ok := d[target]
	if !ok {
		have := strings.Join(slices.Sorted(maps.Keys(d)), ", ")
		return none, fmt.Errorf("the test has no wire %q (it has: %s): %w", target, have, hal.ErrGone)
	}
	w, ok := wire.(T)
	if !ok {
		return none, fmt.Errorf("the test's wire %q is a %T: %w", target, wire, hal.ErrUnsupported)
	}
	if o, ok := wire.(opener); ok {
		if err := o.reopen(mode); err != nil {
			return none, err
		}
	}
	return w, nil
}
