package hub

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The members of a configuration's content, of which it has one.
const (
	deviceContent  = "deviceContent"
	moduleContent  = "moduleContent"
	modulesContent = "modulesContent"
)

const edgeAgent = "$edgeAgent"

// content is what a configuration sets. It does not change.
type content struct {
	kind     string
	shown    map[string]any
	settings map[string][]setting // by module id; of "" for the device or the module that is targeted itself
	layered  bool                 // modulesContent that adds to another's
}

// setting is one property, or one part, of desired properties that a configuration sets; the whole has an empty path. A nil
// value removes.
type setting struct {
	path  []string
	value any
}

func invalidContent(format string, args ...any) *Error {
	return &Error{Code: 400402, Name: "InvalidConfigurationContent", Text: fmt.Sprintf(format, args...)}
}

func parseContent(raw json.RawMessage) (*content, *Error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, invalidContent("content is missing")
	}
	tree, err := parseTree("content", raw)
	if err != nil {
		return nil, invalidContent("%s", err.Text)
	}
	c := &content{settings: map[string][]setting{}}
	var body map[string]any
	for _, kind := range []string{deviceContent, moduleContent, modulesContent} {
		for name, v := range tree {
			if !strings.EqualFold(name, kind) || v == nil {
				continue
			}
			if body != nil {
				return nil, invalidContent("content has both %s and %s", c.kind, kind)
			}
			o, ok := v.(map[string]any)
			if !ok {
				return nil, invalidContent("%s is not a JSON object", kind)
			}
			c.kind, body = kind, o
		}
	}
	switch c.kind {
	case "":
		return nil, invalidContent("content has none of deviceContent, moduleContent and modulesContent")
	case modulesContent:
		return c, c.readModules(body)
	}
	c.shown = map[string]any{c.kind: body}
	c.settings[""], err = parseSettings(c.kind, body)
	return c, err
}

func (c *content) readModules(body map[string]any) *Error {
	c.shown = map[string]any{c.kind: body}
	if _, there := body[edgeAgent]; !there {
		return invalidContent("modulesContent has no $edgeAgent")
	}
	for id, v := range body {
		of, ok := v.(map[string]any)
		if !ok {
			return invalidContent("modulesContent: %s is not a JSON object", id)
		}
		if err := checkAnyID(ID{"d", id}); err != nil || id == "" {
			return invalidContent("modulesContent: %q is no id of a module", id)
		}
		var err *Error
		if c.settings[id], err = parseSettings(id, of); err != nil {
			return err
		}
	}
	_, whole := body[edgeAgent].(map[string]any)["properties.desired"]
	c.layered = !whole
	return nil
}

// parseSettings reads paths and values, the shorter paths first: so they are set.
func parseSettings(where string, body map[string]any) ([]setting, *Error) {
	all := make([]setting, 0, len(body))
	whole := map[string]any{}
	for _, key := range slices.SortedFunc(maps.Keys(body), func(a, b string) int {
		if n := strings.Count(a, ".") - strings.Count(b, "."); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	}) {
		rest, ok := strings.CutPrefix(key, "properties.desired")
		if !ok || rest != "" && rest[0] != '.' {
			return nil, invalidContent("%s: %q: want properties.desired, or a path below it", where, key)
		}
		s := setting{value: body[key]}
		if rest != "" {
			s.path = strings.Split(rest[1:], ".")
		}
		o, isObject := s.value.(map[string]any)
		switch {
		case slices.Contains(s.path, ""):
			return nil, invalidContent("%s: %q: a name in the path is empty", where, key)
		case s.path == nil && !isObject:
			return nil, invalidContent("%s: %s is not a JSON object", where, key)
		case s.path == nil:
			s.value = withoutNulls(o)
		case isObject:
			s.value = withoutNulls(o)
		}
		all = append(all, s)
		whole = s.set(whole)
	}
	if err := checkTree(where, whole, false); err != nil {
		return nil, invalidContent("%s", err.Text)
	}
	if err := checkSize(where, whole, maxSection); err != nil {
		return nil, invalidContent("%s", err.Text)
	}
	return all, nil
}

// withoutNulls is an object as it is set: null is nothing.
func withoutNulls(o map[string]any) map[string]any { return merge(nil, o) }

// set answers a tree with the setting in it.
func (s setting) set(tree map[string]any) map[string]any {
	if len(s.path) == 0 {
		if o, ok := s.value.(map[string]any); ok {
			return o
		}
		return map[string]any{}
	}
	return setPath(tree, s.path, s.value)
}

func (s setting) remove(tree map[string]any) map[string]any {
	return setting{path: s.path}.set(tree)
}

// setPath replaces what is at path, or removes it if value is nil. What is removed last leaves an empty object.
func setPath(tree map[string]any, path []string, value any) map[string]any {
	below, isObject := tree[path[0]].(map[string]any)
	if value == nil && (len(path) > 1 && !isObject || len(path) == 1 && tree[path[0]] == nil) {
		return tree // nothing to remove
	}
	out := make(map[string]any, len(tree)+1)
	maps.Copy(out, tree)
	switch {
	case len(path) > 1:
		out[path[0]] = setPath(below, path[1:], value)
	case value == nil:
		delete(out, path[0])
	default:
		out[path[0]] = value
	}
	return out
}

// covers tells whether setting s sets what o sets, too.
func (s setting) covers(o setting) bool {
	return len(s.path) <= len(o.path) && slices.Equal(s.path, o.path[:len(s.path)])
}

// difference is the patch that turns old into tree and touches nothing that stays.
func difference(old, tree map[string]any) map[string]any {
	out := map[string]any{}
	for k := range old {
		if _, kept := tree[k]; !kept {
			out[k] = nil
		}
	}
	for k, v := range tree {
		below, isObject := v.(map[string]any)
		before, wasObject := old[k].(map[string]any)
		was, there := old[k]
		switch {
		case isObject && wasObject:
			if d := difference(before, below); len(d) > 0 {
				out[k] = d
			}
		case !there || !sameValue(was, v):
			out[k] = v
		}
	}
	return out
}

// sameValue compares values with their spelling.
func sameValue(a, b any) bool { return string(encode(a)) == string(encode(b)) }
