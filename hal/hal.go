// Package hal is Twinbay's hardware layer: four kinds of wire (I2C, Serial, DigitalIn, DigitalOut), opened
// by URI, with a context on every call and errors that a caller can branch on.
//
// The wires themselves live in the drivers: hal/linux (the real ones), hal/simbus (the simulator's), hal/haltest
// (scripts and faults for tests). A program chooses its drivers by putting them into a [Wires]; there is no global
// registry and nothing happens in an init function.
//
//	i2c:/dev/i2c-1              an I²C adapter by device node, or by its name: i2c:i2c-bcm2835
//	serial:/dev/serial/by-id/…  a serial line by a stable path
//	gpio:pinctrl-bcm2711/17     a GPIO line by chip label and offset, or line name
//	sim:/run/rig.sock#climate   a wire of the simulator's rig: socket, then the wire's name
package hal

import (
	"context"
	"time"
)

// I2C is one I²C bus.
type I2C interface {
	// Tx writes w to the 7-bit addr and then reads len(r) bytes, in one transaction with a repeated start.
	// Either may be empty; both empty probes the address. It fails with ErrAbsent when nothing acknowledges.
	Tx(ctx context.Context, addr uint16, w, r []byte) error
	Close() error
}

// Parity is a serial line's parity bit.
type Parity byte

const (
	NoParity Parity = iota
	OddParity
	EvenParity
)

// SerialMode is the frame format of a serial line. The zero value means 9600 8N1.
type SerialMode struct {
	Baud     int // bits per second; 0 means 9600
	DataBits int // 5 to 8; 0 means 8
	Parity   Parity
	StopBits int // 1 or 2; 0 means 1
}

// Serial is one serial line.
type Serial interface {
	// Read blocks until at least one byte has come, and returns what is there. The end of ctx is ctx's error,
	// with no byte lost: what comes later is there for the next Read. A line that has gone is ErrGone.
	Read(ctx context.Context, p []byte) (int, error)
	// Write returns once the kernel has taken all of p.
	Write(ctx context.Context, p []byte) error
	// Flush discards the bytes received and not yet read.
	Flush(ctx context.Context) error
	Close() error
}

// Edge is one change of an input line.
type Edge struct {
	Level bool      // the logical level after the edge: polarity is already taken into account
	At    time.Time // when it happened, by the best clock at hand (the kernel's where there is one)
	Seq   uint32    // counts this line's edges from 1; a gap means that edges were lost
}

// Bias is the pull resistor of an input.
type Bias byte

const (
	BiasAsIs Bias = iota
	PullUp
	PullDown
	NoBias
)

// InputMode says how a digital input is requested.
type InputMode struct {
	ActiveLow bool
	Bias      Bias
	Debounce  time.Duration // by the kernel where it can; 0 means none
	Consumer  string        // shown by gpioinfo to whoever looks for the line's owner
}

// DigitalIn is one input line. The level is logical: true is active.
type DigitalIn interface {
	Read(ctx context.Context) (bool, error)
	// Next waits for the next edge in order. Edges that came before the call and after the open are kept
	// (a bounded number: Edge.Seq shows a loss). Waiting has no deadline of its own: only ctx ends it.
	Next(ctx context.Context) (Edge, error)
	Close() error
}

// OutputMode says how a digital output is requested.
type OutputMode struct {
	ActiveLow bool
	Initial   bool // driven in the same request, so that the line never glitches
	Consumer  string
}

// DigitalOut is one output line. The level is logical: true is active.
type DigitalOut interface {
	Set(ctx context.Context, level bool) error
	// Level is the level last set. The pin is never read to learn it.
	Level() bool
	Close() error
}

// Driver opens the wires of one URI scheme. target is the URI without its scheme and colon. A driver that has no
// such kind of wire answers ErrUnsupported.
type Driver interface {
	OpenI2C(ctx context.Context, target string) (I2C, error)
	OpenSerial(ctx context.Context, target string, mode SerialMode) (Serial, error)
	OpenDigitalIn(ctx context.Context, target string, mode InputMode) (DigitalIn, error)
	OpenDigitalOut(ctx context.Context, target string, mode OutputMode) (DigitalOut, error)
}
