package hub

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestNewestLinkWins(t *testing.T) {
	h := newHub(t)
	id := ID{"pi-01", "a"}
	other, otherPeer := attach(t, h, ID{"pi-01", "b"}, time.Hour)
	old, oldPeer := attach(t, h, id, time.Hour)
	_, newPeer := attach(t, h, id, time.Hour)
	if code := oldPeer.endedBy(t); code != 400027 {
		t.Errorf("the older one was ended by %d, want 400027", code)
	}
	if newPeer.endedBy(t) != 0 || otherPeer.endedBy(t) != 0 {
		t.Error("more than the older one of the same identity was ended")
	}
	wantError(t, "telemetry on the older link", old.Telemetry(Message{}), 404104)
	_, err := old.Twin()
	wantError(t, "twin on the older link", err, 404104)
	_, err = old.Report(json.RawMessage(`{}`), 0)
	wantError(t, "report on the older link", err, 404104)
	wantError(t, "telemetry on another identity's", other.Telemetry(Message{}), 0)
	old.Detach() // late: the door of the older connection notices its end
	if m, _ := h.Module(id); m.ConnectionState != "Connected" {
		t.Error("the end of the older connection disconnects the identity")
	}
}

func TestConnectionState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		id := ID{Device: "pi-01"}
		const never = "0001-01-01T00:00:00"
		if d := mustDevice(t, h, "pi-01"); d.ConnectionState != "Disconnected" || d.ConnectionStateUpdatedTime != never || d.LastActivityTime != never {
			t.Errorf("before: %+v", d)
		}
		time.Sleep(time.Second)
		l, p := attach(t, h, id, time.Hour)
		time.Sleep(time.Second)
		must(t)(l.Report(json.RawMessage(`{}`), 0))
		if d := mustDevice(t, h, "pi-01"); d.ConnectionState != "Connected" ||
			d.ConnectionStateUpdatedTime != "2000-01-01T00:00:01.0000000" || d.LastActivityTime != "2000-01-01T00:00:02.0000000" {
			t.Errorf("connected: %+v", d)
		}
		if _, connected := h.Statistics(); connected != 1 {
			t.Errorf("%d devices connected, want 1", connected)
		}
		time.Sleep(time.Second)
		l.Detach()
		l.Detach()
		if d := mustDevice(t, h, "pi-01"); d.ConnectionState != "Disconnected" || d.ConnectionStateUpdatedTime != "2000-01-01T00:00:03.0000000" {
			t.Errorf("after: %+v", d)
		}
		if p.endedBy(t) != 0 {
			t.Error("a peer that detached was closed")
		}
	})
}

func TestTokenRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		l, p := attach(t, h, ID{"pi-01", "a"}, time.Hour)
		_, late := attach(t, h, ID{"pi-01", "b"}, -time.Minute) // run out, within the skew: four minutes are left
		time.Sleep(4*time.Minute - time.Second)
		synctest.Wait()
		if late.endedBy(t) != 0 {
			t.Error("cut before the skew was used up")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if code := late.endedBy(t); code != 401003 {
			t.Errorf("cut by %d after the skew, want 401003", code)
		}
		time.Sleep(56*time.Minute - 2*time.Second)
		synctest.Wait()
		if p.endedBy(t) != 0 {
			t.Error("cut before the token ran out")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if code := p.endedBy(t); code != 401003 {
			t.Errorf("cut by %d, want 401003", code)
		}
		wantError(t, "telemetry after that", l.Telemetry(Message{}), 404104)
	})
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		id := ID{"pi-01", "a"}
		l, p := attach(t, h, id, time.Hour)
		time.Sleep(59 * time.Minute)
		g, err := h.AuthSAS(id, token(t, h, id, time.Hour))
		must(t)(g, err)
		wantError(t, "renew", l.Renew(g), 0)
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if p.endedBy(t) != 0 {
			t.Error("cut when the first token ran out")
		}
		foreign, err := h.AuthSAS(ID{"pi-01", "b"}, token(t, h, ID{"pi-01", "b"}, time.Hour))
		must(t)(foreign, err)
		wantError(t, "renew as somebody else", l.Renew(foreign), 401003)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if code := p.endedBy(t); code != 401003 {
			t.Errorf("cut by %d, want 401003", code)
		}
		wantError(t, "renew what has ended", l.Renew(g), 404104)
	})
}

func TestAttachRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		id := ID{"pi-01", "a"}
		g, err := h.AuthSAS(id, token(t, h, id, time.Hour))
		must(t)(g, err)
		must(t)(h.PutDevice(Device{DeviceID: "pi-01", Status: "disabled"}, "*"))
		_, err = h.Attach(g, &peer{})
		wantError(t, "disabled in between", err, 403012)
		must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, "*"))
		time.Sleep(time.Hour)
		_, err = h.Attach(g, &peer{})
		wantError(t, "run out in between", err, 401003)
		wantError(t, "delete", h.DeleteModule(id, "*"), 0)
		_, err = h.Attach(g, &peer{})
		wantError(t, "deleted in between", err, 404010)
	})
}

// TestRegistryCutsLinks: disabling a device, deleting an identity and taking its key away end its connections.
func TestRegistryCutsLinks(t *testing.T) {
	device, a, b := ID{Device: "pi-01"}, ID{"pi-01", "a"}, ID{"pi-01", "b"}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, h *Hub) error
		cut  [3]int // device, a, b
	}{
		{"disable", func(t *testing.T, h *Hub) error {
			_, err := h.PutDevice(Device{DeviceID: "pi-01", Status: "disabled", Authentication: mustDevice(t, h, "pi-01").Authentication}, "*")
			return err
		}, [3]int{403012, 403012, 403012}},
		{"delete the device", func(_ *testing.T, h *Hub) error { return h.DeleteDevice("pi-01", "*") }, [3]int{404001, 404001, 404001}},
		{"delete a", func(_ *testing.T, h *Hub) error { return h.DeleteModule(a, "*") }, [3]int{0, 404001, 0}},
		{"new keys for a", func(_ *testing.T, h *Hub) error {
			_, err := h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a"}, "*")
			return err
		}, [3]int{0, 401003, 0}},
		{"the key that a uses becomes its second", func(t *testing.T, h *Hub) error {
			auth := keep(t, h, a)
			auth.SymmetricKey.PrimaryKey, auth.SymmetricKey.SecondaryKey = auth.SymmetricKey.SecondaryKey, auth.SymmetricKey.PrimaryKey
			_, err := h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a", Authentication: auth}, "*")
			return err
		}, [3]int{0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			var peers [3]*peer
			for i, id := range []ID{device, a, b} {
				_, peers[i] = attach(t, h, id, time.Hour)
			}
			if err := c.do(t, h); err != nil {
				t.Fatal(err)
			}
			for i, p := range peers {
				if code := p.endedBy(t); code != c.cut[i] {
					t.Errorf("link %d was ended by %d, want %d", i, code, c.cut[i])
				}
			}
		})
	}
}

func TestPolicyLinkOutlivesKeys(t *testing.T) {
	h := newHub(t)
	id := ID{"pi-01", "a"}
	p, _ := h.policy("device")
	g, err := h.AuthSAS(id, signSAS(p.PrimaryKey, h.host, time.Now().Add(time.Hour), "device"))
	must(t)(g, err)
	if want := `"scope":"hub"`; !strings.Contains(g.Method, want) {
		t.Errorf("%s lacks %s", g.Method, want)
	}
	door := &peer{}
	must(t)(h.Attach(g, door))
	must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a"}, "*"))
	if code := door.endedBy(t); code != 0 {
		t.Errorf("a change of the module's keys ends a link of the hub's policy by %d", code)
	}
}

// TestDesiredOnlyToItsModule, in order and only while wanted.
func TestDesiredOnlyToItsModule(t *testing.T) {
	h := newHub(t)
	la, a := attach(t, h, ID{"pi-01", "a"}, time.Hour)
	lb, b := attach(t, h, ID{"pi-01", "b"}, time.Hour)
	ld, d := attach(t, h, ID{Device: "pi-01"}, time.Hour)
	lb.Want(Desired, true)
	ld.Want(Desired, true)
	patch := func(n string) {
		must(t)(h.PatchTwin(ID{"pi-01", "a"}, json.RawMessage(`{"tags":{"x":1},"properties":{"desired":`+n+`}}`), ""))
	}
	patch(`{"n":1}`)
	la.Want(Desired, true)
	patch(`{"n":2,"o":{"x":1}}`)
	patch(`{"n":null}`)
	must(t)(h.PatchTwin(ID{"pi-01", "a"}, json.RawMessage(`{"tags":{"x":2}}`), ""))
	la.Want(Desired, false)
	patch(`{"n":4}`)
	want := []string{`3 {"$version":3,"n":2,"o":{"x":1}}`, `4 {"$version":4,"n":null}`}
	if got := a.told(); !slices.Equal(got, want) {
		t.Errorf("a was told %q, want %q", got, want)
	}
	if len(b.told())+len(d.told()) != 0 {
		t.Errorf("others were told %q %q", b.told(), d.told())
	}
}

// TestDesiredKeepsItsOrder under many writers, and a peer may call the hub while it is told.
func TestDesiredKeepsItsOrder(t *testing.T) {
	h := newHub(t)
	id := ID{"pi-01", "a"}
	g, err := h.AuthSAS(id, token(t, h, id, time.Hour))
	must(t)(g, err)
	var l *Link
	p := &reportingPeer{}
	l, err = h.Attach(g, p)
	must(t)(l, err)
	p.link = l
	l.Want(Desired, true)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				if _, err := h.PatchTwin(id, fmt.Appendf(nil, `{"properties":{"desired":{"w%d":%d}}}`, i, j), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(p.versions) != 200 {
		t.Fatalf("told %d changes, want 200", len(p.versions))
	}
	for i, v := range p.versions {
		if v != int64(i+2) {
			t.Fatalf("change %d has version %d", i, v)
		}
	}
	twin, err := h.Twin(id)
	must(t)(twin, err)
	if v := twin.Properties.Reported["$version"]; v != int64(201) {
		t.Errorf("reported is at %v, want 201", v)
	}
}

// reportingPeer calls back into the hub. It has no lock: the hub makes one call at a time.
type reportingPeer struct {
	peer
	link     *Link
	versions []int64
}

func (p *reportingPeer) Desired(_ json.RawMessage, version int64) {
	p.versions = append(p.versions, version)
	if _, err := p.link.Report(fmt.Appendf(nil, `{"v":%d}`, version), 0); err != nil {
		panic(err)
	}
}

func TestTelemetry(t *testing.T) {
	h := newHub(t)
	l, _ := attach(t, h, ID{"pi-01", "a"}, time.Hour)
	events := h.Watch(t.Context())
	props := map[string]string{"kind": "alarm"}
	full := make([]byte, 256<<10-len("kindalarm")-len("application/json"))
	for i := range full {
		full[i] = '1'
	}
	for _, c := range []struct {
		name string
		body []byte
		json string
		code int
	}{
		{"JSON", []byte(`{"t":20.5}`), `{"t":20.5}`, 0},
		{"no JSON", []byte{0xff, 0}, "", 0},
		{"empty", nil, "", 0},
		{"largest", full, string(full), 0},
		{"larger", append(full, '1'), "", 413001},
	} {
		err := l.Telemetry(Message{Body: c.body, Properties: props, System: map[string]string{"content-type": "application/json"}})
		wantError(t, c.name, err, c.code)
		if err != nil {
			continue
		}
		e := <-events
		if e.Kind != "telemetry" || e.DeviceID != "pi-01" || e.ModuleID != "a" || string(e.Body) != c.json || e.Properties["kind"] != "alarm" {
			t.Errorf("%s: event %.200v", c.name, e)
		}
		if c.json == "" && string(e.Base64) != string(c.body) {
			t.Errorf("%s: event has %x", c.name, e.Base64)
		}
	}
	if len(events) != 0 {
		t.Errorf("%d events more", len(events))
	}
}

// TestModelID: what a connection announces is on the twin, also after it has ended, and on the connection's telemetry.
func TestModelID(t *testing.T) {
	h := newHub(t)
	id := ID{"pi-01", "a"}
	events := h.Watch(t.Context())
	connect := func(model string) *Link {
		g, err := h.AuthSAS(id, token(t, h, id, time.Hour))
		must(t)(g, err)
		g.ModelID = model
		l, err := h.Attach(g, &peer{})
		must(t)(l, err)
		return l
	}
	for _, model := range []string{"", "dtmi:com:example;1", "dtmi:com:example;2", ""} {
		l := connect(model)
		if err := l.Telemetry(Message{Body: []byte(`1`), System: map[string]string{"message-id": "x"}}); err != nil {
			t.Fatal(err)
		}
		l.Detach()
		if twin, err := h.Twin(id); err != nil || twin.ModelID != model {
			t.Errorf("modelId %q, %v; want %q", twin.ModelID, err, model)
		}
		for e := range events {
			if e.Kind != "telemetry" {
				continue
			}
			if e.System["dt-dataschema"] != model || e.System["message-id"] != "x" {
				t.Errorf("system properties %v, want dt-dataschema %q", e.System, model)
			}
			break
		}
	}
}
