package agent

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/hub"
)

// reloads is a device file that a test changes.
type reloads struct {
	rig  *rig
	mu   sync.Mutex
	text string
}

func newReloads(r *rig) *reloads {
	f := &reloads{rig: r}
	r.load = func(context.Context) (*config.Config, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return r.parse(f.text)
	}
	return f
}

func (f *reloads) reload(text string) (local.Reloaded, error) {
	f.mu.Lock()
	f.text = text
	f.mu.Unlock()
	return f.rig.agent.Reload(f.rig.t.Context())
}

func (f *reloads) mustReload(text string, want local.Reloaded) {
	f.rig.t.Helper()
	if got, err := f.reload(text); err != nil || !reflect.DeepEqual(got, want) {
		f.rig.t.Fatalf("%+v, %v; want %+v", got, err, want)
	}
}

// lives is how often a component's module was started.
func (r *rig) livesOf(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lives[name]
}

// TestR35_Reload: a file with an error changes nothing; a component is added, changed, removed with a backlog and put back;
// the others notice nothing; a hundred reloads leave nothing behind.
func TestR35_Reload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins", "door")
		f := newReloads(r)
		r.start()
		r.reported("coins", `{"module":{"name":"counter"}}`)
		r.reported("door", `{"module":{"name":"counter"}}`)
		both := r.text("5", "", "coins", "door")

		for _, bad := range []string{
			"[hub", strings.Replace(both, "[device]", "[devise]", 1),
			strings.Replace(both, "file:door.cred", "file:coins.cred", 1), // wrong with one component alone
		} {
			if got, err := f.reload(bad); !errors.Is(err, local.ErrInvalidFile) || !strings.Contains(err.Error(), "device.toml:") {
				t.Errorf("%+v, %v; want the file's errors", got, err)
			}
		}
		f.mustReload(both, local.Reloaded{})
		if n := len(r.agent.Status().Components); n != 2 || r.livesOf("coins") != 1 || r.livesOf("door") != 1 {
			t.Errorf("%d components, %d and %d lives after files that change nothing", n, r.livesOf("coins"), r.livesOf("door"))
		}

		r.add("climate")
		f.mustReload(r.text("5", "", "climate", "coins", "door"), local.Reloaded{Added: []string{"climate"}})
		r.reported("climate", `{"module":{"name":"counter"}}`)
		r.machines["climate"].insert(1)
		if got := r.telemetry("climate"); got != `{"coin":1}` {
			t.Errorf("the new component sends %s", got)
		}

		changed := r.text("5", "[modules.door.settings]\ninterval_ms = 250\n", "climate", "coins", "door")
		f.mustReload(changed, local.Reloaded{Changed: []string{"door"}})
		r.reported("door", `{"interval_ms":{"value":250}}`)

		// The door goes with a backlog: the hub is away.
		r.hub.Down()
		r.machines["door"].insert(3)
		time.Sleep(time.Second)
		f.mustReload(r.text("5", "", "climate", "coins"), local.Reloaded{Removed: []string{"door"}, Kept: map[string]int{"door": 3}})
		if left := r.agent.Status().Storage.Left; left["door"] != 3 {
			t.Errorf("the status shows %v left, want three messages of door", left)
		}
		if _, err := r.agent.Twin(t.Context(), "door"); !errors.Is(err, local.ErrNoComponent) {
			t.Errorf("the twin of a component that is gone: %v", err)
		}
		r.hub.Up()
		f.mustReload(changed, local.Reloaded{Added: []string{"door"}})
		for _, want := range []string{`{"coin":1}`, `{"coin":2}`, `{"coin":3}`} {
			if got := r.telemetry("door"); got != want {
				t.Errorf("the door that came back sends %s, want %s", got, want)
			}
		}
		r.machines["door"].insert(1)
		if got := r.telemetry("door"); got != `{"coin":4}` {
			t.Errorf("%s, want coin 4: it has its state again", got)
		}
		if n := r.livesOf("coins"); n != 1 {
			t.Errorf("coins was started %d times: all this was none of its business", n)
		}

		r.mustSettle()
		before := runtime.NumGoroutine()
		for n := range 50 {
			f.mustReload(r.text("5", "", "climate", "coins"), local.Reloaded{Removed: []string{"door"}})
			f.mustReload(changed, local.Reloaded{Added: []string{"door"}})
			_ = n
		}
		r.mustSettle()
		if after := runtime.NumGoroutine(); after > before+5 {
			t.Errorf("%d goroutines after a hundred reloads, %d before", after, before)
		}
		if n := r.livesOf("coins"); n != 1 {
			t.Errorf("coins was started %d times", n)
		}
	})
}

// mustSettle waits until every component is connected and runs.
func (r *rig) mustSettle() {
	r.t.Helper()
	for range 100 {
		ready := true
		for _, c := range r.agent.Status().Components {
			ready = ready && c.Link.Connected && c.Process.State == local.Running
		}
		time.Sleep(10 * time.Second)
		if ready {
			return
		}
	}
	r.t.Fatalf("not settled: %+v", r.agent.Status().Components)
}

// Another hub address is another connection for everybody; what needs a new agent is said.
func TestReloadOfTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		f := newReloads(r)
		r.start()
		r.reported("coins", `{"module":{"name":"counter"}}`)
		text := strings.Replace(r.text("3.1.1", "", "coins"), "[device]", "log_level = \"debug\"\n[outbox]\nmax_bytes = \"16MiB\"\n[device]", 1)
		f.mustReload(text, local.Reloaded{Changed: []string{"coins"}, Device: true, Later: []string{"agent.log_level", "outbox"}})
		spoken := func(e hub.Event) bool {
			return e.Kind == "connected" && e.ModuleID == "coins" && strings.Contains(e.Detail, "3.1.1")
		}
		r.hub.Wait(t, spoken)
		r.machines["coins"].insert(1)
		if got := r.telemetry("coins"); got != `{"coin":1}` {
			t.Errorf("%s", got)
		}
		if s := r.agent.Status(); s.Protocol != "mqtt 3.1.1" {
			t.Errorf("protocol %s", s.Protocol)
		}
	})
}

func TestReloadWithoutAFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		if _, err := r.agent.Reload(t.Context()); !errors.Is(err, errNothingToReload) {
			t.Errorf("%v", err)
		}
	})
}
