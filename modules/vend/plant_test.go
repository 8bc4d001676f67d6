package vend

import (
	"context"
	"math/bits"
	"sync"
	"testing"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

// plant is an expander as bytes, with spirals that turn by the clock. It implements hal.I2C.
type plant struct {
	*modtest.Bench
	t         *testing.T
	int, beam *haltest.InputLine
	cfg       modtest.Config

	mu      sync.Mutex
	reg     [22]byte
	spirals [maxSlots]spiral
	at      time.Time // of the spirals' angles
	err     error     // of every transaction
	most    int       // motors at a time
	ups     [maxSlots]int
	fall    *time.Timer
}

var powerOn = [22]byte{0xff, 0xff}

func newPlant(t *testing.T, settings map[string]any) *plant {
	t.Helper()
	p := &plant{t: t, int: haltest.Input(t, false), beam: haltest.Input(t, false), reg: powerOn, at: time.Now()}
	for i := range p.spirals {
		p.spirals[i].turn = 1600 * time.Millisecond
	}
	p.cfg = modtest.Config{
		Drivers:  map[string]hal.Driver{"test": haltest.Wires(map[string]any{"bus": p, "int": p.int, "beam": p.beam})},
		Wiring:   map[string]any{"bus": "test:bus", "interrupt": "test:int", "beam": "test:beam"},
		Settings: settings,
	}
	return p
}

// start is a plant with the module on it.
func start(t *testing.T, settings map[string]any) *plant {
	t.Helper()
	p := newPlant(t, settings)
	p.Bench = modtest.Run(t, New(), p.cfg)
	p.WaitHealth(modkit.OK)
	p.WaitReported(func(doc map[string]any) bool { b, _ := doc["beam"].(map[string]any); return b["ok"] == true })
	return p
}

// again is a new process of the module, with what is durable.
func (p *plant) again() {
	p.t.Helper()
	p.cfg.State = p.State()
	p.restart()
	p.WaitHealth(modkit.OK)
}

func (p *plant) restart() {
	p.t.Helper()
	p.Bench = modtest.Run(p.t, New(), p.cfg)
	p.WaitReported(func(map[string]any) bool { return true })
}

// motors is what is driven. The lock is held.
func (p *plant) motors() byte { return ^p.reg[0x00] & p.reg[0x14] & homes }

// advance turns the spirals up to now. The lock is held.
func (p *plant) advance() {
	now := time.Now()
	for i := range p.spirals {
		if p.motors()&(1<<i) != 0 {
			p.spirals[i].move(now.Sub(p.at))
		}
	}
	p.at = now
}

// drop plans the next product of the spiral that turns.
func (p *plant) drop() {
	if p.fall != nil {
		p.fall.Stop()
	}
	for i := range p.spirals {
		s := p.spirals[i]
		if p.motors()&(1<<i) == 0 || s.blind || s.jamAt > 0 {
			continue
		}
		left := 0.85 - s.angle + float64(int(s.angle))
		if left <= 0 {
			left++
		}
		p.fall = time.AfterFunc(time.Duration(left*float64(s.turn))+2*time.Millisecond, func() { // it has to fall, too
			p.beam.Push(true)
			time.AfterFunc(30*time.Millisecond, func() { p.beam.Push(false) })
		})
	}
}

func (p *plant) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		return p.err
	case addr != 0x20 || len(w) == 0:
		return hal.ErrAbsent
	}
	p.advance()
	before := p.motors()
	reg := int(w[0])
	for _, b := range w[1:] {
		switch reg {
		case 0x0a, 0x0b:
			p.reg[0x0a], p.reg[0x0b] = b, b
		default:
			p.reg[reg] = b
		}
		reg++
	}
	if now := p.motors(); now != before {
		p.most = max(p.most, bits.OnesCount8(now))
		for i := range p.ups {
			if now&^before&(1<<i) != 0 {
				p.ups[i]++
			}
		}
		p.drop()
	}
	p.reg[0x12], p.reg[0x13] = p.motors(), 0
	for i := range p.spirals {
		if !p.spirals[i].home() {
			p.reg[0x13] |= 1 << i
		}
	}
	copy(r, p.reg[reg:])
	return nil
}

func (p *plant) Close() error { return nil }

// do changes the plant.
func (p *plant) do(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	f()
}

// reset is what noise does to the chip.
func (p *plant) reset() {
	p.do(func() {
		p.reg = powerOn
		p.drop()
	})
}

func (p *plant) given(slot int) (n int) {
	p.do(func() { n = p.spirals[slot].given })
	return n
}

// still fails the test when a motor is on, or when two ever were.
func (p *plant) still() {
	p.t.Helper()
	p.do(func() {
		if p.motors() != 0 || p.most > 1 {
			p.t.Errorf("motors %07b are on, %d at a time", p.motors(), p.most)
		}
	})
}
