package twin

import (
	"encoding/json"
	"os"
	"testing"
)

// TestMergeVectors: the agent merges as the hub does.
func TestMergeVectors(t *testing.T) {
	text, err := os.ReadFile("../../simulator/conformance/twin.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Merge []struct {
			Name                 string
			Before, Patch, After json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Merge) == 0 {
		t.Fatal("no vectors")
	}
	parse := func(raw json.RawMessage) map[string]any {
		t.Helper()
		doc, err := Parse(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		return doc
	}
	for _, v := range vectors.Merge {
		if got, want := Merge(parse(v.Before), parse(v.Patch)), parse(v.After); !Equal(got, want) {
			t.Errorf("%s: %v, want %v", v.Name, got, want)
		}
	}
}
