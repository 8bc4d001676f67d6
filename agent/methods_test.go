package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/simulator/hub"
)

// TestR34_DirectMethods: each call through the hub gets one answer, whatever its module does: too late, 128 KiB large, a
// hundred at once, dead in the middle of it, right after a reconnect; and the technician gets one without the hub.
func TestR34_DirectMethods(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.reported("door", `{"mode":{"ac":203}}`)

		t.Log("a deadline of the module's own, and the one of a method that names none")
		for method, deadline := range map[string]time.Duration{"slow": 2 * time.Second, "hold": 25 * time.Second} {
			began := time.Now()
			got := r.invoke("coins", method, `{}`)
			if took := time.Since(began); got.Status != 504 || took < deadline || took > deadline+time.Second {
				t.Errorf("%s: %d %s after %v, want 504 after %v", method, got.Status, got.Payload, took, deadline)
			}
		}

		t.Log("128 KiB each way, and not a byte more")
		full := `"` + strings.Repeat("x", maxAnswer-2) + `"`
		if got := r.invoke("coins", "echo", full); got.Status != 200 || string(got.Payload) != full {
			t.Errorf("128 KiB: status %d and %d bytes", got.Status, len(got.Payload))
		}
		if got := r.invoke("coins", "big", `{}`); got.Status != 500 || !strings.Contains(string(got.Payload), "131072 are allowed") {
			t.Errorf("an answer that no hub takes: %d %.200s", got.Status, got.Payload)
		}
		if status, _, _ := r.agent.Invoke(t.Context(), "coins", "echo", json.RawMessage(`"x`+full[1:])); status != 413 {
			t.Errorf("a payload that no hub takes, from the technician: %d", status)
		}

		t.Log("a hundred at once")
		for _, method := range []string{"echo", "hold"} {
			began := time.Now()
			got := r.atOnce(100, "coins", method)
			if got[200]+got[429]+got[403] != 100 || got[200] == 0 || got[403] > 50 {
				t.Errorf("100 × %s: %v answers by status", method, got)
			}
			if method == "hold" && got[200] != maxCalls {
				t.Errorf("%d calls were under way together, %d are allowed", got[200], maxCalls)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("100 × %s took %v", method, took)
			}
		}
		local := make(chan int, 100)
		for range cap(local) {
			go func() {
				status, _, err := r.agent.Invoke(t.Context(), "coins", "hold", nil)
				if err != nil {
					t.Errorf("from the technician: %v", err)
				}
				local <- status
			}()
		}
		time.Sleep(time.Second)
		r.release("coins")
		byStatus := map[int]int{}
		for range cap(local) {
			byStatus[<-local]++
		}
		if byStatus[200] != maxCalls || byStatus[429] != 100-maxCalls {
			t.Errorf("100 calls of the technician: %v answers by status", byStatus)
		}
		if got := r.invoke("coins", "echo", `{}`); got.Status != 200 {
			t.Errorf("after the crowd: %d %s", got.Status, got.Payload)
		}

		t.Log("the module dies while it answers, and the other one does not")
		answers := make(chan hub.MethodResult, 2)
		for _, name := range []string{"coins", "door"} {
			go func() { answers <- r.invoke(name, "hold", `{}`) }()
		}
		synctest.Wait()
		r.kill("coins", "killed by signal 9 (SIGKILL)")
		if got := <-answers; got.Status != 503 || !strings.Contains(string(got.Payload), "ended before it answered") {
			t.Errorf("a call whose module dies: %d %s", got.Status, got.Payload)
		}
		r.release("door")
		if got := <-answers; got.Status != 200 {
			t.Errorf("a call of the other module: %d %s", got.Status, got.Payload)
		}
		time.Sleep(time.Second)

		t.Log("right after a reconnect, before the device has asked for its twin")
		for range 5 {
			time.Sleep(15 * time.Second) // shorter-lived connections look like a takeover, see docs/connections.md
			r.hub.Down()
			time.Sleep(100 * time.Millisecond)
			if status, _, err := r.agent.Invoke(t.Context(), "coins", "echo", json.RawMessage(`1`)); status != 200 || err != nil {
				t.Errorf("offline, from the technician: %d, %v", status, err)
			}
			r.hub.Up()
			if got := r.invoke("coins", "echo", `{"again":true}`); got.Status != 200 || string(got.Payload) != `{"again":true}` {
				t.Errorf("right after a reconnect: %d %s", got.Status, got.Payload)
			}
		}
	})
}

// A bay that is busy leaves calls waiting; what does not fit is refused as busy, and no call is without an answer.
func TestMethodsOfABusyBay(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		busy := make(chan struct{})
		var once sync.Once
		r.start(func(a *Agent) {
			a.probe = func(_, at string) {
				if at == "said" {
					once.Do(func() { <-busy })
				}
			}
		})
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.machines["coins"].insert(1) // its message keeps the bay
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(busy) })
		got := r.atOnce(100, "coins", "echo")
		if got[200]+got[429]+got[403] != 100 || got[200] == 0 || got[429] < 50-iothub.MaxMethods-2 {
			t.Errorf("answers by status: %v", got)
		}
	})
}

// atOnce makes n calls of a method through the hub at once and counts the answers by status. 403 is the hub's own, which
// lets 50 calls of one identity wait. "hold" is let go after a second.
func (r *rig) atOnce(n int, name, method string) map[int]int {
	answers := make(chan int, n)
	for i := range n {
		go func() {
			result, err := r.hub.Invoke(r.t.Context(), hub.ID{Device: deviceID, Module: name},
				hub.MethodRequest{Name: method, Payload: fmt.Appendf(nil, `{"call":%d}`, i)})
			if refused, ok := errors.AsType[*hub.Error](err); ok && refused.Name == "DeviceMaximumInflightMethodExceeded" {
				result.Status = refused.Status()
			} else if err != nil {
				r.t.Errorf("%s of %s: %v", method, name, err)
			}
			answers <- result.Status
		}()
	}
	if method == "hold" {
		time.Sleep(time.Second)
		r.release(name)
	}
	got := map[int]int{}
	for range n {
		got[<-answers]++
	}
	return got
}

// release lets the calls of "hold" that are under way answer.
func (r *rig) release(name string) {
	m := r.machines[name]
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.hold)
	m.hold = make(chan struct{})
}
