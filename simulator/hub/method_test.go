package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestInvoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		id := ID{"pi-01", "a"}
		l, p := attach(t, h, id, time.Hour)
		l.Want(Methods, true)
		lb, b := attach(t, h, ID{"pi-01", "b"}, time.Hour)
		lb.Want(Methods, true)
		b.method = func(string, string, json.RawMessage) { t.Error("module b was asked") }
		p.method = func(rid, name string, payload json.RawMessage) {
			switch name {
			case "now": // from within the call
				l.MethodResult(rid, 200, fmt.Appendf(nil, `{"got":%s}`, payload))
			case "later":
				time.AfterFunc(29*time.Second, func() { l.MethodResult(rid, 418, nil) })
			case "tooLate":
				time.AfterFunc(31*time.Second, func() { l.MethodResult(rid, 200, nil) })
			case "twice":
				l.MethodResult(rid, 1, nil)
				l.MethodResult(rid, 2, nil)
			case "junk":
				l.MethodResult(rid, 200, json.RawMessage(`{`))
			case "large":
				l.MethodResult(rid, 200, json.RawMessage(`"`+strings.Repeat("x", maxPayload)+`"`))
			case "bye":
				l.Detach()
			}
		}
		for _, c := range []struct {
			name, payload string
			status        int
			want          string
			code          int
			took          time.Duration
		}{
			{"now", `{"n":1.0}`, 200, `{"got":{"n":1.0}}`, 0, 0},
			{"now", `null`, 200, `{"got":null}`, 0, 0},
			{"later", ``, 418, `null`, 0, 29 * time.Second},
			{"tooLate", ``, 0, ``, 504101, 30 * time.Second},
			{"twice", ``, 1, `null`, 0, 0},
			{"junk", ``, 0, ``, 502000, 0},
			{"large", ``, 0, ``, 502000, 0},
			{"bye", ``, 0, ``, 404104, 0},
			{"now", ``, 0, ``, 404103, 0},
		} {
			start := time.Now()
			r := MethodRequest{Name: c.name}
			if c.payload != "" {
				r.Payload = json.RawMessage(c.payload)
			}
			got, err := h.Invoke(t.Context(), id, r)
			wantError(t, c.name, err, c.code)
			if got.Status != c.status || string(got.Payload) != c.want {
				t.Errorf("%s: %d %s, want %d %s", c.name, got.Status, got.Payload, c.status, c.want)
			}
			if took := time.Since(start); took != c.took {
				t.Errorf("%s took %s, want %s", c.name, took, c.took)
			}
		}
		if len(l.calls) != 0 {
			t.Errorf("%d calls are left", len(l.calls))
		}
		_, err := h.Invoke(t.Context(), ID{"pi-01", "ghost"}, MethodRequest{Name: "x"})
		wantError(t, "unknown module", err, 404001)
		time.Sleep(time.Hour) // the timers of late answers end
	})
}

func TestInvokeWaitsForTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		id := ID{"pi-01", "a"}
		invoke := func(ctx context.Context, connect time.Duration) (int, time.Duration) {
			start := time.Now()
			r, err := h.Invoke(ctx, id, MethodRequest{Name: "x", Response: 20 * time.Second, Connect: connect})
			code := r.Status
			if err != nil {
				code = err.(*Error).Code
			}
			return code, time.Since(start)
		}
		check := func(what string, code int, took time.Duration, wantCode int, want time.Duration) {
			t.Helper()
			if code != wantCode || took != want {
				t.Errorf("%s: %d after %s, want %d after %s", what, code, took, wantCode, want)
			}
		}
		code, took := invoke(t.Context(), 10*time.Second)
		check("nobody comes", code, took, 404103, 10*time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		code, took = invoke(ctx, 10*time.Second)
		check("the caller goes", code, took, 499000, 3*time.Second)

		var l *Link
		var p *peer
		go func() {
			time.Sleep(4 * time.Second)
			l, p = attach(t, h, id, time.Hour)
			p.method = func(rid, _ string, _ json.RawMessage) { l.MethodResult(rid, 200, nil) }
			time.Sleep(2 * time.Second) // connected is not enough: it takes no methods yet
			l.Want(Methods, true)
		}()
		code, took = invoke(t.Context(), 10*time.Second)
		check("it comes", code, took, 200, 6*time.Second)

		l.Want(Methods, false)
		time.AfterFunc(2*time.Second, func() {
			p.method = nil // takes it and is silent
			l.Want(Methods, true)
		})
		code, took = invoke(t.Context(), 10*time.Second)
		check("the time is one for all", code, took, 504101, 20*time.Second)

		l.Detach()
		time.AfterFunc(time.Second, func() {
			if err := h.DeleteModule(id, "*"); err != nil {
				t.Error(err)
			}
		})
		code, took = invoke(t.Context(), 10*time.Second)
		check("it is deleted", code, took, 404001, time.Second)
	})
}

func TestInvokeArguments(t *testing.T) {
	h := newHub(t)
	name := strings.Repeat("ü", maxMethodName)
	payload := `"` + strings.Repeat("x", maxPayload-2) + `"`
	for _, c := range []struct {
		name string
		r    MethodRequest
		code int
	}{
		{"no name", MethodRequest{}, 400004},
		{"longest name", MethodRequest{Name: name}, 404103},
		{"longer name", MethodRequest{Name: name + "x"}, 400004},
		{"slash", MethodRequest{Name: "a/b"}, 400004},
		{"a component's command", MethodRequest{Name: "thermostat1*reboot"}, 404103},
		{"control character", MethodRequest{Name: "a\n"}, 400004},
		{"largest payload", MethodRequest{Name: "x", Payload: json.RawMessage(payload)}, 404103},
		{"larger payload", MethodRequest{Name: "x", Payload: json.RawMessage(payload + " ")}, 400004},
		{"payload no JSON", MethodRequest{Name: "x", Payload: json.RawMessage("{")}, 400004},
		{"shortest", MethodRequest{Name: "x", Response: 5 * time.Second}, 404103},
		{"shorter", MethodRequest{Name: "x", Response: 4 * time.Second}, 400004},
		{"longest", MethodRequest{Name: "x", Response: 300 * time.Second}, 404103},
		{"longer", MethodRequest{Name: "x", Response: 301 * time.Second}, 400004},
		{"connect longer than all", MethodRequest{Name: "x", Response: 10 * time.Second, Connect: 11 * time.Second}, 400004},
		{"connect negative", MethodRequest{Name: "x", Connect: -time.Second}, 400004},
	} {
		_, err := h.Invoke(t.Context(), ID{"pi-01", "a"}, c.r)
		wantError(t, c.name, err, c.code)
	}
}

func TestInvokeInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		id := ID{"pi-01", "a"}
		l, p := attach(t, h, id, time.Hour)
		l.Want(Methods, true)
		var rids []string
		p.method = func(rid, _ string, _ json.RawMessage) {
			if len(rid) > 16 {
				t.Errorf("rid %q is longer than MQTT 5 correlation data may be here", rid)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			rids = append(rids, rid)
		}
		for range maxCallsInFlight {
			go func() {
				if _, err := h.Invoke(t.Context(), id, MethodRequest{Name: "x"}); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		_, err := h.Invoke(t.Context(), id, MethodRequest{Name: "x"})
		wantError(t, "one more", err, 403800)
		for _, rid := range rids {
			l.MethodResult(rid, 200, nil)
		}
		synctest.Wait()
	})
}
