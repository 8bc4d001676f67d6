// Package power measures voltage, current and power of a supply with a Texas Instruments INA219 on an I²C bus.
//
// It is the shortest example of a module around a driver of periph.io: periph's ina219 programs and reads the chip, and
// this package adds what a machine in the field needs. It makes sure that there is such a chip, notices when a brown-out has
// taken its calibration (it then answers a healthy 0 A), refuses readings that cannot be, and says what to do.
//
// Datasheet: Texas Instruments SBOS448G, section 8.6 (registers).
package power

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// Module is the supply's module. All but the handover belongs to Run's goroutine, or to the caller of Apply and Invoke
// while Run does not run.
type Module struct {
	handover modkit.Handover
	set      settings
	session  *session // the chip that answers; nil while none does
}

// New returns the module. It touches no hardware.
func New() *Module { return &Module{set: defaults} }

// Describe implements modkit.Module.
func (m *Module) Describe() modkit.Description {
	return modkit.Description{
		Name: "power", Version: "0.1.0", Settings: settingsSchema, Wiring: wiringSchema,
		Methods: []modkit.Method{{Name: "readNow", Summary: "measure at once and answer the reading", Deadline: 10 * time.Second}},
		Wires:   []modkit.Wire{{Name: "bus", Kind: modkit.I2C}},
	}
}

// Apply implements modkit.Module.
func (m *Module) Apply(ctx context.Context, s modkit.Settings) (modkit.Applied, error) {
	return modkit.Do(ctx, &m.handover, func() (modkit.Applied, error) {
		next, applied, err := decodeSettings(s.Doc, m.set)
		if err != nil {
			return nil, err
		}
		m.set = next
		if m.session != nil {
			m.session.adopt()
		}
		return applied, nil
	})
}

// Invoke implements modkit.Module.
func (m *Module) Invoke(ctx context.Context, method string, payload json.RawMessage) (modkit.Answer, error) {
	if method != "readNow" {
		return modkit.Answer{}, modkit.ErrNoMethod
	}
	var none struct{}
	if err := modkit.Decode(payload, &none); err != nil {
		return failed(400, fmt.Errorf("%s takes no arguments: %w", method, err)), nil
	}
	return modkit.Do(ctx, &m.handover, func() (modkit.Answer, error) {
		if m.session == nil {
			return failed(409, errors.New("no chip answers at the moment: see the component's health")), nil
		}
		r, err := m.session.measure()
		if err != nil {
			if !errors.Is(err, errOverload) {
				m.session.broken = err
			}
			return failed(502, err), nil
		}
		return modkit.Answer{Status: 200, Payload: must(r.body())}, nil
	})
}

func failed(status int, err error) modkit.Answer {
	return modkit.Answer{Status: status, Payload: must(map[string]string{"error": err.Error()})}
}

// must encodes what always has a JSON form.
func must(v any) json.RawMessage {
	p, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return p
}

// How long the module waits before it opens the bus again.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 10 * time.Second
)

// runner is one Run: what outlives a connection to the chip.
type runner struct {
	m        *Module
	bay      *modkit.Bay
	wiring   wiring
	calls    <-chan func()
	alarms   [3]bool // as said last
	restarts int     // how often the chip was programmed anew since it was found
}

// Run implements modkit.Module. It lives on without a chip, or with one that comes and goes.
func (m *Module) Run(ctx context.Context, bay *modkit.Bay) error {
	w, err := decodeWiring(bay.Wiring)
	if err != nil {
		return err
	}
	calls, release := m.handover.Own()
	defer release()
	r := &runner{m: m, bay: bay, wiring: w, calls: calls}
	pause := firstPause
	for {
		worked, err := r.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		bay.Health(modkit.Health{State: modkit.Faulted, Detail: r.advice(err)})
		if worked {
			pause = firstPause
		}
		if !r.wait(ctx, pause) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// connect opens the bus and measures until chip or bus are gone. worked says whether the chip ever answered.
func (r *runner) connect(ctx context.Context) (worked bool, err error) {
	bus, err := r.bay.Wires.I2C(ctx, r.wiring.Bus)
	if err != nil {
		return false, err
	}
	defer func() {
		r.m.session = nil
		if cerr := bus.Close(); cerr != nil && !errors.Is(cerr, hal.ErrGone) {
			r.bay.Log.Warn("close the bus", "error", cerr)
		}
	}()
	s := &session{runner: r, ctx: ctx, chip: chip{bus: bus, addr: uint16(r.wiring.Address)}}
	if err := s.chip.begin(ctx, r.m.set); err != nil {
		return false, err
	}
	s.report()
	r.m.session = s
	return true, s.work()
}

// wait lets d pass and serves calls meanwhile; false when ctx ends.
func (r *runner) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		case call := <-r.calls:
			call()
		}
	}
}

// advice is an error with the next step of whoever stands before the machine.
func (r *runner) advice(err error) string {
	step := "check the wiring, then exchange the chip's board"
	switch {
	case errors.Is(err, errOther):
		step = "correct address in the wiring, or take the other part off the bus"
	case errors.Is(err, errForgot), errors.Is(err, errDisobeys):
		step = "check the chip's own supply, which must not sag with the load"
	case errors.Is(err, hal.ErrAbsent):
		step = "check wiring, power and address"
	case errors.Is(err, hal.ErrGone):
		step = "plug the adapter in again, it is tried until then"
	case errors.Is(err, hal.ErrTimeout):
		step = "something holds the bus: check the pull-ups, and switch the machine off and on"
	case errors.Is(err, hal.ErrDenied):
		step = "add the agent's user to the group i2c"
	case errors.Is(err, hal.ErrBusy):
		step = "unbind the kernel driver that has this address"
	case errors.Is(err, hal.ErrBadURI), errors.Is(err, hal.ErrUnsupported):
		step = "correct bus in the wiring"
	}
	return fmt.Sprintf("power: chip %#02x on %s: %v: %s", r.wiring.Address, r.wiring.Bus, err, step)
}
