package vend

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// Lines of the module, as people know them.
const (
	lineInterrupt = "interrupt of the expander"
	lineBeam      = "drop sensor"
)

// glitch is what a motor's noise makes of the beam; a product takes 5 to 100 ms.
const glitch = 2 * time.Millisecond

func (w wiring) mode(activeLow bool, debounce time.Duration) hal.InputMode {
	return hal.InputMode{ActiveLow: activeLow, Bias: biases[w.Bias], Debounce: debounce, Consumer: "twinbay vend"}
}

// sight is what a watcher has to say of its line: a level read, an edge, or an error.
type sight struct {
	line   string
	level  bool
	edge   bool // level is an edge's; else it was read, and what came before is unknown
	missed bool // edges were lost before this one
	at     time.Time
	err    error
	ended  bool // the watcher's last word
}

// Back-off between tries to open a line.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// watch reports a line's level and edges until ctx ends. Its last sight is ended, which its receiver waits for.
func watch(ctx context.Context, wires *hal.Wires, name, uri string, mode hal.InputMode, seen chan<- sight) {
	defer func() { seen <- sight{line: name, ended: true} }()
	retry := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := follow(ctx, wires, name, uri, mode, seen)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		seen <- sight{line: name, at: time.Now(), err: fmt.Errorf("%s on %s: %w", name, uri, err)}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// follow opens a line and reports it until it fails.
func follow(ctx context.Context, wires *hal.Wires, name, uri string, mode hal.InputMode, seen chan<- sight) error {
	line, err := wires.DigitalIn(ctx, uri, mode)
	if err != nil {
		return err
	}
	defer line.Close()
	level, err := line.Read(ctx)
	if err != nil {
		return err
	}
	seen <- sight{line: name, level: level, at: time.Now()}
	for last := uint32(0); ; {
		e, err := line.Next(ctx)
		if err != nil {
			return err
		}
		missed := e.Seq > last+1
		if missed { // nobody knows which edges were lost: the line itself knows where it stands
			if e.Level, err = line.Read(ctx); err != nil {
				return err
			}
		}
		last = e.Seq
		seen <- sight{line: name, level: e.Level, edge: true, missed: missed, at: e.At}
	}
}
