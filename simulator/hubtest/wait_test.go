package hubtest_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// attach connects an identity without a door.
func attach(t *testing.T, h *hubtest.Hub, id hub.ID) *echo {
	t.Helper()
	token, err := admin.Token(h.OwnerConnectionString(), "", time.Now().Add(1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	grant, err := h.AuthSAS(id, token)
	if err != nil {
		t.Fatal(err)
	}
	p := &echo{}
	if p.link, err = h.Attach(grant, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *echo) report(t *testing.T, patch string) {
	t.Helper()
	if _, err := p.link.Report(json.RawMessage(patch), 0); err != nil {
		t.Error(err)
	}
}

func TestWaitForAState(t *testing.T) {
	for _, id := range []hub.ID{{Device: "pi-01"}, {Device: "pi-01", Module: "bme280"}} {
		synctest.Test(t, func(t *testing.T) {
			h, who := hubtest.New(t), id.String()
			h.Module("pi-01", "bme280")
			p := attach(t, h, id)
			begin := time.Now()
			go func() {
				time.Sleep(time.Hour)
				p.report(t, `{"interval_ms":{"value":7,"ac":400},"old":true}`)
				time.Sleep(time.Hour)
				p.report(t, `{"interval_ms":{"value":5,"ac":200,"ad":"in force"}}`)
				time.Sleep(time.Hour)
				p.report(t, `{"old":null}`)
				time.Sleep(time.Hour)
				h.Desire(who, `{"mode":"slow","limits":{"low":1.50,"high":[1,2]}}`)
				time.Sleep(time.Hour)
				if _, err := h.PatchTwin(id, json.RawMessage(`{"tags":{"site":"north"}}`), ""); err != nil {
					t.Error(err)
				}
			}()
			at := func(hours int) {
				t.Helper()
				if d := time.Since(begin); d != time.Duration(hours)*time.Hour {
					t.Errorf("%s: answered after %v, want %d h", who, d, hours)
				}
			}
			h.WaitReported(t, who, `{}`)
			at(0)
			h.WaitReported(t, who, `{"interval_ms":{"value":5,"ac":200}}`)
			at(2)
			h.WaitReported(t, who, `{"old":true}`) // it holds: the wait is for a state, not for an event
			at(2)
			h.WaitReported(t, who, `{"old":null,"never":null}`)
			at(3)
			if twin := h.WaitDesired(t, who, `{"limits":{"low":1.5,"high":[1,2]}}`); twin.DeviceID != id.Device || twin.ModuleID != id.Module {
				t.Errorf("the twin of %s/%s", twin.DeviceID, twin.ModuleID)
			}
			at(4)
			h.WaitTwin(t, who, func(twin hub.Twin) bool { return twin.Tags["site"] == "north" })
			at(5)
		})
	}
}

// fails answers what a wait fails with, and how long that took.
func fails(t *testing.T, wait func(t testing.TB)) (text string, took time.Duration) {
	t.Helper()
	f := &failing{TB: t}
	begin := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait(f)
	}()
	<-done
	return f.text, time.Since(begin)
}

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("it does not say %q, but:\n%s", part, text)
		}
	}
}

// A wait for what can never come fails at once, and says how to make it come.
func TestHopelessWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		empty, _ := fails(t, func(t testing.TB) { h.WaitFor(t, "telemetry", "pi-01") })
		wantText(t, empty, "telemetry of pi-01", `the device identity "pi-01" does not exist`, `h.Device("pi-01")`, "no identities")
		h.Module("pi-01", "bme280")
		h.Module("pi-01", "gone")
		if err := h.DeleteModule(hub.ID{Device: "pi-01", Module: "gone"}, "*"); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name  string
			wait  func(t testing.TB)
			parts []string
		}{
			{"telemetry", func(t testing.TB) { h.WaitFor(t, "telemetry", "pi-01/BME280") },
				[]string{`the module identity "pi-01/BME280" does not exist`, "case-sensitive", `h.Module("pi-01", "BME280")`, "pi-01, pi-01/bme280."}},
			{"deleted", func(t testing.TB) { h.WaitFor(t, "connected", "pi-01/gone") }, []string{"does not exist", "has been deleted"}},
			{"twin", func(t testing.TB) { h.WaitTwin(t, "pi-02", func(hub.Twin) bool { return true }) }, []string{"does not exist"}},
			{"reported", func(t testing.TB) { h.WaitReported(t, "pi-02/m", `{"a":1}`) },
				[]string{`reported properties of pi-02/m with {"a":1}`, `h.Module("pi-02", "m")`}},
			{"kind", func(t testing.TB) { h.WaitFor(t, "telemtry", "pi-01") }, []string{`no events of the kind "telemtry"`, "reported, tags, telemetry"}},
			{"JSON", func(t testing.TB) { h.WaitDesired(t, "pi-01", `interval_ms=5`) }, []string{"interval_ms=5", "not a JSON object"}},
		} {
			text, took := fails(t, c.wait)
			if took != 0 {
				t.Errorf("%s: failed after %v", c.name, took)
			}
			wantText(t, text, c.parts...)
		}
	})
}

// An identity may end while something waits for it; what it did before still counts.
func TestWaitsForAnIdentityThatIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		id := hub.ID{Device: "pi-01", Module: "m"}
		for _, wait := range []func(t testing.TB){
			func(t testing.TB) { h.WaitFor(t, "reported", "pi-01/m") },
			func(t testing.TB) { h.WaitReported(t, "pi-01/m", `{"a":1}`) },
		} {
			h.Module("pi-01", "m")
			time.AfterFunc(time.Hour, func() {
				if err := h.DeleteModule(id, "*"); err != nil {
					t.Error(err)
				}
			})
			text, took := fails(t, wait)
			if took != time.Hour {
				t.Errorf("failed after %v", took)
			}
			wantText(t, text, "does not exist", "deleted")
		}
	})
	h := hubtest.New(t) // no bubble: the stream of events may lag behind
	for i := range 200 {
		who := fmt.Sprint("m", i)
		h.Module("pi-01", who)
		h.Desire("pi-01/"+who, `{"a":1}`)
		if err := h.DeleteModule(hub.ID{Device: "pi-01", Module: who}, "*"); err != nil {
			t.Fatal(err)
		}
		h.WaitFor(t, "desired", "pi-01/"+who)
	}
}

// Those who wait for creation, or for a stranger that is refused, may wait for an identity that does not exist.
func TestWaitsForWhatDoesNotExistYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		time.AfterFunc(time.Hour, func() {
			if _, err := h.AuthSAS(hub.ID{Device: "pi-01"}, "SharedAccessSignature sr=a&sig=b&se=1"); err == nil {
				t.Error("a stranger is let in")
			}
			h.Device("pi-01")
		})
		h.WaitFor(t, "refused", "pi-01")
		h.WaitFor(t, "created", "pi-01")
	})
}

// A wait that fails says what was waited for, what was seen last, and what to do next.
func TestFailedWaitsSayWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		id := hub.ID{Device: "pi-01", Module: "m"}
		h.Module("pi-01", "m")
		telemetry := func(t testing.TB) { h.WaitFor(t, "telemetry", "pi-01/m") }
		reported := func(t testing.TB) { h.WaitReported(t, "pi-01/m", `{"a":{"b":2},"c":null}`) }
		text, took := fails(t, telemetry)
		wantText(t, text, "telemetry of pi-01/m has not come in 24h", "Next: pi-01/m has never connected", "h.DialTLS", "created pi-01/m")
		if took != 24*time.Hour {
			t.Errorf("gave up after %v", took)
		}
		text, _ = fails(t, reported)
		wantText(t, text, "waited 24h", "The difference: a is not there", "has never connected")

		h.AuthSAS(id, "SharedAccessSignature sr=a&sig=b&se=1")
		text, _ = fails(t, telemetry)
		wantText(t, text, "the hub refused it: ")

		p := attach(t, h, id)
		text, _ = fails(t, telemetry)
		if strings.Contains(text, "Next:") {
			t.Errorf("it is connected: nobody knows what to do next:\n%s", text)
		}
		p.report(t, `{"a":{"b":1}}`)
		text, _ = fails(t, reported)
		wantText(t, text, `Last seen: {"$version":2,"a":{"b":1}}`, "The difference: a.b is 1, not 2", "$iothub/twin/PATCH/properties/reported")
		p.report(t, `{"a":{"b":2},"c":3}`)
		text, _ = fails(t, reported)
		wantText(t, text, "c is 3, and should not be there")
		text, _ = fails(t, func(t testing.TB) { h.WaitReported(t, "pi-01/m", `{"a":{"b":{"x":1}}}`) })
		wantText(t, text, "a.b is 2, not an object")
		text, _ = fails(t, func(t testing.TB) { h.WaitTwin(t, "pi-01/m", func(hub.Twin) bool { return false }) })
		wantText(t, text, "connection state Connected", `reported {"$version":3,"a":{"b":2},"c":3}`)

		h.WaitFor(t, "reported", "pi-01/m")
		h.WaitFor(t, "reported", "pi-01/m")
		text, _ = fails(t, func(t testing.TB) { h.WaitFor(t, "reported", "pi-01/m") })
		wantText(t, text, "there have been 2 of these, which earlier waits have answered")
		text, _ = fails(t, func(t testing.TB) { h.WaitFor(t, "desired", "pi-01/m") })
		wantText(t, text, `h.Desire("pi-01/m"`)
		text, _ = fails(t, func(t testing.TB) { h.WaitFor(t, "c2d", "pi-01") })
		wantText(t, text, `h.Send("pi-01"`)

		p.link.Detach()
		text, _ = fails(t, telemetry)
		wantText(t, text, "is not connected any more")
		h.Down()
		text, _ = fails(t, telemetry)
		wantText(t, text, "the hub is down; h.Up() ends that")

		for range 100 {
			h.Desire("pi-01/m", `{"x":1}`)
		}
		text, _ = fails(t, telemetry)
		wantText(t, text, "events before")
		if n := strings.Count(text, "\n"); n > 50 {
			t.Errorf("%d lines", n)
		}
	})
}

// The kinds that WaitFor knows are those that the hub's source emits.
func TestKinds(t *testing.T) {
	files, err := filepath.Glob("../hub/*.go")
	if err != nil {
		t.Fatal(err)
	}
	emitted := map[string]bool{"created": true, "updated": true} // by a variable
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, _ := kv.Key.(*ast.Ident)
			value, _ := kv.Value.(*ast.BasicLit)
			if key != nil && key.Name == "Kind" && value != nil {
				kind, _ := strconv.Unquote(value.Value)
				emitted[kind] = true
			}
			return true
		})
	}
	text, _ := fails(t, func(t testing.TB) { hubtest.New(t).WaitFor(t, "", "pi-01") })
	_, list, _ := strings.Cut(text, "the kinds are ")
	for _, kind := range strings.Split(list, ", ") {
		if !emitted[kind] {
			t.Errorf("no event of the kind %q is emitted", kind)
		}
		delete(emitted, kind)
	}
	for kind := range emitted {
		t.Errorf("WaitFor does not know %q", kind)
	}
}
