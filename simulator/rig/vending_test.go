package rig

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// Addresses of the expander with IOCON.BANK 0.
const (
	ioDirA, ioCon, gpioB, oLatA = 0x00, 0x0A, 0x13, 0x14
	intEnB                      = 0x05
)

// spirals is a rig without its sockets, with the expander set up as for a vend.
func spirals() *Rig {
	r := newRig(Config{Seed: 1})
	e := r.vending.expander
	e.Transfer([]byte{ioCon, 0x40}, nil) // INTA for both ports
	e.Transfer([]byte{ioDirA, 0x00}, nil)
	e.Transfer([]byte{intEnB, 0x7F}, nil)
	return r
}

func (r *Rig) motors(bits byte) { r.vending.expander.Transfer([]byte{oLatA, bits}, nil) }

func (r *Rig) homes() byte {
	var p [1]byte
	r.vending.expander.Transfer([]byte{gpioB}, p[:])
	return p[0] & 0x7F
}

// TestSpiralTurns: the motor leaves the home switch, the product falls, the switch closes; and the interrupt and the beam are
// where a module waits for them.
func TestSpiralTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := spirals()
		if got := r.homes(); got != 0 {
			t.Fatalf("home switches %07b, want all closed", got)
		}
		ints := r.wires["expander"].line.Watch(true, 0)
		beam := r.wires["beam"].line.Watch(true, 0)
		begin := time.Now()
		r.motors(1 << 2)
		for _, want := range []struct {
			after time.Duration
			homes byte
		}{{96 * time.Millisecond, 1 << 2}, {1504 * time.Millisecond, 0}} {
			e, err := ints.Next(t.Context())
			if got := r.homes(); err != nil || !e.Level || e.At.Sub(begin).Round(time.Millisecond) != want.after || got != want.homes {
				t.Errorf("interrupt %+v after %v, home switches %07b, %v; want %+v", e, e.At.Sub(begin), got, err, want)
			}
			if e, err = ints.Next(t.Context()); err != nil || e.Level {
				t.Errorf("reading the port did not end the interrupt: %+v, %v", e, err)
			}
		}
		r.motors(0)
		dark, err := beam.Next(t.Context())
		light, err2 := beam.Next(t.Context())
		width := light.At.Sub(dark.At)
		if err != nil || err2 != nil || dark.At.Sub(begin).Round(10*time.Millisecond) != 1460*time.Millisecond || width < 20*time.Millisecond || width > 60*time.Millisecond {
			t.Errorf("the beam is dark after %v for %v, %v, %v", dark.At.Sub(begin), width, err, err2)
		}
		if got := r.vending.stock(); got != [Slots]int{10, 10, 9, 10, 10, 10, 10} {
			t.Errorf("stock %v, want one less in slot 2", got)
		}
	})
}

// TestNextProduct: a motor that stops where the home switch closes gives out the next product with the next turn, and none with
// the quarter turn that a module adds when it has seen nothing fall.
func TestNextProduct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := spirals()
		for n, on := range []time.Duration{1510 * time.Millisecond, 1600 * time.Millisecond, 400 * time.Millisecond} {
			r.motors(1)
			time.Sleep(on)
			r.motors(0)
			time.Sleep(time.Second)
			if got, want := r.vending.stock()[0], 10-min(n+1, 2); got != want {
				t.Errorf("%d products left after %d motions, want %d", got, n+1, want)
			}
		}
	})
}

// TestNobodyElseDelivers: once somebody has set up the motors, a customer's purchase is no business of the world's any more.
func TestNobodyElseDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(Config{Seed: 1})
		r.world.purchase(t.Context())
		if _, n := r.world.seen(); n != 1 {
			t.Errorf("%d deliveries without a module, want 1", n)
		}
		r.vending.expander.Transfer([]byte{ioDirA, 0x00}, nil)
		r.world.purchase(t.Context())
		if _, n := r.world.seen(); n != 1 {
			t.Errorf("%d deliveries although the spirals are driven, want 1", n)
		}
	})
}

func TestSpiralTroubles(t *testing.T) {
	turn := func(r *Rig) (homes byte) {
		r.motors(1)
		time.Sleep(1550 * time.Millisecond)
		homes = r.homes()
		r.motors(0)
		time.Sleep(time.Second)
		return homes
	}
	for name, c := range map[string]struct {
		fault func(*Rig)
		homes byte
		stock int
	}{
		"nothing":            {func(*Rig) {}, 0, 9},
		"empty":              {func(r *Rig) { r.vending.fill(0, 0) }, 0, 0},
		"jam at home":        {func(r *Rig) { r.vending.jam(0, true) }, 0, 10},
		"welded home switch": {func(r *Rig) { r.vending.weld(0, true) }, 0, 9},
		"jam on the way":     {func(r *Rig) { time.AfterFunc(500*time.Millisecond, func() { r.vending.jam(0, true) }) }, 1, 10},
		"reset on the way":   {func(r *Rig) { time.AfterFunc(500*time.Millisecond, r.vending.expander.PowerOn) }, 1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := spirals()
				c.fault(r)
				homes := turn(r)
				if got := r.vending.stock()[0]; homes != c.homes || got != c.stock {
					t.Errorf("home switches %07b, stock %d; want %07b, %d", homes, got, c.homes, c.stock)
				}
			})
		})
	}
}

func TestJamDrawsCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := spirals()
		amperes := func() float64 { return r.load().Amperes }
		rest := amperes()
		r.motors(1)
		turning := amperes()
		r.vending.jam(0, true)
		if stalled := amperes(); !(rest < turning && turning < stalled) {
			t.Errorf("%.2f A at rest, %.2f turning, %.2f stalled", rest, turning, stalled)
		}
		r.vending.jam(0, false)
		time.Sleep(10 * time.Second)
		if got := r.vending.stock()[0]; got != 9 {
			t.Errorf("%d products left after a jam that was freed, want 9", got)
		}
		r.motors(0)
		r.world.cool(true)
		if got := amperes() - rest; math.Abs(got-coolAmperes) > 1e-9 {
			t.Errorf("the compressor draws %.2f A, want %.2f", got, coolAmperes)
		}
	})
}

// TestCompressorCools: who drives the compressor has the cabinet's temperature in hand.
func TestCompressorCools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := testWorld(1)
		w.cool(false)
		time.Sleep(idleTau)
		warm := w.air().Celsius
		if want := cabinetC + (hallC-cabinetC)*(1-1/math.E); math.Abs(warm-want) > 0.01 {
			t.Errorf("%.2f °C after half an hour without cooling, want %.2f", warm, want)
		}
		w.cool(true)
		time.Sleep(time.Hour)
		if got := w.air().Celsius; math.Abs(got-coldC) > 0.01 {
			t.Errorf("%.2f °C after an hour of cooling, want %.2f", got, coldC)
		}
		w.moveDoor(true)
		time.Sleep(time.Hour)
		if got := w.air().Celsius; math.Abs(got-hallC) > 0.01 {
			t.Errorf("%.2f °C with an open door, want the hall's %.2f", got, hallC)
		}
	})
}

// TestMachineBus: the parts answer at their addresses through the socket, and the outputs reach them.
func TestMachineBus(t *testing.T) {
	b := start(t)
	bus, err := b.wires.I2C(limit(t), b.uri("sim:rig.sock#machine"))
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	for addr, want := range map[uint16]uint16{CoolingAddr: 0x0054, SupplyAddr: 0x399F, ExpanderAddr: 0xFFFF} {
		reg := map[uint16]byte{CoolingAddr: 6}[addr]
		var r [2]byte
		if err := bus.Tx(limit(t), addr, []byte{reg}, r[:]); err != nil || uint16(r[0])<<8|uint16(r[1]) != want {
			t.Errorf("%#x: register %d is % x, %v; want %#04x", addr, reg, r, err, want)
		}
	}
	for _, part := range []string{"cooling", "vend", "power"} {
		if err := b.Unplug(limit(t), part); err != nil {
			t.Error(err)
		}
		if err := bus.Tx(limit(t), onBus[part].addr, []byte{0}, make([]byte, 2)); err == nil {
			t.Errorf("%s answers although it is unplugged", part)
		}
		if err := b.Plug(limit(t), part); err != nil {
			t.Error(err)
		}
	}
	relay, err := b.wires.DigitalOut(limit(t), b.uri("sim:rig.sock#compressor"), hal.OutputMode{Initial: true})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	s, err := b.Status(limit(t))
	if err != nil || !s.Cooling.Compressor || s.Power.Amperes < coolAmperes || !s.Vend.Plugged || s.Vend.Stock[6] != slotStock {
		t.Errorf("status %+v, %v", s, err)
	}
}
