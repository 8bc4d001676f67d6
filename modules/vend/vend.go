// Package vend gives out products: up to seven spirals with motors and home switches behind a Microchip MCP23017 on an I²C bus,
// and a drop sensor.
//
// A transaction is done once. It is written down, durable with the agent, before a motor turns; asked for again, also after a
// restart or a power cut, it is answered as it ended. One motor turns at a time, and none when the module ends.
//
// Datasheet: Microchip DS20001952D (MCP23017). The cycle with its quarter turns is that of Seaga's Vigilant (service manuals of
// Infinity and INF4B).
package vend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

// Module is the module of the spirals. All but the handover belongs to Run's goroutine, or to the caller of Apply and Invoke
// while Run does not run.
type Module struct {
	handover modkit.Handover
	set      settings
	run      *runner // nil while not running
}

// New returns the module. It touches no hardware.
func New() *Module { return &Module{set: defaults} }

// Describe implements modkit.Module.
func (m *Module) Describe() modkit.Description {
	return modkit.Description{
		Name: "vend", Version: "0.1.0", Settings: settingsSchema, Wiring: wiringSchema,
		Methods: []modkit.Method{
			{Name: "vend", Summary: "give out one product of a slot, once for each transaction id: {txId, slot}", Deadline: 90 * time.Second},
			{Name: "homeAll", Summary: "bring all spirals home, one after the other, and take their faults back", Deadline: 200 * time.Second},
			{Name: "testMotor", Summary: "one turn of a slot's spiral, for the technician: {slot}", Deadline: 60 * time.Second},
			{Name: "testBeam", Summary: "wait up to ten seconds for something to fall through the beam", Deadline: 20 * time.Second},
		},
		Wires: []modkit.Wire{
			{Name: "bus", Kind: modkit.I2C},
			{Name: "interrupt", Kind: modkit.DigitalIn},
			{Name: "beam", Kind: modkit.DigitalIn, Optional: true},
		},
	}
}

// Apply implements modkit.Module. What runs ends with the settings that it began with.
func (m *Module) Apply(ctx context.Context, s modkit.Settings) (modkit.Applied, error) {
	return modkit.Do(ctx, &m.handover, func() (modkit.Applied, error) {
		next, applied, err := decodeSettings(s.Doc, m.set)
		if err != nil {
			return nil, err
		}
		m.set = next
		return applied, nil
	})
}

// order is what a direct method asks for.
type order struct {
	TX   string `json:"txId"`
	Slot *int   `json:"slot"`
}

// parseOrder reads a method's arguments: vend has both, testMotor a slot, the others none.
func parseOrder(method string, payload json.RawMessage) (order, error) {
	var o order
	if err := modkit.Decode(payload, &o); err != nil {
		return o, fmt.Errorf("%s: %w", method, err)
	}
	wantsTX, wantsSlot := method == "vend", method == "vend" || method == "testMotor"
	switch {
	case wantsTX && !txForm.MatchString(o.TX):
		return o, fmt.Errorf("%s: txId: 1 to %d letters, digits and . _ : -", method, maxTX)
	case !wantsTX && o.TX != "":
		return o, fmt.Errorf("%s takes no txId", method)
	case wantsSlot && (o.Slot == nil || *o.Slot < 0 || *o.Slot >= maxSlots):
		return o, fmt.Errorf("%s: slot: 0 to %d", method, maxSlots-1)
	case !wantsSlot && o.Slot != nil:
		return o, fmt.Errorf("%s takes no slot", method)
	}
	return o, nil
}

// Invoke implements modkit.Module. It waits for the end of what it has begun, while the module goes on.
func (m *Module) Invoke(ctx context.Context, method string, payload json.RawMessage) (modkit.Answer, error) {
	begin := map[string]func(*runner, order) promise{
		"vend": (*runner).vend, "homeAll": (*runner).homeAll, "testMotor": (*runner).testMotor, "testBeam": (*runner).testBeam,
	}[method]
	if begin == nil {
		return modkit.Answer{}, modkit.ErrNoMethod
	}
	o, err := parseOrder(method, payload)
	if err != nil {
		return failed(400, err), nil
	}
	p, err := modkit.Do(ctx, &m.handover, func() (promise, error) {
		if m.run == nil {
			return refused(503, "the module does not run"), nil
		}
		return begin(m.run, o), nil
	})
	if err != nil {
		return modkit.Answer{}, err
	}
	select {
	case a := <-p:
		return a, nil
	case <-ctx.Done():
		return modkit.Answer{}, ctx.Err()
	}
}

// promise gets the answer when it is there. It has room for it: nobody need wait.
type promise chan modkit.Answer

func promised(a modkit.Answer) promise {
	p := make(promise, 1)
	p <- a
	return p
}

func refused(status int, format string, args ...any) promise {
	return promised(failed(status, fmt.Errorf(format, args...)))
}

func failed(status int, err error) modkit.Answer {
	return modkit.Answer{Status: status, Payload: must(map[string]string{"error": err.Error()})}
}

var errEnding = errors.New("the module ends: ask again when it runs, with the same txId")

// Run implements modkit.Module. It lives on without an expander, or with one that comes and goes.
func (m *Module) Run(ctx context.Context, bay *modkit.Bay) error {
	w, err := decodeWiring(bay.Wiring)
	if err != nil {
		return err
	}
	calls, release := m.handover.Own()
	defer release()
	r := newRunner(ctx, m, bay, w)
	m.run = r
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan sight)
	watchers := 1
	go watch(ctx, bay.Wires, lineInterrupt, w.Interrupt, w.mode(true, 0), seen)
	if w.Beam != "" {
		watchers++
		go watch(ctx, bay.Wires, lineBeam, w.Beam, w.mode(w.BeamActiveLow, glitch), seen)
	}
	defer func() { // the motors first, also when this unwinds a panic; the watchers end before Run does
		m.run = nil
		r.stop()
		cancel()
		for watchers > 0 {
			if s := <-seen; s.ended {
				watchers--
			}
		}
	}()
	r.recall()
	for {
		r.arm(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case call := <-calls:
			call()
		case s := <-seen:
			if s.ended {
				watchers--
				continue
			}
			r.see(s)
			r.tick(time.Now())
		case <-r.accepted():
			r.tick(time.Now())
		case <-r.timer.C:
			r.tick(time.Now())
		}
		r.say(time.Now())
	}
}
