package restd

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

const testKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// door is a hub with policies of a known key, and its door.
type door struct {
	t   *testing.T
	hub *hub.Hub
	srv *Server
}

func newDoor(t *testing.T) *door {
	t.Helper()
	policies := []hub.Policy{
		{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey},
		{Name: "service", Permissions: hub.ServiceConnect, PrimaryKey: testKey},
		{Name: "registryRead", Permissions: hub.RegistryRead, PrimaryKey: testKey},
	}
	h := hub.New(hub.Options{HostName: "hub1.azure-devices.net", Policies: policies})
	return &door{t: t, hub: h, srv: New(h, nil)}
}

// sas is a token for a part of the hub: "hub1.azure-devices.net", or that and a path.
func sas(resource, policy string) string { return sasBy(testKey, resource, policy) }

// sasBy is the same, signed with a key of its own; without a policy the key is an identity's.
func sasBy(signer, resource, policy string) string {
	sr, se := url.QueryEscape(resource), fmt.Sprint(time.Now().Add(time.Hour).Unix())
	key, _ := base64.StdEncoding.DecodeString(signer)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sr + "\n" + se))
	token := "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se
	if policy != "" {
		token += "&skn=" + policy
	}
	return token
}

// request makes "METHOD /path" of the owner; headers come in pairs.
func request(line, body string, headers ...string) *http.Request {
	method, target, _ := strings.Cut(line, " ")
	if !strings.Contains(target, "?") {
		target += "?api-version=2021-04-12"
	}
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", sas("hub1.azure-devices.net", "iothubowner"))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (d *door) do(line, body string, headers ...string) *http.Response {
	w := httptest.NewRecorder()
	d.srv.ServeHTTP(w, request(line, body, headers...))
	return w.Result()
}

var (
	guid     = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	tracking = regexp.MustCompile(`[0-9A-F]{32}-G:0`)
)

// want holds an answer to a status and a body, in which TRACKING stands for a tracking id.
func (d *door) want(what string, r *http.Response, status int, body string) {
	d.t.Helper()
	got := tracking.ReplaceAllString(read(r), "TRACKING")
	if r.StatusCode != status || got != body {
		d.t.Errorf("%s: %d\n%s\nwant %d\n%s", what, r.StatusCode, got, status, body)
	}
	if !guid.MatchString(r.Header.Get("x-ms-request-id")) {
		d.t.Errorf("%s: x-ms-request-id %q is no GUID", what, r.Header.Get("x-ms-request-id"))
	}
	if ct := r.Header.Get("Content-Type"); body != "" && ct != "application/json; charset=utf-8" {
		d.t.Errorf("%s: Content-Type %q", what, ct)
	}
}

// refused holds an answer to an error's name and, in its plain form, its text.
func (d *door) refused(what string, r *http.Response, status int, name, text string) {
	d.t.Helper()
	body := read(r)
	if r.StatusCode != status || r.Header.Get("iothub-errorcode") != name {
		d.t.Errorf("%s: %d %s, want %d %s: %s", what, r.StatusCode, r.Header.Get("iothub-errorcode"), status, name, body)
		return
	}
	var e plainError
	if err := json.Unmarshal([]byte(body), &e); err != nil || !strings.HasPrefix(e.Message, "ErrorCode:"+name+";") || !strings.Contains(e.Message, text) {
		d.t.Errorf("%s: %s, want ErrorCode:%s;… with %q", what, body, name, text)
	}
}

func read(r *http.Response) string {
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

const (
	keys   = `"authentication":{"type":"sas","symmetricKey":{"primaryKey":"` + testKey + `","secondaryKey":"` + testKey + `"}}`
	shown  = `"authentication":{"symmetricKey":{"primaryKey":"` + testKey + `","secondaryKey":"` + testKey + `"},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"}`
	never  = `0001-01-01T00:00:00`
	device = `{"deviceId":"dev-a","generationId":"630822816000000000","etag":"MQ==","connectionState":"Disconnected","status":"enabled","statusReason":null,` +
		`"connectionStateUpdatedTime":"` + never + `","statusUpdatedTime":"` + never + `","lastActivityTime":"` + never + `","cloudToDeviceMessageCount":0,` + shown + `,"capabilities":{"iotEdge":false}}`
	module = `{"moduleId":"m","managedBy":"me","deviceId":"dev-a","generationId":"630822816000000001","etag":"Mg==","connectionState":"Disconnected",` +
		`"connectionStateUpdatedTime":"` + never + `","lastActivityTime":"` + never + `","cloudToDeviceMessageCount":0,` + shown + `}`
	twinTail = `"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"modelId":"",`
)

// TestBodies holds answers to their bytes. The bubble's clock starts at 2000-01-01T00:00:00Z.
func TestBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		r := d.do("PUT /devices/dev-a", `{"deviceId":"dev-a","status":"enabled","etag":"x","unknown":[1],`+keys+`}`)
		d.want("create", r, 200, device)
		if got := r.Header.Get("ETag"); got != "MQ==" {
			t.Errorf("ETag %q, want it without quotes", got)
		}
		d.want("create a module", d.do("PUT /devices/dev-a/modules/m", `{"ModuleId":"m","ManagedBy":"me",`+keys+`}`), 200, module)
		d.want("show", d.do("GET /devices/dev-a", ""), 200, device)
		d.want("show the module", d.do("GET /devices/dev-a/modules/m", ""), 200, module)
		d.want("list", d.do("GET /devices/?top=5&api-version=2020-09-30", ""), 200, "["+device+"]")
		d.want("names of parameters in another case", d.do("GET /devices?TOP=5&API-Version=2020-09-30", ""), 200, "["+device+"]")
		d.want("list modules", d.do("GET /devices/dev-a/modules", ""), 200, "["+module+"]")
		d.want("statistics", d.do("GET /statistics/devices", ""), 200, `{"totalDeviceCount":1,"enabledDeviceCount":1,"disabledDeviceCount":0}`)
		d.want("service statistics", d.do("GET /statistics/service", ""), 200, `{"connectedDeviceCount":0}`)

		fresh := `{"$metadata":{"$lastUpdated":"2000-01-01T00:00:00.0000000Z"},"$version":1}`
		r = d.do("GET /twins/dev-a", "")
		d.want("twin", r, 200, `{"deviceId":"dev-a","etag":"AAAAAAAAAAE=","deviceEtag":"MQ==","status":"enabled","statusUpdateTime":"`+never+`Z",`+
			`"connectionState":"Disconnected","lastActivityTime":"`+never+`Z","cloudToDeviceMessageCount":0,"authenticationType":"sas",`+twinTail+
			`"version":2,"properties":{"desired":`+fresh+`,"reported":`+fresh+`},"capabilities":{"iotEdge":false}}`)
		if got := r.Header.Get("ETag"); got != `"AAAAAAAAAAE="` {
			t.Errorf("ETag of a twin %q", got)
		}
		written := `{"$lastUpdated":"2000-01-01T00:00:00.0000000Z","$lastUpdatedVersion":2`
		d.want("patch a module's twin", d.do("PATCH /twins/dev-a/modules/m", `{"tags":{"a":"<1>"},"properties":{"desired":{"n":1.0,"x":null}}}`, "If-Match", `"AAAAAAAAAAE="`), 200,
			`{"deviceId":"dev-a","moduleId":"m","etag":"AAAAAAAAAAI=","deviceEtag":"Mg==","status":"enabled","statusUpdateTime":"`+never+`Z",`+
				`"connectionState":"Disconnected","lastActivityTime":"`+never+`Z","cloudToDeviceMessageCount":0,"authenticationType":"sas",`+twinTail+
				`"version":3,"tags":{"a":"<1>"},"properties":{"desired":{"$metadata":`+written+`,"n":`+written+`}},"$version":2,"n":1.0},"reported":`+fresh+`}}`)
		d.want("delete the module", d.do("DELETE /devices/dev-a/modules/m", "", "If-Match", "*"), 204, "")
		d.want("delete", d.do("DELETE /devices/dev-a", "", "If-Match", `"MQ=="`), 204, "")
		d.want("list nothing", d.do("GET /devices", ""), 200, "[]")
	})
}

// TestErrorBodies holds the three forms of errors to their bytes.
func TestErrorBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		const at = `TRACKING-TimeStamp:01/01/2000 00:00:00`
		d.want("plain", d.do("GET /devices/ghost", ""), 404,
			`{"Message":"ErrorCode:DeviceNotFound;ghost","ExceptionMessage":"Tracking ID:`+at+`"}`)
		d.want("unauthorized", d.do("GET /devices/ghost", "", "Authorization", "x"), 401,
			`{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized","ExceptionMessage":"Tracking ID:`+at+`"}`)
		d.do("PUT /devices/d", "{}")
		d.do("PUT /devices/d/modules/m", "{}")
		d.want("numbered", d.do("PUT /devices/d/modules/m", "{}"), 409,
			`{"errorCode":409301,"trackingId":"`+at+`","message":"A module with ID 'm' is already registered on device 'd'.","timestampUtc":"2000-01-01T00:00:00.0000000Z"}`)
		d.want("nested", d.do("POST /twins/d/modules/m/methods", `{"methodName":"x","connectTimeoutInSeconds":7}`), 404,
			`{"Message":"{\"errorCode\":404103,\"trackingId\":\"TRACKING-TimeStamp:01/01/2000 00:00:07\",`+
				`\"message\":\"d/m is not connected, or has not subscribed to direct methods\",`+
				`\"info\":{\"timeout\":\"00:00:07\"},\"timestampUtc\":\"2000-01-01T00:00:07.0000000Z\"}","ExceptionMessage":""}`)
		d.refused("a method of nobody", d.do("POST /twins/ghost/methods", `{"methodName":"x"}`), 404, "DeviceNotFound", "ghost")
	})
}

func TestConditions(t *testing.T) {
	d := newDoor(t)
	d.refused("update nothing", d.do("PUT /devices/d", "{}", "If-Match", "*"), 404, "DeviceNotFound", "d")
	etag := d.do("PUT /devices/d", "{}").Header.Get("ETag")
	d.refused("create again", d.do("PUT /devices/d", `{"etag":"`+etag+`"}`), 409, "DeviceAlreadyExists", "d")
	d.refused("delete without If-Match", d.do("DELETE /devices/d", ""), 412, "PreconditionFailed", "missing")
	for _, c := range []struct {
		ifMatch func(string) string
	}{
		{func(e string) string { return e }},
		{func(e string) string { return `"` + e + `"` }},
		{func(string) string { return `*` }},
		{func(string) string { return `"*"` }},
	} {
		r := d.do("PUT /devices/d", "{}", "If-Match", c.ifMatch(etag))
		if r.StatusCode != 200 {
			t.Fatalf("If-Match %s: %d %s", c.ifMatch(etag), r.StatusCode, read(r))
		}
		d.refused("stale", d.do("PUT /devices/d", "{}", "If-Match", `"`+etag+`"`), 412, "PreconditionFailed", "existingVersion:")
		etag = r.Header.Get("ETag")
		d.refused("twin, stale", d.do("PATCH /twins/d", "{}", "If-Match", `"AAAAAAAAAAk="`), 412, "PreconditionFailed", "existingVersion:1 newVersion:9")
		if r := d.do("PATCH /twins/d", "{}", "If-Match", c.ifMatch("AAAAAAAAAAE=")); r.StatusCode != 200 {
			t.Errorf("twin, If-Match %s: %d %s", c.ifMatch("AAAAAAAAAAE="), r.StatusCode, read(r))
		}
	}
	d.refused("replace, null", d.do("PUT /twins/d", `{"tags":{"a":null}}`), 400, "ArgumentInvalid", "tags.a")
}

func TestRefusedRequests(t *testing.T) {
	d := newDoor(t)
	d.do("PUT /devices/d", "{}")
	host := "hub1.azure-devices.net"
	for _, c := range []struct {
		line, body, token string
		status            int
		name, text        string
	}{
		{"GET /devices?top=1", "", "", 400, "InvalidProtocolVersion", "2021-04-12"},
		{"GET /devices?api-version=latest", "", "", 400, "InvalidProtocolVersion", ""},
		{"GET /nothing", "", "", 404, "GenericNotFound", "/nothing"},
		{"GET /", "", "", 404, "GenericNotFound", ""},
		{"GET /devices/d/modules/m/more", "", "", 404, "GenericNotFound", ""},
		{"GET /devices//modules", "", "", 404, "GenericNotFound", ""},
		{"POST /devices/d", "", "", 405, "GenericMethodNotAllowed", ""},
		{"PATCH /devices/d", "", "", 405, "GenericMethodNotAllowed", ""},
		{"PUT /devices/d", `{"deviceId":"D"}`, "", 400, "ArgumentInvalid", "deviceId"},
		{"PUT /devices/d/modules/m", `{"moduleId":"M"}`, "", 400, "ArgumentInvalid", "moduleId"},
		{"PUT /devices/d/modules/$edgeAgent", `{}`, "", 400, "ArgumentInvalid", "$"},
		{"PUT /devices/a%20b", `{}`, "", 400, "ArgumentInvalid", "device id"},
		{"PUT /devices/e", `{"deviceId":`, "", 400, "IotHubFormatError", "JSON"},
		{"PUT /devices/e", `{"deviceId":7}`, "", 400, "IotHubFormatError", ""},
		{"PUT /devices/e", "{\"deviceId\":\"\xff\"}", "", 400, "IotHubFormatError", "UTF-8"},
		{"PUT /devices/e", strings.Repeat(" ", maxBody+1), "", 413, "GenericRequestEntityTooLarge", "1 MiB"},
		{"PATCH /twins/d", `[]`, "", 400, "ArgumentInvalid", "object"},
		{"PATCH /twins/d", `{"tags":{"a.b":1}}`, "", 400, "ArgumentInvalid", `tags: key`},
		{"GET /devices/ghost/modules", "", "", 401, "IotHubUnauthorizedAccess", "Unauthorized"},
		{"GET /devices/d/modules/ghost", "", "", 404, "ModuleNotFound", "d/ghost"},
		{"GET /twins/d/modules/ghost", "", "", 404, "DeviceNotFound", "d"},

		{"GET /twins/d", "", sas(host, "registryRead"), 401, "IotHubUnauthorizedAccess", ""},
		{"PUT /devices/d", "{}", sas(host, "registryRead"), 401, "IotHubUnauthorizedAccess", ""},
		{"GET /devices/d", "", sas(host, "service"), 401, "IotHubUnauthorizedAccess", ""},
		{"GET /_sim/events", "", sas(host, "service"), 401, "IotHubUnauthorizedAccess", ""},
		{"DELETE /_sim/faults", "", sas(host, "registryRead"), 401, "IotHubUnauthorizedAccess", ""},
		{"GET /devices/d", "", sas(host+"/devices/e", "iothubowner"), 401, "IotHubUnauthorizedAccess", ""},
		{"GET /devices", "", sas(host+"/devices/d", "iothubowner"), 401, "IotHubUnauthorizedAccess", ""},
		{"GET /devices/d", "", sas("hub2.azure-devices.net", "iothubowner"), 401, "IotHubUnauthorizedAccess", ""},
	} {
		headers := []string{}
		if c.token != "" {
			headers = []string{"Authorization", c.token}
		}
		d.refused(c.line, d.do(c.line, c.body, headers...), c.status, c.name, c.text)
	}
	for _, c := range []struct{ line, token string }{
		{"GET /twins/d", sas(host, "service")},
		{"GET /devices/d", sas(host, "registryRead")},
		{"GET /devices/d/modules", sas(host+"/devices/d", "iothubowner")},
	} {
		if r := d.do(c.line, "", "Authorization", c.token); r.StatusCode != 200 {
			t.Errorf("%s: %d %s", c.line, r.StatusCode, read(r))
		}
	}
}

// TestModuleLimit: the 21st module identity of a device is refused, and the answer says how to have more.
func TestModuleLimit(t *testing.T) {
	d := newDoor(t)
	d.do("PUT /devices/d", "{}")
	for i := range 20 {
		if r := d.do(fmt.Sprint("PUT /devices/d/modules/m", i), "{}"); r.StatusCode != 200 {
			t.Fatalf("module %d: %d %s", i+1, r.StatusCode, read(r))
		}
	}
	d.refused("the 21st", d.do("PUT /devices/d/modules/m20", "{}"), 413, "TooManyModulesOnDevice", "--module-limit")
}

// TestIDsInPaths goes through a real connection: what a client escapes, and what it doesn't.
func TestIDsInPaths(t *testing.T) {
	d := newDoor(t)
	web := httptest.NewServer(d.srv)
	defer web.Close()
	ask := func(method, path string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, web.URL+path+"?api-version=2021-04-12", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", sas("hub1.azure-devices.net", "iothubowner"))
		res, err := web.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, read(res)
	}
	ids := []string{"plain", "A", "a", "a%2Fb", "c#d?e", "$dev", "100%", "%41", "a+b=@;'", ".", "..", "(x)!*,:_-", "devices", "modules"}
	for _, id := range ids {
		device := "/devices/" + url.PathEscape(id)
		for _, want := range []hub.ID{{Device: id}, {Device: id, Module: "m" + id}} {
			path := device
			if want.Module != "" {
				path += "/modules/" + url.PathEscape(want.Module)
			}
			if status, body := ask("PUT", path); status != 200 {
				t.Errorf("PUT %s: %d %s", path, status, body)
			}
			// Some clients end a path with a slash; Azure IoT Explorer escapes the slashes in it.
			for _, spelled := range []string{path, path + "/", "/" + strings.ReplaceAll(path[1:], "/", "%2F")} {
				var got struct{ DeviceID, ModuleID string }
				status, body := ask("GET", spelled)
				if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || (hub.ID{Device: got.DeviceID, Module: got.ModuleID}) != want {
					t.Errorf("GET %s: %d %s, want %s", spelled, status, body, want)
				}
			}
		}
	}
	if n := len(d.hub.Devices(0)); n != len(ids) {
		t.Errorf("%d devices, want %d", n, len(ids))
	}
}
