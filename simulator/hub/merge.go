package hub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of twins. Source: Microsoft Learn, "Understand and use device twins in IoT Hub", Tags and properties format and
// Twin size.
const (
	maxTags     = 8 << 10  // bytes
	maxSection  = 32 << 10 // bytes, desired and reported each
	maxDepth    = 10       // objects below a section; a value may be in the tenth
	maxKey      = 1024     // bytes
	maxString   = 4096     // bytes
	maxInteger  = 1<<52 - 1
	minInteger  = -1 << 52
	numberBytes = 8 // how much a number counts
	boolBytes   = 4
)

// A tree is the JSON of one section: objects are map[string]any, arrays []any, numbers json.Number, which keep their
// spelling. No tree is changed once it is made, so that whoever has one may read it without a lock.

// parseTree reads a section or a patch of one. where names it in errors.
func parseTree(where string, raw []byte) (map[string]any, *Error) {
	if !utf8.Valid(raw) {
		return nil, badFormat("%s is not UTF-8", where)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, badFormat("%s is not JSON: %v", where, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, badFormat("%s has something behind its JSON", where)
	}
	tree, ok := v.(map[string]any)
	if !ok {
		return nil, argument("%s is not a JSON object", where)
	}
	return tree, nil
}

// checkTree applies the rules of keys and values. nulls says whether null may stand for a key to be removed.
func checkTree(where string, tree map[string]any, nulls bool) *Error {
	return checkObject(where, tree, 0, nulls)
}

func checkObject(where string, o map[string]any, depth int, nulls bool) *Error {
	if depth > maxDepth {
		return argument("%s: more than %d objects deep", where, maxDepth)
	}
	for k, v := range o {
		if err := checkKey(where, k); err != nil {
			return err
		}
		if v == nil && nulls {
			continue
		}
		if err := checkValue(where+"."+k, v, depth, nulls); err != nil {
			return err
		}
	}
	return nil
}

func checkKey(where, key string) *Error {
	if len(key) > maxKey {
		return argument("%s: a key of %d bytes; %d are allowed", where, len(key), maxKey)
	}
	for _, r := range key {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || strings.ContainsRune(".$# ", r) {
			return argument("%s: key %q: control characters, '.', '$', '#' and space are not allowed", where, key)
		}
	}
	return nil
}

func checkValue(where string, v any, depth int, nulls bool) *Error {
	switch v := v.(type) {
	case nil:
		return argument("%s: null is not allowed here", where)
	case string:
		if len(v) > maxString {
			return argument("%s: a string of %d bytes; %d are allowed", where, len(v), maxString)
		}
	case json.Number:
		return checkNumber(where, v.String())
	case map[string]any:
		return checkObject(where, v, depth+1, nulls)
	case []any:
		for i, e := range v {
			// Within an array nothing is removed: it is replaced whole.
			if err := checkValue(fmt.Sprintf("%s[%d]", where, i), e, depth, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkNumber(where, text string) *Error {
	if strings.ContainsAny(text, ".eE") {
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return argument("%s: number %s is out of range", where, text)
		}
		return nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err != nil || n < minInteger || n > maxInteger {
		return argument("%s: integer %s is outside %d to %d", where, text, int64(minInteger), int64(maxInteger))
	}
	return nil
}

// checkSize applies the limit of a whole section.
func checkSize(where string, tree map[string]any, limit int) *Error {
	if n := sizeOf(tree); n > limit {
		return argument("%s: %d bytes; %d are allowed", where, n, limit)
	}
	return nil
}

// sizeOf counts keys and values as the hub does: numbers 8, booleans 4, strings in UTF-8 without control characters.
func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return textSize(v)
	case json.Number:
		return numberBytes
	case bool:
		return boolBytes
	case map[string]any:
		n := 0
		for k, e := range v {
			n += textSize(k) + sizeOf(e)
		}
		return n
	case []any:
		n := 0
		for _, e := range v {
			n += sizeOf(e)
		}
		return n
	}
	return 0
}

func textSize(s string) int {
	n := len(s)
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			n -= utf8.RuneLen(r)
		}
	}
	return n
}

// merge answers tree with patch merged into it: null removes, objects merge, everything else replaces (RFC 7386). What
// is removed last leaves an empty object.
func merge(tree, patch map[string]any) map[string]any {
	out := make(map[string]any, len(tree)+len(patch))
	maps.Copy(out, tree)
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			below, _ := out[k].(map[string]any)
			out[k] = merge(below, v)
		default:
			out[k] = v
		}
	}
	return out
}

// replacing answers the patch that turns old into tree: all of tree, and null for what is gone. Microsoft does not say
// what a device is told when its desired properties are replaced; so told, one that merges ends with the right document.
// See ReplacedDesired.
func replacing(old, tree map[string]any) map[string]any {
	out := make(map[string]any, len(tree))
	for k := range old {
		if _, kept := tree[k]; !kept {
			out[k] = nil
		}
	}
	for k, v := range tree {
		below, isObject := v.(map[string]any)
		if before, wasObject := old[k].(map[string]any); isObject && wasObject {
			out[k] = replacing(before, below)
			continue
		}
		out[k] = v
	}
	return out
}

// meta is the $metadata of an object or a value: when it was written last, and at which version of its section.
// Like a tree, it is not changed once it is made.
type meta struct {
	at      time.Time
	version int64 // 0: not shown
	below   map[string]*meta
}

// stamp mirrors merge: what patch touches is written now, down to its leaves and up to the root.
func (m *meta) stamp(patch map[string]any, now time.Time, version int64) *meta {
	out := &meta{at: now, version: version, below: map[string]*meta{}}
	if m != nil {
		maps.Copy(out.below, m.below)
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out.below, k)
		case map[string]any:
			out.below[k] = out.below[k].stamp(v, now, version)
		default:
			out.below[k] = &meta{at: now, version: version}
		}
	}
	return out
}

// show is the JSON of $metadata.
func (m *meta) show() map[string]any {
	out := make(map[string]any, len(m.below)+2)
	for k, b := range m.below {
		out[k] = b.show()
	}
	out["$lastUpdated"] = twinTime(m.at)
	if m.version > 0 {
		out["$lastUpdatedVersion"] = m.version
	}
	return out
}

// encode is JSON in which numbers and text stay as they were sent. What is encoded here has no values that can't be.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("hub: a tree that is not JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
