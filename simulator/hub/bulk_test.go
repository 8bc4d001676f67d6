package hub

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// line is an import line for a device, or for a module if m is not "".
func line(d, m, mode string) ExportImportDevice {
	return ExportImportDevice{ID: d, ModuleID: &m, ImportMode: mode, Status: "enabled"}
}

// TestImportModes: what each mode does to what is there and to what is not.
func TestImportModes(t *testing.T) {
	for _, c := range []struct {
		mode            string
		etag            string // "good", "stale", "*" or ""
		absent, present int    // error; 0 is none
	}{
		{"create", "", 0, 409},
		{"create", "good", 0, 409},
		{"createOrUpdate", "", 0, 0},
		{"createOrUpdate", "stale", 0, 0},
		{"", "", 0, 0},
		{"createOrUpdateIfMatchETag", "good", 0, 0},
		{"createOrUpdateIfMatchETag", "stale", 0, 412001},
		{"createOrUpdateIfMatchETag", "", 0, 412001},
		{"update", "", 404, 0},
		{"Update", "stale", 404, 0},
		{"updateIfMatchETag", "good", 404, 0},
		{"updateIfMatchETag", "stale", 404, 412001},
		{"UpdateIfMatchETag", "", 412001, 412001},
		{"delete", "", 404, 0},
		{"Delete", "stale", 404, 0},
		{"deleteIfMatchETag", "good", 404, 0},
		{"deleteIfMatchEtag", "*", 404, 0},
		{"DeleteIfMatchETag", "stale", 404, 412001},
		{"deleteIfMatchETag", "", 412001, 412001},
		{"updateTwin", "", 404001, 0},
		{"updateTwinIfMatchETag", "good", 404001, 0},
		{"updateTwinIfMatchETag", "stale", 404001, 412001},
		{"updateTwinIfMatchETag", "", 412001, 412001},
		{"replace", "", 400004, 400004},
	} {
		for _, id := range []ID{{"x", ""}, {"pi-01", "x"}} {
			for _, there := range []bool{false, true} {
				t.Run(fmt.Sprint(c.mode, " ", c.etag, " ", id, " ", there), func(t *testing.T) {
					h := newHub(t)
					in := line(id.Device, id.Module, c.mode)
					in.Tags = json.RawMessage(`{"by":"import"}`)
					etags := map[string][2]string{"stale": {"MA==", "AAAAAAAAAAk="}, "*": {"*", "*"}, "good": {"MA==", "AAAAAAAAAAk="}}
					if there {
						twin, etag := create(t, h, id)
						etags["good"] = [2]string{etag, twin}
					}
					in.ETag, in.TwinETag = etags[c.etag][0], ""
					if strings.Contains(strings.ToLower(c.mode), "twin") {
						in.ETag, in.TwinETag = "", etags[c.etag][1]
					}
					want := c.absent
					if there {
						want = c.present
					}
					want = ofKind(want, id)
					generation := h.Generation(id)
					err := h.Import(in)
					wantError(t, "import", err, want)
					if want != 0 {
						if h.Generation(id) != generation {
							t.Error("a refused line has made or removed the identity")
						}
						return
					}
					twin, err := h.Twin(id)
					if strings.HasPrefix(strings.ToLower(c.mode), "delete") {
						wantError(t, "twin of what was deleted", err, 404001)
						return
					}
					if err != nil || twin.Tags["by"] != "import" {
						t.Errorf("tags %v, %v", twin.Tags, err)
					}
				})
			}
		}
	}
}

// create makes an identity and answers the etags of its twin and of itself.
func create(t *testing.T, h *Hub, id ID) (twin, etag string) {
	t.Helper()
	if id.Module == "" {
		must(t)(h.PutDevice(Device{DeviceID: id.Device}, ""))
	} else {
		must(t)(h.PutModule(Module{DeviceID: id.Device, ModuleID: id.Module}, ""))
	}
	shown, err := h.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	return shown.ETag, shown.DeviceETag
}

// ofKind is 404 or 409 as devices and modules have it.
func ofKind(code int, id ID) int {
	switch {
	case code == 404 && id.Module == "":
		return 404001
	case code == 404:
		return 404010
	case code == 409 && id.Module == "":
		return 409001
	case code == 409:
		return 409301
	}
	return code
}

func TestImportRefused(t *testing.T) {
	h := newHub(t)
	noStatus := line("x", "", "create")
	noStatus.Status = ""
	oneKey := line("x", "", "create")
	key := testKey
	oneKey.Authentication = &Authentication{SymmetricKey: SymmetricKey{PrimaryKey: &key}}
	for _, c := range []struct {
		name string
		in   ExportImportDevice
		code int
	}{
		{"no status", noStatus, 400004},
		{"no id", line("", "", "create"), 400004},
		{"bad id", line("a b", "", "create"), 400004},
		{"bad module id", line("pi-01", "a/b", "create"), 400004},
		{"the system's module id", line("pi-01", "$mine", "create"), 400004},
		{"module of no device", line("ghost", "m", "create"), 404001},
		{"one key", oneKey, 400004},
	} {
		wantError(t, c.name, h.Import(c.in), c.code)
	}
	if s, _ := h.Statistics(); s.TotalDeviceCount != 1 {
		t.Errorf("%+v after refused lines only", s)
	}
}

// TestImportTwin: sections that a line has take the place of the twin's, and the device is told.
func TestImportTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		id := ID{"pi-01", "a"}
		must(t)(h.PatchTwin(id, json.RawMessage(`{"tags":{"keep":1},"properties":{"desired":{"old":1,"n":1}}}`), ""))
		l, p := attach(t, h, id, time.Hour)
		l.Want(Desired, true)
		must(t)(l.Report(json.RawMessage(`{"r":1}`), 0))

		in := line("pi-01", "a", "updateTwin")
		in.Properties.Desired = json.RawMessage(`{"n":2.0,"$version":77,"$metadata":{"$lastUpdated":"2020-01-02T03:04:05.6789Z","n":{"$lastUpdated":"2019-01-01T00:00:00","$lastUpdatedVersion":9}}}`)
		in.Properties.Reported = json.RawMessage(`{"s":[1,"x"]}`)
		if err := h.Import(in); err != nil {
			t.Fatal(err)
		}
		twin, err := h.Twin(id)
		must(t)(twin, err)
		got, _ := json.Marshal(twin.Properties)
		want := `{"desired":{"$metadata":{"$lastUpdated":"2020-01-02T03:04:05.6789000Z","$lastUpdatedVersion":3,` +
			`"n":{"$lastUpdated":"2019-01-01T00:00:00.0000000Z","$lastUpdatedVersion":9}},"$version":3,"n":2.0},` +
			`"reported":{"$metadata":{"$lastUpdated":"2000-01-01T00:00:00.0000000Z","s":{"$lastUpdated":"2000-01-01T00:00:00.0000000Z"}},"$version":3,"s":[1,"x"]}}`
		if string(got) != want {
			t.Errorf("properties\n%s\nwant\n%s", got, want)
		}
		if fmt.Sprint(twin.Tags) != "map[keep:1]" || twin.ETag != "AAAAAAAAAAM=" || twin.Version != 6 {
			t.Errorf("tags %v, etag %s, version %d", twin.Tags, twin.ETag, twin.Version)
		}
		if told := p.told(); !slices.Equal(told, []string{`3 {"$version":3,"n":2.0,"old":null}`}) {
			t.Errorf("the device was told %v", told)
		}
		for _, bad := range []string{`{"a":null}`, `{"a.b":1}`, `[1]`, `{"a":` + `"` + strings.Repeat("x", 4097) + `"}`} {
			in.Properties.Desired = json.RawMessage(bad)
			wantError(t, bad[:min(len(bad), 10)], h.Import(in), 400004)
		}
	})
}

// TestImportedTwinIsTheFirst: what comes with a new identity is its twin's first version.
func TestImportedTwinIsTheFirst(t *testing.T) {
	h := New(Options{})
	in := line("x", "", "create")
	in.Tags, in.Properties.Desired = json.RawMessage(`{"site":"x"}`), json.RawMessage(`{"n":1}`)
	if err := h.Import(in); err != nil {
		t.Fatal(err)
	}
	twin, err := h.Twin(ID{Device: "x"})
	must(t)(twin, err)
	if twin.ETag != "AAAAAAAAAAE=" || twin.Version != 2 || twin.Properties.Desired["$version"] != int64(1) {
		t.Errorf("%+v", twin)
	}
}

func TestBulkRegistry(t *testing.T) {
	h := newHub(t)
	full := slices.Repeat([]ExportImportDevice{{}}, 100)
	for i := range full {
		full[i] = ExportImportDevice{ID: fmt.Sprint("d", i)} // no status, no mode: what Node's addDevices leaves out
	}
	r, err := h.BulkRegistry(full)
	if err != nil || !r.IsSuccessful || len(r.Errors)+len(r.Warnings) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = h.BulkRegistry(append(full, line("more", "", "create")))
	wantError(t, "101 identities", err, 413002)
	_, err = h.BulkRegistry(nil)
	wantError(t, "none", err, 400004)
	_, err = h.BulkRegistry([]ExportImportDevice{line("d", "m", ""), line("d", "", ""), line("d", "m", "delete")})
	wantError(t, "one twice", err, 400011)

	badTwin := line("e", "", "create")
	badTwin.Tags = json.RawMessage(`{"a":null}`)
	r, err = h.BulkRegistry([]ExportImportDevice{
		line("pi-01", "", "create"), badTwin, line("e", "m", "create"), line("pi-01", "a", "CREATE"), line("d0", "", "delete"),
	})
	if err != nil || r.IsSuccessful {
		t.Fatalf("%+v, %v", r, err)
	}
	got, _ := json.Marshal(r)
	want := `{"isSuccessful":false,"errors":[` +
		`{"deviceId":"pi-01","moduleId":null,"errorCode":"DeviceAlreadyExists","errorStatus":"A device with ID 'pi-01' is already registered.","operation":"create"},` +
		`{"deviceId":"pi-01","moduleId":"a","errorCode":"ModuleAlreadyExistsOnDevice","errorStatus":"A module with ID 'a' is already registered on device 'pi-01'.","operation":"create"}],` +
		`"warnings":[{"deviceId":"e","warningCode":"DeviceRegisteredWithoutTwin","warningStatus":"tags.a: null is not allowed here"}]}`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if h.Generation(ID{"e", "m"}) == "" || h.Generation(ID{Device: "d0"}) != "" {
		t.Error("what was no error was not done")
	}
}

// TestExport: what is exported makes the same hub again.
func TestExport(t *testing.T) {
	h := newHub(t)
	must(t)(h.PutDevice(Device{DeviceID: "B", Status: "disabled"}, ""))
	must(t)(h.PatchTwin(ID{"pi-01", "b"}, json.RawMessage(`{"tags":{"t":"<"},"properties":{"desired":{"n":1.0,"o":{"p":null,"q":true}}}}`), ""))
	lines := slices.Collect(h.Export(false))
	var order []string
	again := New(Options{HostName: "other.azure-devices.net"})
	for _, l := range lines {
		order = append(order, l.Identity().String())
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var read ExportImportDevice
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		if err := again.Import(read); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if want := []string{"B", "pi-01", "pi-01/a", "pi-01/b"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	for i, l := range slices.Collect(again.Export(false)) {
		a, b := withoutCounters(lines[i]), withoutCounters(l)
		if a != b {
			t.Errorf("exported\n%s\nand again\n%s", a, b)
		}
	}
	for l := range h.Export(true) {
		if a := l.Authentication; a.SymmetricKey != (SymmetricKey{}) || a.Type != "sas" {
			t.Errorf("%s without keys: %+v", l.ID, a)
		}
	}
	for range h.Export(false) {
		break // the consumer may stop
	}
}

// withoutCounters is a line without what a new hub counts by itself: etags, and $version, which begins anew.
func withoutCounters(l ExportImportDevice) string {
	l.ETag, l.TwinETag = "", ""
	var doc map[string]any
	_ = json.Unmarshal(l.Properties.Desired, &doc)
	delete(doc, "$version")
	l.Properties.Desired, _ = json.Marshal(doc)
	text, _ := json.Marshal(l)
	return string(text)
}
