package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/hub"
)

// TestR17_DesiredPatchDuringAnOutage changes desired properties, several at a time and one of them away, while there is no
// connection.
func TestR17_DesiredPatchDuringAnOutage(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		for n, outage := range []time.Duration{time.Second, time.Minute, 119 * time.Second, 121 * time.Second} {
			r.desire("coins", `{"interval_ms":7}`)
			r.reported("coins", `{"interval_ms":{"value":7,"ac":200}}`)
			r.hub.Down()
			time.Sleep(outage / 2)
			r.desire("coins", fmt.Sprintf(`{"interval_ms":%d,"mode":"x"}`, 100+n))
			r.desire("coins", fmt.Sprintf(`{"mode":"m%d"}`, n))
			r.desire("coins", `{"interval_ms":null}`)
			time.Sleep(outage / 2)
			r.hub.Up()
			r.reported("coins", fmt.Sprintf(`{"interval_ms":{"value":100,"ac":203},"mode":{"value":"m%d","ac":200}}`, n))
			if doc, _ := r.machines["coins"].lastApplied(); doc != fmt.Sprintf(`{"interval_ms":100,"mode":"m%d"}`, n) {
				t.Errorf("after an outage of %v the module was given %s", outage, doc)
			}
		}
	})
}

// script is a hub of which a test says every word.
type script struct {
	mu      sync.Mutex
	desired map[identity.ID]func(iothub.DesiredPatch)
	wires   map[identity.ID]*scriptWire
	twin    func() (iothub.Twin, error)                // answers each GET of a component
	report  func(patch json.RawMessage) (int64, error) // answers each report of a component; nil takes everything
	gets    []time.Time
	reports []string
}

type scriptWire struct {
	s      *script
	module bool
	done   chan struct{}
	once   sync.Once
}

func newScript() *script {
	return &script{desired: map[identity.ID]func(iothub.DesiredPatch){}, wires: map[identity.ID]*scriptWire{}}
}

func (s *script) use(a *Agent) {
	a.dial = func(identity.ID) iothub.Dial {
		return func(context.Context) (net.Conn, error) { near, _ := net.Pipe(); return near, nil }
	}
	a.speak = func(_ context.Context, c net.Conn, p iothub.OpenParams) (iothub.Wire, error) {
		_ = c.Close()
		w := &scriptWire{s: s, module: p.Credential.ID.Module != "", done: make(chan struct{})}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.desired[p.Credential.ID], s.wires[p.Credential.ID] = p.Desired, w
		return w, nil
	}
}

// patch is a notification of the hub.
func (s *script) patch(version int64, patch string) {
	s.mu.Lock()
	f := s.desired[identity.ID{Device: deviceID, Module: "coins"}]
	s.mu.Unlock()
	f(iothub.DesiredPatch{Version: version, Patch: json.RawMessage(patch)})
}

// drop ends the connection of the component.
func (s *script) drop() {
	s.mu.Lock()
	w := s.wires[identity.ID{Device: deviceID, Module: "coins"}]
	s.mu.Unlock()
	w.Close()
}

// answer has each GET answered with one document.
func (s *script) answer(version int64, desired string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.twin = func() (iothub.Twin, error) {
		return iothub.Twin{Desired: json.RawMessage(desired), DesiredVersion: version, Reported: json.RawMessage("{}"), ReportedVersion: 1}, nil
	}
}

func (s *script) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.gets)
}

func (w *scriptWire) Publish(context.Context, iothub.Message) error { return nil }
func (w *scriptWire) Protocol() string                              { return "5" }
func (w *scriptWire) Close()                                        { w.once.Do(func() { close(w.done) }) }
func (w *scriptWire) Done() <-chan struct{}                         { return w.done }
func (w *scriptWire) Err() error                                    { return errors.New("cut by the script") }

func (w *scriptWire) Twin(context.Context) (iothub.Twin, error) {
	if !w.module {
		return iothub.Twin{Desired: json.RawMessage("{}"), DesiredVersion: 1, Reported: json.RawMessage("{}"), ReportedVersion: 1}, nil
	}
	w.s.mu.Lock()
	w.s.gets = append(w.s.gets, time.Now())
	f := w.s.twin
	w.s.mu.Unlock()
	return f()
}

func (w *scriptWire) Report(_ context.Context, patch json.RawMessage) (int64, error) {
	if !w.module {
		return 2, nil
	}
	w.s.mu.Lock()
	w.s.reports = append(w.s.reports, string(patch))
	f, n := w.s.report, int64(len(w.s.reports)+1)
	w.s.mu.Unlock()
	if f == nil {
		return n, nil
	}
	return f(patch)
}

// TestR18_VersionsOutOfOrder has a hub send patches before the answer to the GET, twice, in the wrong order, with a gap, and
// with numbers that begin anew.
func TestR18_VersionsOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		s := newScript()
		release := make(chan struct{})
		s.twin = func() (iothub.Twin, error) {
			<-release
			return iothub.Twin{Desired: json.RawMessage(`{"interval_ms":5}`), DesiredVersion: 5, Reported: json.RawMessage("{}"), ReportedVersion: 1}, nil
		}
		r.start(s.use)
		synctest.Wait()
		is := func(when, want string, version int64) {
			t.Helper()
			time.Sleep(3 * time.Second)
			if doc, _ := r.machines["coins"].lastApplied(); doc != want {
				t.Errorf("%s: the module has %s, want %s", when, doc, want)
			}
			if v := r.component("coins").Versions.Desired; v != version {
				t.Errorf("%s: version %d, want %d", when, v, version)
			}
		}
		s.patch(5, `{"interval_ms":5}`) // while the GET is under way: part of its answer
		s.patch(6, `{"interval_ms":6}`) // and not part of it
		close(release)
		is("patches before the answer", `{"interval_ms":6,"mode":"normal"}`, 6)
		s.patch(6, `{"interval_ms":99}`)
		s.patch(3, `{"interval_ms":98}`)
		is("repeated and old ones", `{"interval_ms":6,"mode":"normal"}`, 6)
		if n := s.asked(); n != 1 {
			t.Errorf("%d GETs, want one", n)
		}
		s.answer(9, `{"interval_ms":9,"mode":"nine"}`)
		s.patch(8, `{"mode":"eight"}`)
		is("a gap", `{"interval_ms":9,"mode":"nine"}`, 9)
		s.answer(11, `{"interval_ms":9,"mode":"eleven"}`)
		s.patch(11, `{"mode":"eleven"}`)
		s.patch(10, `{"mode":"ten"}`)
		is("the wrong order", `{"interval_ms":9,"mode":"eleven"}`, 11)
		s.answer(12, `{"interval_ms":12}`)
		s.patch(12, `{"interval_ms":[`)
		is("a patch that cannot be read", `{"interval_ms":12,"mode":"normal"}`, 12)
		s.answer(1, `{}`) // deleted and created again
		s.drop()
		is("numbers that begin anew", `{"interval_ms":100,"mode":"normal"}`, 1)
		s.patch(2, `{"interval_ms":2}`)
		is("and go on", `{"interval_ms":2,"mode":"normal"}`, 2)
		if n := s.asked(); n > 7 {
			t.Errorf("%d GETs", n)
		}
	})
}

// TestR19_StormOfDesiredPatches changes a setting a thousand times a second, for four seconds.
func TestR19_StormOfDesiredPatches(t *testing.T) {
	long(t)
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.reported("door", `{"mode":{"ac":203}}`)
		before := len(r.hub.Events())
		const patches = 4000
		for n := range patches {
			r.desire("coins", fmt.Sprintf(`{"interval_ms":%d,"mode":"m%d"}`, 1+n, n))
			if n%400 == 0 {
				r.machines["door"].insert(1)
			}
			time.Sleep(time.Millisecond)
		}
		r.reported("coins", fmt.Sprintf(`{"interval_ms":{"value":%d,"ac":200,"av":%d},"mode":{"value":"m%d"}}`, patches, patches+1, patches-1))
		r.allCoins("door", 10)
		reports := 0
		for _, e := range r.hub.Events()[before:] {
			if e.Kind == "reported" && e.ModuleID == "coins" {
				reports++
			}
		}
		if reports > 12 {
			t.Errorf("%d reports for four seconds of patches", reports)
		}
		time.Sleep(time.Minute)
		if doc, _ := r.machines["coins"].lastApplied(); doc != fmt.Sprintf(`{"interval_ms":%d,"mode":"m%d"}`, patches, patches-1) {
			t.Errorf("in the end the module has %s", doc)
		}
		c, d := r.component("coins"), r.component("door")
		if c.Health.State != local.OK || c.Process.Restarts > 0 || d.Process.Restarts > 0 || d.Link.Reconnects > 0 {
			t.Errorf("coins %+v, door %+v", c, d)
		}
	})
}

// TestR20_BadDesiredValues sends values of every JSON type and size to settings, known and unknown.
func TestR20_BadDesiredValues(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door")
		r.start()
		r.desire("coins", `{"interval_ms":42}`)
		r.reported("coins", `{"interval_ms":{"value":42,"ac":200}}`)
		deep := strings.Repeat(`{"a":`, 8) + "1" + strings.Repeat("}", 8)
		wide := map[string]any{}
		for i := range 7 {
			wide[fmt.Sprint("k", i)] = strings.Repeat("x", 4000)
		}
		text, err := json.Marshal(wide)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{
			`true`, `"soon"`, `""`, `1.5`, `-1`, `0`, `1e9`, `4503599627370495`, `[]`, `[1,2]`, `[{"a":[1]}]`, `{}`, `{"a":1}`, deep, string(text),
		} {
			r.desire("coins", `{"interval_ms":`+value+`}`)
			r.reported("coins", `{"interval_ms":{"value":42,"ac":400}}`)
			if doc, _ := r.machines["coins"].lastApplied(); doc != `{"interval_ms":42,"mode":"normal"}` {
				t.Errorf("%.40s: the module was given %s", value, doc)
			}
			r.desire("coins", `{"interval_ms":null}`) // the hub merges objects: what one value leaves must not meet the next
			r.desire("coins", `{"interval_ms":42}`)
			r.reported("coins", `{"interval_ms":{"value":42,"ac":200}}`)
		}
		for _, value := range []string{`1`, `"x"`, `false`, `[1]`, `{"a":{"b":[]}}`} {
			r.desire("coins", `{"unknown":`+value+`,"mode":7}`)
			r.reported("coins", `{"unknown":{"ac":404},"mode":{"ac":400}}`)
			r.desire("coins", `{"unknown":null,"mode":null}`)
		}
		r.machines["door"].insert(1)
		r.telemetry("door")
		time.Sleep(time.Minute)
		for _, name := range []string{"coins", "door"} {
			if c := r.component(name); c.Process.Restarts > 0 || c.Link.Reconnects > 0 || c.Health.State != local.OK {
				t.Errorf("%s: %+v", name, c)
			}
		}
	})
}

// TestR21_ReportedIsRefusedOrLost has a hub refuse reports with each status, lose its answers, and take everything in the
// end.
func TestR21_ReportedIsRefusedOrLost(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		note string
	}{
		{"400", fmt.Errorf("%w: reported properties: status 400: 400004 bad value", iothub.ErrRejected), "the hub refuses what is reported; left out until it changes: serial"},
		{"413", fmt.Errorf("%w: reported properties: status 413", iothub.ErrRejected), "left out until it changes: serial"},
		{"412", fmt.Errorf("%w: reported properties: status 412", iothub.ErrStale), "asking for the twin first"},
		{"429", fmt.Errorf("%w: reported properties: status 429", iothub.ErrThrottled), "trying again"},
		{"500", errors.New("reported properties: status 500"), "trying again"},
		{"lost", context.DeadlineExceeded, "trying again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "5", "", "coins")
				r.machines["coins"].report = map[string]any{"serial": "bad", "coins": 12}
				s := newScript()
				s.answer(1, `{}`)
				bad := true
				taken := map[string]any{}
				s.report = func(patch json.RawMessage) (int64, error) {
					s.mu.Lock()
					defer s.mu.Unlock()
					if bad && strings.Contains(string(patch), `"serial":"bad"`) {
						return 0, c.err
					}
					var doc map[string]any
					if err := json.Unmarshal(patch, &doc); err != nil {
						t.Errorf("%s: %v", patch, err)
					}
					for k, v := range doc {
						taken[k] = v
					}
					return 2, nil
				}
				r.start(s.use)
				time.Sleep(10 * time.Minute)
				s.mu.Lock()
				n, gets := len(s.reports), len(s.gets)
				coins := taken["coins"]
				s.mu.Unlock()
				if n > 45 || gets > 45 {
					t.Errorf("%d reports and %d GETs in ten minutes: it loops", n, gets)
				}
				content := errors.Is(c.err, iothub.ErrRejected)
				if content && fmt.Sprint(coins) != "12" {
					t.Error("the bad property keeps the good ones from the hub")
				}
				h := r.component("coins").Health
				if h.State != local.Degraded || !strings.Contains(h.Detail, c.note) {
					t.Errorf("health = %+v, want %q", h, c.note)
				}
				s.mu.Lock()
				bad = false
				s.mu.Unlock()
				if content { // it changes
					r.machines["coins"].mu.Lock()
					r.machines["coins"].report = map[string]any{"serial": "good", "coins": 12}
					r.machines["coins"].mu.Unlock()
					r.kill("coins", "so that it reports again")
				}
				time.Sleep(2 * time.Minute)
				s.mu.Lock()
				defer s.mu.Unlock()
				if serial := taken["serial"]; serial == nil || content && serial != "good" {
					t.Errorf("in the end the hub has serial %v", serial)
				}
				if h := r.component("coins").Health; h.State != local.OK {
					t.Errorf("in the end: %+v", h)
				}
			})
		})
	}
}

// TestR27_IdentityIsDisabledDeletedAndCreatedAgain does what an operator may do to an identity, and to its key.
func TestR27_IdentityIsDisabledDeletedAndCreatedAgain(t *testing.T) {
	long(t)
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door")
		r.start()
		id := hub.ID{Device: deviceID, Module: "coins"}
		folder := filepath.Dir(r.file.File)
		for n := range 5 {
			r.desire("coins", fmt.Sprintf(`{"interval_ms":%d}`, 10+n))
		}
		r.reported("coins", `{"interval_ms":{"value":14,"ac":200,"av":6}}`)

		status := func(s string) {
			d, err := r.hub.Hub.Device(deviceID)
			if err != nil {
				t.Fatal(err)
			}
			d.Status = s
			if _, err := r.hub.PutDevice(d, "*"); err != nil {
				t.Fatal(err)
			}
		}
		status("disabled")
		time.Sleep(time.Minute)
		if h := r.component("coins").Health; h.State != local.Degraded || !strings.Contains(h.Detail, "in the hub's registry and enabled") {
			t.Errorf("disabled: %+v", h)
		}
		r.machines["coins"].insert(1)
		status("enabled")
		r.telemetry("coins")

		// Deleted, and created again with another key: a person brings the new one.
		if err := r.hub.DeleteModule(id, "*"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if h := r.component("coins").Health; h.State != local.Degraded || !strings.Contains(h.Detail, "registry") {
			t.Errorf("deleted: %+v", h)
		}
		again := r.hub.Module(deviceID, "coins")
		r.desire("coins", `{"mode":"again"}`)
		r.write(folder, "coins", again)
		r.machines["coins"].insert(1)
		r.telemetry("coins")
		r.reported("coins", `{"interval_ms":{"value":100,"ac":203},"mode":{"value":"again","ac":200,"av":2}}`)

		// A new key, and the old one is no longer good.
		m, err := r.hub.Hub.Module(id)
		if err != nil {
			t.Fatal(err)
		}
		first, second := "bmV3IGtleSBudW1iZXIgb25lIQ==", "bmV3IGtleSBudW1iZXIgdHdvIQ=="
		m.Authentication.SymmetricKey.PrimaryKey, m.Authentication.SymmetricKey.SecondaryKey = &first, &second
		if _, err := r.hub.PutModule(m, "*"); err != nil {
			t.Fatal(err)
		}
		fresh, err := r.hub.ConnectionString(id)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour) // the token runs out at the latest
		r.write(folder, "coins", fresh)
		r.machines["coins"].insert(1)
		r.telemetry("coins")
		if d := r.component("door"); d.Process.Restarts > 0 || !d.Link.Connected {
			t.Errorf("door: %+v", d)
		}
	})
}

// A device that starts without its hub runs with the settings that it had last, whatever was under way when it ended.
func TestOfflineStartHasTheLastSettings(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		r.desire("coins", `{"interval_ms":77,"mode":"night"}`)
		r.reported("coins", `{"interval_ms":{"value":77,"ac":200}}`)
		r.stop()
		r.hub.Down()
		r.start()
		time.Sleep(time.Minute)
		if doc, _ := r.machines["coins"].lastApplied(); doc != `{"interval_ms":77,"mode":"night"}` {
			t.Errorf("offline the module was given %s", doc)
		}
		view, err := r.agent.Twin(t.Context(), "coins")
		if err != nil || string(view.Desired) != `{"interval_ms":77,"mode":"night"}` || view.DesiredVersion != 2 {
			t.Errorf("offline `twinbay twin` shows %+v, %v", view, err)
		}
		r.stop()

		// A damaged file is said, kept aside, and no reason not to start.
		path := r.agent.twinFile("coins" + componentSuffix)
		r.disk.(*disktest.FS).Edit(path, func([]byte) []byte { return []byte("\x00\x00\x00") })
		r.start()
		time.Sleep(time.Minute)
		if c := r.component("coins"); c.Process.State != local.Running {
			t.Errorf("with a damaged file: %+v", c)
		}
		r.hub.Up()
		r.desire("coins", `{"interval_ms":78}`)
		r.reported("coins", `{"interval_ms":{"value":78,"ac":200},"mode":{"value":"night","ac":200}}`)
	})
}

// What one identity has left behind is nothing for another.
func TestAnotherIdentityForgetsTheTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.desire("coins", `{"interval_ms":77}`)
		r.reported("coins", `{"interval_ms":{"value":77,"ac":200}}`)
		r.stop()
		r.write(filepath.Dir(r.file.File), "coins", r.hub.Module(deviceID, "coins-2"))
		r.start()
		r.reported("coins-2", `{"interval_ms":{"value":100,"ac":203}}`)
	})
}
