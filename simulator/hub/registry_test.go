package hub

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestIdentityIfMatch(t *testing.T) {
	for _, kind := range []string{"device", "module"} {
		t.Run(kind, func(t *testing.T) {
			h := newHub(t)
			put := func(ifMatch string) (string, string, error) {
				d, err := h.PutDevice(Device{DeviceID: "x"}, ifMatch)
				return d.ETag, d.GenerationID, err
			}
			del := func(ifMatch string) error { return h.DeleteDevice("x", ifMatch) }
			exists, missing := 409001, 404001
			if kind == "module" {
				exists, missing = 409301, 404010
				put = func(ifMatch string) (string, string, error) {
					m, err := h.PutModule(Module{DeviceID: "pi-01", ModuleID: "x"}, ifMatch)
					return m.ETag, m.GenerationID, err
				}
				del = func(ifMatch string) error { return h.DeleteModule(ID{"pi-01", "x"}, ifMatch) }
			}
			_, _, err := put("*")
			wantError(t, "update what is not there", err, missing)
			_, _, err = put(`"MQ=="`)
			wantError(t, "update what is not there, by etag", err, missing)
			wantError(t, "delete what is not there", del("*"), missing)

			first, generation, err := put("")
			wantError(t, "create", err, 0)
			if number, err := base64.StdEncoding.DecodeString(first); err != nil || strings.Trim(string(number), "0123456789") != "" {
				t.Errorf("etag %q is not base64 of a decimal number", first)
			}
			_, _, err = put("")
			wantError(t, "create again", err, exists)
			second, same, err := put(first)
			wantError(t, "update by bare etag", err, 0)
			if second == first {
				t.Error("an update leaves the etag as it was")
			}
			if same != generation {
				t.Error("an update makes a new generation")
			}
			_, _, err = put(first)
			wantError(t, "update by stale etag", err, 412001)
			third, _, err := put(`"` + second + `"`)
			wantError(t, "update by quoted etag", err, 0)
			_, _, err = put(`"*"`)
			wantError(t, "update by quoted star", err, 0)

			wantError(t, "delete without etag", del(""), 412001)
			wantError(t, "delete by stale etag", del(`"`+third+`"`), 412001)
			wantError(t, "delete", del("*"), 0)
			again, other, err := put("")
			wantError(t, "create anew", err, 0)
			if other == generation || again == first {
				t.Error("what is made anew has the generation or the etag of what was there before")
			}
		})
	}
}

func TestStaleETagSaysWhichVersions(t *testing.T) {
	h := New(Options{})
	d, err := h.PutDevice(Device{DeviceID: "x"}, "")
	must(t)(d, err)
	must(t)(h.PutDevice(Device{DeviceID: "x"}, "*"))
	_, err = h.PutDevice(Device{DeviceID: "x"}, d.ETag)
	if want := "PreconditionFailed: existingVersion:2 newVersion:1"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestIDsDifferInCase: an id is case-sensitive, and two that differ in case only are two identities with keys, twins
// and modules of their own.
func TestIDsDifferInCase(t *testing.T) {
	h := newHub(t)
	must(t)(h.PutDevice(Device{DeviceID: "PI-01"}, ""))
	must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "A"}, ""))
	ids := []ID{{"pi-01", ""}, {"PI-01", ""}, {"pi-01", "a"}, {"pi-01", "A"}}
	keys := map[string]bool{}
	for _, id := range ids {
		keys[keyOf(t, h, id)] = true
		must(t)(h.PatchTwin(id, fmt.Appendf(nil, `{"tags":{"is":%q}}`, id), ""))
	}
	if len(keys) != len(ids) {
		t.Errorf("%d keys for %d identities", len(keys), len(ids))
	}
	for _, id := range ids {
		if twin, err := h.Twin(id); err != nil || twin.Tags["is"] != id.String() {
			t.Errorf("twin of %s has tags %v, %v", id, twin.Tags, err)
		}
	}
	if all, _ := h.Modules("PI-01"); len(all) != 0 {
		t.Errorf("PI-01 has the modules of pi-01: %v", all)
	}
	// The token of one is none of the other, though sr compares without case.
	_, err := h.AuthSAS(ID{Device: "PI-01"}, token(t, h, ID{Device: "pi-01"}, 1e12))
	wantError(t, "PI-01 with the token of pi-01", err, 401003)
}

func TestModuleLimit(t *testing.T) {
	for _, c := range []struct {
		name        string
		limit, want int
	}{{"default", 0, 20}, {"Azure's today", 50, 50}} {
		t.Run(c.name, func(t *testing.T) {
			h := New(Options{ModuleLimit: c.limit})
			must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
			must(t)(h.PutDevice(Device{DeviceID: "e"}, ""))
			for i := range c.want {
				must(t)(h.PutModule(Module{DeviceID: "d", ModuleID: fmt.Sprint("m", i)}, ""))
			}
			_, err := h.PutModule(Module{DeviceID: "d", ModuleID: "more"}, "")
			wantError(t, "one more", err, 413003)
			if !strings.Contains(err.Error(), "--module-limit") {
				t.Errorf("%v: does not say how to raise the limit", err)
			}
			must(t)(h.PutModule(Module{DeviceID: "d", ModuleID: "m0"}, "*")) // no further module
			must(t)(h.PutModule(Module{DeviceID: "e", ModuleID: "m0"}, ""))  // the limit is a device's
			if err := h.DeleteModule(ID{"d", "m0"}, "*"); err != nil {
				t.Fatal(err)
			}
			must(t)(h.PutModule(Module{DeviceID: "d", ModuleID: "more"}, ""))
		})
	}
}

func TestIDRules(t *testing.T) {
	long := strings.Repeat("x", 128)
	for _, c := range []struct {
		id ID
		ok bool
	}{
		{ID{"A-z0:.+%_#*?!(),=@;$'", ""}, true},
		{ID{"a%2Fb", "c#d?e"}, true},
		{ID{long, long}, true},
		{ID{long + "x", ""}, false},
		{ID{"", ""}, false},
		{ID{"a/b", ""}, false},
		{ID{"a b", ""}, false},
		{ID{"ü", ""}, false},
		{ID{"a\n", ""}, false},
		{ID{"$dev", ""}, true},
		{ID{"d", "$edgeAgent"}, false},
		{ID{"d", "a/b"}, false},
		{ID{"d", long + "x"}, false},
	} {
		h := New(Options{})
		_, err := h.PutDevice(Device{DeviceID: c.id.Device}, "")
		if c.id.Module != "" && err == nil {
			_, err = h.PutModule(Module{DeviceID: c.id.Device, ModuleID: c.id.Module}, "")
		}
		want := 0
		if !c.ok {
			want = 400004
		}
		wantError(t, fmt.Sprintf("%q", c.id), err, want)
	}
}

func TestAuthentication(t *testing.T) {
	s := func(s string) *string { return &s }
	short := base64.StdEncoding.EncodeToString(make([]byte, 15))
	print := strings.Repeat("Ab", 20)
	keys := func(a, b *string) *Authentication {
		return &Authentication{Type: "sas", SymmetricKey: SymmetricKey{a, b}}
	}
	thumb := func(kind, p string) *Authentication {
		return &Authentication{Type: kind, X509Thumbprint: X509Thumbprint{PrimaryThumbprint: &p}}
	}
	for _, c := range []struct {
		name       string
		in         *Authentication
		kind       string
		device     int // error
		module     int
		fresh      bool // keys are made
		wantThumbs bool
	}{
		{"left out", nil, "sas", 0, 0, true, false},
		{"no type", &Authentication{}, "sas", 0, 0, true, false},
		{"upper case", &Authentication{Type: "SAS"}, "sas", 0, 0, true, false},
		{"empty keys", keys(s(""), nil), "sas", 0, 0, true, false},
		{"given keys", keys(s(testKey), s(testKey)), "sas", 0, 0, false, false},
		{"one key", keys(s(testKey), nil), "", 400004, 400004, false, false},
		{"no base64", keys(s("???"), s(testKey)), "", 400004, 400004, false, false},
		{"short key", keys(s(testKey), s(short)), "", 400004, 400004, false, false},
		{"none", &Authentication{Type: "none"}, "sas", 400004, 0, true, false},
		{"unknown", &Authentication{Type: "tpm"}, "", 400004, 400004, false, false},
		{"self-signed", thumb("selfSigned", print), "selfSigned", 0, 0, false, true},
		{"self-signed without a thumbprint", &Authentication{Type: "selfsigned"}, "selfSigned", 0, 0, false, false},
		{"type by thumbprint", thumb("", print), "selfSigned", 0, 0, false, true},
		{"thumbprint with colons", thumb("selfSigned", "AB:CD"), "", 400004, 400004, false, false},
		{"authority", &Authentication{Type: "certificateAuthority"}, "certificateAuthority", 0, 0, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := New(Options{})
			must(t)(h.PutDevice(Device{DeviceID: "parent"}, ""))
			d, err := h.PutDevice(Device{DeviceID: "d", Authentication: c.in}, "")
			wantError(t, "device", err, c.device)
			m, merr := h.PutModule(Module{DeviceID: "parent", ModuleID: "m", Authentication: c.in}, "")
			wantError(t, "module", merr, c.module)
			var got []*Authentication
			if err == nil {
				got = append(got, d.Authentication)
			}
			if merr == nil {
				got = append(got, m.Authentication)
			}
			for _, a := range got {
				p1, p2 := text(a.SymmetricKey.PrimaryKey), text(a.SymmetricKey.SecondaryKey)
				switch {
				case a.Type != c.kind:
					t.Errorf("type %q, want %q", a.Type, c.kind)
				case c.fresh && (len(p1) != 44 || len(p2) != 44 || p1 == p2):
					t.Errorf("keys %q, %q, want two fresh ones", p1, p2)
				case c.kind == "sas" && !c.fresh && (p1 != testKey || p2 != testKey):
					t.Errorf("keys %q, %q are not those given", p1, p2)
				case c.kind != "sas" && p1+p2 != "":
					t.Errorf("keys %q, %q beside a certificate", p1, p2)
				case c.wantThumbs && text(a.X509Thumbprint.PrimaryThumbprint) != print:
					t.Errorf("thumbprint %q, want the case kept", text(a.X509Thumbprint.PrimaryThumbprint))
				}
			}
		})
	}
}

func TestUpdateMintsKeysAnew(t *testing.T) {
	h := newHub(t)
	before := keyOf(t, h, ID{"pi-01", "a"})
	by := "someone"
	must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a", ManagedBy: &by}, "*"))
	if m, err := h.Module(ID{"pi-01", "a"}); err != nil || text(m.ManagedBy) != by {
		t.Errorf("managedBy %v, %v", m.ManagedBy, err)
	}
	if keyOf(t, h, ID{"pi-01", "a"}) == before {
		t.Error("an update without authentication keeps the keys")
	}
	must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a"}, "*"))
	if m, _ := h.Module(ID{"pi-01", "a"}); m.ManagedBy != nil {
		t.Errorf("managedBy %q outlives an update without it", *m.ManagedBy)
	}
}

// TestModulesOfNoDevice: under SAS the hub says Unauthorized where one would expect DeviceNotFound (measured).
func TestModulesOfNoDevice(t *testing.T) {
	h := newHub(t)
	must(t)(h.PutDevice(Device{DeviceID: "off", Status: "Disabled"}, ""))
	for _, device := range []string{"ghost", "off"} {
		id := ID{device, "m"}
		_, err := h.PutModule(Module{DeviceID: device, ModuleID: "m"}, "")
		wantError(t, "PUT on "+device, err, 401002)
		if e, ok := err.(*Error); ok && e.Text != "Unauthorized" {
			t.Errorf("PUT on %s says %q", device, e.Text)
		}
		_, err = h.Module(id)
		wantError(t, "GET on "+device, err, 401002)
		_, err = h.Modules(device)
		wantError(t, "list on "+device, err, 401002)
		wantError(t, "DELETE on "+device, h.DeleteModule(id, "*"), 401002)
	}
	_, err := h.Module(ID{"pi-01", "ghost"})
	wantError(t, "missing module", err, 404010)
	_, err = h.Twin(ID{"pi-01", "ghost"})
	wantError(t, "twin of a missing module", err, 404001)
	// The twin of a disabled device's module is there all the same.
	must(t)(h.PutDevice(Device{DeviceID: "pi-01", Status: "disabled"}, "*"))
	twin, err := h.Twin(ID{"pi-01", "a"})
	must(t)(twin, err)
	if twin.Status != "disabled" {
		t.Errorf("status %q, want its device's", twin.Status)
	}
}

func TestDeviceRefused(t *testing.T) {
	long := strings.Repeat("ü", 129)
	fits := strings.Repeat("ü", 128)
	for _, c := range []struct {
		name string
		in   Device
		code int
	}{
		{"status", Device{DeviceID: "x", Status: "asleep"}, 400004},
		{"reason", Device{DeviceID: "x", StatusReason: &long}, 400004},
		{"longest reason", Device{DeviceID: "x", StatusReason: &fits}, 0},
		{"edge", Device{DeviceID: "x", Capabilities: &Capabilities{IoTEdge: true}}, 0},
		{"scope", Device{DeviceID: "x", DeviceScope: "ms-azure-iot-edge://y-1"}, 400028},
	} {
		_, err := New(Options{}).PutDevice(c.in, "")
		wantError(t, c.name, err, c.code)
	}
}

func TestDeletedDeviceTakesItsModules(t *testing.T) {
	h := newHub(t)
	events := h.Watch(t.Context())
	generation := h.Generation(ID{"pi-01", "a"})
	if generation == "" {
		t.Fatal("no generation of a module that is there")
	}
	if err := h.DeleteDevice("pi-01", "*"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a", "b", ""} {
		if e := <-events; e.Kind != "deleted" || e.ModuleID != want {
			t.Errorf("event %s %q, want deleted %q", e.Kind, e.ModuleID, want)
		}
	}
	if g := h.Generation(ID{"pi-01", "a"}); g != "" {
		t.Errorf("generation %q of a module that is gone", g)
	}
	must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, ""))
	if all, err := h.Modules("pi-01"); err != nil || len(all) != 0 {
		t.Errorf("modules %v, %v of a device made anew", all, err)
	}
	must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a"}, ""))
	if g := h.Generation(ID{"pi-01", "a"}); g == generation {
		t.Error("a module made anew has its old generation")
	}
}

func TestListAndStatistics(t *testing.T) {
	h := New(Options{})
	for i := range 1005 {
		status := "enabled"
		if i%5 == 0 {
			status = "disabled"
		}
		must(t)(h.PutDevice(Device{DeviceID: fmt.Sprintf("d%04d", i), Status: status}, ""))
	}
	for top, want := range map[int]int{0: 1000, -1: 1000, 1: 1, 1000: 1000, 1001: 1000} {
		all := h.Devices(top)
		if len(all) != want || all[0].DeviceID != "d0000" {
			t.Errorf("top %d: %d devices from %s on, want %d", top, len(all), all[0].DeviceID, want)
		}
	}
	s, connected := h.Statistics()
	if want := (Statistics{1005, 804, 201}); s != want || connected != 0 {
		t.Errorf("%+v, %d connected; want %+v, 0", s, connected, want)
	}
}

// TestAttributes: what a service puts there is there until it is replaced, also when the hub is started again.
func TestAttributes(t *testing.T) {
	h, j := taped(t)
	for _, c := range []struct {
		given, shown string
		code         int
	}{
		{`{"a": "x", "b": {"c": 1}}`, `{"a":"x","b":{"c":1}}`, 0},
		{``, ``, 0},
		{`null`, ``, 0},
		{` { } `, ``, 0},
		{`[1]`, ``, 400004},
		{`{"a":"` + strings.Repeat("x", 8<<10) + `"}`, ``, 400004},
	} {
		d, err := h.PutDevice(Device{DeviceID: "d", Attributes: json.RawMessage(c.given)}, "")
		wantError(t, "device "+c.given, err, c.code)
		if err != nil {
			continue
		}
		m, err := h.PutModule(Module{DeviceID: "d", ModuleID: "m", Attributes: json.RawMessage(c.given)}, "")
		must(t)(m, err)
		again, err := Open(Options{}, &tape{}, j.records())
		must(t)(again, err)
		for _, from := range []*Hub{h, again} {
			kept, err := from.Device("d")
			must(t)(kept, err)
			keptModule, err := from.Module(ID{"d", "m"})
			must(t)(keptModule, err)
			for _, got := range []json.RawMessage{d.Attributes, m.Attributes, kept.Attributes, keptModule.Attributes} {
				if string(got) != c.shown {
					t.Errorf("%s: %s, want %s", c.given, got, c.shown)
				}
			}
		}
		if again, err := h.PutDevice(Device{DeviceID: "d"}, "*"); err != nil || again.Attributes != nil {
			t.Errorf("replaced: %s, %v", again.Attributes, err)
		}
		if err := h.DeleteDevice("d", "*"); err != nil {
			t.Fatal(err)
		}
	}
}
