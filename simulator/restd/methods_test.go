package restd

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// echo is a device that answers methods with what it was asked, but for "silent".
type echo struct{ link *hub.Link }

func (e *echo) Desired(json.RawMessage, int64) {}
func (e *echo) CloudToDevice(hub.Delivery)     {}
func (e *echo) Close(*hub.Error)               {}
func (e *echo) Method(rid, name string, payload json.RawMessage) {
	if name != "silent" {
		e.link.MethodResult(rid, 207, payload)
	}
}

func (d *door) connect(id hub.ID) *echo {
	d.t.Helper()
	e := &echo{}
	link, err := d.hub.Attach(hub.Grant{ID: id}, e)
	if err != nil {
		d.t.Fatal(err)
	}
	e.link = link
	link.Want(hub.Methods, true)
	return e
}

func TestMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.do("PUT /devices/d", "{}")
		d.do("PUT /devices/d/modules/m", "{}")
		d.connect(hub.ID{Device: "d", Module: "m"})
		for _, c := range []struct {
			path, body string
			status     int
			want       string // the answer, or the number in the nested error
			took       time.Duration
		}{
			{"/twins/d/modules/m/methods", `{"methodName":"x","payload":{"a":[1.0,null]},"responseTimeoutInSeconds":30}`, 200, `{"status":207,"payload":{"a":[1.0,null]}}`, 0},
			{"/twins/d/modules/m/methods", `{"MethodName":"x","connectTimeoutInSeconds":null,"responseTimeoutInSeconds":null}`, 200, `{"status":207,"payload":null}`, 0},
			{"/twins/d/modules/m/methods", `{"methodName":"silent","responseTimeoutInSeconds":5}`, 504, `504101`, 5 * time.Second},
			{"/twins/d/modules/m/methods", `{"methodName":"silent"}`, 504, `504101`, 30 * time.Second},
			{"/twins/d/methods", `{"methodName":"x"}`, 404, `404103`, 0},
			{"/twins/d/modules/m/methods", `{}`, 400, `400004`, 0},
			{"/twins/d/modules/m/methods", `{"methodName":"x","connectTimeoutInSeconds":31}`, 400, `400004`, 0},
			{"/twins/d/modules/m/methods", `{"methodName":"x","responseTimeoutInSeconds":9000000000000}`, 400, `400004`, 0},
		} {
			start := time.Now()
			r := d.do("POST "+c.path, c.body)
			body := read(r)
			if took := time.Since(start); took != c.took {
				t.Errorf("%s %s took %s, want %s", c.path, c.body, took, c.took)
			}
			if r.StatusCode != c.status {
				t.Errorf("%s %s: %d %s", c.path, c.body, r.StatusCode, body)
				continue
			}
			if c.status != 200 {
				body = innerCode(t, body)
			}
			if body != c.want {
				t.Errorf("%s %s: %s, want %s", c.path, c.body, body, c.want)
			}
		}
	})
}

// innerCode is the number of the error within a method's error.
func innerCode(t *testing.T, body string) string {
	t.Helper()
	var outer plainError
	var inner struct{ ErrorCode json.Number }
	if json.Unmarshal([]byte(body), &outer) != nil || json.Unmarshal([]byte(outer.Message), &inner) != nil {
		t.Errorf("not nested: %s", body)
	}
	return inner.ErrorCode.String()
}

func TestEvents(t *testing.T) {
	d := newDoor(t)
	web := httptest.NewServer(d.srv)
	defer web.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", web.URL+"/_sim/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", sas("hub1.azure-devices.net", "iothubowner"))
	res, err := web.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	// The headers are here, so nothing from now on is missed.
	d.do("PUT /devices/d", "{}")
	link := d.connect(hub.ID{Device: "d"}).link
	body := "{\n \"t\": \"<" + strings.Repeat("x", 100_000) + ">\"\n}"
	if err := link.Telemetry(hub.Message{Body: []byte(body), Properties: map[string]string{"a": "ä"}}); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	for _, want := range []string{"created", "connected", "telemetry"} {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var e hub.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Kind != want || e.DeviceID != "d" {
			t.Errorf("%.100s, want %s of d: %v", line, want, err)
		}
		if want == "telemetry" && (e.Properties["a"] != "ä" || !strings.Contains(string(e.Body), `"<xxx`)) {
			t.Errorf("telemetry %.200s", line)
		}
	}
	cancel()
	if _, err := lines.ReadString('\n'); err == nil {
		t.Error("the stream goes on after its end")
	}
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.do("PUT /devices/d", "{}")
		add := func(rule string) { d.want(rule, d.do("POST /_sim/faults?x", rule), 204, "") }
		add(`{"on":"publish","who":"d/*","after":1,"times":1,"do":"delay","delay":"250ms"}`)
		m := hub.ID{Device: "d", Module: "m"}
		if f := d.hub.Fault("publish", m); f.Do != "" {
			t.Errorf("the first passes not: %+v", f)
		}
		if f := d.hub.Fault("publish", m); f.Do != "delay" || f.Delay != 250*time.Millisecond {
			t.Errorf("the second: %+v", f)
		}
		d.refused("bad rule", d.do("POST /_sim/faults?x", `{"on":"publish","do":"explode"}`), 400, "ArgumentInvalid", "explode")
		d.refused("bad delay", d.do("POST /_sim/faults?x", `{"on":"publish","do":"delay","delay":5}`), 400, "IotHubFormatError", "")
		d.refused("bad delay", d.do("POST /_sim/faults?x", `{"on":"publish","do":"delay","delay":"5"}`), 400, "ArgumentInvalid", "delay")

		add(`{"on":"rest","who":"d","times":1,"do":"throttle"}`)
		r := d.do("GET /devices/d", "")
		d.refused("throttled", r, 429, "ThrottlingException", "")
		if r.Header.Get("Connection") != "close" || r.Header.Get("Retry-After") != "" {
			t.Errorf("throttled with %v", r.Header)
		}
		add(`{"on":"rest","times":1,"do":"refuse"}`)
		d.refused("refused", d.do("GET /devices/d", ""), 503, "ServiceUnavailable", "")
		add(`{"on":"rest","times":1,"do":"delay","delay":"3s"}`)
		start := time.Now()
		if r := d.do("GET /devices/d", ""); r.StatusCode != 200 || time.Since(start) != 3*time.Second {
			t.Errorf("delayed: %d after %s", r.StatusCode, time.Since(start))
		}
		add(`{"on":"rest","do":"refuse"}`)
		d.want("clear", d.do("DELETE /_sim/faults?x", ""), 204, "")
		if r := d.do("GET /devices/d", ""); r.StatusCode != 200 {
			t.Errorf("after clearing: %d", r.StatusCode)
		}
	})
}

// TestFaultsOnConnections: a kick closes the connection without an answer; a drop leaves the client waiting.
func TestFaultsOnConnections(t *testing.T) {
	d := newDoor(t)
	web := httptest.NewServer(d.srv)
	defer web.Close()
	for _, do := range []string{"kick", "drop"} {
		if err := d.hub.AddFault(hub.Fault{On: "rest", Do: do}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if do == "kick" {
			ctx, cancel = context.WithCancel(t.Context())
		}
		r, err := http.NewRequestWithContext(ctx, "GET", web.URL+"/devices?api-version=2021-04-12", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", sas("hub1.azure-devices.net", "iothubowner"))
		res, err := web.Client().Do(r)
		if err == nil {
			t.Errorf("%s: answered %s", do, res.Status)
			res.Body.Close()
		}
		if late := ctx.Err() != nil; late != (do == "drop") {
			t.Errorf("%s: %v", do, err)
		}
		cancel()
		d.hub.ClearFaults()
	}
}
