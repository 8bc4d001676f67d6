package twin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Tracker holds what the hub is known to have as reported properties and what it should have, and makes the patches
// between the two. One patch is under way at a time, and a change is asked for again until it is acknowledged. The zero
// value is ready; it belongs to one goroutine.
//
// After every connect: Known with the answer of a twin GET, then Patch; Sent; then Acked, Failed or Refused; Patch again.
type Tracker struct {
	known  map[string]any // nil until the first Known
	want   map[string]any
	offer  map[string]any // the patch that Patch answered last
	flight map[string]any // the patch under way; nil when none

	// unsure holds, per top-level member of a patch whose answer never came, every path that may exist at the hub.
	// Such a member is sent whole, with null for each path that is not wanted.
	unsure map[string]any
	// refused holds members that the hub would not take, as they were wanted then. They are left out until they change.
	refused map[string]any
	single  bool // after a refused patch of several members: one member at a time, to find the bad one
}

// Known takes the hub's reported properties from a twin GET. A patch under way is forgotten: the answer shows what
// became of it.
func (t *Tracker) Known(reported json.RawMessage) error {
	doc, err := parseSection(reported)
	if err != nil {
		return err
	}
	t.known, t.flight, t.unsure = Merge(nil, doc), nil, nil
	return nil
}

// Want sets the whole document that the hub should have; members that the hub has besides are removed there. What the
// hub's rules forbid is left out and named in the error; the rest holds.
func (t *Tracker) Want(doc map[string]any) error {
	clean, err := Clean(doc)
	t.want = clean
	return err
}

// Patch answers the merge patch to send now, or false when there is none: nothing differs, one is under way, or what
// the hub has isn't known yet.
func (t *Tracker) Patch() (json.RawMessage, bool) {
	p := t.diff()
	if p == nil {
		return nil, false
	}
	raw, err := json.Marshal(p)
	if err != nil { // a Go value that JSON cannot hold never passes Clean
		return nil, false
	}
	t.offer = p
	return raw, true
}

// Sent says that the patch which Patch answered last is under way.
func (t *Tracker) Sent() { t.flight, t.offer = t.offer, nil }

// Acked says that the hub has taken the patch under way.
func (t *Tracker) Acked() {
	t.known = Merge(t.known, t.flight)
	for k := range t.flight {
		delete(t.unsure, k)
	}
	t.flight = nil
}

// Failed says that no answer came to the patch under way: it may have been taken or not.
func (t *Tracker) Failed() {
	for k, v := range t.flight {
		have, ok := t.unsure[k]
		if !ok {
			have = t.known[k]
		}
		if t.unsure == nil {
			t.unsure = map[string]any{}
		}
		t.unsure[k] = paths(have, v)
	}
	t.flight = nil
}

// Refused says that the hub has refused the patch under way for good (its 400 or 413, not its 429). Of several members the
// bad one is then looked for, one patch each; a member refused alone is left out until what is wanted of it changes,
// and named in the error.
func (t *Tracker) Refused() error {
	members := slices.Sorted(maps.Keys(t.flight))
	t.flight = nil
	if len(members) != 1 {
		t.single = true
		return nil
	}
	k := members[0]
	if t.refused == nil {
		t.refused = map[string]any{}
	}
	t.refused[k] = t.want[k]
	return fmt.Errorf("twin: the hub refuses reported property %q: left out until it changes", k)
}

// LeftOut are the members that the hub has refused and that are still wanted as they were then, sorted.
func (t *Tracker) LeftOut() []string {
	var names []string
	for k, v := range t.refused {
		if Equal(v, t.want[k]) {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	return names
}

// Anew forgets what was refused: the identity was created again.
func (t *Tracker) Anew() { t.refused, t.single = nil, false }

// diff is the patch that brings whatever the hub may have to what is wanted; nil when there is none to send.
func (t *Tracker) diff() map[string]any {
	if t.known == nil || t.flight != nil {
		return nil
	}
	p := Diff(t.known, t.want)
	for k, may := range t.unsure {
		if d := force(map[string]any{k: may}, t.want, k); d != nil {
			maps.Copy(p, d)
		}
	}
	for k, v := range t.refused {
		if Equal(v, t.want[k]) {
			delete(p, k)
		} else {
			delete(t.refused, k)
		}
	}
	if len(p) == 0 {
		t.single = false
		return nil
	}
	if t.single {
		first := slices.Min(slices.Collect(maps.Keys(p)))
		return map[string]any{first: p[first]}
	}
	return p
}

// paths joins two values into one that has every path of both, so that force finds all that may need a null.
func paths(a, b any) any {
	x, okA := a.(map[string]any)
	y, okB := b.(map[string]any)
	switch {
	case okA && okB:
		out := maps.Clone(x)
		for k, v := range y {
			out[k] = paths(x[k], v)
		}
		return out
	case okA:
		return x
	case okB:
		return y
	case b != nil:
		return b
	}
	return a
}

// force is the patch for member k that leaves exactly want[k], whichever subset of may's paths the hub has.
func force(may, want map[string]any, k string) map[string]any {
	w := want[k]
	if w == nil {
		return map[string]any{k: nil}
	}
	wantObj, ok := w.(map[string]any)
	if !ok {
		return map[string]any{k: w}
	}
	out := Diff(nil, wantObj)
	if mayObj, ok := may[k].(map[string]any); ok {
		for sub := range mayObj {
			maps.Copy(out, force(mayObj, wantObj, sub))
		}
	}
	return map[string]any{k: out}
}

// Limits of reported properties (Microsoft Learn, "Understand and use device twins in IoT Hub", device twin size and
// tags and properties format).
const (
	maxDepth   = 10
	maxKey     = 1 << 10
	maxString  = 4 << 10
	maxSection = 32 << 10
	maxInteger = 4503599627370495
	minInteger = -4503599627370496
)

// ErrNotTwin is a value or a name that the hub's rules for twins forbid.
var ErrNotTwin = errors.New("not allowed in a twin")
