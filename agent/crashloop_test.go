package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/local"
)

// TestR04_CrashLoops: a module that ends at its start, after a second or after a minute of work is started again for ever,
// ever more slowly while it does not work; or it is quarantined, where the device file says so, until a person or another
// device file gets it out. Its neighbour notices nothing.
func TestR04_CrashLoops(t *testing.T) {
	for _, tt := range []struct {
		name        string
		absent      string
		lasts       time.Duration
		least, most int           // starts in an hour
		quarantined time.Duration // no later than this after the start
		reason      string
	}{
		{"at the start", "exit status 7: cannot find my configuration", 0, 120, 140, 2 * time.Minute, "exit status 7: cannot find my configuration"},
		{"after a second", "", time.Second, 115, 135, 2 * time.Minute, "the motor is stuck"},
		{"after 61 s", "", 61 * time.Second, 58, 60, 11 * time.Minute, "the motor is stuck"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, limited := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, "5", "", "coins", "door")
					f := newReloads(r)
					text := r.text("5", "", "coins", "door")
					if limited {
						text = strings.Replace(text, "[modules.coins]\n", "[modules.coins]\nrestart = \"limited\"\n", 1)
						file, err := r.parse(text)
						if err != nil {
							t.Fatal(err)
						}
						r.file = file
					}
					r.machines["coins"].absent, r.machines["coins"].lasts = tt.absent, tt.lasts
					r.start()
					r.reported("door", `{"mode":{"ac":203}}`)
					if limited {
						testQuarantine(t, r, f, text, tt.quarantined, tt.reason)
					} else {
						time.Sleep(time.Hour)
						if n := r.livesOf("coins"); n < tt.least || n > tt.most {
							t.Errorf("%d starts in an hour, want %d to %d", n, tt.least, tt.most)
						}
						if c := r.component("coins"); c.Process.LastExit != tt.reason || c.Process.State == local.Quarantined {
							t.Errorf("status = %+v, want the reason %q", c.Process, tt.reason)
						}
						r.machines["coins"].mend()
						time.Sleep(2 * time.Minute)
						if c := r.component("coins"); c.Process.State != local.Running || c.Health.State != local.OK {
							t.Errorf("two minutes after it was mended: %+v", c)
						}
					}
					r.machines["coins"].insert(1)
					if got := r.telemetry("coins"); got != `{"coin":1}` {
						t.Errorf("the mended module sends %s", got)
					}
					if n := r.livesOf("door"); n != 1 {
						t.Errorf("door was started %d times", n)
					}
				})
			}
		})
	}
}

// testQuarantine follows coins into quarantine and, twice, out of it. It is mended in the end.
func testQuarantine(t *testing.T, r *rig, f *reloads, text string, by time.Duration, reason string) {
	t.Helper()
	inside := func() {
		t.Helper()
		time.Sleep(by)
		c := r.component("coins")
		if c.Process.State != local.Quarantined || c.Process.LastExit != reason || c.Health.State != local.Faulted {
			t.Fatalf("after %v: %+v", by, c)
		}
		for _, want := range []string{"it ended 10 times within 10m0s", "twinbay restart coins", reason} {
			if !strings.Contains(c.Health.Detail, want) {
				t.Errorf("health = %q, want %q in it", c.Health.Detail, want)
			}
		}
		before := r.livesOf("coins")
		time.Sleep(2 * time.Hour)
		if n := r.livesOf("coins"); n != before {
			t.Errorf("it was started %d times in quarantine", n-before)
		}
	}
	inside()
	if n := r.livesOf("coins"); n != 10 {
		t.Errorf("%d starts before the quarantine, want 10", n)
	}
	if got, err := r.agent.Restart(t.Context(), "coins"); err != nil || got.Was != local.Quarantined {
		t.Errorf("restart = %+v, %v", got, err)
	}
	inside()
	// A file that changes nothing of the component leaves it where it is.
	f.mustReload(text, local.Reloaded{})
	synctest.Wait()
	if s := r.component("coins").Process.State; s != local.Quarantined {
		t.Errorf("after a reload without a change it is %s", s)
	}
	r.machines["coins"].mend()
	f.mustReload(text+"[modules.coins.settings]\ninterval_ms = 20\n", local.Reloaded{Changed: []string{"coins"}})
	synctest.Wait()
	if c := r.component("coins"); c.Process.State != local.Running || c.Process.Quarantine != "" {
		t.Errorf("after a reload with a change: %+v", c.Process)
	}
}

// mend makes the module work.
func (m *machine) mend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.absent, m.lasts = "", 0
}

// A panic of the component's bay is the agent's fault: it does not end a quarantine.
func TestQuarantineOutlivesTheBay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.file.Modules[0].Restart.Ends, r.file.Modules[0].Restart.Within = 2, time.Hour
		r.machines["coins"].absent = "exit status 7"
		r.start()
		time.Sleep(time.Minute)
		p := r.agent.places[0]
		p.mu.Lock()
		l := p.bay.loop
		p.mu.Unlock()
		l.call(t.Context(), func() { panic("injected") })
		time.Sleep(time.Minute)
		c := r.component("coins")
		if c.Process.State != local.Quarantined || c.Process.LastExit != "exit status 7" || r.livesOf("coins") != 2 {
			t.Errorf("after the panic: %+v, %d starts", c.Process, r.livesOf("coins"))
		}
	})
}

func TestRestartOfAComponent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "[modules.wrong]\nuse = \"counter\"\n", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.machines["coins"].insert(1)
		r.telemetry("coins")
		if got, err := r.agent.Restart(t.Context(), "coins"); err != nil || got != (local.Restarted{Component: "coins", Was: local.Running}) {
			t.Errorf("restart = %+v, %v", got, err)
		}
		synctest.Wait()
		c := r.component("coins")
		if c.Process.State != local.Running || c.Process.Restarts != 1 || c.Process.LastExit != "ended to be started again, as somebody asked" || c.Link.Reconnects != 0 {
			t.Errorf("status = %+v", c)
		}
		r.machines["coins"].insert(1)
		if got := r.telemetry("coins"); got != `{"coin":2}` {
			t.Errorf("got %s, want coin 2: its state is kept", got)
		}
		if _, err := r.agent.Restart(t.Context(), "wrong"); err == nil || !strings.Contains(err.Error(), "the device file has to be mended") {
			t.Errorf("of one that cannot run: %v", err)
		}
		if _, err := r.agent.Restart(t.Context(), "nobody"); err == nil {
			t.Error("of one that is not there: no error")
		}
	})
}
