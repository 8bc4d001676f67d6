package twin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema is a module's JSON Schema (draft 2020-12) of its settings or of its wiring: an object whose properties are
// judged one by one. It does not change once made and may be used by several goroutines.
type Schema struct {
	props    map[string]*jsonschema.Schema
	required []string
	defaults map[string]any
	one      *jsonschema.Resolved // judges any subset of the properties
}

// ErrUnknown is a setting that the schema does not have.
var ErrUnknown = errors.New("no such setting")

// ParseSchema compiles raw. Its root must be an object schema that uses only type, properties, required,
// additionalProperties, definitions and descriptions: a rule across settings cannot be blamed on one of them, so it
// belongs into the module's Apply. References go to the root's $defs and are not recursive. Every default has to pass its own schema.
func ParseSchema(raw []byte) (*Schema, error) {
	if len(raw) == 0 {
		raw = []byte(`{"type":"object"}`) // a module without settings
	}
	tree, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("twin: read schema: %w", err)
	}
	if err := checkRefs(tree); err != nil {
		return nil, err
	}
	var root jsonschema.Schema
	if err := json.Unmarshal(raw, &root); err != nil {
		return nil, fmt.Errorf("twin: read schema: %w", err)
	}
	if err := onlyPerSetting(&root); err != nil {
		return nil, err
	}
	one, err := (&jsonschema.Schema{
		ID: root.ID, Schema: root.Schema, Type: "object",
		Defs: root.Defs, Definitions: root.Definitions, Properties: root.Properties,
	}).Resolve(nil)
	if err != nil {
		return nil, fmt.Errorf("twin: compile schema: %w", err)
	}
	s := &Schema{props: root.Properties, required: root.Required, defaults: map[string]any{}, one: one}
	for _, name := range s.Names() {
		raw := s.props[name].Default
		if len(raw) == 0 {
			continue
		}
		doc, err := Parse(slices.Concat([]byte(`{"v":`), raw, []byte(`}`)))
		if err != nil {
			return nil, fmt.Errorf("twin: default of %s: %w", name, err)
		}
		if doc["v"] == nil {
			continue // null is absence everywhere in a twin
		}
		if err := s.Check(name, doc["v"]); err != nil {
			return nil, fmt.Errorf("twin: default of %w", err)
		}
		s.defaults[name] = doc["v"]
	}
	return s, nil
}

// onlyPerSetting refuses a root that says more than its properties do.
func onlyPerSetting(root *jsonschema.Schema) error {
	if root.Type != "object" && (root.Type != "" || len(root.Types) > 0) {
		return fmt.Errorf("twin: schema: type %s%v, want object", root.Type, root.Types)
	}
	var extra []string
	for name, used := range map[string]bool{
		"$ref":              root.Ref != "" || root.DynamicRef != "",
		"allOf":             root.AllOf != nil,
		"anyOf":             root.AnyOf != nil,
		"oneOf":             root.OneOf != nil,
		"not":               root.Not != nil,
		"if":                root.If != nil,
		"patternProperties": root.PatternProperties != nil,
		"propertyNames":     root.PropertyNames != nil,
		"dependentRequired": root.DependentRequired != nil,
		"dependentSchemas":  root.DependentSchemas != nil,
		"minProperties":     root.MinProperties != nil,
		"maxProperties":     root.MaxProperties != nil,
	} {
		if used {
			extra = append(extra, name)
		}
	}
	if len(extra) == 0 {
		return nil
	}
	slices.Sort(extra)
	return fmt.Errorf("twin: schema: %s at the root is a rule across settings: check it in the module's Apply",
		strings.Join(extra, ", "))
}

// Names lists the settings, sorted.
func (s *Schema) Names() []string { return slices.Sorted(maps.Keys(s.props)) }

// Defaults are the settings that have a default, with it.
func (s *Schema) Defaults() map[string]any { return maps.Clone(s.defaults) }

// Check judges one setting. The error says what was asked and what is allowed; it is ErrUnknown for a name that the
// schema does not have.
func (s *Schema) Check(name string, value any) error {
	p, ok := s.props[name]
	if !ok {
		return fmt.Errorf("%s: %w; known are %s", name, ErrUnknown, strings.Join(s.Names(), ", "))
	}
	plain, err := toPlain(value)
	if err == nil {
		err = s.one.Validate(map[string]any{name: plain})
	}
	if err == nil {
		return nil
	}
	text := fmt.Sprintf("%s: %s was asked", name, show(value))
	if allowed := describe(p); allowed != "" {
		text += ", allowed is " + allowed
	}
	if detail := inner(err); detail != "" && !isScalar(p) {
		text += " (" + detail + ")"
	}
	return errors.New(text)
}

// Problem is what is wrong with one member of a document.
type Problem struct {
	Name string
	Err  error
}

// Problems judges a whole document, as it stands in the device file: every member, and the required ones that are
// missing and have no default. They come sorted by name.
func (s *Schema) Problems(doc map[string]any) []Problem {
	var out []Problem
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		if err := s.Check(name, doc[name]); err != nil {
			out = append(out, Problem{name, err})
		}
	}
	for _, name := range s.required {
		if _, ok := s.defaults[name]; !ok && doc[name] == nil {
			out = append(out, Problem{name, fmt.Errorf("%s is missing, allowed is %s", name, describe(s.props[name]))})
		}
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// toPlain turns json.Number into int64 or float64, because the validator takes a json.Number for a string.
func toPlain(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return i, nil
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, fmt.Errorf("%.40s is not a number that can be held", string(v))
		}
		return f, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			p, err := toPlain(e)
			if err != nil {
				return nil, err
			}
			out[k] = p
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			p, err := toPlain(e)
			if err != nil {
				return nil, err
			}
			out[i] = p
		}
		return out, nil
	}
	return v, nil
}
