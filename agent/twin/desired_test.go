package twin

import (
	"encoding/json"
	"testing"
)

func TestDesiredMerge(t *testing.T) {
	known := func() *Desired {
		d := &Desired{}
		if _, err := d.Replace(5, json.RawMessage(`{"a":1,"b":{"x":1},"$version":5}`)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		name    string
		version int64
		patch   string
		step    Step
		bad     bool
		doc     string
		after   int64
	}{
		{"older", 4, `{"a":9}`, Skip, false, `{"a":1,"b":{"x":1}}`, 5},
		{"repeated", 5, `{"a":9}`, Skip, false, `{"a":1,"b":{"x":1}}`, 5},
		{"next", 6, `{"a":2,"$version":6}`, Changed, false, `{"a":2,"b":{"x":1}}`, 6},
		{"next removes", 6, `{"a":null,"b":{"x":null,"y":2}}`, Changed, false, `{"b":{"y":2}}`, 6},
		{"gap", 7, `{"a":9}`, Fetch, false, `{"a":1,"b":{"x":1}}`, 5},
		{"next, cut off", 6, `{"a":`, Fetch, true, `{"a":1,"b":{"x":1}}`, 5},
		{"next, no object", 6, `[]`, Fetch, true, `{"a":1,"b":{"x":1}}`, 5},
	} {
		d := known()
		step, err := d.Merge(c.version, json.RawMessage(c.patch))
		if step != c.step || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v; want %v, error %v", c.name, step, err, c.step, c.bad)
		}
		if d.Version != c.after || !Equal(d.Doc, doc(t, c.doc)) {
			t.Errorf("%s: version %d, %s; want %d, %s", c.name, d.Version, text(d.Doc), c.after, c.doc)
		}
	}
}

// A patch is no document: without one, the first notification asks for a GET.
func TestDesiredStartsWithFetch(t *testing.T) {
	var d Desired
	for _, v := range []int64{1, 2, 40} {
		if step, err := d.Merge(v, json.RawMessage(`{"a":1}`)); step != Fetch || err != nil {
			t.Errorf("Merge(%d) = %v, %v; want fetch", v, step, err)
		}
	}
	if changed, err := d.Replace(1, json.RawMessage(`{}`)); !changed || err != nil {
		t.Errorf("first Replace = %v, %v; want a change even of an empty document", changed, err)
	}
}

func TestDesiredReplace(t *testing.T) {
	for _, c := range []struct {
		name    string
		version int64
		doc     string
		changed bool
	}{
		{"the same", 7, `{"a":1,"b":2}`, false},
		{"the same, spelt otherwise", 7, `{"b":2.0,"a":1,"z":null}`, false},
		{"newer", 9, `{"a":1}`, true},
		{"newer, same content", 8, `{"a":1,"b":2}`, true},
		{"created again", 1, `{}`, true},
		{"created again, by chance the same version", 7, `{"a":5}`, true},
	} {
		d := Desired{}
		d.Replace(7, json.RawMessage(`{"a":1,"b":2}`))
		changed, err := d.Replace(c.version, json.RawMessage(c.doc))
		if changed != c.changed || err != nil || d.Version != c.version {
			t.Errorf("%s: changed %v, version %d, %v; want %v, %d", c.name, changed, d.Version, err, c.changed, c.version)
		}
		if want := Merge(nil, doc(t, c.doc)); !Equal(d.Doc, want) {
			t.Errorf("%s: %s, want %s", c.name, text(d.Doc), text(want))
		}
	}
	d := Desired{Version: 3}
	if _, err := d.Replace(4, json.RawMessage(`nonsense`)); err == nil || d.Version != 3 {
		t.Errorf("Replace with nonsense: version %d, %v; want 3 and an error", d.Version, err)
	}
}

func TestDesiredSince(t *testing.T) {
	var d Desired
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, want int64) {
		t.Helper()
		if got := d.Since(name); got != want {
			t.Errorf("version %d: Since(%s) = %d, want %d", d.Version, name, got, want)
		}
	}
	must(d.Replace(5, json.RawMessage(`{"a":1,"b":2}`)))
	check("a", 5)
	check("never", 0)
	must(d.Merge(6, json.RawMessage(`{"a":1}`))) // asked again, with the same value
	check("a", 6)
	check("b", 5)
	must(d.Merge(7, json.RawMessage(`{"b":null}`)))
	check("b", 7)
	must(d.Replace(9, json.RawMessage(`{"a":3,"c":1}`)))
	check("a", 9)
	check("b", 7)
	check("c", 9)
	must(d.Replace(2, json.RawMessage(`{"c":1}`))) // created again: nothing older counts
	check("a", 2)
	check("b", 0)
	check("c", 2)
}

func FuzzDesired(f *testing.F) {
	f.Add(int64(2), `{"a":{"b":null},"$version":2}`)
	f.Add(int64(9), `{}`)
	f.Fuzz(func(t *testing.T, version int64, patch string) {
		d := Desired{Version: 1, Doc: map[string]any{"a": "x"}}
		step, err := d.Merge(version, json.RawMessage(patch))
		if (step == Changed) != (d.Version == 2) || step == Changed && err != nil {
			t.Fatalf("Merge(%d, %q) = %v, %v with version %d", version, patch, step, err, d.Version)
		}
		for k := range d.Doc {
			if k != "" && k[0] == '$' {
				t.Fatalf("the hub's own member %q got into the document", k)
			}
		}
	})
}
