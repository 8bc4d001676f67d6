package hub

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	tree, err := parseTree("test", []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return tree
}

// twinVectors are what both sides of the wire are tested with.
type twinVectors struct {
	Merge []struct {
		Name                 string
		Before, Patch, After json.RawMessage
	}
	Refused []struct {
		Name  string
		Value json.RawMessage
		Code  int
	}
}

func readTwinVectors(t *testing.T) (v twinVectors) {
	t.Helper()
	text, err := os.ReadFile("../conformance/twin.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMerge(t *testing.T) {
	for _, v := range readTwinVectors(t).Merge {
		old, want := parse(t, string(v.Before)), string(encode(parse(t, string(v.After))))
		if got := string(encode(merge(old, parse(t, string(v.Patch))))); got != want {
			t.Errorf("%s: %s, want %s", v.Name, got, want)
		}
		if got, want := string(encode(old)), string(encode(parse(t, string(v.Before)))); got != want {
			t.Errorf("%s: has changed the tree it was given to %s", v.Name, got)
		}
	}
	if got := string(encode(merge(map[string]any{}, parse(t, "{\"a\":\"<&>\u2028\"}")))); got != `{"a":"<&>\u2028"}` {
		t.Errorf("text does not stay as it is: %s", got)
	}
}

func TestRefusedVectors(t *testing.T) {
	for _, v := range readTwinVectors(t).Refused {
		h := newHub(t)
		id := ID{"pi-01", "a"}
		l, _ := attach(t, h, id, time.Hour)
		wantError(t, v.Name+", reported", onlyError(l.Report(v.Value, 0)), v.Code)
		wantError(t, v.Name+", desired", onlyError(h.PatchTwin(id, fmt.Appendf(nil, `{"properties":{"desired":%s}}`, v.Value), "")), v.Code)
		wantError(t, v.Name+", tags", onlyError(h.ReplaceTwin(id, fmt.Appendf(nil, `{"tags":%s}`, v.Value), "")), v.Code)
	}
}

func TestReplacing(t *testing.T) {
	for _, c := range []struct{ old, tree, want string }{
		{`{"a":1}`, `{"b":2}`, `{"a":null,"b":2}`},
		{`{"a":{"b":1,"c":2}}`, `{"a":{"c":3}}`, `{"a":{"b":null,"c":3}}`},
		{`{"a":{"b":1}}`, `{"a":1}`, `{"a":1}`},
		{`{"a":1}`, `{"a":1}`, `{"a":1}`},
	} {
		old, tree := parse(t, c.old), parse(t, c.tree)
		patch := replacing(old, tree)
		if got := string(encode(patch)); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.old, c.tree, got, c.want)
		}
		if got := string(encode(merge(old, patch))); got != c.tree {
			t.Errorf("%s to %s: one who merges ends with %s", c.old, c.tree, got)
		}
	}
}

// nest is n objects within each other with a value in the innermost.
func nest(n int) string {
	return strings.Repeat(`{"o":`, n) + "1" + strings.Repeat("}", n)
}

func TestTwinRules(t *testing.T) {
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	key := func(n int) string { return `{"` + strings.Repeat("k", n) + `":1}` }
	var big strings.Builder // 8 values of 4096 and keys of 1: eight bytes over 32 KiB
	for i := range 8 {
		fmt.Fprintf(&big, `,"%c":%s`, 'a'+i, text(4096))
	}
	over := "{" + big.String()[1:] + "}"
	exact := strings.Replace(over, text(4096), text(4096-8), 1)
	for _, c := range []struct {
		name, patch string
		code        int
		says        string
	}{
		{"ten deep", `{"a":` + nest(10) + `}`, 0, ""},
		{"eleven deep", `{"a":` + nest(11) + `}`, 400004, "more than 10 objects deep"},
		{"objects in an array count", `{"a":[` + nest(11) + `]}`, 400004, "more than 10"},
		{"longest key", key(1024), 0, ""},
		{"longer key", key(1025), 400004, "1025 bytes"},
		{"empty key", `{"":1}`, 0, ""},
		{"unicode key", `{"größe":1}`, 0, ""},
		{"key with a dot", `{"a":{"b.c":1}}`, 400004, `.a: key "b.c"`},
		{"key with a dollar", `{"$a":1}`, 400004, `key "$a"`},
		{"key with a hash", `{"a#":1}`, 400004, `"a#"`},
		{"key with a space", `{"a b":1}`, 400004, `"a b"`},
		{"key with a control character", `{"a\u0001":1}`, 400004, "control"},
		{"key with a C1 control character", `{"a\u0085":1}`, 400004, "control"},
		{"key in an array", `{"a":[{"b.c":1}]}`, 400004, `.a[0]: key "b.c"`},
		{"key to be removed", `{"a.b":null}`, 400004, `"a.b"`},
		{"longest text", `{"a":` + text(4096) + `}`, 0, ""},
		{"longer text", `{"a":` + text(4097) + `}`, 400004, ".a: a string of 4097 bytes"},
		{"greatest integer", `{"a":4503599627370495}`, 0, ""},
		{"greater integer", `{"a":4503599627370496}`, 400004, "4503599627370496"},
		{"least integer", `{"a":-4503599627370496}`, 0, ""},
		{"lesser integer", `{"a":-4503599627370497}`, 400004, "outside"},
		{"integer beyond 64 bits", `{"a":99999999999999999999}`, 400004, "outside"},
		{"great float", `{"a":1e300}`, 0, ""},
		{"endless float", `{"a":1e400}`, 400004, "out of range"},
		{"null in an array", `{"a":[1,null]}`, 400004, ".a[1]: null"},
		{"null in an object in an array", `{"a":[{"b":null}]}`, 400004, ".a[0].b: null"},
		{"largest section", exact, 0, ""},
		{"larger section", over, 400004, "32776 bytes; 32768"},
		{"an array", `[1]`, 400004, "not a JSON object"},
		{"null", `null`, 400004, "not a JSON object"},
		{"no JSON", `{"a":`, 400006, "not JSON"},
		{"empty", ``, 400006, "not JSON"},
		{"two documents", `{} {}`, 400006, "behind"},
		{"no UTF-8", "{\"a\":\"\xff\"}", 400006, "UTF-8"},
	} {
		h := newHub(t)
		l, _ := attach(t, h, ID{Device: "pi-01"}, time.Hour)
		version, err := l.Report(json.RawMessage(c.patch), 0)
		wantError(t, "reported: "+c.name, err, c.code)
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("reported: %s: %q does not say %q", c.name, err, c.says)
		}
		if err == nil && version != 2 {
			t.Errorf("reported: %s: version %d, want 2", c.name, version)
		}
		if c.patch == "null" {
			continue // for a service that leaves the section as it is
		}
		twin, err := h.PatchTwin(ID{Device: "pi-01"}, json.RawMessage(`{"properties":{"desired":`+c.patch+`}}`), "")
		if c.code == 0 {
			wantError(t, "desired: "+c.name, err, 0)
		} else if err == nil {
			t.Errorf("desired: %s is taken: %v", c.name, twin.Properties.Desired)
		}
		if now, _ := h.Twin(ID{Device: "pi-01"}); c.code != 0 && now.Version != 2 {
			t.Errorf("%s: refused, and still the version is %d", c.name, now.Version)
		}
	}
}

func TestTagsLimit(t *testing.T) {
	h := newHub(t)
	half := strings.Repeat("x", 4095)
	must(t)(h.PatchTwin(ID{Device: "pi-01"}, fmt.Appendf(nil, `{"tags":{"a":%q,"b":%q}}`, half, half), ""))
	_, err := h.PatchTwin(ID{Device: "pi-01"}, json.RawMessage(`{"tags":{"":true}}`), "")
	wantError(t, "four bytes more", err, 400004)
	if twin, _ := h.Twin(ID{Device: "pi-01"}); len(twin.Tags) != 2 || twin.Version != 3 {
		t.Errorf("a refused patch has left %d tags and version %d", len(twin.Tags), twin.Version)
	}
}

func TestReportedConditions(t *testing.T) {
	h := newHub(t)
	l, _ := attach(t, h, ID{"pi-01", "a"}, time.Hour)
	for _, c := range []struct {
		patch     string
		ifVersion int64
		version   int64
		code      int
	}{
		{`{"a":1}`, 1, 2, 0},
		{`{"a":2}`, 1, 0, 412001},
		{`{"a":2}`, 3, 0, 412001},
		{`{"a":2}`, 0, 3, 0},
		{`{"a":2,"$version":3}`, 0, 0, 400004},
		{`{"$metadata":{}}`, 0, 0, 400004},
		{`{}`, 3, 4, 0},
	} {
		version, err := l.Report(json.RawMessage(c.patch), c.ifVersion)
		wantError(t, c.patch, err, c.code)
		if version != c.version {
			t.Errorf("%s: version %d, want %d", c.patch, version, c.version)
		}
	}
	got, err := l.Twin()
	must(t)(got, err)
	if want := `{"desired":{"$version":1},"reported":{"$version":4,"a":2}}`; string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestTwinCounters: what moves which number, as measured.
func TestTwinCounters(t *testing.T) {
	h := newHub(t)
	id := ID{"pi-01", "a"}
	l, _ := attach(t, h, id, time.Hour)
	type counters struct {
		etag              string
		version           int64
		desired, reported int64
	}
	now := func() counters {
		twin, err := h.Twin(id)
		must(t)(twin, err)
		return counters{twin.ETag, twin.Version, twin.Properties.Desired["$version"].(int64), twin.Properties.Reported["$version"].(int64)}
	}
	patch := func(doc string) func() error {
		return func() error { _, err := h.PatchTwin(id, json.RawMessage(doc), ""); return err }
	}
	for _, c := range []struct {
		name string
		do   func() error
		want counters
	}{
		{"fresh", func() error { return nil }, counters{"AAAAAAAAAAE=", 2, 1, 1}},
		{"reported", func() error { _, err := l.Report(json.RawMessage(`{"a":1}`), 0); return err }, counters{"AAAAAAAAAAE=", 3, 1, 2}},
		{"tags", patch(`{"tags":{"a":1}}`), counters{"AAAAAAAAAAI=", 4, 1, 2}},
		{"desired", patch(`{"properties":{"desired":{"a":1}}}`), counters{"AAAAAAAAAAM=", 5, 2, 2}},
		{"both, in any case", patch(`{"Tags":{"a":1},"PROPERTIES":{"Desired":{"a":1}}}`), counters{"AAAAAAAAAAQ=", 6, 3, 2}},
		{"neither", patch(`{"tags":null,"properties":{"reported":{"a":1},"desired":null},"version":9}`), counters{"AAAAAAAAAAQ=", 6, 3, 2}},
		{"identity", func() error {
			twin, _ := h.Twin(id)
			_, err := h.PutModule(Module{DeviceID: id.Device, ModuleID: id.Module, Authentication: keep(t, h, id)}, "*")
			if after, _ := h.Twin(id); after.DeviceETag == twin.DeviceETag {
				t.Error("deviceEtag stays though the identity was written")
			}
			return err
		}, counters{"AAAAAAAAAAQ=", 6, 3, 2}},
		{"telemetry", func() error { return l.Telemetry(Message{Body: []byte("1")}) }, counters{"AAAAAAAAAAQ=", 6, 3, 2}},
	} {
		wantError(t, c.name, c.do(), 0)
		if got := now(); got != c.want {
			t.Errorf("after %s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if twin, _ := h.Twin(ID{"pi-01", "b"}); twin.Version != 2 {
		t.Errorf("module b's twin moved, too: version %d", twin.Version)
	}
}

// keep is the authentication that an identity has, to be sent back.
func keep(t *testing.T, h *Hub, id ID) *Authentication {
	t.Helper()
	m, err := h.Module(id)
	must(t)(m, err)
	return m.Authentication
}

func TestTwinIfMatch(t *testing.T) {
	h := newHub(t)
	id := ID{Device: "pi-01"}
	write := func(ifMatch string) error {
		_, err := h.PatchTwin(id, json.RawMessage(`{"tags":{"a":1}}`), ifMatch)
		return err
	}
	wantError(t, "quoted", write(`"AAAAAAAAAAE="`), 0)
	wantError(t, "bare", write(`AAAAAAAAAAI=`), 0)
	wantError(t, "stale", write(`"AAAAAAAAAAI="`), 412001)
	wantError(t, "star", write(`"*"`), 0)
	wantError(t, "none", write(``), 0)
	_, err := h.ReplaceTwin(id, json.RawMessage(`{}`), "AAAAAAAAAAE=")
	wantError(t, "replace, stale", err, 412001)
	if want := "existingVersion:5 newVersion:1"; err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %s", err, want)
	}
	_, err = h.PatchTwin(ID{Device: "ghost"}, json.RawMessage(`{}`), "")
	wantError(t, "missing device", err, 404001)
}

func TestReplaceTwin(t *testing.T) {
	h := newHub(t)
	id := ID{"pi-01", "a"}
	must(t)(h.PatchTwin(id, json.RawMessage(`{"tags":{"a":1},"properties":{"desired":{"o":{"x":1,"y":2},"gone":1}}}`), ""))
	l, p := attach(t, h, id, time.Hour)
	l.Want(Desired, true)
	_, err := h.ReplaceTwin(id, json.RawMessage(`{"properties":{"desired":{"o":{"x":null}}}}`), "")
	wantError(t, "null", err, 400004)
	if err != nil && !strings.Contains(err.Error(), "properties.desired.o.x") {
		t.Errorf("%v does not name the property", err)
	}
	twin, err := h.ReplaceTwin(id, json.RawMessage(`{"properties":{"desired":{"o":{"x":9}}}}`), "")
	must(t)(twin, err)
	if len(twin.Tags) != 0 {
		t.Errorf("tags %v outlive a replacement without them", twin.Tags)
	}
	delete(twin.Properties.Desired, "$metadata")
	if got, want := string(encode(twin.Properties.Desired)), `{"$version":3,"o":{"x":9}}`; got != want {
		t.Errorf("desired %s, want %s", got, want)
	}
	if got, want := p.told(), []string{`3 {"$version":3,"gone":null,"o":{"x":9,"y":null}}`}; !reflect.DeepEqual(got, want) {
		t.Errorf("told %s, want %s", got, want)
	}
}

// TestWholeTwinSentBack: a tool that reads a twin, changes a value and patches with all of it.
func TestWholeTwinSentBack(t *testing.T) {
	h := newHub(t)
	id := ID{"pi-01", "a"}
	must(t)(h.PatchTwin(id, json.RawMessage(`{"properties":{"desired":{"a":1}}}`), ""))
	twin, err := h.Twin(id)
	must(t)(twin, err)
	twin.Properties.Desired["a"] = 2
	after, err := h.PatchTwin(id, encode(twin), twin.ETag)
	must(t)(after, err)
	if got := fmt.Sprint(after.Properties.Desired["a"], " ", after.Properties.Desired["$version"]); got != "2 3" {
		t.Errorf("a and $version are %s, want 2 3", got)
	}
}

func TestMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // from 2000-01-01T00:00:00Z on
		h := newHub(t)
		id := ID{"pi-01", "a"}
		time.Sleep(time.Second)
		must(t)(h.PatchTwin(id, json.RawMessage(`{"properties":{"desired":{"o":{"x":1},"y":2,"z":3}}}`), ""))
		time.Sleep(1500 * time.Millisecond)
		twin, err := h.PatchTwin(id, json.RawMessage(`{"properties":{"desired":{"o":{"w":[1]},"z":null}}}`), "")
		must(t)(twin, err)
		first := `{"$lastUpdated":"2000-01-01T00:00:01.0000000Z","$lastUpdatedVersion":2}`
		second := `"$lastUpdated":"2000-01-01T00:00:02.5000000Z","$lastUpdatedVersion":3`
		want := `{"$metadata":{` + second + `,"o":{` + second + `,"w":{` + second + `},"x":` + first + `},"y":` + first + `},` +
			`"$version":3,"o":{"w":[1],"x":1},"y":2}`
		if got := string(encode(twin.Properties.Desired)); got != want {
			t.Errorf("desired\n%s, want\n%s", got, want)
		}
		want = `{"$metadata":{"$lastUpdated":"2000-01-01T00:00:00.0000000Z"},"$version":1}`
		if got := string(encode(twin.Properties.Reported)); got != want {
			t.Errorf("reported\n%s, want\n%s", got, want)
		}
	})
}

// FuzzReport: whatever a device reports, the twin stays JSON within its limits, and what is refused changes nothing.
func FuzzReport(f *testing.F) {
	for _, seed := range []string{`{"a":{"b":[1,{"c":null}]}}`, `{"a":1e400}`, `{"\u0000":1}`, nest(12), `[[[`, `{"a":null,"a":2}`, `{"a":-0}`} {
		f.Add(`{"a":{"b":1}}`, seed)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		h := New(Options{})
		must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
		n := &h.devices["d"].identity
		for _, patch := range []string{first, second} {
			before := string(n.twin.deviceTwin())
			tree, err := parseReported(json.RawMessage(patch))
			if err == nil {
				_, err = h.report(n, tree, 0)
			}
			after := n.twin.deviceTwin()
			if err != nil && string(after) != before {
				t.Fatalf("%q is refused (%v) and still changes %s to %s", patch, err, before, after)
			}
			var doc struct {
				Reported map[string]json.RawMessage `json:"reported"`
			}
			if json.Unmarshal(after, &doc) != nil {
				t.Fatalf("the twin is no JSON after %q: %s", patch, after)
			}
			if v, err := strconv.Atoi(string(doc.Reported["$version"])); err != nil || v < 1 {
				t.Fatalf("$version is %s after %q", doc.Reported["$version"], patch)
			}
			if sizeOf(n.twin.reported.tree) > maxSection {
				t.Fatalf("%d bytes after %q", sizeOf(n.twin.reported.tree), patch)
			}
			encode(n.twin.reported.show())
		}
	})
}

// FuzzPatchTwin is the same for what a service sends.
func FuzzPatchTwin(f *testing.F) {
	for _, seed := range []string{`{"tags":{"a":1}}`, `{"properties":{"desired":{"a":{"b":null}}}}`, `{"properties":7}`, `{"Properties":{"DESIRED":[]}}`, `null`} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, doc string, replace bool) {
		h := New(Options{})
		must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
		write := h.PatchTwin
		if replace {
			write = h.ReplaceTwin
		}
		twin, err := write(ID{Device: "d"}, json.RawMessage(doc), "")
		if err != nil {
			if now, _ := h.Twin(ID{Device: "d"}); now.Version != 2 {
				t.Fatalf("%q is refused (%v) and still moves the version to %d", doc, err, now.Version)
			}
			return
		}
		if !json.Valid(encode(twin)) {
			t.Fatalf("the twin is no JSON after %q", doc)
		}
	})
}
