package restd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

func TestFaultRules(t *testing.T) {
	d := newDoor(t)
	d.want("first", d.do("POST /_sim/faults", `{"on":"rest","do":"quota","times":1,"after":1}`), 204, "")
	d.want("named", d.do("POST /_sim/faults", `{"id":"night","on":"publish","who":"d/*","do":"drop","probability":0.5,"for":"1h"}`), 204, "")
	d.refused("connack", d.do("POST /_sim/faults", `{"on":"connect","do":"refuse","connack":6}`), 400, "ArgumentInvalid", "connack")
	d.refused("probability", d.do("POST /_sim/faults", `{"on":"publish","do":"drop","probability":2}`), 400, "ArgumentInvalid", "probability")
	d.refused("for", d.do("POST /_sim/faults", `{"on":"publish","do":"drop","for":"long"}`), 400, "ArgumentInvalid", "for")
	d.refused("unknown device", d.do("GET /devices/x", ""), 404, "DeviceNotFound", "")
	d.refused("by the rule", d.do("GET /devices/x", ""), 403, "IotHubQuotaExceeded", "")
	d.refused("the rule is used up", d.do("GET /devices/x", ""), 404, "DeviceNotFound", "")
	d.want("list", d.do("GET /_sim/faults", ""), 200, `[{"id":"1","on":"rest","after":1,"times":1,"do":"quota","passed":1,"acted":1},`+
		`{"id":"night","on":"publish","who":"d/*","probability":0.5,"do":"drop","for":"1h0m0s","passed":0,"acted":0}]`)
	d.want("remove", d.do("DELETE /_sim/faults/1", ""), 204, "")
	d.refused("remove again", d.do("DELETE /_sim/faults/1", ""), 404, "FaultNotFound", "")
	d.want("clear", d.do("DELETE /_sim/faults", ""), 204, "")
	d.want("list", d.do("GET /_sim/faults", ""), 200, `[]`)
}

// The registry of an S1 hub takes 100 operations at once, holds the next ones back and refuses where the queue is too long.
func TestTierOverREST(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		h := hub.New(hub.Options{HostName: d.hub.HostName(), Policies: []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}, Tier: "S1"})
		d.hub, d.srv = h, New(h, nil)
		start := time.Now()
		for n := range 100 {
			if r := d.do(fmt.Sprintf("PUT /devices/d%d", n), "{}"); r.StatusCode != 200 {
				t.Fatalf("device %d: %d %s", n, r.StatusCode, read(r))
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("100 devices took %v", d)
		}
		d.do("GET /devices/d1", "")
		if d := time.Since(start); d < 599*time.Millisecond || d > 601*time.Millisecond {
			t.Errorf("the 101st request was held for %v, want 0.6 s", d)
		}
		for {
			if _, err := h.Throttle(hub.OpRegistry, hub.ID{}, 1); err != nil {
				break
			}
		}
		r := d.do("GET /devices/d1", "")
		d.refused("beyond the queue", r, 429, "ThrottlingBacklogTimeout", "registry")
		if r.Header.Get("Retry-After") != "" || r.Header.Get("Connection") != "close" {
			t.Errorf("headers %v: want no Retry-After, and Connection: close", r.Header)
		}
		if r := d.do("GET /twins/d1", ""); r.StatusCode != 200 {
			t.Errorf("a twin is another throttle: %d", r.StatusCode)
		}
	})
}

// A bulk operation counts each of its identities: a hundred of them use up a minute of an S1 hub's registry.
func TestBulkCountsIdentities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		h := hub.New(hub.Options{HostName: d.hub.HostName(), Policies: []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}, Tier: "S1"})
		d.hub, d.srv = h, New(h, nil)
		var all []string
		for n := range 100 {
			all = append(all, fmt.Sprintf(`{"id":"d%d"}`, n))
		}
		body := "[" + strings.Join(all, ",") + "]"
		start := time.Now()
		if r := d.do("POST /devices", body); r.StatusCode != 200 || time.Since(start) != 0 {
			t.Fatalf("%d after %v: %s", r.StatusCode, time.Since(start), read(r))
		}
		d.refused("a hundred more", d.do("POST /devices", body), 429, "ThrottlingBacklogTimeout", "registry")
	})
}

// Every route of the API proper is counted by a throttle, or says that it is not.
func TestOperations(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		want         hub.Operation
	}{
		{"GET", "devices/{device}", hub.OpRegistry},
		{"POST", "devices", hub.OpRegistry},
		{"GET", "statistics/devices", hub.OpRegistry},
		{"PUT", "devices/{device}/modules/{module}", hub.OpRegistry},
		{"GET", "twins/{device}", hub.OpTwinRead},
		{"PATCH", "twins/{device}/modules/{module}", hub.OpTwinUpdate},
		{"PUT", "twins/{device}", hub.OpTwinUpdate},
		{"POST", "twins/{device}/methods", hub.OpMethod},
		{"POST", "twins/{device}/modules/{module}/methods", hub.OpMethod},
		{"POST", "devices/query", hub.OpQuery},
		{"POST", "devices/{device}/messages/events", hub.OpSend},
		{"POST", "devices/{device}/messages/deviceBound", hub.OpC2DSend},
		{"GET", "devices/{device}/messages/deviceBound", hub.OpC2DReceive},
		{"DELETE", "devices/{device}/messages/deviceBound/{lock}", hub.OpC2DReceive},
		{"POST", "devices/{device}/messages/deviceBound/{lock}/abandon", hub.OpC2DReceive},
		{"POST", "devices/{device}/files", hub.OpUpload},
		{"POST", "devices/{device}/files/notifications", ""},
		{"PUT", "jobs/v2/{job}", hub.OpJob},
		{"POST", "jobs/create", hub.OpJob},
		{"PUT", "configurations/{configuration}", hub.OpConfiguration},
		{"POST", "devices/{device}/applyConfigurationContent", hub.OpConfiguration},
	} {
		if got := (route{method: tt.method, path: tt.path}).operation(); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.method, tt.path, got, tt.want)
		}
	}
}

func TestDateHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Options{ClockOffset: 2 * time.Hour})
		d := &door{t: t, hub: h, srv: New(h, nil)}
		date, err := http.ParseTime(d.do("GET /devices/x", "").Header.Get("Date"))
		if err != nil || date.Sub(time.Now()) != 2*time.Hour {
			t.Errorf("Date is %v, %v; want two hours from now", date, err)
		}
	})
}

func FuzzFaultRule(f *testing.F) {
	f.Add(`{"on":"publish","do":"drop","probability":0.5,"delay":"1s","for":"1m"}`)
	f.Add(`{"on":"rest","after":-1}`)
	f.Add(`[]`)
	d := &door{hub: hub.New(hub.Options{HostName: "hub1.azure-devices.net", Policies: []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}})}
	d.srv = New(d.hub, nil)
	f.Fuzz(func(t *testing.T, body string) {
		d.hub.ClearFaults()
		status := d.do("POST /_sim/faults", body).StatusCode
		listed := read(d.do("GET /_sim/faults", ""))
		if !json.Valid([]byte(listed)) || (status == 204) != (len(d.hub.Faults()) == 1) {
			t.Errorf("%d, then %s", status, listed)
		}
	})
}
