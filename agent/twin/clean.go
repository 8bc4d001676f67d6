package twin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean answers doc without what the hub's rules for twins forbid: names of more than 1 KiB or with a control
// character, '.', '$' or a space; strings of more than 4 KiB; integers beyond 52 bits and a sign; nesting deeper than
// ten; and, when the whole is over 32 KiB, the largest top-level members. The error names everything that was left out,
// each as ErrNotTwin.
func Clean(doc map[string]any) (map[string]any, error) {
	var c cleaner
	out := c.object(doc, "", 0)
	for size(out) > maxSection {
		largest := ""
		for _, k := range slices.Sorted(maps.Keys(out)) {
			if largest == "" || size(out[k]) > size(out[largest]) {
				largest = k
			}
		}
		c.drop(largest, "the document is over 32 KiB and this is its largest member")
		delete(out, largest)
	}
	return out, errors.Join(c.errs...)
}

type cleaner struct{ errs []error }

func (c *cleaner) drop(path, why string) {
	c.errs = append(c.errs, fmt.Errorf("twin: reported property %q: %s: %w", clip(path, 120), why, ErrNotTwin))
}

// object copies o without its nulls and without what is forbidden.
func (c *cleaner) object(o map[string]any, path string, level int) map[string]any {
	out := make(map[string]any, len(o))
	for _, k := range slices.Sorted(maps.Keys(o)) {
		at := k
		if path != "" {
			at = path + "." + k
		}
		if why := badName(k); why != "" {
			c.drop(at, why)
			continue
		}
		if v, ok := c.value(o[k], at, level); ok && v != nil {
			out[k] = v
		}
	}
	return out
}

func (c *cleaner) value(v any, path string, level int) (any, bool) {
	switch v := v.(type) {
	case nil, bool:
		return v, true
	case string:
		if len(v) > maxString {
			c.drop(path, fmt.Sprintf("a string of %d bytes, the limit is %d", len(v), maxString))
			return nil, false
		}
		return strings.ToValidUTF8(v, "\uFFFD"), true
	case json.Number:
		if why := badNumber(string(v)); why != "" {
			c.drop(path, why)
			return nil, false
		}
		return v, true
	case map[string]any:
		if level == maxDepth {
			c.drop(path, "nested deeper than 10")
			return nil, false
		}
		return c.object(v, path, level+1), true
	case []any:
		return c.array(v, path, level)
	}
	c.drop(path, fmt.Sprintf("a Go value of type %T", v))
	return nil, false
}

// array takes an array whole or not at all: without one of its elements it would say something else.
func (c *cleaner) array(a []any, path string, level int) (any, bool) {
	if level == maxDepth {
		c.drop(path, "nested deeper than 10")
		return nil, false
	}
	out := make([]any, len(a))
	before := len(c.errs)
	for i, e := range a {
		v, ok := c.value(e, fmt.Sprintf("%s[%d]", path, i), level+1)
		if !ok || len(c.errs) > before {
			return nil, false
		}
		out[i] = v
	}
	return out, true
}

func badName(k string) string {
	switch {
	case k == "":
		return "an empty name"
	case len(k) > maxKey:
		return fmt.Sprintf("a name of %d bytes, the limit is %d", len(k), maxKey)
	case !utf8.ValidString(k):
		return "a name that is not UTF-8"
	case strings.ContainsAny(k, ".$ "):
		return "a name with '.', '$' or a space"
	case strings.ContainsFunc(k, unicode.IsControl):
		return "a name with a control character"
	}
	return ""
}

func badNumber(n string) string {
	if i, err := strconv.ParseInt(n, 10, 64); err == nil {
		if i < minInteger || i > maxInteger {
			return "an integer beyond 52 bits"
		}
		return ""
	}
	if !json.Valid([]byte(n)) {
		return "not a JSON number"
	}
	if !strings.ContainsAny(n, ".eE") {
		return "an integer beyond 52 bits"
	}
	if _, err := strconv.ParseFloat(n, 64); err != nil {
		return "a number beyond float64"
	}
	return ""
}

// size counts as the hub does: names and strings by their UTF-8 bytes without control characters, numbers 8, booleans 4.
func size(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			n += textSize(k) + size(e)
		}
	case []any:
		for _, e := range v {
			n += size(e)
		}
	case string:
		n = textSize(v)
	case json.Number:
		n = 8
	case bool:
		n = 4
	}
	return n
}

func textSize(s string) int {
	n := len(s)
	for _, r := range s {
		if unicode.IsControl(r) {
			n -= utf8.RuneLen(r)
		}
	}
	return n
}
