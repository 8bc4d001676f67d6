package agent

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/lives"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/hub"
)

// endedEarly keeps that the agent has ended early, n times in a row in the start of the system named boot.
func (r *rig) endedEarly(boot string, n int) {
	r.t.Helper()
	record := lives.Record{Boot: boot, Early: n - 1, Open: true, Error: "no luck"}
	text, err := record.Encode()
	if err == nil {
		err = disk.Save(r.disk, r.livesPath(), text)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) livesPath() string { return filepath.Join(r.file.Agent.StateDir, livesFile) }

func (r *rig) record() (record lives.Record) {
	r.t.Helper()
	if _, damage := disk.Load(r.disk, r.livesPath(), func(text []byte) (err error) {
		record, err = lives.Decode(text)
		return err
	}); damage != nil {
		r.t.Fatal(damage)
	}
	return record
}

// counted has the rig's agent count its lives.
func counted(a *Agent) { a.boot = "boot-1" }

func TestSafeMode(t *testing.T) {
	for _, way := range []string{"by itself", "as asked"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "5", "", "coins", "door")
			f := newReloads(r)
			r.endedEarly("boot-1", lives.Limit)
			var m *manager
			r.start(counted, func(a *Agent) { m = watched(a, watchdog) })
			r.hub.Wait(t, func(e hub.Event) bool { return e.Kind == "reported" && e.ModuleID == "" })
			time.Sleep(29 * time.Minute)
			s := r.agent.Status()
			if s.Safe == nil || s.Safe.EarlyEnds != lives.Limit || len(s.Safe.Ends) != 1 || s.Safe.Ends[0].Reason != "no luck" || !s.Session.Connected {
				t.Fatalf("status = %+v, safe mode %+v", s, s.Safe)
			}
			for _, c := range s.Components {
				if c.Process.State != local.Held || c.Link.Connected || c.Health.State != local.Degraded {
					t.Errorf("in safe mode %s = %+v", c.Name, c)
				}
			}
			if n := r.livesOf("coins") + r.livesOf("door"); n != 0 {
				t.Errorf("%d modules were started", n)
			}
			if _, _, err := r.agent.Invoke(t.Context(), "coins", "echo", nil); !errors.Is(err, local.ErrNotRunning) {
				t.Errorf("a method: %v", err)
			}
			if got := r.invoke("", "status", ""); got.Status != 200 || !strings.Contains(string(got.Payload), `"safe_mode"`) {
				t.Errorf("status through the hub: %d %.200s", got.Status, got.Payload)
			}
			r.reported("", `{"agent":{"safe_mode":{"reason":"the agent ended early 5 times in a row; the last time: no luck"}}}`)
			r.add("climate") // the device file can be mended meanwhile
			f.mustReload(r.text("5", "", "coins", "climate"), local.Reloaded{Added: []string{"climate"}, Removed: []string{"door"}})
			if hungry := m.hungry(); hungry >= watchdog || !strings.Contains(m.heard(), "STATUS=SAFE MODE") {
				t.Errorf("the watchdog was not fed for %v; told %.200s", hungry, m.heard())
			}
			if record := r.record(); record.Early != lives.Limit || !record.Open {
				t.Errorf("in safe mode the record is %+v", record)
			}

			early := lives.Limit - 1
			if way == "as asked" {
				early = 0
				if err := r.agent.Resume(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				time.Sleep(2 * time.Minute)
			}
			r.reported("coins", `{"mode":{"ac":203}}`)
			r.reported("climate", `{"mode":{"ac":203}}`)
			r.machines["coins"].insert(1)
			if got := r.telemetry("coins"); got != `{"coin":1}` {
				t.Errorf("after safe mode: %s", got)
			}
			if record := r.record(); record.Early != early || !record.Open {
				t.Errorf("%s: right after safe mode the record is %+v", way, record)
			}
			if err := r.agent.Resume(t.Context()); !errors.Is(err, local.ErrNotSafe) {
				t.Errorf("a second resume: %v", err)
			}
			time.Sleep(3 * time.Minute)
			if record := r.record(); record.Early != 0 || record.Open || r.agent.Status().Safe != nil {
				t.Errorf("after a life that lasted the record is %+v", record)
			}
			tw, err := r.hub.Twin(hub.ID{Device: deviceID})
			if err != nil {
				t.Fatal(err)
			}
			if agent, _ := tw.Properties.Reported["agent"].(map[string]any); agent["safe_mode"] != nil {
				t.Errorf("the twin still says %v", agent)
			}
		})
	}
}

func TestNoSafeMode(t *testing.T) {
	for name, prepare := range map[string]func(r *rig){
		"four early ends":   func(r *rig) { r.endedEarly("boot-1", lives.Limit-1) },
		"after a power cut": func(r *rig) { r.endedEarly("boot-0", 100) },
		"no record":         func(*rig) {},
		"garbage":           func(r *rig) { garbage(r.t.(*testing.T), r.disk, r.livesPath()) },
		"a disk that takes nothing": func(r *rig) {
			r.disk = &disktest.FS{Fault: disktest.OfKind("create", "", syscall.EROFS)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "5", "", "coins")
				prepare(r)
				r.start(counted)
				r.reported("coins", `{"mode":{"ac":203}}`)
				if s := r.agent.Status(); s.Safe != nil {
					t.Errorf("safe mode: %+v", s.Safe)
				}
				r.stop()
				if name != "a disk that takes nothing" {
					if record := r.record(); record.Open || record.Early != 0 || record.Boot != "boot-1" {
						t.Errorf("after a stop the record is %+v", record)
					}
				}
			})
		})
	}
}

// A life that lasts writes its record twice, and never again.
func TestLivesCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start(counted)
		r.reported("coins", `{"mode":{"ac":203}}`)
		time.Sleep(5 * time.Minute)
		asked := make(chan int, 1)
		r.agent.calls <- func() { asked <- r.agent.life.saves }
		saves := <-asked
		time.Sleep(30 * time.Minute)
		r.stop()
		if saves != 2 || r.agent.life.saves != saves {
			t.Errorf("the record was written %d times, and %d times after half an hour and a stop", saves, r.agent.life.saves)
		}
	})
}
