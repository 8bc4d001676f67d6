// Package twin holds the truth about a twin's versions: desired properties as they are merged from the hub, reported
// properties as they are known to have arrived, and the settings that follow from both. It does no I/O.
//
// A document is a parsed JSON object: map[string]any whose numbers are json.Number, so that each keeps its spelling.
// Trees are values: every function leaves its arguments alone, and a result may share subtrees with them, so nobody
// changes a tree once it is made.
//
// Sources: RFC 7396 (JSON Merge Patch); Microsoft Learn, "Understand and use device twins in IoT Hub" (versions,
// reconnection, limits) and "IoT Plug and Play conventions" (acknowledgement of writable properties).
package twin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// maxParse bounds the nesting of a document that is read. It is wider than what the hub stores (10), so that a hub that
// counts differently is still understood.
const maxParse = 64

// Errors of a document that cannot be read.
var (
	ErrNotObject = errors.New("not a JSON object")
	ErrTooDeep   = errors.New("nested too deeply")
)

// Parse reads one JSON object. Numbers become json.Number.
func Parse(raw []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("twin: read document: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("twin: read document: more text after the JSON object")
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("twin: read document: %w", ErrNotObject)
	}
	if depth(doc) > maxParse {
		return nil, fmt.Errorf("twin: read document: %w", ErrTooDeep)
	}
	return doc, nil
}

// depth counts the objects and arrays below v: 0 for an object of scalars.
func depth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, below(e))
		}
	case []any:
		for _, e := range v {
			deepest = max(deepest, below(e))
		}
	}
	return deepest
}

func below(v any) int {
	switch v.(type) {
	case map[string]any, []any:
		return 1 + depth(v)
	}
	return 0
}

// Merge is RFC 7396: target changed by patch, where null removes a member and an array replaces an array. The result
// holds no null member that the patch brought.
func Merge(target, patch map[string]any) map[string]any {
	out := make(map[string]any, len(target)+len(patch))
	maps.Copy(out, target)
	for k, p := range patch {
		switch p := p.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			old, _ := out[k].(map[string]any)
			out[k] = Merge(old, p)
		default:
			out[k] = p
		}
	}
	return out
}

// Diff is the merge patch that turns from into to: changed and new members, null for removed ones, nested objects by
// their own difference. A null member of to counts as absent, since no merge patch can make one. An empty result means
// that there is nothing to do.
func Diff(from, to map[string]any) map[string]any {
	out := map[string]any{}
	for k := range from {
		if to[k] == nil {
			out[k] = nil
		}
	}
	for k, want := range to {
		if want == nil {
			continue
		}
		have, exists := from[k]
		wantObj, isObj := want.(map[string]any)
		haveObj, wasObj := have.(map[string]any)
		switch {
		case isObj && wasObj:
			if d := Diff(haveObj, wantObj); len(d) > 0 {
				out[k] = d
			}
		case isObj:
			out[k] = Diff(nil, wantObj) // a copy without nulls
		case !exists || !Equal(have, want):
			out[k] = want
		}
	}
	return out
}

// Equal compares two JSON values. Numbers are equal by value: the hub may answer 1 where 1.0 was reported.
func Equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, Equal)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, Equal)
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(string(a), string(b))
	default:
		switch b.(type) {
		case map[string]any, []any:
			return false // comparing with == would panic
		}
		return a == b
	}
}

func sameNumber(a, b string) bool {
	if a == b {
		return true
	}
	i, errI := strconv.ParseInt(a, 10, 64)
	j, errJ := strconv.ParseInt(b, 10, 64)
	if errI == nil && errJ == nil {
		return i == j
	}
	f, errF := strconv.ParseFloat(a, 64)
	g, errG := strconv.ParseFloat(b, 64)
	return errF == nil && errG == nil && f == g
}

func number(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }
