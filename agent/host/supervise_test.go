//go:build linux

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/host"
	"github.com/twinbay/twinbay/modules/modkit"
)

// supervised runs a supervisor of the test's module, answers its Ready, and ends it with the test.
func supervised(t *testing.T, spec host.Spec, prepare ...func(*watcher)) *watcher {
	h, _ := open(t)
	w := &watcher{t: t, ended: make(chan struct{})}
	for _, p := range prepare {
		p(w)
	}
	s := host.NewSupervisor(func(ctx context.Context) (host.Instance, error) {
		p, err := h.Start(ctx, spec)
		if err != nil {
			return nil, err
		}
		return p, nil
	}, &w.restarts, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	w.s, w.cancel = s, cancel
	go func() {
		s.Run(ctx)
		close(w.ended)
	}()
	t.Cleanup(func() {
		cancel()
		for range s.Events() {
		}
		<-w.ended
	})
	return w
}

type watcher struct {
	t      *testing.T
	s      *host.Supervisor
	cancel context.CancelFunc
	ended  chan struct{}
	state  []byte // what the next start brings
	starts int

	restarts host.Restarts
}

// until answers Ready and passes over what is said until an event of type E comes.
func until[E host.Event](w *watcher, limit time.Duration) E {
	w.t.Helper()
	deadline := time.After(limit)
	for {
		select {
		case e, ok := <-w.s.Events():
			if !ok {
				w.t.Fatal("the supervisor has ended")
			}
			if ready, is := e.(host.Ready); is {
				w.starts++
				ready.Answer(modkit.Start{Wiring: json.RawMessage(`{}`), Settings: modkit.Settings{Doc: json.RawMessage(`{}`)}, State: w.state}, nil)
			}
			if e, is := e.(E); is {
				return e
			}
			if ended, is := e.(host.Ended); is {
				w.t.Fatalf("the module has ended: %s", ended.Exit.Reason)
			}
		case <-deadline:
			var e E
			w.t.Fatalf("no %T within %v", e, limit)
		}
	}
}

func TestKilledModuleIsBackWithinTwoSeconds(t *testing.T) {
	w := supervised(t, self(t, "coins", "module"))
	first := until[host.Started](w, 10*time.Second)
	for range 3 { // a person tries it again and again
		began := time.Now()
		syscall.Kill(first.PID, syscall.SIGKILL)
		ended := until[host.Ended](w, 2*time.Second)
		if ended.Exit.Reason != "killed by signal 9 (SIGKILL)" || !ended.Ran {
			t.Errorf("ended = %+v", ended)
		}
		again := until[host.Started](w, 2*time.Second)
		if again.PID == first.PID {
			t.Error("the same process")
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("back after %v", took)
		}
		first = again
	}
}

func TestStoppedModuleIsHungAndKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("waits three seconds of wall time")
	}
	w := supervised(t, self(t, "coins", "module"))
	started := until[host.Started](w, 10*time.Second)
	syscall.Kill(started.PID, syscall.SIGSTOP)
	ended := until[host.Ended](w, 6*time.Second)
	if ended.Exit.Reason != "hung: no heartbeat for 3s" {
		t.Errorf("reason = %q", ended.Exit.Reason)
	}
	if err := gone(started.PID, time.Second); err != nil {
		t.Error(err)
	}
	until[host.Started](w, 3*time.Second)
}

func TestRefusedStartIsTriedAgain(t *testing.T) {
	h, _ := open(t)
	spec := self(t, "coins", "module")
	s := host.NewSupervisor(func(ctx context.Context) (host.Instance, error) { return h.Start(ctx, spec) }, &host.Restarts{}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	go s.Run(ctx)
	for range 2 {
		within(t, 5*time.Second, "ready", s.Events()).(host.Ready).Answer(modkit.Start{}, errors.New("line 12: no such port"))
		ended := within(t, 5*time.Second, "ended", s.Events()).(host.Ended)
		if ended.Exit.Reason != "line 12: no such port" || ended.Ran {
			t.Errorf("ended = %+v", ended)
		}
	}
	cancel()
	for range s.Events() {
	}
}

// What a module says while it stops is still heard.
func TestStopDrains(t *testing.T) {
	w := supervised(t, self(t, "coins", "module"))
	until[host.Started](w, 10*time.Second)
	until[host.Said](w, 2*time.Second)
	began := time.Now()
	w.cancel()
	var last string
	for e := range w.s.Events() {
		if said, ok := e.(host.Said); ok {
			last = string(said.Up.(modkit.Sent).Message.Body)
		}
	}
	if last != `{"last":1}` {
		t.Errorf("last message = %s", last)
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("the stop took %v", took)
	}
}

func TestStubbornModuleDoesNotHoldTheEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("a limit of wall time, which the race detector's run on a busy machine does not keep")
	}
	w := supervised(t, self(t, "coins", "stubborn"))
	until[host.Started](w, 10*time.Second)
	began := time.Now()
	w.cancel()
	for range w.s.Events() {
	}
	if took := time.Since(began); took > 1900*time.Millisecond {
		t.Errorf("the stop took %v", took)
	}
}

func TestBackoff(t *testing.T) {
	var b host.Backoff
	if d := b.After(0); d < 125*time.Millisecond || d > 250*time.Millisecond {
		t.Errorf("first delay = %v", d)
	}
	last := time.Duration(0)
	for range 12 {
		last = b.After(time.Second)
	}
	if last != 30*time.Second {
		t.Errorf("delay of a crash loop = %v", last)
	}
	if d := b.After(time.Minute); d > 250*time.Millisecond {
		t.Errorf("delay after a minute of work = %v", d)
	}
}

func TestEndedSaysLastWords(t *testing.T) {
	w := supervised(t, self(t, "coins", "dies"))
	if got := until[host.Ended](w, 5*time.Second).Exit.Reason; !strings.Contains(got, "exit status 7: cannot find my configuration") {
		t.Errorf("reason = %q", got)
	}
}
