package agent

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/agent/systemd"
	"github.com/twinbay/twinbay/simulator/hub"
)

// manager is a service manager: it remembers what it is told, and when.
type manager struct {
	mu    sync.Mutex
	told  []string
	fed   time.Time     // the last Alive
	worst time.Duration // the longest time between two, or between Ready and the first
}

// watched has a service manager watch the rig's agent.
func watched(a *Agent, every time.Duration) *manager {
	m := &manager{}
	a.every, a.tell = every, m.hear
	return m
}

func (m *manager) hear(states ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range states {
		if s == systemd.Ready || s == systemd.Alive {
			if !m.fed.IsZero() {
				m.worst = max(m.worst, time.Since(m.fed))
			}
			m.fed = time.Now()
		}
		m.told = append(m.told, strings.SplitN(s, "\n", 2)[0])
	}
}

// hungry is the longest time that the watchdog has gone without food since the last call.
func (m *manager) hungry() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	worst := max(m.worst, time.Since(m.fed))
	m.worst = 0
	return worst
}

func (m *manager) heard() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.told, " ")
}

const watchdog = time.Minute // the unit's

// TestR37_Watchdog: whatever is blocked, the service manager is not told any more that the agent gets on; a disk that is slow
// or hangs, and state that is missing or garbage, are no reason.
func TestR37_Watchdog(t *testing.T) {
	for _, c := range []struct {
		name   string
		block  func(r *rig) (release func())
		silent string // "" when the watchdog is to be fed all the same
	}{
		{"nothing", func(*rig) func() { return func() {} }, ""},
		{"Run's goroutine", func(r *rig) func() {
			c := make(chan struct{})
			r.agent.calls <- func() { <-c }
			return func() { close(c) }
		}, "agent"},
		{"a component's loop", func(r *rig) func() {
			c := make(chan struct{})
			r.agent.all()[0].life().call(r.t.Context(), func() { <-c })
			return func() { close(c) }
		}, "component coins"},
		{"the device's loop", func(r *rig) func() {
			c := make(chan struct{})
			r.agent.device.life().call(r.t.Context(), func() { <-c })
			return func() { close(c) }
		}, "device"},
		{"the outbox's writer", func(r *rig) func() {
			c := make(chan struct{})
			box := r.agent.outbox.Load().Box("coins")
			box.Put(outbox.Record{Body: []byte(`{"stuck":1}`)}, func(string, error) { <-c }) // which the writer calls
			return func() { close(c) }
		}, "outbox"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "5", "", "coins", "door")
				var m *manager
				r.start(func(a *Agent) { m = watched(a, watchdog) })
				r.reported("coins", `{"mode":{"ac":203}}`)
				time.Sleep(time.Minute)
				release := c.block(r)
				time.Sleep(10 * time.Minute)
				fed := m.hungry() < watchdog
				if fed != (c.silent == "") {
					t.Errorf("the watchdog is fed: %v", fed)
				}
				if said := r.logged("the agent does not get on")["silent"]; said != c.silent {
					t.Errorf("the log says that %q is silent, want %q", said, c.silent)
				}
				release()
				time.Sleep(time.Minute)
				m.hungry()
				time.Sleep(time.Minute)
				if hungry := m.hungry(); hungry >= watchdog {
					t.Errorf("fed %v ago, and nothing is blocked any more", hungry)
				}
				r.stop()
				if told := m.heard(); !strings.HasPrefix(told, "READY=1 STATUS=") || !strings.HasSuffix(told, "STOPPING=1 STATUS=stopping") {
					t.Errorf("told: %s", told)
				}
			})
		})
	}

	for name, delay := range map[string]time.Duration{"a slow disk": 5 * time.Second, "a disk that hangs": 15 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "5", "", "coins", "door")
				var slow atomic.Bool
				fsys := &disktest.FS{Fault: func(op disktest.Op) disktest.Fault {
					if op.Kind == "sync" && slow.Load() {
						return disktest.Fault{Delay: delay}
					}
					return disktest.Fault{}
				}}
				r.disk = fsys
				var m *manager
				r.start(func(a *Agent) { m = watched(a, watchdog) })
				r.reported("coins", `{"mode":{"ac":203}}`)
				slow.Store(true)
				for n := range 20 {
					r.machines["coins"].insert(1)
					r.desire("door", fmt.Sprintf(`{"interval_ms":%d}`, 100+n))
					time.Sleep(30 * time.Second)
				}
				if hungry := m.hungry(); hungry >= watchdog {
					t.Errorf("not fed for %v", hungry)
				}
				slow.Store(false)
				if delay > time.Minute {
					time.Sleep(2 * delay) // what hangs has to end before the test does
				}
			})
		})
	}

	t.Run("garbage for state", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "5", "", "coins")
			fsys := &disktest.FS{}
			state := r.file.Agent.StateDir
			for _, file := range []string{"clock", "twins/device", "twins/coins.component", "messages/dismissed", "messages/0000000001",
				"outbox/0000000000000001.log", "outbox/lost"} {
				garbage(t, fsys, state+"/"+file)
			}
			r.disk = fsys
			var m *manager
			r.start(func(a *Agent) { m = watched(a, watchdog) })
			r.reported("coins", `{"mode":{"ac":203}}`)
			r.machines["coins"].insert(1)
			r.hub.Wait(t, func(e hub.Event) bool { return e.Kind == "telemetry" && e.ModuleID == "coins" })
			time.Sleep(10 * time.Minute)
			if hungry := m.hungry(); hungry >= watchdog {
				t.Errorf("not fed for %v", hungry)
			}
		})
	})
}

// Without a watchdog nobody is asked.
func TestNoWatchdogNoRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		var m *manager
		r.start(func(a *Agent) { m = watched(a, 0) })
		r.reported("coins", `{"mode":{"ac":203}}`)
		time.Sleep(time.Hour)
		if told := m.heard(); strings.Contains(told, "WATCHDOG") {
			t.Errorf("told: %s", told)
		}
	})
}

// logged is what stands beside the newest line of the log that begins with text.
func (r *rig) logged(text string) (attrs map[string]string) {
	for line := range r.logs.Query(r.t.Context(), local.LogQuery{}) {
		if strings.HasPrefix(line.Text, text) {
			attrs = line.Attrs
		}
	}
	return attrs
}

// garbage puts a file that is nothing into a file system.
func garbage(t *testing.T, fsys disk.FS, path string) {
	t.Helper()
	if err := fsys.MkdirAll(path[:strings.LastIndex(path, "/")]); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("\x00\xffgarbage\x00"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
