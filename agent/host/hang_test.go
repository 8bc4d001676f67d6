//go:build linux

package host_test

import (
	"context"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/host"
)

// TestR05_HungModules: a module that is stopped, or whose call on a wire does not come back, is killed and started again
// with the reason; one that only uses all the processor goes on, and so does the neighbour of each.
func TestR05_HungModules(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds of wall time")
	}
	for _, tt := range []struct {
		name string
		hang func(*testing.T, host.Started)
		want string // in the reason; "" is none
	}{
		{"SIGSTOP", func(_ *testing.T, s host.Started) { syscall.Kill(s.PID, syscall.SIGSTOP) }, "hung: no heartbeat for 3s"},
		{"a write that never ends", call("write"), "hung: serial stuck:line: write is "},
		{"a read that never ends", call("read"), "hung: serial stuck:line: read is "},
		{"all the processor", call("spin"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, neighbour := supervised(t, self(t, "coins", "module")), supervised(t, self(t, "door", "module"))
			bad, good := until[host.Started](w, 20*time.Second), until[host.Started](neighbour, 20*time.Second)
			began := time.Now()
			tt.hang(t, bad)
			if tt.want != "" {
				ended := until[host.Ended](w, 20*time.Second)
				if !strings.HasPrefix(ended.Exit.Reason, tt.want) {
					t.Errorf("reason = %q, want %q", ended.Exit.Reason, tt.want)
				}
				if err := gone(bad.PID, 2*time.Second); err != nil {
					t.Error(err)
				}
				bad = until[host.Started](w, 20*time.Second)
				t.Logf("serving again %v after it hung", time.Since(began).Round(10*time.Millisecond))
			} else {
				for range 5 { // longer than a module may be silent
					if e := quiet(w, time.Second); e != nil {
						t.Fatalf("%T %+v of a module that works", e, e)
					}
				}
			}
			for _, s := range []host.Started{bad, good} {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if a, err := s.Remote.Invoke(ctx, "echo", json.RawMessage(`1`)); err != nil || a.Status != 200 {
					t.Errorf("echo = %+v, %v", a, err)
				}
				cancel()
			}
		})
	}
}

// call invokes a method of a running module.
func call(method string) func(*testing.T, host.Started) {
	return func(t *testing.T, s host.Started) {
		t.Helper()
		if a, err := s.Remote.Invoke(t.Context(), method, nil); err != nil || a.Status != 200 {
			t.Fatalf("%s = %+v, %v", method, a, err)
		}
	}
}

// quiet answers the first event but what a module says, within a time; nil when none comes.
func quiet(w *watcher, limit time.Duration) host.Event {
	over := time.After(limit)
	for {
		select {
		case e := <-w.s.Events():
			if _, said := e.(host.Said); !said {
				return e
			}
		case <-over:
			return nil
		}
	}
}
