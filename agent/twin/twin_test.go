package twin

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// doc reads JSON in a test.
func doc(t testing.TB, text string) map[string]any {
	t.Helper()
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("Parse(%s): %v", text, err)
	}
	return d
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// The rows of RFC 7396, appendix A, whose target and patch are objects.
func TestMerge(t *testing.T) {
	for _, c := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":1.0}`, `{"b":1e2}`, `{"a":1.0,"b":1e2}`}, // numbers keep their spelling
	} {
		target := doc(t, c.target)
		got := Merge(target, doc(t, c.patch))
		if !reflect.DeepEqual(got, doc(t, c.want)) {
			t.Errorf("Merge(%s, %s) = %s, want %s", c.target, c.patch, text(got), c.want)
		}
		if !reflect.DeepEqual(target, doc(t, c.target)) {
			t.Errorf("Merge changed its target to %s, was %s", text(target), c.target)
		}
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{`{}`, `{}`, `{}`},
		{`{"a":1}`, `{"a":1}`, `{}`},
		{`{"a":1}`, `{"a":1.0}`, `{}`}, // the hub may spell a number in its own way
		{`{"a":9007199254740993}`, `{"a":9007199254740992}`, `{"a":9007199254740992}`},
		{`{"a":1}`, `{"b":1}`, `{"a":null,"b":1}`},
		{`{"a":{"x":1,"y":2}}`, `{"a":{"x":1,"y":3}}`, `{"a":{"y":3}}`},
		{`{"a":{"x":1,"y":2}}`, `{"a":{}}`, `{"a":{"x":null,"y":null}}`},
		{`{"a":{"x":1}}`, `{"a":5}`, `{"a":5}`},
		{`{"a":5}`, `{"a":{"x":1,"z":null}}`, `{"a":{"x":1}}`},
		{`{"a":[1,2]}`, `{"a":[1,2]}`, `{}`},
		{`{"a":[1,2]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"a":[1]}`, `{"a":1}`, `{"a":1}`},
		{`{"a":1}`, `{"a":null}`, `{"a":null}`},
		{`{}`, `{"a":null}`, `{}`},
	} {
		if got := Diff(doc(t, c.from), doc(t, c.to)); !reflect.DeepEqual(got, doc(t, c.want)) {
			t.Errorf("Diff(%s, %s) = %s, want %s", c.from, c.to, text(got), c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat(`{"a":`, maxParse+2) + "1" + strings.Repeat("}", maxParse+2)
	for _, c := range []struct {
		text string
		want error
	}{
		{`[1]`, ErrNotObject}, {`null`, ErrNotObject}, {`"x"`, ErrNotObject}, {deep, ErrTooDeep},
	} {
		if _, err := Parse([]byte(c.text)); !errors.Is(err, c.want) {
			t.Errorf("Parse(%.20s) = %v, want %v", c.text, err, c.want)
		}
	}
	for _, bad := range []string{``, `{`, `{"a":1} x`, `{"a":1}{}`, `{"a":01}`} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("Parse(%s) succeeds", bad)
		}
	}
}

// A difference applied is the target, whatever the two documents are.
func FuzzDiffMerge(f *testing.F) {
	f.Add(`{"a":{"b":[1,{"c":null}]}}`, `{"a":{"b":2,"d":{}}}`)
	f.Add(`{"a":1e400}`, `{"a":{"$version":7}}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		from, errA := Parse([]byte(a))
		to, errB := Parse([]byte(b))
		if errA != nil || errB != nil {
			return
		}
		from, to = Merge(nil, from), Merge(nil, to) // a twin holds no null members
		d := Diff(from, to)
		if got := Merge(from, d); !Equal(got, to) {
			t.Fatalf("Merge(%s, %s) = %s, want %s", text(from), text(d), text(got), text(to))
		}
		if again := Diff(to, to); len(again) != 0 {
			t.Fatalf("Diff of %s with itself is %s", text(to), text(again))
		}
		clean, _ := Clean(to)
		if again, err := Clean(clean); err != nil || !Equal(again, clean) {
			t.Fatalf("cleaned %s is not clean: %v", text(clean), err)
		}
	})
}
