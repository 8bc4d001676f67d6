package admin_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/restd"
)

// serve is a hub behind its REST door, by TLS, and a client as its owner. httptest's certificate names example.com.
func serve(t *testing.T) (*hub.Hub, *admin.Client) {
	t.Helper()
	h := hub.New(hub.Options{HostName: "example.com"})
	c := client(t, httptest.NewTLSServer(restd.New(h, nil)), h.OwnerConnectionString())
	return h, c
}

func client(t *testing.T, web *httptest.Server, connectionString string) *admin.Client {
	t.Helper()
	t.Cleanup(web.Close)
	c, err := admin.New(admin.Config{
		ConnectionString: connectionString,
		Address:          web.Listener.Addr().String(),
		CA:               pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// refused holds an error to the hub's code.
func refused(t *testing.T, what string, err error, status int, code string) {
	t.Helper()
	e, ok := errors.AsType[*admin.Error](err)
	if !ok || e.Status != status || e.Code != code {
		t.Errorf("%s: %v, want %d %s", what, err, status, code)
		return
	}
	if strings.Contains(e.Text, "ErrorCode:") || strings.HasPrefix(e.Text, "{") || !strings.Contains(err.Error(), code) {
		t.Errorf("%s: not for a person: %v", what, err)
	}
}

// TestHubsClock: a hub whose clock differs is asked again with a token by its clock, once: the difference is remembered.
func TestHubsClock(t *testing.T) {
	for _, c := range []struct {
		offset, told time.Duration
		refusals     int32
	}{
		{0, 0, 0},
		{2 * time.Hour, 0, 1},
		{2 * time.Hour, 2 * time.Hour, 0},
		{-30 * time.Hour, 0, 0}, // a token of tomorrow holds today
		{30 * time.Minute, 0, 0},
		{9000 * time.Hour, -9000 * time.Hour, 1},
	} {
		h := hub.New(hub.Options{HostName: "example.com", ClockOffset: c.offset})
		door := restd.New(h, nil)
		var refusals atomic.Int32
		web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen := httptest.NewRecorder()
			door.ServeHTTP(seen, r)
			if seen.Code == http.StatusUnauthorized {
				refusals.Add(1)
			}
			maps.Copy(w.Header(), seen.Header())
			w.WriteHeader(seen.Code)
			w.Write(seen.Body.Bytes())
		}))
		t.Cleanup(web.Close)
		client, err := admin.New(admin.Config{
			ConnectionString: h.OwnerConnectionString(),
			Address:          web.Listener.Addr().String(),
			CA:               pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}),
			ClockOffset:      c.told,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		for _, id := range []string{"a", "b"} {
			if _, err := client.Create(t.Context(), admin.ID{Device: id}, map[string]any{"statusReason": "whole"}); err != nil {
				t.Errorf("%+v: %v", c, err)
			}
			if d, err := h.Device(id); err != nil || d.StatusReason == nil || *d.StatusReason != "whole" {
				t.Errorf("%+v: device %+v, %v: the body was lost", c, d, err)
			}
		}
		if n := refusals.Load(); n != c.refusals {
			t.Errorf("%+v: %d refusals", c, n)
		}
	}
}

// TestRefusalIsNoClock: a wrong key is wrong at any time, and is tried once.
func TestRefusalIsNoClock(t *testing.T) {
	for name, date := range map[string]string{"the same time": "", "another time": "Mon, 02 Jan 2006 15:04:05 GMT", "no time": "soon"} {
		asked := 0
		c := client(t, httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			if date != "" {
				w.Header().Set("Date", date)
			}
			w.WriteHeader(http.StatusUnauthorized)
		})), "HostName=example.com;SharedAccessKeyName=p;SharedAccessKey=a2V5")
		want := 1
		if name == "another time" {
			want = 2
		}
		for range 2 {
			_, err := c.Devices(t.Context())
			refused(t, name, err, 401, "")
		}
		if asked != want+1 {
			t.Errorf("%s: asked %d times, want %d", name, asked, want+1)
		}
	}
	token := "HostName=example.com;SharedAccessSignature=SharedAccessSignature sr=h&sig=eA%3D%3D&se=99999999999&skn=p"
	asked := 0
	c := client(t, httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.WriteHeader(http.StatusUnauthorized)
	})), token)
	_, err := c.Devices(t.Context())
	refused(t, "a token of others", err, 401, "")
	if asked != 1 {
		t.Errorf("a token of others: asked %d times, want once", asked)
	}
}

func TestRegistry(t *testing.T) {
	h, c := serve(t)
	ctx := t.Context()
	device, odd := admin.ID{Device: "d"}, admin.ID{Device: "a%2Fb", Module: "c#d?"}
	for _, id := range []admin.ID{device, {Device: "D"}, {Device: odd.Device}, odd} {
		if _, err := c.Create(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Create(ctx, device, nil)
	refused(t, "create again", err, 409, "DeviceAlreadyExists")
	_, err = c.Create(ctx, odd, nil)
	refused(t, "create a module again", err, 409, "ModuleAlreadyExistsOnDevice")
	_, err = c.Show(ctx, admin.ID{Device: "ghost"})
	refused(t, "show nothing", err, 404, "DeviceNotFound")

	text, err := c.Update(ctx, device, map[string]any{"status": "disabled", "statusReason": "broken"}, "")
	var shown struct{ Status, StatusReason, ETag string }
	if err != nil || json.Unmarshal(text, &shown) != nil || shown.Status != "disabled" || shown.StatusReason != "broken" {
		t.Errorf("update: %s %v", text, err)
	}
	if _, err := c.Update(ctx, device, nil, shown.ETag); err != nil {
		t.Errorf("update by etag: %v", err)
	}
	_, err = c.Update(ctx, device, nil, shown.ETag)
	refused(t, "update by stale etag", err, 412, "PreconditionFailed")

	var all []struct{ DeviceID, ModuleID string }
	if text, err = c.Devices(ctx); err != nil || json.Unmarshal(text, &all) != nil || len(all) != 3 {
		t.Errorf("list: %s %v", text, err)
	}
	if text, err = c.Modules(ctx, odd.Device); err != nil || json.Unmarshal(text, &all) != nil || len(all) != 1 || all[0].ModuleID != odd.Module {
		t.Errorf("list modules: %s %v", text, err)
	}
	want, err := h.ConnectionString(hub.ID(odd))
	if got, err2 := c.ConnectionString(ctx, odd); err != nil || err2 != nil || got != want {
		t.Errorf("connection string %q %v, want %q %v", got, err2, want, err)
	}
	if err := c.Delete(ctx, odd); err != nil {
		t.Errorf("delete: %v", err)
	}
	refused(t, "delete again", c.Delete(ctx, odd), 404, "ModuleNotFound")
}

// device answers methods with what it is asked.
type device struct{ link *hub.Link }

func (d *device) Desired(json.RawMessage, int64) {}
func (d *device) CloudToDevice(hub.Delivery)     {}
func (d *device) Close(*hub.Error)               {}
func (d *device) Method(rid, _ string, payload json.RawMessage) {
	d.link.MethodResult(rid, 207, payload)
}

func TestTwinAndMethod(t *testing.T) {
	h, c := serve(t)
	ctx := t.Context()
	if _, err := c.Create(ctx, admin.ID{Device: "d"}, nil); err != nil {
		t.Fatal(err)
	}
	id := admin.ID{Device: "d", Module: "m"}
	if _, err := c.Create(ctx, id, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PatchTwin(ctx, id, map[string]any{"properties": map[string]any{"desired": map[string]any{"n": 7}}}); err != nil {
		t.Fatal(err)
	}
	var twin struct {
		Properties struct{ Desired struct{ N int } }
	}
	if text, err := c.Twin(ctx, id); err != nil || json.Unmarshal(text, &twin) != nil || twin.Properties.Desired.N != 7 {
		t.Errorf("twin: %s %v", text, err)
	}
	_, err := c.PatchTwin(ctx, id, map[string]any{"tags": map[string]any{"a b": 1}})
	refused(t, "bad key", err, 400, "ArgumentInvalid")
	_, err = c.Invoke(ctx, id, "x", nil, 5*time.Second)
	refused(t, "not online", err, 404, "DeviceNotOnline")

	d := &device{}
	if d.link, err = h.Attach(hub.Grant{ID: hub.ID(id)}, d); err != nil {
		t.Fatal(err)
	}
	d.link.Want(hub.Methods, true)
	if r, err := c.Invoke(ctx, id, "x", json.RawMessage(`{"a":1}`), 5*time.Second); err != nil || r.Status != 207 || string(r.Payload) != `{"a":1}` {
		t.Errorf("method: %+v %v", r, err)
	}
	if r, err := c.Invoke(ctx, id, "x", nil, 5*time.Second); err != nil || string(r.Payload) != `null` {
		t.Errorf("method without payload: %+v %v", r, err)
	}
	_, err = c.Invoke(ctx, id, "x", nil, time.Second)
	refused(t, "too short", err, 400, "ArgumentInvalid")
}

func TestEvents(t *testing.T) {
	_, c := serve(t)
	enough := errors.New("enough")
	var got []string
	err := c.Events(t.Context(), func() {
		if _, err := c.Create(t.Context(), admin.ID{Device: "d"}, nil); err != nil {
			t.Error(err)
		}
		if err := c.Delete(t.Context(), admin.ID{Device: "d"}); err != nil {
			t.Error(err)
		}
	}, func(e admin.Event) error {
		got = append(got, e.Kind+" "+e.DeviceID)
		if len(got) == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || strings.Join(got, ", ") != "created d, deleted d" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCloud: a hub in the cloud knows nothing of events here, and may answer with no JSON at all.
func TestCloud(t *testing.T) {
	var asked *http.Request
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r
		http.Error(w, "no such page", http.StatusNotFound)
	}))
	c := client(t, web, "HostName=example.com;SharedAccessKeyName=service;SharedAccessKey=a2V5")
	err := c.Events(t.Context(), nil, nil)
	if err == nil || !strings.Contains(err.Error(), "Event Hubs-compatible endpoint") {
		t.Errorf("events: %v", err)
	}
	_, err = c.Show(t.Context(), admin.ID{Device: "d"})
	if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "no such page") {
		t.Errorf("show: %v", err)
	}
	if asked.Host != "example.com" || asked.URL.Query().Get("api-version") != "2021-04-12" || asked.TLS.ServerName != "example.com" {
		t.Errorf("asked %s, SNI %s, for %s", asked.Host, asked.TLS.ServerName, asked.URL)
	}
}

func TestUnreachable(t *testing.T) {
	h, _ := serve(t)
	owner := h.OwnerConnectionString()
	_, key, _ := strings.Cut(owner, ";SharedAccessKey=")
	wrongKey := client(t, httptest.NewTLSServer(restd.New(h, nil)), strings.ReplaceAll(owner, key, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="))
	_, err := wrongKey.Devices(t.Context())
	refused(t, "wrong key", err, 401, "IotHubUnauthorizedAccess")

	strange := httptest.NewUnstartedServer(restd.New(h, nil))
	strange.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is to fail
	strange.StartTLS()
	defer strange.Close()
	gone := httptest.NewTLSServer(restd.New(h, nil))
	gone.Close()
	for name, web := range map[string]*httptest.Server{"a CA that is not trusted": strange, "nobody there": gone} {
		c, err := admin.New(admin.Config{ConnectionString: owner, Address: web.Listener.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Devices(t.Context())
		if err == nil || !strings.Contains(err.Error(), "reach hub example.com") || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := admin.New(admin.Config{ConnectionString: owner, CA: []byte("no PEM")}); err == nil {
		t.Error("a CA that is no PEM is taken")
	}
}
