package restd

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/hub"
)

// TestRegenerateKeys: which keys change, what is answered for identities that have none, and whose connections end.
func TestRegenerateKeys(t *testing.T) {
	d := newDoor(t)
	for _, path := range []string{"/devices/a", "/devices/b", "/devices/a/modules/m"} {
		d.do("PUT "+path, "{"+keys+"}")
	}
	d.do("PUT /devices/c", `{"authentication":{"type":"certificateAuthority"}}`)
	ask := func(which, devices string) (int, hub.RegeneratedKeys, string) {
		t.Helper()
		r := d.do("POST /devices/keys/regenerate?api-version=2024-03-31", `{"policyKey":"`+which+`","devices":[`+devices+`]}`)
		text, name := read(r), r.Header.Get("iothub-errorcode")
		var got hub.RegeneratedKeys
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return r.StatusCode, got, name
	}
	status, got, _ := ask("primaryKey", `{"id":"a"},{"id":"a","moduleId":"m"}`)
	if status != 200 || len(got.RotatedKeys) != 2 || len(got.Errors) != 0 || got.PolicyKey != "primaryKey" {
		t.Fatalf("%d %+v", status, got)
	}
	for _, k := range got.RotatedKeys {
		if k.PrimaryKey == testKey || len(k.PrimaryKey) != 44 || k.SecondaryKey != testKey {
			t.Errorf("%+v", k)
		}
	}
	if m, err := d.hub.Module(hub.ID{Device: "a", Module: "m"}); err != nil || *m.Authentication.SymmetricKey.PrimaryKey != got.RotatedKeys[1].PrimaryKey {
		t.Errorf("the module's key is not the one that was answered: %v", err)
	}
	status, got, _ = ask("both", `{"id":"b"},{"id":"ghost"},{"id":"b","moduleId":"ghost"},{"id":"c"}`)
	if status != 207 || len(got.RotatedKeys) != 1 || got.RotatedKeys[0].SecondaryKey == testKey {
		t.Errorf("%d %+v", status, got)
	}
	var names []string
	for _, e := range got.Errors {
		names = append(names, e.ID+e.ModuleID+" "+e.ErrorCode)
	}
	if want := "ghost DeviceNotFound, bghost ModuleNotFound, c InvalidOperation"; strings.Join(names, ", ") != want {
		t.Errorf("errors %v, want %s", names, want)
	}
	if status, _, name := ask("secondaryKey", `{"id":"ghost"}`); status != 400 || name != "BulkRegenerateDeviceKeyOperationFailure" {
		t.Errorf("%d %s", status, name)
	}
	d.refused("policy key", d.do("POST /devices/keys/regenerate", `{"policyKey":"first","devices":[{"id":"a"}]}`), 400, "InvalidPolicyKey", "both")
	d.refused("none", d.do("POST /devices/keys/regenerate", `{"policyKey":"both","devices":[]}`), 400, "ArgumentInvalid", "")
	d.refused("101", d.do("POST /devices/keys/regenerate", `{"policyKey":"both","devices":[`+strings.Repeat(`{"id":"a"},`, 100)+`{"id":"a"}]}`), 413, "TooManyDevices", "100")
	d.refused("a module's module", d.do("PUT /devices/a/modules/m/modules/n", "{}"), 400, "CannotRegisterModuleToModule", "a/m")
}

// TestTop: how many devices a list has.
func TestTop(t *testing.T) {
	d := newDoor(t)
	for i := range 1001 {
		if _, err := d.hub.PutDevice(hub.Device{DeviceID: fmt.Sprintf("d%04d", 1000-i)}, ""); err != nil {
			t.Fatal(err)
		}
	}
	for top, want := range map[string]int{"": 1000, "&top=7": 7, "&top=1": 1, "&top=1000": 1000, "&top=1001": 1000, "&top=0": 1000, "&top=-3": 1000, "&top=x": 1000} {
		var all []hub.Device
		if err := json.Unmarshal([]byte(read(d.do("GET /devices?api-version=2021-04-12"+top, ""))), &all); err != nil || len(all) != want {
			t.Errorf("%q: %d devices, %v; want %d", top, len(all), err, want)
			continue
		}
		if all[0].DeviceID != "d0000" || all[len(all)-1].DeviceID != fmt.Sprintf("d%04d", want-1) {
			t.Errorf("%q: from %s to %s, not in order", top, all[0].DeviceID, all[len(all)-1].DeviceID)
		}
	}
}

// TestThumbprintsInTwins: set ones are spelled in another way than in identities, and found by queries in either.
func TestThumbprintsInTwins(t *testing.T) {
	d := newDoor(t)
	print := strings.Repeat("aB", 32)
	d.do("PUT /devices/d", `{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"`+print+`"}}}`)
	if body := read(d.do("GET /devices/d", "")); !strings.Contains(body, `"x509Thumbprint":{"primaryThumbprint":"`+print+`","secondaryThumbprint":null}`) {
		t.Errorf("identity %s", body)
	}
	if body := read(d.do("GET /twins/d", "")); !strings.Contains(body, `"authenticationType":"selfSigned","x509Thumbprint":{"PrimaryThumbprint":"`+print+`","SecondaryThumbprint":null}`) {
		t.Errorf("twin %s", body)
	}
	for _, q := range []string{"x509Thumbprint.primaryThumbprint", "x509thumbprint.PrimaryThumbprint"} {
		body := read(d.do("POST /devices/query", `{"query":"SELECT deviceId FROM devices WHERE `+q+` = '`+print+`'"}`))
		if body != `[{"deviceId":"d"}]` {
			t.Errorf("%s: %s", q, body)
		}
	}
}

// FuzzAuthorization sends any Authorization header: nothing that was not signed gets in.
func FuzzAuthorization(f *testing.F) {
	good := sas(hubHost, "iothubowner")
	for _, seed := range []string{
		"", "x", "Bearer x.y.z", "SharedAccessSignature", "SharedAccessSignature sr=&sig=&se=", "SharedAccessSignature sr=a&sr=b",
		good[:len(good)-1], strings.Replace(good, "SharedAccessSignature", "sharedaccesssignature", 1), strings.Replace(good, "sig=", "sig=%ZZ", 1),
		strings.Replace(good, "skn=iothubowner", "", 1), strings.Replace(good, "&se=", "&se=9", 1), "SharedAccessSignature sr=%25%32%35&sig=eA%3D%3D&se=18446744073709551615&skn=%",
	} {
		f.Add(seed)
	}
	s := fuzzDoor(f)
	signature := func(token string) bool { // whether it has one that a key here has made
		_, sig, _ := strings.Cut(good, "&sig=")
		sig, _, _ = strings.Cut(sig, "&")
		return strings.Contains(token, sig)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if strings.ContainsAny(token, "\r\n\x00") {
			return // no header
		}
		for _, line := range []string{"GET /devices", "GET /devices/d/modules", "GET /twins/d/modules/m", "DELETE /devices/x"} {
			r := request(line, "")
			r.Header.Set("Authorization", token)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != 401 && !signature(token) {
				t.Errorf("%s with %q: %d", line, token, w.Code)
			}
		}
	})
}
