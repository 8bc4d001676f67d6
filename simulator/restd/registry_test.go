package restd

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twinbay/twinbay/simulator/hub"
)

// TestBulk holds the answers of bulk operations to their bytes, and to the two headers that clients look at.
func TestBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		good := `[{"id":"a","importMode":"create","status":"enabled","authentication":{"symmetricKey":{"primaryKey":"","secondaryKey":""}}},` +
			`{"id":"a","moduleId":"m","etag":"*","importMode":"Create","unknown":1},{"Id":"b","ImportMode":"create","tags":{"n":1.0},"properties":null}]`
		r := d.do("POST /devices", good)
		if h := r.Header.Get("iothub-errorcode") + r.Header.Get("IotHubErrorCode"); h != "" {
			t.Errorf("a success has the error header %s", h)
		}
		d.want("all good", r, 200, `{"isSuccessful":true,"errors":[],"warnings":[]}`)
		r = d.do("POST /devices/", `[{"id":"b","importMode":"deleteIfMatchEtag","etag":"*"},{"id":"a","moduleId":"m","importMode":"create"},{"id":"ghost","importMode":"update"}]`)
		for _, name := range []string{"iothub-errorcode", "IotHubErrorCode"} {
			if got := r.Header.Get(name); got != "BulkRegistryOperationFailure" {
				t.Errorf("%s: %q", name, got)
			}
		}
		d.want("some refused", r, 400, `{"isSuccessful":false,"errors":[`+
			`{"deviceId":"a","moduleId":"m","errorCode":"ModuleAlreadyExistsOnDevice","errorStatus":"A module with ID 'm' is already registered on device 'a'.","operation":"create"},`+
			`{"deviceId":"ghost","moduleId":null,"errorCode":"DeviceNotFound","errorStatus":"ghost","operation":"update"}],"warnings":[]}`)
		d.refused("101", d.do("POST /devices", "["+strings.Repeat(`{"id":"x"},`, 100)+`{"id":"x"}]`), 413, "TooManyDevices", "100")
		d.refused("twice", d.do("POST /devices", `[{"id":"x"},{"id":"x"}]`), 400, "DeviceDefinedMultipleTimes", "x")
		d.refused("none", d.do("POST /devices", `[]`), 400, "ArgumentInvalid", "")
		d.refused("no array", d.do("POST /devices", `{"id":"x"}`), 400, "IotHubFormatError", "JSON")
		d.refused("read only", d.do("POST /devices", `[{"id":"x"}]`, "Authorization", sas("hub1.azure-devices.net", "registryRead")), 401, "IotHubUnauthorizedAccess", "")
	})
}

// fuzzDoor is a door for fuzzing: a device with a module, and the keys of its policies known.
func fuzzDoor(f *testing.F) *Server {
	f.Helper()
	policies := []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}
	h := hub.New(hub.Options{HostName: "hub1.azure-devices.net", Policies: policies})
	if _, err := h.PutDevice(hub.Device{DeviceID: "d"}, ""); err != nil {
		f.Fatal(err)
	}
	if _, err := h.PutModule(hub.Module{DeviceID: "d", ModuleID: "m"}, ""); err != nil {
		f.Fatal(err)
	}
	return New(h, nil)
}

// check sends a request through the door, and holds its answer to what any answer has to be.
func check(t *testing.T, s *Server, line, body string, headers ...string) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, request(line, body, headers...))
	status, name := w.Code, w.Header().Get("iothub-errorcode")
	switch {
	case status == 204 && w.Body.Len() > 0, status != 204 && !json.Valid(w.Body.Bytes()):
		t.Errorf("%s: %d with the body %q", line, status, w.Body)
	case status != 200 && status != 204 && (status < 400 || status > 499 || name == ""):
		t.Errorf("%s: %d %q: %s", line, status, name, w.Body)
	case status < 300 && name != "":
		t.Errorf("%s: %d is a success and an error: %s", line, status, name)
	}
}

// FuzzIdentityBodies sends any body to the routes that read one, through the whole door.
func FuzzIdentityBodies(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"deviceId":"d","status":"disabled","statusReason":null,` + keys + `}`, `[{"id":"d","importMode":"delete"}]`,
		`[{"id":"x","tags":{"a":1},"properties":{"desired":{"$metadata":{"$lastUpdated":7}},"reported":{}},"eTag":"*"}]`,
		`{"tags":{"a":null},"properties":{"desired":{"n":1.0,"o":{"p":[1,{"q":"r"}]}},"reported":{}}}`,
		`{"capabilities":{"iotEdge":true},"parentScopes":["ms-azure-iot-edge://x-1"]}`,
		`{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"AB"}}}`, `null`, `"`, "\xff", `{"tags":1}`,
	} {
		for _, match := range []string{"", "*", `"AAAAAAAAAAE="`} {
			f.Add(seed, match)
		}
	}
	s := fuzzDoor(f)
	f.Fuzz(func(t *testing.T, body, ifMatch string) {
		for _, line := range []string{
			"PUT /devices/d", "PUT /devices/d/modules/m", "POST /devices", "PATCH /twins/d", "PUT /twins/d/modules/m",
			"GET /twins/d", "GET /twins/d/modules/m", "GET /devices",
		} {
			check(t, s, line, body, "If-Match", ifMatch)
		}
	})
}
