package restd

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/hub"
)

const hubHost = "hub1.azure-devices.net"

// fill puts ids into a route's path.
func fill(path string, id hub.ID) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		switch {
		case p == "{device}":
			parts[i] = url.PathEscape(id.Device)
		case p == "{module}":
			parts[i] = url.PathEscape(id.Module)
		case strings.HasPrefix(p, "{"):
			parts[i] = "x"
		}
	}
	return "/" + strings.Join(parts, "/")
}

// TestDepartments: payment, food safety and service share a machine. Each has a token for its component's twin, by which
// it reads and writes that twin and calls the component's direct methods, and gets nothing else from any route there is.
func TestDepartments(t *testing.T) {
	d := newDoor(t)
	d.do("PUT /devices/vending-1", "{}")
	d.do("PUT /devices/vending-10", "{}")
	departments := map[string]string{"payment": "coins", "food safety": "climate", "service": "door"}
	ids := []hub.ID{{Device: "vending-1"}, {Device: "vending-10"}}
	for _, module := range append([]string{"coins2", "coin"}, "coins", "climate", "door") {
		for _, machine := range []string{"vending-1", "vending-10"} {
			d.do("PUT /devices/"+machine+"/modules/"+module, "{}")
			ids = append(ids, hub.ID{Device: machine, Module: module})
		}
	}
	for department, module := range departments {
		own := "/twins/vending-1/modules/" + module
		token := sas(hubHost+own, "service")
		may := map[string]bool{"GET " + own: true, "PATCH " + own: true, "PUT " + own: true, "POST " + own + "/methods": true}
		reached := map[string]bool{}
		for _, rt := range routes {
			for _, id := range ids {
				if id.Module == "" && strings.Contains(rt.path, "{module}") {
					continue
				}
				line := rt.method + " " + fill(rt.path, id)
				r := d.do(line, "{}", "Authorization", token, "If-Match", "*")
				switch {
				case may[line]:
					reached[line] = true
					if r.StatusCode == 401 {
						t.Errorf("%s: %s: %s", department, line, read(r))
					}
				case r.StatusCode != 401 || rt.want != 0 && r.Header.Get("iothub-errorcode") != "IotHubUnauthorizedAccess":
					// A route of the identity's own refuses a service's token in its own words.
					if rt.want != 0 || r.StatusCode/100 == 2 {
						t.Errorf("%s: %s: %d %s", department, line, r.StatusCode, read(r))
					}
				}
			}
		}
		for _, line := range []string{"GET /", "GET /nothing", "PUT /jobs/v2/j", "POST /devices/query", "DELETE " + own, "GET " + own + "/methods", "GET /twins"} {
			if r := d.do(line, "{}", "Authorization", token); r.StatusCode != 401 && !strings.Contains(line, own) {
				t.Errorf("%s: %s: %d %s", department, line, r.StatusCode, read(r))
			}
		}
		if len(reached) != len(may) {
			t.Errorf("%s: reached %v of %v", department, reached, may)
		}
		r := d.do("PATCH "+own, fmt.Sprintf(`{"properties":{"desired":{"set_by":%q}}}`, department), "Authorization", token)
		var twin struct {
			Properties struct {
				Desired struct {
					By string `json:"set_by"`
				}
			}
		}
		if err := json.Unmarshal([]byte(read(r)), &twin); err != nil || twin.Properties.Desired.By != department {
			t.Errorf("%s: %d %+v %v", department, r.StatusCode, twin, err)
		}
	}
	for _, id := range ids {
		if twin, err := d.hub.Twin(id); err != nil {
			t.Error(err)
		} else if by, there := twin.Properties.Desired["set_by"]; there && departments[fmt.Sprint(by)] != id.Module {
			t.Errorf("%v has written the twin of %s", by, id)
		}
	}
}

// TestTokenScopes: a token covers what its resource is a prefix of, segment by segment.
func TestTokenScopes(t *testing.T) {
	d := newDoor(t)
	for _, id := range []string{"pi-01", "pi-010", "a%2Fb"} {
		d.do("PUT /devices/"+url.PathEscape(id), "{}")
		d.do("PUT /devices/"+url.PathEscape(id)+"/modules/m", "{}")
	}
	for _, c := range []struct {
		resource string // as it stands in the token before it is escaped once
		line     string
		ok       bool
	}{
		{hubHost, "GET /twins/pi-01/modules/m", true},
		{hubHost + "/", "GET /twins/pi-01/modules/m", true},
		{"HUB1.Azure-Devices.Net", "GET /twins/pi-01/modules/m", true},
		{hubHost + ":8443", "GET /twins/pi-01/modules/m", true},
		{hubHost + "/twins", "GET /twins/pi-01/modules/m", true},
		{hubHost + "/twins/pi-01", "GET /twins/pi-01/modules/m", true},
		{hubHost + "/TWINS/PI-01/", "GET /twins/pi-01/modules/m", true}, // "lower case URL-encoding of the lower case resource URI"
		{hubHost + "/twins/pi-01/modules/m", "GET /twins/pi-01/modules/m", true},
		{hubHost + "/twins/pi-01/modules/m", "GET /twins/pi-01/modules/m/", true},
		{hubHost + "/twins/pi-01/modules/m", "GET /twins%2Fpi-01%2Fmodules%2Fm", true},
		{hubHost + "/twins/pi-01/modules/m/methods", "GET /twins/pi-01/modules/m", false},
		{hubHost + "/twins/pi-01/modules/m/methods", "POST /twins/pi-01/modules/m/methods", true},
		{hubHost + "/twins/pi-01/modules", "GET /twins/pi-01", false},
		{hubHost + "/twins/pi-0", "GET /twins/pi-01", false},
		{hubHost + "/twins/pi-01", "GET /twins/pi-010", false},
		{hubHost + "/devices", "GET /twins/pi-01", false},
		{hubHost + "/devices/pi-01", "GET /twins/pi-01", false},
		{hubHost + "/twins/a%2Fb", "GET /twins/a%252Fb", true},
		{hubHost + "/twins/a%2Fb", "GET /twins/a%252Fb/modules/m", true},
		{hubHost + "/twins/pi-01%2Fmodules%2Fm", "GET /twins/pi-01/modules/m", false},
		{hubHost + "/twins//pi-01", "GET /twins/pi-01", false},
		{hubHost + "/twins/pi-01/../pi-010", "GET /twins/pi-010", false},
		{"hub2.azure-devices.net/twins/pi-01", "GET /twins/pi-01", false},
		{"/twins/pi-01", "GET /twins/pi-01", false},
	} {
		r := d.do(c.line, `{"methodName":"x"}`, "Authorization", sas(c.resource, "service"))
		if ok := r.StatusCode != 401; ok != c.ok {
			t.Errorf("%s by a token for %s: %d %s", c.line, c.resource, r.StatusCode, read(r))
		}
	}
}

// TestPolicies: which of the five policies opens which route.
func TestPolicies(t *testing.T) {
	h := hub.New(hub.Options{HostName: hubHost})
	d := &door{t: t, hub: h, srv: New(h, nil)}
	tokens := map[string]string{}
	for name, text := range h.PolicyConnectionStrings() {
		_, key, _ := strings.Cut(text, "SharedAccessKey=")
		tokens[name] = sasBy(key, hubHost, name)
	}
	for _, name := range []string{"iothubowner", "service", "device", "registryRead", "registryReadWrite"} {
		if tokens[name] == "" {
			t.Fatalf("no policy %s", name)
		}
	}
	const (
		reads  = "iothubowner registryRead registryReadWrite"
		writes = "iothubowner registryReadWrite"
		serves = "iothubowner service"
		owner  = "iothubowner"
	)
	seen := 0
	for _, c := range []struct{ lines, who string }{
		{"GET devices, GET devices/{device}, GET devices/{device}/modules, GET devices/{device}/modules/{module}, GET statistics/devices, GET statistics/service", reads},
		{"POST devices, PUT devices/{device}, DELETE devices/{device}, PUT devices/{device}/modules/{module}, DELETE devices/{device}/modules/{module}", writes},
		{"GET twins/{device}, PATCH twins/{device}, PUT twins/{device}, POST twins/{device}/methods", serves},
		{"GET twins/{device}/modules/{module}, PATCH twins/{device}/modules/{module}, PUT twins/{device}/modules/{module}, POST twins/{device}/modules/{module}/methods", serves},
		{"GET _sim/unsupported, GET _sim/faults, POST _sim/faults, DELETE _sim/faults, DELETE _sim/faults/{fault}", owner},
	} {
		for route := range strings.SplitSeq(c.lines, ", ") {
			seen++
			method, path, _ := strings.Cut(route, " ")
			for name, token := range tokens {
				d.prepare()
				line := method + " " + fill(path, hub.ID{Device: "d", Module: "m"})
				r := d.do(line, "{}", "Authorization", token, "If-Match", "*")
				if open := r.StatusCode != 401; open != strings.Contains(" "+c.who+" ", " "+name+" ") {
					t.Errorf("%s as %s: %d %s", line, name, r.StatusCode, read(r))
				}
			}
		}
	}
	if mine := len(registryRoutes) + len(twinRoutes) + len(methodRoutes); seen < mine {
		t.Errorf("the table has %d routes, there are %d", seen, mine)
	}
}

// prepare sees to a device d with a module m.
func (d *door) prepare() {
	if _, err := d.hub.Device("d"); err != nil {
		if _, err := d.hub.PutDevice(hub.Device{DeviceID: "d"}, ""); err != nil {
			d.t.Fatal(err)
		}
	}
	if _, err := d.hub.Module(hub.ID{Device: "d", Module: "m"}); err != nil {
		if _, err := d.hub.PutModule(hub.Module{DeviceID: "d", ModuleID: "m"}, ""); err != nil {
			d.t.Fatal(err)
		}
	}
}

// TestDeviceManagesItsModules: as Azure IoT Identity Service does it, with the device's own key, api-version
// 2017-11-08-preview and the whole audience in lower case.
func TestDeviceManagesItsModules(t *testing.T) {
	d := newDoor(t)
	for _, put := range []string{`/devices/Gw-1 {"capabilities":{"iotEdge":true}}`, `/devices/other {}`, `/devices/other/modules/m {}`} {
		path, body, _ := strings.Cut(put, " ")
		if r := d.do("PUT "+path, body); r.StatusCode != 200 {
			t.Fatalf("%s: %s", put, read(r))
		}
	}
	shown, err := d.hub.Device("Gw-1")
	if err != nil {
		t.Fatal(err)
	}
	token := sasBy(*shown.Authentication.SymmetricKey.PrimaryKey, hubHost+"/devices/gw-1", "")
	as := func(line, body string, headers ...string) (int, string) {
		r := d.do(line+"?api-version=2017-11-08-preview", body, append(headers, "Authorization", token)...)
		return r.StatusCode, r.Header.Get("iothub-errorcode") + " " + read(r)
	}
	for _, c := range []struct {
		line, body, ifMatch string
		status              int
		says                string
	}{
		{"PUT /devices/Gw-1/modules/sensor", `{"moduleId":"sensor","deviceId":"Gw-1","managedBy":"IotEdge","authentication":{"type":"sas"}}`, "", 200, `"managedBy":"IotEdge"`},
		{"PUT /devices/Gw-1/modules/sensor", `{"moduleId":"sensor"}`, "", 409, "ModuleAlreadyExistsOnDevice"},
		{"PUT /devices/Gw-1/modules/sensor", `{"moduleId":"sensor","managedBy":"me"}`, "*", 200, `"managedBy":"me"`},
		{"PUT /devices/Gw-1/modules/$edgeAgent", `{"authentication":{"type":"sas"}}`, "*", 200, `"type":"sas"`},
		{"PUT /devices/Gw-1/modules/sensor", `{"moduleId":"other"}`, "*", 400, "ArgumentInvalid"},
		{"GET /devices/Gw-1/modules/sensor", "", "", 200, `"moduleId":"sensor"`},
		{"GET /devices/Gw-1/modules/ghost", "", "", 404, "ModuleNotFound"},
		{"GET /devices/Gw-1/modules", "", "", 200, `"moduleId":"$edgeHub"`},
		{"DELETE /devices/Gw-1/modules/$edgeHub", "", "*", 401, "SystemModuleModifyUnauthorizedAccess"},
		{"DELETE /devices/Gw-1/modules/sensor", "", "*", 204, ""},
		{"GET /devices/other/modules/m", "", "", 401, "IotHubUnauthorizedAccess"},
		{"PUT /devices/other/modules/x", "{}", "", 401, "IotHubUnauthorizedAccess"},
		{"GET /devices/Gw-1", "", "", 401, "IotHubUnauthorizedAccess"},
		{"GET /twins/Gw-1", "", "", 401, "IotHubUnauthorizedAccess"},
	} {
		status, body := as(c.line, c.body, "If-Match", c.ifMatch)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s, want %d %s", c.line, status, body, c.status, c.says)
		}
	}
	if r := d.do("GET /devices/Gw-1/modules?top=1", "", "Authorization", token); r.StatusCode != 400 || r.Header.Get("iothub-errorcode") != "InvalidProtocolVersion" {
		t.Errorf("without api-version: %d %s", r.StatusCode, read(r))
	}
	disabled := shown
	disabled.Status = "disabled"
	if _, err := d.hub.PutDevice(disabled, "*"); err != nil {
		t.Fatal(err)
	}
	if status, body := as("GET /devices/Gw-1/modules", ""); status != 401 {
		t.Errorf("a disabled device: %d %s", status, body)
	}
}
