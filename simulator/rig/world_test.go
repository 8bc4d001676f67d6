package rig

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/chips"
)

func testWorld(seed uint64) *world {
	door, beam := new(chips.Line), new(chips.Line)
	door.Set(true)
	beam.Set(true)
	return newWorld(rand.New(rand.NewPCG(seed, 1)), chips.NewCoinAcceptor(chips.CoinConfig{NoEcho: true}), door, beam, slog.New(slog.DiscardHandler))
}

// day lets the world run, with a host that polls the acceptor, and says what happened.
func day(t *testing.T, seed uint64, d time.Duration) (w *world, story string) {
	w = testWorld(seed)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	done := make(chan struct{})
	go func() { w.run(ctx, true); close(done) }()
	opened, was := 0, false
	for n := 0; ; n++ {
		select {
		case <-done:
			_, deliveries := w.seen()
			return w, fmt.Sprintf("%+v, door %d, deliveries %d", w.coins.Count(), opened, deliveries)
		case <-poll.C:
		}
		if n == 2 {
			w.coins.Receive([]byte{2, 2, 1, 231, 0xff, 0xff, 0x16})
		}
		w.coins.Receive([]byte{2, 0, 1, 229, 24})
		if open, _ := w.seen(); open && !was {
			opened++
			was = true
		} else if !open {
			was = false
		}
	}
}

func TestWorldLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, story := day(t, 7, time.Hour)
		c := w.coins.Count()
		_, deliveries := w.seen()
		if c.Credited < 300 || c.Credited > 1000 || c.Rejected < 10 || deliveries < 80 || deliveries > c.Credited {
			t.Errorf("an hour: %s", story)
		}
		if air := w.air(); air.Celsius < 4 || air.Celsius > 15 {
			t.Errorf("after an hour the cabinet has %.1f °C", air.Celsius)
		}
	})
}

func TestWorldIsSeeded(t *testing.T) {
	story := func(seed uint64) (s string) {
		synctest.Test(t, func(t *testing.T) { _, s = day(t, seed, 10*time.Minute) })
		return s
	}
	if a, b, c := story(1), story(1), story(2); a != b || a == c {
		t.Errorf("seed 1: %s\nagain:  %s\nseed 2: %s", a, b, c)
	}
}

func TestWorldAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := testWorld(1)
		before := w.air()
		w.run(t.Context(), false)
		time.Sleep(time.Hour)
		if after := w.air(); after != before || w.coins.Count() != (chips.CoinCount{}) {
			t.Errorf("%+v became %+v, coins %+v", before, after, w.coins.Count())
		}
	})
}

func TestOpenDoorWarmsTheAir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := testWorld(1)
		w.moveDoor(true)
		time.Sleep(openTau)
		warm := w.air().Celsius
		if want := cabinetC + (hallC-cabinetC)*(1-1/math.E); math.Abs(warm-want) > 0.01 {
			t.Errorf("%.2f °C after one time constant, want %.2f", warm, want)
		}
		w.moveDoor(false)
		time.Sleep(time.Hour)
		if c := w.air().Celsius; math.Abs(c-cabinetC) > 0.01 {
			t.Errorf("%.2f °C an hour after the door was shut, want %.2f", c, cabinetC)
		}
		c := 35.0
		if err := w.setAir(Air{Celsius: &c}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := w.air().Celsius; got != 35 {
			t.Errorf("%.2f °C an hour after it was set to 35", got)
		}
	})
}
