package rig

import (
	"testing"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
)

// The suites of hal run over the whole way: client, socket, server, model.
func TestSuites(t *testing.T) {
	t.Run("i2c", func(t *testing.T) {
		haltest.TestI2C(t, func(t *testing.T) haltest.I2CBench {
			b := start(t)
			bus, err := b.wires.I2C(limit(t), b.uri("sim:rig.sock#climate"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { bus.Close() })
			return haltest.I2CBench{Bus: bus, Present: ClimateAddr, W: []byte{0xd0}, R: []byte{0x60}, Absent: 0x51,
				Unplug: func() { b.Rig.Close() }}
		})
	})
	t.Run("input", func(t *testing.T) {
		haltest.TestDigitalIn(t, func(t *testing.T) haltest.InBench {
			b := start(t)
			in, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#door"), hal.InputMode{ActiveLow: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { in.Close() })
			return haltest.InBench{In: in, Set: func(active bool) { b.Rig.wires["door"].line.Set(!active) },
				Unplug: func() {
					if err := b.Unplug(t.Context(), "door"); err != nil {
						t.Error(err)
					}
				}}
		})
	})
	t.Run("output", func(t *testing.T) {
		haltest.TestDigitalOut(t, func(t *testing.T) haltest.OutBench {
			b := start(t)
			out, err := b.wires.DigitalOut(limit(t), b.uri("sim:rig.sock#lock"), hal.OutputMode{Initial: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { out.Close() })
			return haltest.OutBench{Out: out, Unplug: func() { b.Rig.Close() }, Seen: func() bool {
				s, err := b.Status(t.Context())
				if err != nil {
					t.Error(err)
				}
				return s.Locked
			}}
		})
	})
}
