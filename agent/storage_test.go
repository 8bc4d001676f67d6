package agent

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/simulator/hub"
)

// What was accepted survives the agent's end, with the module's state: no coin is lost and none comes twice.
func TestOutboxSurvivesTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.machines["coins"].insert(1)
		r.telemetry("coins")
		r.hub.Down()
		r.machines["coins"].insert(3)
		time.Sleep(time.Second)
		r.stop()
		r.hub.Up()
		r.start()
		r.machines["coins"].insert(1)
		for n := 2; n <= 5; n++ {
			if got, want := r.telemetry("coins"), fmt.Sprintf(`{"coin":%d}`, n); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		if starts := r.machines["coins"].starts; starts[len(starts)-1] != "4" {
			t.Errorf("the module began with the states %q, want 4 at last", starts)
		}
	})
}

// TestR29_SlowDisk: each fsync takes five seconds. Messages are accepted late; settings, methods, connections and the status
// wait for nothing.
func TestR29_SlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins", "door")
		fsys := &disktest.FS{}
		var slow atomic.Bool
		fsys.Fault = func(op disktest.Op) disktest.Fault {
			if op.Kind == "sync" && slow.Load() {
				return disktest.Fault{Delay: 5 * time.Second}
			}
			return disktest.Fault{}
		}
		r.disk = fsys
		r.start()
		r.reported("coins", `{"module":{"name":"counter"}}`)
		r.reported("door", `{"module":{"name":"counter"}}`)
		slow.Store(true)
		began := time.Now()
		for range 3 {
			r.machines["coins"].insert(1)
			r.machines["door"].insert(1)
			time.Sleep(500 * time.Millisecond)
			at := time.Now()
			if got := r.invoke("coins", "echo", `{"n":1}`); got.Status != 200 {
				t.Errorf("the method answers %d", got.Status)
			}
			r.desire("door", fmt.Sprintf(`{"interval_ms":%d}`, 100+time.Since(began).Milliseconds()%1000))
			r.hub.Wait(t, func(e hub.Event) bool { return e.Kind == "reported" && e.ModuleID == "door" })
			r.agent.Status()
			if took := time.Since(at); took > 500*time.Millisecond {
				t.Errorf("a method, a setting and the status took %v while the disk was busy", took)
			}
		}
		for n := 1; n <= 3; n++ {
			for _, name := range []string{"coins", "door"} {
				if got, want := r.telemetry(name), fmt.Sprintf(`{"coin":%d}`, n); got != want {
					t.Errorf("%s of %s, want %s", got, name, want)
				}
			}
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the coins came after %v", took)
		}
		if s := r.agent.Status().Storage; s.SlowestMS < 5000 || s.Error != "" {
			t.Errorf("the status says %+v", s)
		}
		slow.Store(false)
	})
}

// A disk that takes nothing keeps no message from the hub, and is said.
func TestBrokenDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.disk = &disktest.FS{Fault: disktest.OfKind("create", "", syscall.ENOSPC)}
		r.start()
		r.machines["coins"].insert(3)
		for n := 1; n <= 3; n++ {
			if got, want := r.telemetry("coins"), fmt.Sprintf(`{"coin":%d}`, n); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		if s := r.agent.Status().Storage; !strings.Contains(s.Error, "no space left") || s.Since.IsZero() {
			t.Errorf("the status says %+v", s)
		}
	})
}
