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

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/simulator/hub"
)

// bubbles runs a test over both wires, in virtual time.
func bubbles(t *testing.T, test func(t *testing.T, mqtt string)) {
	for _, mqtt := range []string{"3.1.1", "5"} {
		t.Run("mqtt "+mqtt, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, mqtt) })
		})
	}
}

func TestDesiredChangeIsAppliedAndAcknowledged(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "[modules.coins.settings]\ninterval_ms = 250\n", "coins", "door")
		r.start()
		r.reported("coins", `{"interval_ms":{"value":250,"ac":203,"av":0},"mode":{"value":"normal","ac":203},"module":{"name":"counter","version":"1.0.0"}}`)
		r.reported("door", `{"interval_ms":{"value":100,"ac":203}}`)
		synctest.Wait()
		_, before := r.machines["door"].lastApplied()

		r.desire("coins", `{"interval_ms":500}`)
		r.reported("coins", `{"interval_ms":{"value":500,"ac":200,"av":2}}`)
		if doc, _ := r.machines["coins"].lastApplied(); doc != `{"interval_ms":500,"mode":"normal"}` {
			t.Errorf("the module was given %s", doc)
		}

		r.desire("coins", `{"interval_ms":"fast","colour":"red"}`)
		r.reported("coins", `{"interval_ms":{"value":500,"ac":400,"av":3},"colour":{"ac":404,"av":3}}`)
		if doc, _ := r.machines["coins"].lastApplied(); doc != `{"interval_ms":500,"mode":"normal"}` {
			t.Errorf("after a refused value the module was given %s", doc)
		}

		r.desire("coins", `{"interval_ms":null,"colour":null}`)
		r.reported("coins", `{"interval_ms":{"value":250,"ac":203,"av":4}}`)

		synctest.Wait()
		if _, after := r.machines["door"].lastApplied(); after != before {
			t.Errorf("the other module was given settings %d times", after-before)
		}
		c := r.component("coins")
		if !c.Link.Connected || c.Versions.Desired != 4 || c.Process.State != local.Running || c.Health.State != local.OK {
			t.Errorf("status = %+v", c)
		}
		v, err := r.agent.Twin(t.Context(), "coins")
		if err != nil || !v.Synced || string(v.Settings) != `{"interval_ms":250,"mode":"normal"}` || v.DesiredVersion != 4 {
			t.Errorf("twin = %+v, %v", v, err)
		}
	})
}

func TestModuleRefusesASetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.machines["coins"].refuse = "no such mode on this hardware"
		r.start()
		r.reported("coins", `{"mode":{"value":"normal","ac":203}}`)
		r.desire("coins", `{"mode":"bad"}`)
		r.reported("coins", `{"mode":{"value":"normal","ac":400,"av":2,"ad":"no such mode on this hardware"}}`)
	})
}

func TestModulesOwnReportedProperties(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "3.1.1", "", "coins")
		r.machines["coins"].report = map[string]any{"serial": 99, "mode": "a clash"}
		r.start()
		r.reported("coins", `{"serial":99,"mode":{"value":"normal"}}`)
	})
}

func TestTelemetryUnderItsOwnIdentity(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door", "climate")
		r.start()
		for n, name := range []string{"coins", "door", "climate"} {
			r.machines[name].insert(n + 1)
		}
		for n, name := range []string{"coins", "door", "climate"} {
			for i := range n + 1 {
				if got, want := r.telemetry(name), fmt.Sprintf(`{"coin":%d}`, i+1); got != want {
					t.Errorf("%s: got %s, want %s", name, got, want)
				}
			}
		}
		r.hub.Wait(t, func(e hub.Event) bool { return e.Kind == "connected" && e.ModuleID == "" })
		synctest.Wait()
		if c := r.component("climate"); string(c.Last.Body) != `{"coin":3}` || c.Queue.Acked != 3 || c.Queue.Queued != 0 {
			t.Errorf("status = %+v", c)
		}
	})
}

func TestDirectMethods(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		for _, tt := range []struct {
			method, payload string
			status          int
			want            string
		}{
			{"echo", `{"a":[1,2]}`, 200, `{"a":[1,2]}`},
			{"echo", ``, 200, `null`},
			{"nothing", `{}`, 404, `"methods":["big","echo","fault","hold","huge","slow"]`},
			{"slow", `{}`, 504, `slow did not answer within 2s`},
			{"big", `{}`, 500, `131072 are allowed`},
			{"huge", `{}`, 500, `answered more than 4194304 bytes, 131072 are allowed`},
			{"fault", `{}`, 500, `the motor is stuck`},
		} {
			if got := r.invoke("coins", tt.method, tt.payload); got.Status != tt.status || !strings.Contains(string(got.Payload), tt.want) {
				t.Errorf("%s(%s) = %d %.300s, want %d %s", tt.method, tt.payload, got.Status, got.Payload, tt.status, tt.want)
			}
		}
		if p := r.component("coins").Process; p.Restarts != 0 {
			t.Errorf("one of the answers ended the module: %+v", p)
		}
		status, payload, err := r.agent.Invoke(t.Context(), "door", "echo", json.RawMessage(`1`))
		if status != 200 || string(payload) != `1` || err != nil {
			t.Errorf("from the technician: %d %s, %v", status, payload, err)
		}
		if _, _, err := r.agent.Invoke(t.Context(), "lamp", "echo", nil); !errors.Is(err, local.ErrNoComponent) {
			t.Errorf("of no component: %v", err)
		}
	})
}

func TestMethodsDoNotHoldUpSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		var wg sync.WaitGroup
		for range maxCalls {
			wg.Go(func() {
				if got := r.invoke("coins", "hold", `{}`); got.Status != 200 {
					t.Errorf("hold = %d %s", got.Status, got.Payload)
				}
			})
		}
		synctest.Wait()
		if got := r.invoke("coins", "echo", `{}`); got.Status != 429 {
			t.Errorf("one method too many = %d %s", got.Status, got.Payload)
		}
		r.desire("coins", `{"interval_ms":7}`)
		r.reported("coins", `{"interval_ms":{"value":7,"ac":200}}`)
		close(r.machines["coins"].hold)
		wg.Wait()
		if got := r.invoke("coins", "echo", `{}`); got.Status != 200 {
			t.Errorf("after the others have ended: %d %s", got.Status, got.Payload)
		}
	})
}

// Tokens run out every hour; a connection of MQTT 3.1.1 has to be made anew for that.
func TestHalfADay(t *testing.T) {
	long(t)
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		const coins = 144
		for range coins {
			r.machines["coins"].insert(1)
			time.Sleep(5 * time.Minute)
		}
		seen := map[string]bool{}
		for range coins {
			seen[r.telemetry("coins")] = true
		}
		c := r.component("coins")
		if len(seen) != coins || c.Queue.Acked != coins || c.Process.Restarts != 0 || !c.Link.Connected {
			t.Errorf("%d of %d coins; status = %+v", len(seen), coins, c)
		}
		for line := range r.logs.Query(t.Context(), local.LogQuery{}) {
			if line.Level != "INFO" && line.Level != "DEBUG" {
				t.Errorf("the log of a quiet half day: %+v", line)
			}
		}
	})
}

func TestPatchStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		for n := range 500 {
			r.desire("coins", fmt.Sprintf(`{"interval_ms":%d}`, n+1))
		}
		r.reported("coins", `{"interval_ms":{"value":500,"ac":200,"av":501}}`)
	})
}

// What runs away from the bay's goroutine must not take the process down either.
func TestDeviceItself(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		r.reported("", `{"agent":{"version":"1.2.3"},"components":{"coins":{"module":"counter"}}}`)
		if got := r.invoke("", "ping", ""); got.Status != 200 || !strings.Contains(string(got.Payload), `"pong":true`) {
			t.Errorf("ping = %d %s", got.Status, got.Payload)
		}
		var s local.Status
		got := r.invoke("", "status", "")
		if err := json.Unmarshal(got.Payload, &s); err != nil || s.Device != deviceID || len(s.Components) != 1 {
			t.Errorf("status = %d %s, %v", got.Status, got.Payload, err)
		}
		if got := r.invoke("", "reboot", ""); got.Status != 404 || !strings.Contains(string(got.Payload), `["ping","status"]`) {
			t.Errorf("an unknown method = %d %s", got.Status, got.Payload)
		}
	})
}

func TestAbsoluteWires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		b := r.agent.places[0].newBay(t.Context())
		defer b.loop.close()
		wiring, err := b.wiring((&counter{}).Describe())
		want := fmt.Sprintf(`{"address":2,"port":"serial:%sttycoins"}`, strings.TrimSuffix(r.file.File, "device.toml"))
		if err != nil || string(wiring) != want {
			t.Errorf("wiring = %s, %v; want %s", wiring, err, want)
		}
	})
}

func TestCheckMessage(t *testing.T) {
	body := json.RawMessage(`{}`)
	for _, tt := range []struct {
		name string
		m    modkit.Message
		want string // in the error; "" is none
	}{
		{"good", modkit.Message{Body: body, Properties: map[string]string{"tube": "3"}}, ""},
		{"no body", modkit.Message{}, "not JSON"},
		{"not JSON", modkit.Message{Body: json.RawMessage(`{`)}, "not JSON"},
		{"not UTF-8", modkit.Message{Body: json.RawMessage("\"\xff\"")}, "not JSON"},
		{"the hub's name", modkit.Message{Body: body, Properties: map[string]string{"$.mid": "x"}}, "belong to the hub"},
		{"no name", modkit.Message{Body: body, Properties: map[string]string{"": "x"}}, "without a name"},
		{"a NUL", modkit.Message{Body: body, Properties: map[string]string{"a": "b\x00"}}, "UTF-8"},
		{"as large as can be", modkit.Message{Body: json.RawMessage(`"` + strings.Repeat("x", maxMessage-2) + `"`)}, ""},
		{"one byte more", modkit.Message{Body: json.RawMessage(`"` + strings.Repeat("x", maxMessage-1) + `"`)}, "are allowed"},
		{"too large by properties", modkit.Message{Body: json.RawMessage(`"` + strings.Repeat("x", maxMessage-4) + `"`), Properties: map[string]string{"ab": "c"}}, "are allowed"},
		{"too large a state", modkit.Message{Body: body, State: make([]byte, modkit.MaxState+1)}, "a state of"},
	} {
		err := checkMessage(tt.m)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestStatusIsRaceFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins", "door")
		r.start()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					r.agent.Status()
					if _, err := r.agent.Twin(t.Context(), "door"); err != nil {
						t.Error(err)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		for n := range 20 {
			r.machines["coins"].insert(1)
			r.desire("door", fmt.Sprintf(`{"interval_ms":%d}`, n+1))
			time.Sleep(50 * time.Millisecond)
		}
		wg.Wait()
	})
}
