package restd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// identities are device "d" and its module "m", with the known key.
func (d *door) identities() {
	d.t.Helper()
	for _, line := range []string{"PUT /devices/d", "PUT /devices/d/modules/m"} {
		if r := d.do(line, "{"+keys+"}"); r.StatusCode != 200 {
			d.t.Fatalf("%s: %d %s", line, r.StatusCode, read(r))
		}
	}
}

// as is the credential of an identity's own key.
func as(path string) []string {
	return []string{"Authorization", strings.TrimSuffix(sas("hub1.azure-devices.net/"+path, ""), "&skn=")}
}

func (d *door) status(what string, r *http.Response, status int) *http.Response {
	d.t.Helper()
	if r.StatusCode != status {
		d.t.Errorf("%s: %d %s, want %d", what, r.StatusCode, read(r), status)
	}
	return r
}

// raw is a header by its exact spelling.
func raw(r *http.Response, name string) string {
	if v := r.Header[name]; len(v) == 1 {
		return v[0]
	}
	return "(none)"
}

func TestCloudToDeviceByHTTPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.identities()
		for _, path := range []string{"devices/d", "devices/d/modules/m"} {
			d.status("nothing there", d.do("GET /"+path+"/messages/deviceBound", "", as(path)...), 204)
			d.want("send", d.do("POST /"+path+"/messages/deviceBound", "hello", "iothub-app-Color", "red", "iothub-messageid", "m1",
				"iothub-ack", "Full", "iothub-contenttype", "text/plain", "Content-Encoding", "utf-8", "iothub-expiry", "2000-01-01T00:10:00Z"), 204, "")
			r := d.status("receive", d.do("GET /"+path+"/messages/devicebound", "", as(path)...), 200)
			for name, want := range map[string]string{
				"iothub-messageid": "m1", "iothub-correlationid": "", "iothub-to": "/" + path + "/messages/devicebound", "iothub-ack": "full",
				"iothub-enqueuedtime": headerTime(time.Now()), "iothub-deliverycount": "0", "iothub-expiry": "2000-01-01T00:10:00Z",
				"Allow": "(none)", "ContentType": "text/plain", "iothub-contenttype": "text/plain", "iothub-app-color": "red", "ContentEncoding": "(none)",
			} {
				if got := raw(r, name); got != want {
					t.Errorf("%s: header %s is %q, want %q", path, name, got, want)
				}
			}
			tag := r.Header.Get("ETag")
			if body := read(r); body != "hello" || len(tag) != 38 || tag[0] != '"' {
				t.Errorf("body %q, ETag %s", body, tag)
			}
			lock := "/" + path + "/messages/devicebound/" + strings.Trim(tag, `"`)
			d.status("abandon", d.do("POST "+lock+"/abandon", "", as(path)...), 204)
			d.refused("abandoned already", d.do("DELETE "+lock, "", as(path)...), 412, "DeviceMessageLockLost", "")
			r = d.status("receive again", d.do("GET /"+path+"/messages/devicebound", "", as(path)...), 200)
			if got := raw(r, "iothub-deliverycount"); got != "1" {
				t.Errorf("delivery count %s, want 1", got)
			}
			lock = "/" + path + "/messages/devicebound/" + strings.Trim(r.Header.Get("ETag"), `"`)
			d.status("reject", d.do("DELETE "+lock+"?api-version=2016-11-14&reject", "", as(path)...), 204)
			d.status("send", d.do("POST /"+path+"/messages/devicebound", "2"), 204)
			r = d.status("receive the second", d.do("GET /"+path+"/messages/devicebound", "", as(path)...), 200)
			lock = "/" + path + "/messages/devicebound/" + strings.Trim(r.Header.Get("ETag"), `"`)
			d.status("complete", d.do("DELETE "+lock, "", as(path)...), 204)
			d.status("empty", d.do("GET /"+path+"/messages/devicebound", "", as(path)...), 204)
			time.Sleep(20 * time.Second)
		}
	})
}

func TestCloudToDeviceRefusedByHTTPS(t *testing.T) {
	d := newDoor(t)
	d.identities()
	const to = "/devices/d/messages/devicebound"
	d.refused("unknown device", d.do("POST /devices/x/messages/devicebound", "1"), 404, "DeviceNotFound", "x")
	d.refused("expiry", d.do("POST "+to, "1", "iothub-expiry", "tomorrow"), 400, "ArgumentInvalid", "iothub-expiry")
	d.refused("ack", d.do("POST "+to, "1", "iothub-ack", "maybe"), 400, "ArgumentInvalid", "iothub-ack")
	d.refused("too large", d.do("POST "+to, strings.Repeat("x", 65537)), 413, "MessageTooLarge", "")
	d.refused("registry's policy", d.do("POST "+to, "1", "Authorization", sas("hub1.azure-devices.net", "registryRead")), 401, "IotHubUnauthorizedAccess", "")
	d.refused("the device's own key", d.do("POST "+to, "1", as("devices/d")...), 401, "IotHubUnauthorizedAccess", "")
	for range 50 {
		d.status("send", d.do("POST "+to, "1"), 204)
	}
	d.refused("51st", d.do("POST "+to, "1"), 403, "DeviceMaximumQueueDepthExceeded", "")
	d.want("purge", d.do("DELETE /devices/d/commands", ""), 200, `{"totalMessagesPurged":50,"deviceId":"d","moduleId":null}`)
	d.want("purge a module", d.do("DELETE /devices/d/modules/m/commands", ""), 200, `{"totalMessagesPurged":0,"deviceId":"d","moduleId":"m"}`)
	d.refused("purge unknown", d.do("DELETE /devices/x/commands", ""), 404, "DeviceNotFound", "x")
}

func TestFeedbackByHTTPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.identities()
		const at = "/messages/serviceBound/feedback"
		d.status("none", d.do("GET "+at, ""), 204)
		d.status("send", d.do("POST /devices/d/messages/devicebound", "1", "iothub-ack", "negative", "iothub-messageid", "m1"), 204)
		d.status("purge", d.do("DELETE /devices/d/commands", ""), 200)
		r := d.status("receive", d.do("GET "+at, ""), 200)
		var records []hub.FeedbackRecord
		if err := json.Unmarshal([]byte(read(r)), &records); err != nil || len(records) != 1 || records[0].StatusCode != "Purged" ||
			records[0].OriginalMessageID != "m1" || r.Header.Get("Content-Type") != "application/vnd.microsoft.iothub.feedback.json" {
			t.Errorf("%+v, %v, %v", records, err, r.Header)
		}
		d.status("locked", d.do("GET "+at, ""), 204)
		lock := strings.Trim(r.Header.Get("ETag"), `"`)
		d.status("abandon", d.do("POST "+at+"/"+lock+"/abandon", ""), 204)
		r = d.status("receive again", d.do("GET "+at, ""), 200)
		d.status("complete, the token quoted", d.do("DELETE "+at+"/"+strings.ReplaceAll(r.Header.Get("ETag"), `"`, "%22"), ""), 204)
		d.refused("twice", d.do("DELETE "+at+"/"+lock, ""), 412, "DeviceMessageLockLost", "")
		d.refused("policy", d.do("GET "+at, "", "Authorization", sas("hub1.azure-devices.net", "registryRead")), 401, "IotHubUnauthorizedAccess", "")
	})
}

// watched collects the events of a kind from now on; call what it answers in a bubble, when all is done.
func watched(t *testing.T, h *hub.Hub, kind string) func() []hub.Event {
	stream := h.Watch(t.Context())
	return func() (all []hub.Event) {
		synctest.Wait()
		for len(stream) > 0 {
			if e := <-stream; e.Kind == kind {
				all = append(all, e)
			}
		}
		return all
	}
}

// Azure IoT Explorer escapes the id in the path of a cloud-to-device message, and then the whole path.
func TestC2DEscapedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.status("device", d.do("PUT /devices/a%23b", "{"+keys+"}"), 200)
		d.want("twice", d.do("POST /devices%2Fa%2523b%2Fmessages%2FdeviceBound", "1"), 204, "")
		d.want("once", d.do("POST /devices%2Fa%23b%2Fmessages%2FdeviceBound", "2"), 204, "")
		d.refused("twice, by an ordinary path", d.do("POST /devices/a%2523b/messages/devicebound", "3"), 404, "DeviceNotFound", "a%23b")
		d.refused("neither", d.do("POST /devices%2Fa%2524b%2Fmessages%2FdeviceBound", "3"), 404, "DeviceNotFound", "a$b")
		d.refused("a token for the other", d.do("POST /devices%2Fa%2523b%2Fmessages%2FdeviceBound", "3",
			"Authorization", sas("hub1.azure-devices.net/devices/a%23b", "service")), 401, "IotHubUnauthorizedAccess", "")
		if n := mustDevice(t, d.hub, "a#b").CloudToDeviceMessageCount; n != 2 {
			t.Errorf("%d messages", n)
		}
		// A device that is called so is meant.
		d.status("device", d.do("PUT /devices/a%2523b", "{"+keys+"}"), 200)
		d.want("the id as it is", d.do("POST /devices%2Fa%2523b%2Fmessages%2FdeviceBound", "4"), 204, "")
		if n := mustDevice(t, d.hub, "a%23b").CloudToDeviceMessageCount; n != 1 {
			t.Errorf("%d messages for the other", n)
		}
	})
}

func mustDevice(t *testing.T, h *hub.Hub, id string) hub.Device {
	t.Helper()
	d, err := h.Device(id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTelemetryByHTTPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.identities()
		events := watched(t, d.hub, "telemetry")
		d.want("device", d.do("POST /devices/d/messages/events", `{"t":1}`, append(as("devices/d"),
			"iothub-messageid", "m1", "iothub-contenttype", "application/json", "iothub-contentencoding", "utf-8", "dt-subject", "c",
			"iothub-app-a", "1", "iothub-connection-device-id", "spoofed")...), 204, "")
		d.want("module, with the slash that Java doubles", d.do("POST /devices/d/modules/m//messages/events?api-version=2020-09-30", "\xff",
			as("devices/d/modules/m")...), 204, "")
		batch := `[{"body":"MQ==","properties":{"iothub-app-Case":"kept","iothub-messageid":"b1","n":5}},{"body":"two","base64Encoded":false},{"body":"Mw==","base64Encoded":true}]`
		d.want("batch", d.do("POST /devices/d/messages/events", batch, append(as("devices/d"), "Content-Type", "application/vnd.microsoft.iothub.json; charset=utf-8")...), 204, "")
		var got []string
		for _, e := range events() {
			scope := "device"
			if e.ModuleID != "" {
				scope = "module"
			}
			for stamp, want := range map[string]string{
				"iothub-connection-device-id": e.DeviceID, "iothub-connection-module-id": e.ModuleID,
				"iothub-connection-auth-generation-id": d.hub.Generation(hub.ID{Device: e.DeviceID, Module: e.ModuleID}),
				"iothub-connection-auth-method":        `{"scope":"` + scope + `","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}`,
				"iothub-enqueuedtime":                  "2000-01-01T00:00:00.0000000Z", "iothub-message-source": "Telemetry",
			} {
				if e.System[stamp] != want {
					t.Errorf("%s is %q, want %q", stamp, e.System[stamp], want)
				}
				delete(e.System, stamp)
			}
			got = append(got, fmt.Sprintf("%s/%s %s%s %v %v", e.DeviceID, e.ModuleID, e.Body, e.Base64, e.Properties, e.System))
		}
		want := []string{
			`d/ {"t":1} map[a:1] map[content-encoding:utf-8 content-type:application/json dt-subject:c message-id:m1]`,
			"d/m \xff map[] map[]",
			`d/ 1 map[Case:kept n:5] map[message-id:b1]`,
			`d/ two map[] map[]`,
			`d/ 3 map[] map[]`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

func TestTelemetryRefusedByHTTPS(t *testing.T) {
	d := newDoor(t)
	d.identities()
	const to = "POST /devices/d/messages/events"
	own := as("devices/d")
	batch := append([]string{"Content-Type", "application/vnd.microsoft.iothub.json"}, own...)
	d.refused("no credential", d.do(to, "1", "Authorization", ""), 401, "IotHubUnauthorizedAccess", "Unauthorized")
	d.refused("another's", d.do(to, "1", as("devices/d/modules/m")...), 401, "IotHubUnauthorizedAccess", "Unauthorized")
	d.refused("unknown device", d.do("POST /devices/x/messages/events", "1", as("devices/x")...), 401, "IotHubUnauthorizedAccess", "Unauthorized")
	d.refused("a policy without DeviceConnect", d.do(to, "1", "Authorization", sas("hub1.azure-devices.net", "service")), 401, "IotHubUnauthorizedAccess", "")
	d.status("the owner may", d.do(to, "1"), 204)
	d.refused("too large", d.do(to, strings.Repeat("x", 256<<10+1), own...), 413, "MessageTooLarge", "")
	d.status("as large as can be", d.do(to, strings.Repeat("x", 256<<10), own...), 204)
	d.refused("no batch", d.do(to, `{"body":"MQ=="}`, batch...), 400, "IotHubFormatError", "")
	d.refused("no base64", d.do(to, `[{"body":"hello"}]`, batch...), 400, "ArgumentInvalid", "message 0")
	half := `{"base64Encoded":false,"body":"` + strings.Repeat("x", 140<<10) + `"}`
	d.refused("batch too large", d.do(to, "["+half+","+half+"]", batch...), 413, "MessageTooLarge", "")
	d.refused("no lock", d.do("DELETE /devices/d/messages/devicebound/x", "", own...), 412, "DeviceMessageLockLost", "")
	d.refused("no verb", d.do("PUT /devices/d/messages/events", "1", own...), 405, "GenericMethodNotAllowed", "")
}

func FuzzParseBatch(f *testing.F) {
	f.Add([]byte(`[{"body":"MQ==","base64Encoded":true,"properties":{"iothub-app-k":"v","n":5,"o":{"a":null}}}]`))
	f.Add([]byte(`[{"body":"two","base64Encoded":false}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		batch, err := parseBatch(text)
		size := 0
		for _, m := range batch {
			size += len(m.Body)
		}
		if err == nil && size > maxBatch {
			t.Errorf("%d bytes", size)
		}
	})
}

// TestStrangersLeaveNothing holds that requests without a credential, ten thousand, leave no memory behind.
func TestStrangersLeaveNothing(t *testing.T) {
	d := newDoor(t)
	d.identities()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	names := strings.NewReplacer("{device}", "d", "{module}", "m", "{lock}", "l", "{correlation}", "c", "{job}", "j", "{id}", "i")
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			if i%7 == 0 { // what there is not is counted, and not without end
				if r := d.do(fmt.Sprintf("GET /nothing-%d", i), ""); r.StatusCode != 404 {
					t.Fatalf("nothing: %d", r.StatusCode)
				}
			}
			rt := routes[i%len(routes)]
			credential := []string{"", "SharedAccessSignature sr=x&sig=eA==&se=9999999999", "Bearer x", strings.Repeat("x", 10000), sas(fmt.Sprint("hub", i), "iothubowner")}[i%5]
			path := names.Replace(rt.path)
			if i%3 == 0 {
				path = strings.ReplaceAll(path, "/d/", fmt.Sprintf("/stranger-%d/", i))
			}
			if r := d.do(rt.method+" /"+path, `{"x":`, "Authorization", credential, "iothub-app-x", "y"); r.StatusCode/100 != 4 || r.StatusCode == 404 || r.StatusCode == 405 {
				t.Fatalf("%s %s: %d", rt.method, path, r.StatusCode)
			}
		}
	}
	flood(0, 500)
	before := heap()
	flood(500, 10_000)
	after := heap()
	t.Logf("heap %d KiB before, %d KiB after", before>>10, after>>10)
	if after > before+512<<10 {
		t.Errorf("the heap has grown from %d to %d bytes", before, after)
	}
}
