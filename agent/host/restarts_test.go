//go:build linux

package host_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/host"
)

// The first end costs no time, so the next process is there as soon as it can be.
func TestFirstRestartIsAtOnce(t *testing.T) {
	w := supervised(t, self(t, "coins", "module"))
	first := until[host.Started](w, 10*time.Second)
	began := time.Now()
	syscall.Kill(first.PID, syscall.SIGKILL)
	ended := until[host.Ended](w, 2*time.Second)
	if d := ended.Retry.Sub(began); d > time.Since(began) {
		t.Errorf("the next start is %v after the kill, later than now", d)
	}
	second := until[host.Started](w, 5*time.Second)
	t.Logf("kill -9 to serving again: %v", time.Since(began).Round(time.Millisecond))
	syscall.Kill(second.PID, syscall.SIGKILL)
	seen := time.Now()
	if ended := until[host.Ended](w, 2*time.Second); ended.Retry.Sub(seen) < 100*time.Millisecond {
		t.Errorf("the second restart is %v after the end, want a delay", ended.Retry.Sub(seen))
	}
}

// A module that keeps ending is quarantined where the policy says so, and a person gets it out.
func TestQuarantineAndRestart(t *testing.T) {
	w := supervised(t, self(t, "coins", "dies"), func(w *watcher) { w.restarts.Ends, w.restarts.Within = 3, time.Minute })
	for range 2 { // two turns: after a person's restart all counts from the beginning
		for n := range 3 {
			ended := until[host.Ended](w, 10*time.Second)
			if !strings.Contains(ended.Exit.Reason, "cannot find my configuration") || ended.Ran || ended.Asked {
				t.Errorf("end %d = %+v", n, ended)
			}
			if last := n == 2; last != (ended.Quarantined == "it ended 3 times within 1m0s") || last != ended.Retry.IsZero() {
				t.Errorf("end %d: quarantined %q, next start %v", n, ended.Quarantined, ended.Retry)
			}
		}
		w.s.Restart()
	}
}

func TestRestartOfARunningModule(t *testing.T) {
	w := supervised(t, self(t, "coins", "module"), func(w *watcher) { w.restarts.Ends, w.restarts.Within = 1, time.Hour })
	first := until[host.Started](w, 10*time.Second)
	w.s.Restart()
	ended := until[host.Ended](w, 5*time.Second)
	if !ended.Asked || ended.Quarantined != "" || ended.Exit.Reason != "ended to be started again, as somebody asked" {
		t.Errorf("ended = %+v", ended)
	}
	if again := until[host.Started](w, 5*time.Second); again.PID == first.PID {
		t.Error("the same process")
	}
	if err := gone(first.PID, time.Second); err != nil {
		t.Error(err)
	}
}

// Somebody who has mended the cause need not wait for the next try.
func TestRestartOfAWaitingModule(t *testing.T) {
	w := supervised(t, self(t, "coins", "dies"))
	for range 6 { // until it waits for seconds
		until[host.Ended](w, 20*time.Second)
	}
	w.s.Restart()
	if d := time.Until(until[host.Ended](w, 10*time.Second).Retry); d > 0 {
		t.Errorf("the start after a person's restart is delayed by %v: its failures should be forgotten", d)
	}
}

// A start that hangs is given up when somebody asks for another.
func TestRestartOfAHangingStart(t *testing.T) {
	w := supervised(t, self(t, "coins", "silent"))
	time.AfterFunc(100*time.Millisecond, w.s.Restart)
	if ended := until[host.Ended](w, 5*time.Second); !ended.Asked {
		t.Errorf("ended = %+v", ended)
	}
}
