package twin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// checkRefs refuses a schema whose references go round in a circle: the validator would follow them until the whole
// agent's stack is full, and a schema comes from a module. So that circles can be seen, references go to the root's
// $defs (or definitions) and nowhere else.
func checkRefs(schema map[string]any) error {
	to := map[string][]string{} // definition → the definitions it refers to
	for _, section := range []string{"$defs", "definitions"} {
		defs, _ := schema[section].(map[string]any)
		for name, def := range defs {
			refs, err := refsIn(def, nil)
			if err != nil {
				return err
			}
			to["#/"+section+"/"+name] = refs
		}
	}
	schema = maps.Clone(schema)
	delete(schema, "$id") // harmless at the root; below it would change where references go
	roots, err := refsIn(schema, nil)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, ref := range roots {
		if err := follow(ref, to, nil, done); err != nil {
			return err
		}
	}
	return nil
}

// follow walks the definitions behind ref; path is how it came there.
func follow(ref string, to map[string][]string, path []string, done map[string]bool) error {
	if slices.Contains(path, ref) {
		return fmt.Errorf("twin: schema: %s refers to itself; settings cannot be recursive", ref)
	}
	refs, ok := to[ref]
	if !ok {
		return fmt.Errorf("twin: schema: $ref %q goes to none of the root's $defs", clip(ref, 80))
	}
	if done[ref] {
		return nil
	}
	for _, next := range refs {
		if err := follow(next, to, append(path, ref), done); err != nil {
			return err
		}
	}
	done[ref] = true
	return nil
}

// refsIn gathers the references anywhere in v. It takes any member "$ref" with a string for one, even where the
// validator would not: that refuses an odd schema and never lets a circle pass.
func refsIn(v any, refs []string) ([]string, error) {
	var err error
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			s, isString := v[k].(string)
			switch {
			case isString && k == "$ref":
				refs = append(refs, s)
			case isString && (k == "$id" || strings.HasPrefix(k, "$dynamic") || strings.HasPrefix(k, "$recursive")):
				return nil, fmt.Errorf("twin: schema: %s cannot be used here; use $ref to the root's $defs", k)
			default:
				if refs, err = refsIn(v[k], refs); err != nil {
					return nil, err
				}
			}
		}
	case []any:
		for _, e := range v {
			if refs, err = refsIn(e, refs); err != nil {
				return nil, err
			}
		}
	}
	return refs, nil
}
