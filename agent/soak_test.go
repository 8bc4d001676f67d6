//go:build linux

package agent

import (
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/local"
)

// TestR38_Soak is a day of ten components with ten messages a second each, compressed: nothing in the agent counts days, so
// what grows with the messages shows after a hundred thousand of them, and what grows with connections after some dozens.
// Memory and goroutines are measured in virtual time. Open files, which a bubble has not, are counted with sockets and
// processes; the resident memory of real processes over minutes is measured by `make soak`.
func TestR38_Soak(t *testing.T) {
	t.Run("memory and goroutines", soakInVirtualTime)
	t.Run("files", soakWithFiles)

}

func soakInVirtualTime(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		names := named(10)
		r := newRig(t, "5", "", names...)
		r.quiet, r.short = true, true
		r.logs = local.NewLogs(1) // of each component: full before the first sample
		r.start()
		coins := 0
		type sample struct {
			goroutines int
			heap, disk int64
		}
		// round is two minutes of messages, the hub away for a second in the middle, and a quiet minute.
		round := func() sample {
			for n := range 1200 {
				coins++
				for _, name := range names {
					r.machines[name].insert(1)
				}
				switch n {
				case 600:
					r.hub.Down()
				case 610:
					r.hub.Up()
				}
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			r.hub.Forget()
			for _, name := range names {
				c := r.component(name)
				if c.Queue.Accepted != uint64(coins) || c.Queue.Acked != uint64(coins) || !c.Link.Connected || c.Process.Restarts > 0 {
					t.Fatalf("after %d messages of %s: %+v", coins, name, c)
				}
			}
			synctest.Wait()
			return sample{runtime.NumGoroutine(), heap(), r.agent.Status().Storage.DiskBytes}
		}
		round()
		first := round()
		const rounds = 8
		var last sample
		for n := range rounds {
			last = round()
			if last.goroutines != first.goroutines {
				t.Errorf("round %d: %d goroutines, %d at first", n, last.goroutines, first.goroutines)
			}
		}
		// One byte that each message left behind would be 94 KiB.
		if grown := last.heap - first.heap; grown > 64<<10 {
			t.Errorf("the heap has grown by %d KiB in %d messages", grown>>10, rounds*1200*10)
		}
		if last.disk > first.disk {
			t.Errorf("the outbox takes %d bytes of the disk, %d at first", last.disk, first.disk)
		}
		written, _ := r.disk.(*disktest.FS).Written()
		t.Logf("%d messages; %d goroutines; heap %+d bytes; %d bytes of the disk in use, %d written",
			coins*10, last.goroutines, last.heap-first.heap, last.disk, written)
	})
}

// soakWithFiles connects again and again with real sockets, a real disk and a process: no file is left open.
func soakWithFiles(t *testing.T) {
	files := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("open files are counted on Linux: %v", err)
		}
		return len(all)
	}
	names := named(8)
	r := newProcessRig(t, names...)
	connected := func() {
		r.hub.WaitFor(t, "connected", deviceID)
		for _, name := range names {
			r.hub.WaitFor(t, "connected", deviceID+"/"+name)
		}
	}
	again := func() {
		r.hub.Down()
		r.hub.Up()
		connected()
	}
	connected()
	for _, name := range names {
		r.reported(name, `{"mode":{"ac":203}}`)
	}
	again()
	before := files()
	again() // and not more often: after three drops in a row the agent waits longer, for another one with its identity
	if now := files(); now > before+4 {
		t.Errorf("%d files are open, %d before %d more connections", now, before, len(names)+1)
	}
}
