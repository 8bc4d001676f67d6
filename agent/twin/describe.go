package twin

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// maxText bounds what a person is told about one setting; it also has to fit into a reported property.
const maxText = 300

// show is a JSON value for a person, cut to a readable length.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "an unreadable value"
	}
	return clip(string(b), 80)
}

// clip cuts s to n bytes, on a rune's boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// isScalar says that describe tells the whole rule.
func isScalar(s *jsonschema.Schema) bool {
	switch s.Type {
	case "integer", "number", "string", "boolean":
	default:
		return s.Enum != nil
	}
	return s.Ref == "" && s.AllOf == nil && s.AnyOf == nil && s.OneOf == nil && s.Not == nil && s.If == nil
}

// describe says in words what a schema allows.
func describe(s *jsonschema.Schema) string {
	if s == nil {
		return ""
	}
	if len(s.Enum) > 0 {
		each := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			each[i] = show(e)
		}
		return clip("one of "+strings.Join(each, ", "), maxText)
	}
	kind := map[string]string{
		"integer": "an integer", "number": "a number", "string": "a string", "boolean": "true or false",
		"object": "an object", "array": "an array", "null": "null",
	}[s.Type]
	if kind == "" && len(s.Types) > 0 {
		kind = "one of the types " + strings.Join(s.Types, ", ")
	}
	if kind == "" {
		kind = "a value by the module's schema"
	}
	return clip(kind+numberRange(s)+lengthRange(s), maxText)
}

func numberRange(s *jsonschema.Schema) string {
	var b strings.Builder
	add := func(word string, limit *float64) {
		if limit != nil {
			fmt.Fprintf(&b, " %s %s", word, strconv.FormatFloat(*limit, 'f', -1, 64))
		}
	}
	add("from", s.Minimum)
	add("above", s.ExclusiveMinimum)
	add("to", s.Maximum)
	add("below", s.ExclusiveMaximum)
	add("in steps of", s.MultipleOf)
	return b.String()
}

func lengthRange(s *jsonschema.Schema) string {
	var b strings.Builder
	add := func(word string, limit *int, unit string) {
		if limit != nil {
			fmt.Fprintf(&b, " %s %d %s", word, *limit, unit)
		}
	}
	add("of at least", s.MinLength, "characters")
	add("of at most", s.MaxLength, "characters")
	add("of at least", s.MinItems, "items")
	add("of at most", s.MaxItems, "items")
	if s.Pattern != "" {
		fmt.Fprintf(&b, " that matches %s", s.Pattern)
	}
	return b.String()
}

// inner is the validator's own reason without the path that led there.
func inner(err error) string {
	text := err.Error()
	for strings.HasPrefix(text, "validating ") {
		_, rest, ok := strings.Cut(text, ": ")
		if !ok {
			break
		}
		text = rest
	}
	return clip(text, maxText)
}
