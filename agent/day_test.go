package agent

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/simulator/hub"
)

// named makes n components' names.
func named(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("m%02d", i))
	}
	return names
}

// heap is what lives in memory, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestDayOfFiftyModules is a day of the largest device that a hub takes: a reading of each module every five minutes,
// tokens that last an hour, and a hub that is away for a second, a minute and two hours.
func TestDayOfFiftyModules(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		names := named(50)
		r := newRig(t, "3.1.1", "", names...)
		r.quiet, r.short = true, true
		r.start()
		const (
			readings = 24 * 60 / 5
			each     = 5 * time.Minute
		)
		outages := map[int]time.Duration{40: time.Second, 100: time.Minute, 200: 2 * time.Hour}
		var up time.Time // when the hub comes back; zero while it is there
		most, queued := 0, 0
		var goroutines int
		var memory int64
		for n := range readings {
			for _, name := range names {
				r.machines[name].insert(1)
			}
			if d := outages[n]; d > 0 {
				r.hub.Down()
				up = time.Now().Add(d)
			}
			next := r.agent.began.Add(time.Duration(n+1) * each)
			if !up.IsZero() && up.Before(next) {
				time.Sleep(time.Until(up))
				r.hub.Up()
				up = time.Time{}
			}
			time.Sleep(time.Until(next))
			if n == 12 { // an hour: every session has had its first renewal
				goroutines, memory = runtime.NumGoroutine(), heap()
			}
			for _, c := range r.agent.Status().Components {
				if most = max(most, c.Queue.Queued); up.IsZero() && n%24 == 23 {
					queued += c.Queue.Queued
				}
			}
		}
		time.Sleep(2 * each)
		goroutines, memory = runtime.NumGoroutine()-goroutines, heap()-memory

		events := r.hub.Events()
		connects, ids := map[string]int{}, map[string]map[string]bool{}
		for _, e := range events {
			switch e.Kind {
			case "connected":
				connects[e.ModuleID]++
			case "telemetry":
				body := e.ModuleID + string(e.Body)
				if ids[body] == nil {
					ids[body] = map[string]bool{}
				}
				ids[body][e.System["message-id"]] = true
			}
		}
		lost, twice := 0, 0
		for _, name := range names {
			for n := range readings {
				switch len(ids[fmt.Sprintf(`%s{"coin":%d}`, name, n+1)]) {
				case 0:
					lost++
				case 1:
				default:
					twice++
				}
			}
		}
		if lost > 0 || twice > 0 || len(ids) != 50*readings {
			t.Errorf("%d readings lost, %d under two ids; %d came of %d", lost, twice, len(ids), 50*readings)
		}
		for _, c := range r.agent.Status().Components {
			if c.Queue.Accepted != readings || c.Queue.Acked != readings || len(c.Queue.Dropped) > 0 || !c.Link.Connected || c.Process.Restarts > 0 {
				t.Errorf("%s at the end of the day: %+v", c.Name, c)
			}
		}
		// Over MQTT 3.1.1 each new token is a new connection: one in 45 to 51 minutes of the 22 hours that the hub was
		// there, and one after each outage.
		for _, name := range append(names, "") {
			if n := connects[name]; n < 22*60/51 || n > 22*60/45+len(outages)+1 {
				t.Errorf("%s connected %d times", hub.ID{Device: deviceID, Module: name}, n)
			}
		}
		// Two hours are 24 readings; one more may be on its way.
		if most < 24 || most > 26 || queued > 0 {
			t.Errorf("%d readings of a component waited at most, want those of two hours; %d when the hub was there", most, queued)
		}
		// The hub's events, for this test alone, are most of what is in memory.
		if beyond := memory - int64(len(events))*2048; goroutines > 50 || beyond > 8<<20 {
			t.Errorf("%d goroutines more than after an hour, and %d KiB beyond the hub's %d events", goroutines, beyond>>10, len(events))
		}
		written, syncs := r.disk.(*disktest.FS).Written()
		t.Logf("%d connects, %d events, at most %d readings of a component waited; %d KiB and %d fsyncs to the disk; %+d goroutines, %+d KiB of heap since the first hour",
			connects[names[0]], len(events), most, written>>10, syncs, goroutines, memory>>10)
	})
}
