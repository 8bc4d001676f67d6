package twin

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// expect fails unless the tracker's next patch is want; "" means that there is none.
func expect(t *testing.T, tr *Tracker, want string) {
	t.Helper()
	raw, ok := tr.Patch()
	if want == "" {
		if ok {
			t.Errorf("patch %s, want none", raw)
		}
		return
	}
	if !ok {
		t.Fatalf("no patch, want %s", want)
	}
	if !Equal(doc(t, string(raw)), doc(t, want)) {
		t.Errorf("patch %s, want %s", raw, want)
	}
}

func want(t *testing.T, tr *Tracker, text string) {
	t.Helper()
	if err := tr.Want(doc(t, text)); err != nil {
		t.Fatal(err)
	}
}

func known(t *testing.T, tr *Tracker, text string) {
	t.Helper()
	if err := tr.Known(json.RawMessage(text)); err != nil {
		t.Fatal(err)
	}
}

func TestTracker(t *testing.T) {
	var tr Tracker
	want(t, &tr, `{"a":1,"b":{"x":1,"y":2}}`)
	expect(t, &tr, "") // what the hub has is not known yet
	known(t, &tr, `{"a":1,"b":{"x":5},"old":true,"$version":4}`)
	expect(t, &tr, `{"b":{"x":1,"y":2},"old":null}`)
	tr.Sent()
	expect(t, &tr, "") // one at a time
	want(t, &tr, `{"a":2,"b":{"x":1,"y":2}}`)
	expect(t, &tr, "")
	tr.Acked()
	expect(t, &tr, `{"a":2}`) // only what changed meanwhile
	tr.Sent()
	tr.Acked()
	expect(t, &tr, "")
}

// An unanswered patch is sent again, also when it may have arrived and nothing of it is wanted any more.
func TestTrackerLostAnswer(t *testing.T) {
	var tr Tracker
	known(t, &tr, `{"a":1,"o":{"p":1}}`)
	want(t, &tr, `{"a":2,"o":{"p":1,"q":2}}`)
	expect(t, &tr, `{"a":2,"o":{"q":2}}`)
	tr.Sent()
	tr.Failed()
	expect(t, &tr, `{"a":2,"o":{"p":1,"q":2}}`)
	want(t, &tr, `{"a":1,"o":{"p":1}}`) // as it was: but the hub may have the other
	expect(t, &tr, `{"a":1,"o":{"p":1,"q":null}}`)
	tr.Sent()
	tr.Acked()
	expect(t, &tr, "")
}

// A GET after a reconnect says what became of the patch.
func TestTrackerReconnect(t *testing.T) {
	var tr Tracker
	known(t, &tr, `{}`)
	want(t, &tr, `{"a":1}`)
	expect(t, &tr, `{"a":1}`)
	tr.Sent()
	tr.Failed()
	known(t, &tr, `{"a":1}`)
	expect(t, &tr, "")
	if err := tr.Known(json.RawMessage(`broken`)); err == nil {
		t.Error("a broken answer to GET is taken")
	}
	expect(t, &tr, "")
}

// One property that the hub will not take must not hold up the others.
func TestTrackerRefused(t *testing.T) {
	var tr Tracker
	known(t, &tr, `{}`)
	want(t, &tr, `{"a":1,"bad":2,"c":3}`)
	expect(t, &tr, `{"a":1,"bad":2,"c":3}`)
	tr.Sent()
	if err := tr.Refused(); err != nil {
		t.Errorf("a refused patch of three: %v, want none blamed yet", err)
	}
	expect(t, &tr, `{"a":1}`)
	tr.Sent()
	tr.Acked()
	expect(t, &tr, `{"bad":2}`)
	tr.Sent()
	if err := tr.Refused(); err == nil || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("error %v, want the bad one named", err)
	}
	expect(t, &tr, `{"c":3}`)
	tr.Sent()
	tr.Acked()
	expect(t, &tr, "")
	want(t, &tr, `{"a":2,"bad":2,"c":4}`)
	expect(t, &tr, `{"a":2,"c":4}`) // several at once again, without the bad one
	want(t, &tr, `{"a":1,"bad":5,"c":3}`)
	expect(t, &tr, `{"bad":5}`) // it has changed: try again
}

func TestClean(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"d":`, n) + "1" + strings.Repeat("}", n) }
	for _, c := range []struct{ name, doc, want, why string }{
		{"fine", `{"a":{"b":[1,"x",true]},"ü":1.5}`, `{"a":{"b":[1,"x",true]},"ü":1.5}`, ""},
		{"dot", `{"a.b":1,"c":{"d.e":1,"f":2}}`, `{"c":{"f":2}}`, "with '.'"},
		{"dollar", `{"$version":1,"a":1}`, `{"a":1}`, "with '.'"},
		{"space", `{"a b":1}`, `{}`, "a space"},
		{"empty name", `{"":1}`, `{}`, "empty name"},
		{"control", `{"a\u0007":1,"b\u0085":1}`, `{}`, "control character"},
		{"long name", `{"` + strings.Repeat("k", 1025) + `":1}`, `{}`, "1025 bytes"},
		{"long string", `{"a":"` + strings.Repeat("x", 4097) + `","b":1}`, `{"b":1}`, "4097 bytes"},
		{"longest string", `{"a":"` + strings.Repeat("x", 4096) + `"}`, `{"a":"` + strings.Repeat("x", 4096) + `"}`, ""},
		{"integer", `{"a":4503599627370495,"b":4503599627370496,"c":-4503599627370497,"d":99999999999999999999}`,
			`{"a":4503599627370495}`, "52 bits"},
		{"float", `{"a":1e400,"b":1e300}`, `{"b":1e300}`, "float64"},
		{"ten deep", `{"a":` + deep(10) + `}`, `{"a":` + deep(10) + `}`, ""},
		{"eleven deep", `{"a":` + deep(11) + `,"b":1}`,
			`{"a":` + strings.Repeat(`{"d":`, 9) + "{}" + strings.Repeat("}", 9) + `,"b":1}`, "deeper"},
		{"array whole or not at all", `{"a":[1,{"x.y":1}],"b":2}`, `{"b":2}`, "with '.'"},
		{"null", `{"a":null,"b":{"c":null}}`, `{"b":{}}`, ""},
	} {
		got, err := Clean(doc(t, c.doc))
		if !Equal(got, doc(t, c.want)) {
			t.Errorf("%s: %.200s, want %.200s", c.name, text(got), c.want)
		}
		if c.why == "" && err != nil || c.why != "" && (!errors.Is(err, ErrNotTwin) || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.why)
		}
	}
	if _, err := Clean(map[string]any{"a": 5}); !errors.Is(err, ErrNotTwin) {
		t.Errorf("an int that is no json.Number: %v", err)
	}
}

// Over 32 KiB the largest member goes, the rest stays.
func TestCleanSize(t *testing.T) {
	d := map[string]any{"small": "x"}
	for i := range 9 {
		d[fmt.Sprintf("m%d", i)] = strings.Repeat("x", 3900+i)
	}
	got, err := Clean(d)
	if !errors.Is(err, ErrNotTwin) || !strings.Contains(err.Error(), `"m8"`) || len(got) != 9 || got["small"] != "x" {
		t.Errorf("%d members left, %v; want m8 dropped alone", len(got), err)
	}
	if n := size(got); n > maxSection {
		t.Errorf("%d bytes left", n)
	}
}

// Whatever gets lost or refused on the way, in the end the hub has what was wanted.
func TestTrackerConverges(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var tr Tracker
		hub := randomDoc(r, 2)
		get := func() { known(t, &tr, text(hub)) }
		get()
		var last map[string]any
		for range 40 {
			if r.IntN(3) == 0 {
				last = randomDoc(r, 2)
				if err := tr.Want(last); err != nil {
					t.Fatal(err)
				}
			}
			raw, ok := tr.Patch()
			if !ok {
				continue
			}
			tr.Sent()
			patch := doc(t, string(raw))
			switch r.IntN(6) {
			case 0: // lost on its way there
				tr.Failed()
			case 1: // lost on its way back
				hub = Merge(hub, patch)
				tr.Failed()
			case 2: // and the connection with it
				if r.IntN(2) == 0 {
					hub = Merge(hub, patch)
				}
				tr.Failed()
				get()
			default:
				hub = Merge(hub, patch)
				tr.Acked()
			}
		}
		for range 3 {
			if raw, ok := tr.Patch(); ok {
				tr.Sent()
				hub = Merge(hub, doc(t, string(raw)))
				tr.Acked()
			}
		}
		if last != nil && !Equal(hub, last) {
			t.Fatalf("seed %d: the hub has %s, want %s", seed, text(hub), text(last))
		}
		expect(t, &tr, "")
	}
}

func randomDoc(r *rand.Rand, level int) map[string]any {
	out := map[string]any{}
	for _, k := range []string{"a", "b", "c"} {
		switch r.IntN(4) {
		case 0:
			out[k] = json.Number(fmt.Sprint(r.IntN(3)))
		case 1:
			if level > 0 {
				out[k] = randomDoc(r, level-1)
			}
		case 2:
			out[k] = []any{json.Number("1")}
		}
	}
	return out
}

func BenchmarkMerge(b *testing.B) {
	target := map[string]any{}
	for i := range 60 {
		target[fmt.Sprintf("setting_%d", i)] = map[string]any{"value": json.Number("1"), "text": "some words of a setting"}
	}
	patch := map[string]any{"setting_7": map[string]any{"value": json.Number("2")}}
	b.ReportAllocs()
	for b.Loop() {
		Merge(target, patch)
	}
}
