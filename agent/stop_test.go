package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/host"
)

// stubborn is an instance whose module takes no notice of Stop.
type stubborn struct{ *inMemory }

func (s stubborn) Stop(ctx context.Context) {
	select {
	case <-s.Done():
	case <-ctx.Done():
		s.Kill("")
	}
}

// An agent that is told to hurry does not wait for a module that takes no notice, and starts none again.
func TestEndInAHurry(t *testing.T) {
	for _, hurried := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "5", "", "coins", "door")
			hurry, starts := make(chan struct{}), make(chan string, 10)
			r.start(func(a *Agent) {
				a.hurry = hurry
				a.start = func(ctx context.Context, m config.Module) (host.Instance, error) {
					starts <- m.Name
					i, err := startInMemory(ctx, &counter{machine: r.machines[m.Name]}, nil, slog.New(slog.DiscardHandler), false)
					return stubborn{i}, err
				}
			})
			r.reported("coins", `{"mode":{"ac":203}}`)
			r.reported("door", `{"mode":{"ac":203}}`)
			began := time.Now()
			if hurried {
				time.AfterFunc(100*time.Millisecond, func() { close(hurry) })
			}
			r.stop()
			took := time.Since(began)
			if hurried && took > 200*time.Millisecond || !hurried && (took < time.Second || took > StopBudget) {
				t.Errorf("hurried %v: the end took %v", hurried, took)
			}
			if n := len(starts); n != 2 {
				t.Errorf("%d starts of two modules", n)
			}
		})
	}
}

// A module that has just died when the agent is told to end is not started again.
func TestNoRestartWhileEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		for range 2 { // after the first end there is no wait, in which the agent could be told
			r.kill("coins", "killed by signal 9 (SIGKILL)")
			synctest.Wait()
		}
		began := time.Now()
		r.stop()
		if n, took := r.livesOf("coins"), time.Since(began); n != 2 || took > StopBudget {
			t.Errorf("%d lives, and an end after %v", n, took)
		}
		if _, _, err := r.agent.Invoke(t.Context(), "coins", "echo", json.RawMessage(`1`)); err == nil {
			t.Error("a method is answered after the end")
		}
	})
}
