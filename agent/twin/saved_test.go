package twin

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestDesiredIsKept(t *testing.T) {
	var d Desired
	if _, err := d.Replace(7, json.RawMessage(`{"a":1.50,"b":{"c":[1,"x",{"d":true}]},"gone":1}`)); err != nil {
		t.Fatal(err)
	}
	if step, err := d.Merge(8, json.RawMessage(`{"gone":null,"n":12345678901234567890}`)); step != Changed || err != nil {
		t.Fatal(step, err)
	}
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back Desired
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, d) {
		t.Errorf("%+v came back as %+v", d, back)
	}
	if back.Since("a") != 7 || back.Since("gone") != 8 {
		t.Errorf("the versions are lost: %+v", back)
	}
	var empty Desired
	if raw, err = json.Marshal(empty); err != nil || json.Unmarshal(raw, &back) != nil || back.Version != 0 || len(back.Doc) != 0 {
		t.Errorf("nothing known came back as %+v, %v", back, err)
	}
}

func TestAnIdentityCreatedAnew(t *testing.T) {
	d := Desired{}
	if _, err := d.Replace(3, json.RawMessage(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	d.Anew()
	changed, err := d.Replace(5, json.RawMessage(`{"a":1}`)) // the same value under new numbers
	if !changed || err != nil || d.Since("a") != 5 {
		t.Errorf("changed %v, %v, since %d; want 5", changed, err, d.Since("a"))
	}
	if changed, _ = d.Replace(5, json.RawMessage(`{"a":1}`)); changed {
		t.Error("once is enough")
	}
}

// FuzzSavedDesired reads what a disk may give back.
func FuzzSavedDesired(f *testing.F) {
	f.Add([]byte(`{"version":3,"doc":{"a":{"b":1}},"since":{"a":2}}`))
	f.Add([]byte(`{"version":-3,"doc":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d Desired
		if d.UnmarshalJSON(raw) != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var back Desired
		if err := json.Unmarshal(again, &back); err != nil || back.Version != d.Version || !Equal(map[string]any(back.Doc), map[string]any(d.Doc)) {
			t.Errorf("%s: %+v, %v, want %+v", again, back, err, d)
		}
	})
}
