package hub

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tape is a journal in memory.
type tape struct {
	mu      sync.Mutex
	changes [][]Record
	synced  int // how many of them
}

func (j *tape) Append(change []Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changes = append(j.changes, change)
}

func (j *tape) Sync() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.synced = len(j.changes)
}

func (j *tape) records() []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Concat(j.changes...)
}

func taped(t *testing.T) (*Hub, *tape) {
	t.Helper()
	j := &tape{}
	h, err := Open(Options{}, j, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h, j
}

// knows is everything that a hub knows, comparable.
func knows(t *testing.T, h *Hub) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := h.Records(func(r Record) error {
		all[r.Kind+" "+r.Key] = string(r.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever was done to a hub, the records of its changes make the same hub again, and so do those of what it knows.
func TestRecordsMakeTheSameHub(t *testing.T) {
	h, j := taped(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		_, err := h.PutDevice(Device{DeviceID: fmt.Sprintf("d%d", i)}, "")
		must(err)
		_, err = h.PutModule(Module{DeviceID: fmt.Sprintf("d%d", i), ModuleID: "m"}, "")
		must(err)
	}
	reason, print := "stolen", strings.Repeat("0a", 20)
	_, err := h.PatchTwin(ID{"d0", "m"}, json.RawMessage(`{"tags":{"a":{"b":"<&>"}},"properties":{"desired":{"n":1.50,"o":{"p":[1,{"q":2}]},"e":{}}}}`), "")
	must(err)
	_, err = h.ReplaceTwin(ID{Device: "d1"}, json.RawMessage(`{"properties":{"desired":{"x":4503599627370495}}}`), "*")
	must(err)
	l, _ := attach(t, h, ID{Device: "d1"}, time.Hour)
	_, err = l.Report(json.RawMessage(`{"r":true,"s":{"t":1e2}}`), 0)
	must(err)
	_, err = h.PutDevice(Device{DeviceID: "d0", Status: "disabled", StatusReason: &reason}, "*")
	must(err)
	_, err = h.PutDevice(Device{DeviceID: "d1", Authentication: &Authentication{X509Thumbprint: X509Thumbprint{PrimaryThumbprint: &print}}}, "*")
	must(err)
	must(h.DeleteDevice("d2", "*"))
	h.mu.Lock()
	h.devices["d1"].uploads = map[string]fileUpload{"u": {"photo.jpg", time.Now().Add(time.Hour)}}
	h.changedIdentity(ID{Device: "d1"})
	h.unlock()
	must(h.DeleteModule(ID{"d1", "m"}, "*"))
	_, err = h.PutDevice(Device{DeviceID: "d3"}, "")
	must(err)
	soon := C2D{Message: Message{Body: []byte{0xff}, Properties: map[string]string{"k": ""}}, Expires: time.Now().Add(time.Minute), Ack: "full"}
	for range 5 {
		must(h.SendC2D(ID{Device: "d3"}, soon))
	}
	for _, end := range []Outcome{Complete, Reject, Abandon} { // two records: one in a batch, one not yet
		m, _, err := h.ReceiveC2D(ID{Device: "d3"})
		must(err)
		must(h.SettleC2D(ID{Device: "d3"}, m.Token, end))
	}
	h.KeepSession(ID{Device: "d3"}, &Session{Level: 4, Filters: map[string]byte{"$iothub/twin/res/#": 1}})
	_, _, err = h.ReceiveC2D(ID{Device: "d3"}) // what is under way is not settled
	must(err)
	_, err = h.PatchTwin(ID{Device: "d3"}, json.RawMessage(`{"tags":{}}`), "") // the last activity is kept with a change
	must(err)

	if j.synced != len(j.changes) {
		t.Errorf("%d changes were answered, %d are safe", len(j.changes), j.synced)
	}
	want := knows(t, h)
	for name, saved := range map[string][]Record{"changes": j.records(), "all": slices.Collect(all(t, h))} {
		again, err := Open(Options{}, &tape{}, saved)
		must(err)
		if got := knows(t, again); !reflect.DeepEqual(got, want) {
			t.Errorf("from %s:\n got %v\nwant %v", name, got, want)
		}
		for _, id := range []ID{{"d0", "m"}, {Device: "d1"}, {Device: "d3"}} {
			before, err := h.Twin(id)
			must(err)
			after, err := again.Twin(id)
			must(err)
			before.ConnectionState = "Disconnected" // nobody is connected to a hub that has just begun
			if b, a := string(encode(before)), string(encode(after)); a != b {
				t.Errorf("twin of %s from %s:\n got %s\nwant %s", id, name, a, b)
			}
		}
		if got, want := again.OwnerConnectionString(), h.OwnerConnectionString(); got != want {
			t.Error("the policies' keys are others")
		}
		_, err = again.PutDevice(Device{DeviceID: "d2"}, "")
		must(err)
		d, err := again.Device("d2")
		must(err)
		if d.ETag == "" || again.etags <= h.etags || again.made <= h.made {
			t.Errorf("an etag or a generation is given twice: %d after %d, %d after %d", again.etags, h.etags, again.made, h.made)
		}
	}
}

func all(t *testing.T, h *Hub) func(func(Record) bool) {
	return func(yield func(Record) bool) {
		if err := h.Records(func(r Record) error { yield(r); return nil }); err != nil {
			t.Error(err)
		}
	}
}

// A change is one batch: a device goes with its modules or not at all.
func TestAChangeIsOneBatch(t *testing.T) {
	h, j := taped(t)
	for _, m := range []string{"a", "b"} {
		if _, err := h.Device("d"); err != nil {
			if _, err := h.PutDevice(Device{DeviceID: "d"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.PutModule(Module{DeviceID: "d", ModuleID: m}, ""); err != nil {
			t.Fatal(err)
		}
	}
	before := len(j.changes)
	if err := h.DeleteDevice("d", "*"); err != nil {
		t.Fatal(err)
	}
	if n := len(j.changes) - before; n != 1 {
		t.Fatalf("%d batches, want 1", n)
	}
	var got []string
	for _, r := range j.changes[before] {
		if r.Data != nil {
			t.Errorf("%s %s is still there", r.Kind, r.Key)
		}
		got = append(got, r.Kind+" "+r.Key)
	}
	slices.Sort(got)
	if want := []string{"device d", "module d/a", "module d/b"}; !slices.Equal(got, want) {
		t.Errorf("removed %q, want %q", got, want)
	}
	// What reads or is refused leaves no trace.
	before = len(j.changes)
	_, _ = h.Device("d")
	_, _ = h.PatchTwin(ID{Device: "d"}, json.RawMessage(`{}`), "")
	if len(j.changes) != before {
		t.Errorf("nothing has changed, and %v was kept", j.changes[before:])
	}
}

// Each field of Hub is either kept by a kind, or named here with the reason why it need not be.
func TestEveryFieldIsSavedOrVolatile(t *testing.T) {
	saved := map[string][]string{ // field: kinds
		"policies":       {policies},
		"devices":        {devices, modules, messages, sessions},
		"modules":        {modules}, // counted
		"etags":          {counters},
		"sequence":       {counters},
		"feedback":       {feedbacks},
		"uploaded":       {fileNotices},
		"made":           {counters},
		"jobs":           {jobs},
		"configurations": {configurations},

		"importExports": {importExportJobs},
	}
	volatile := map[string]string{
		"host":              "an option",
		"moduleLimit":       "an option",
		"deviceCAs":         "an option",
		"order":             "made of the devices",
		"ttl":               "an option",
		"files":             "an option",
		"deliveries":        "an option",
		"storage":           "an option",
		"mu":                "the lock",
		"later":             "of a section under the lock",
		"dirty":             "of a section under the lock",
		"journal":           "an option",
		"rids":              "direct methods end with their connections",
		"faults":            "tests set them for their own run",
		"faultIDs":          "tests set them for their own run",
		"dice":              "seeded by an option",
		"attempts":          "of this run's clients",
		"throttles":         "an option, and levels that fill again within a minute or, for the quota, a day",
		"offset":            "an option",
		"watchers":          "streams end with the process",
		"watched":           "counts them",
		"maxJobs":           "an option",
		"ctx":               "ends with the process",
		"cancel":            "ends with the process",
		"work":              "ends with the process",
		"maxConfigurations": "an option",
		"choices":           "an option",
		"since":             "when this process made it",
		"revision":          "of this process's caches",
		"stale":             "a hub that is opened looks at everybody",
		"staleAll":          "a hub that is opened looks at everybody",
		"reconciler":        "ends with the process",
		"configuring":       "of a section under the lock",
	}
	for f := range reflect.TypeFor[Hub]().Fields() {
		_, v := volatile[f.Name]
		if of, s := saved[f.Name]; s == v {
			t.Errorf("Hub.%s: say in this test which kind keeps it, or why it is not kept", f.Name)
		} else if s {
			for _, name := range of {
				if !slices.ContainsFunc(kinds(), func(k kind) bool { return k.name == name }) {
					t.Errorf("Hub.%s: no kind %q", f.Name, name)
				}
			}
		}
	}
}

// The same of what hangs on an identity: each field that a record has, or another kind keeps, or that ends with the
// process.
func TestEveryFieldOfAnIdentityIsSavedOrVolatile(t *testing.T) {
	for _, of := range []struct {
		what                   reflect.Type
		saved, other, volatile []string
	}{
		{reflect.TypeFor[identity](), []string{"generation", "etag", "auth", "managedBy", "modelID", "twin", "applied", "uploads", "linkTime", "activity", "attributes"},
			[]string{"id", "mail", "session"}, []string{"link", "reachable"}},
		{reflect.TypeFor[device](), []string{"identity", "place", "disabled", "statusReason", "statusTime"}, []string{"modules"}, nil},
		{reflect.TypeFor[place](), []string{"edge", "scope", "parents"}, nil, nil},
		{reflect.TypeFor[authentication](), []string{"kind", "primary", "secondary", "thumbprint1", "thumbprint2"}, nil, nil},
		{reflect.TypeFor[twin](), []string{"writes", "tags", "desired", "reported"}, nil, nil},
		{reflect.TypeFor[section](), []string{"tree", "meta", "version"}, nil, nil},
		{reflect.TypeFor[meta](), []string{"at", "version", "below"}, nil, nil},
		{reflect.TypeFor[fileUpload](), []string{"blob", "expires"}, nil, nil},
	} {
		known := slices.Concat(of.saved, of.other, of.volatile)
		for f := range of.what.Fields() {
			if !slices.Contains(known, f.Name) {
				t.Errorf("%s.%s: keep it in saved.go, or in a kind of its own, and name it in this test", of.what, f.Name)
			}
		}
	}
}

func TestOpenRefusesNonsense(t *testing.T) {
	for _, r := range []Record{
		{Kind: "ship", Key: "x", Data: json.RawMessage(`{}`)},
		{Kind: devices, Key: "d", Data: json.RawMessage(`{}`)},
		{Kind: devices, Key: "d", Data: json.RawMessage(`[`)},
		{Kind: devices, Key: "a b", Data: json.RawMessage(`{"generation":"1"}`)},
		{Kind: modules, Key: "d/m", Data: json.RawMessage(`{}`)},
		{Kind: counters, Data: json.RawMessage(`"x"`)},
	} {
		if _, err := Open(Options{}, &tape{}, []Record{r}); err == nil || !strings.Contains(err.Error(), r.Kind) {
			t.Errorf("%s %q %s: error %v", r.Kind, r.Key, r.Data, err)
		}
	}
}

// FuzzOpen: records come from a file.
func FuzzOpen(f *testing.F) {
	h, j := New(Options{}), &tape{}
	h.journal = j
	if _, err := h.PutDevice(Device{DeviceID: "d"}, ""); err != nil {
		f.Fatal(err)
	}
	if _, err := h.PatchTwin(ID{Device: "d"}, json.RawMessage(`{"tags":{"a":1},"properties":{"desired":{"o":{"p":1}}}}`), ""); err != nil {
		f.Fatal(err)
	}
	if _, err := h.PutModule(Module{DeviceID: "d", ModuleID: "m"}, ""); err != nil {
		f.Fatal(err)
	}
	for _, r := range j.records() {
		f.Add(r.Kind, r.Key, []byte(r.Data))
	}
	base := j.records()
	f.Fuzz(func(t *testing.T, kind, key string, data []byte) {
		if !json.Valid(data) {
			return // a journal holds JSON
		}
		h, err := Open(Options{}, &tape{}, append(slices.Clone(base), Record{kind, key, data}))
		if err != nil {
			return
		}
		// What was taken in can be shown and kept again.
		for _, d := range h.Devices(0) {
			if _, err := h.Twin(ID{Device: d.DeviceID}); err != nil {
				t.Error(err)
			}
		}
		knows(t, h)
	})
}
