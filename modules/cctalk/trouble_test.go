package cctalk

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

func TestResetOfTheAcceptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		f.coins(2)
		expect(t, b, "baseline @0, credit #1 EU100A=100 @1")
		f.set(func(f *fake) { f.reset() }) // a brown-out
		expect(t, b, "credit_gap_unknown: the acceptor was reset @0")
		if f.maskNow() != 0xffff {
			t.Error("the mask was not set again")
		}
		// With a counter of 0 the next one leaves no trace in it, and all coins are refused until the check.
		f.set(func(f *fake) { f.reset() })
		time.Sleep(checkEvery + time.Second)
		if f.maskNow() != 0xffff {
			t.Error("the mask was not set again by the check")
		}
		f.coins(3)
		expect(t, b, "credit #2 EU050A=50 @1")
	})
}

func TestUnplug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		f.coins(2)
		expect(t, b, "baseline @0, credit #1 EU100A=100 @1")
		f.line.Unplug()
		h := b.WaitHealth(modkit.Faulted)
		if !strings.Contains(h.Detail, "test:coin") || !strings.Contains(h.Detail, "plug the adapter in again") {
			t.Errorf("health %q names no wire or next step", h.Detail)
		}
		if a := b.Invoke("selfTest", ""); a.Status != 409 {
			t.Errorf("selfTest without an acceptor answers %d", a.Status)
		}
		f.coins(3)
		time.Sleep(time.Minute)
		f.line.Plug()
		b.WaitHealth(modkit.OK)
		expect(t, b, "credit #2 EU050A=50 @2")
	})
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		f.set(func(f *fake) { f.mute = true })
		h := b.WaitHealth(modkit.Faulted)
		if !strings.Contains(h.Detail, "no reply") || !strings.Contains(h.Detail, "address 2") || !strings.Contains(h.Detail, "supply") {
			t.Errorf("health %q", h.Detail)
		}
		f.set(func(f *fake) { f.mute = false })
		b.WaitHealth(modkit.OK)
	})
}

// An acceptor that has just got its power answers after a quarter of a second: that is no fault.
func TestSilenceWhileItStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.mute = true
		time.AfterFunc(250*time.Millisecond, func() { f.set(func(f *fake) { f.mute = false }) })
		b := modtest.Run(t, New(), config(f))
		b.WaitHealth(modkit.OK)
		if all := b.HealthSoFar(); len(all) != 1 {
			t.Errorf("health while it started: %+v", all)
		}
	})
}

func TestAbsentFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		cfg := config(f)
		cfg.Wiring = map[string]any{"port": "test:nothing"}
		b := modtest.Run(t, New(), cfg)
		b.WaitHealth(modkit.Faulted)
		time.Sleep(time.Hour) // it lives on
		if a := b.Apply(map[string]any{"enabled": false}); len(a) != 0 {
			t.Errorf("settings without an acceptor: %+v", a)
		}
	})
}

func TestDamagedRepliesCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		f.set(func(f *fake) { f.garble = 2 })
		f.coins(2)
		expect(t, b, "baseline @0, credit #1 EU100A=100 @1")
		var doc struct {
			Host     stats          `json:"host"`
			Acceptor map[string]int `json:"acceptor"`
		}
		if err := json.Unmarshal(b.Invoke("commsStats", "").Payload, &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Host.Checksums != 2 || doc.Host.Resyncs != 2 || doc.Acceptor["checksum_errors"] != 3 {
			t.Errorf("stats %+v", doc)
		}
	})
}

// A coin whose name cannot be read at the moment waits for it; an acceptor without names gives none.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.quiet[coinID] = true
		cfg := config(f)
		b := modtest.Run(t, New(), cfg)
		b.WaitHealth(modkit.OK)
		time.Sleep(time.Minute)
		f.coins(2)
		expect(t, b, "baseline @0, credit #1 @1")
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		cfg := config(f)
		cfg.State = []byte(`{"serial":123456,"counter":0,"credits":0}`)
		f.counter, f.events, f.garble = 1, [depth]event{{2, 1}}, 0
		f.quiet[coinID] = true
		b := modtest.Run(t, New(), cfg)
		time.Sleep(700 * time.Millisecond)
		f.set(func(f *fake) { f.quiet[coinID] = false })
		expect(t, b, "credit #1 EU100A=100 @1")
	})
}
