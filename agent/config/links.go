package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Link carries one component's output to another's input.
type Link struct {
	From, To End
	MaxAge   time.Duration // a value older than this is unknown; 0 means as long as its source says
}

// End is an output or an input of a component, in the device file "door.open".
type End struct {
	Component string
	Port      string
}

func (e End) String() string { return e.Component + "." + e.Port }

// LinkKey is the key of the link to an input, for Error and Line; more is a key in it.
func (c *Config) LinkKey(to End, more ...string) []string {
	return append(slices.Clone(c.links[to]), more...)
}

// portName is what modules call their outputs and inputs.
var portName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

const linkHint = `write [[link]], and under it from = "door.open" and to = "cooling.door"`

// linkTable reads the links of the file. Each belongs to the component of its input: what is wrong with it is wrong with
// that component, as far as it can be told. Whether there are such outputs and inputs, their modules know.
//
// Two components may be linked both ways: a link is a value that changes, nobody waits for an answer. An input has one link.
func (d *decoder) linkTable(tree map[string]any, c *Config) {
	c.links = map[End][]string{}
	v, ok := tree["link"]
	if !ok {
		return
	}
	list, ok := v.([]any)
	if !ok {
		d.fail([]string{"link"}, linkHint, "%s, want an array of tables", kind(v))
		return
	}
	for i, v := range list {
		at := []string{"link", strconv.Itoa(i)}
		t, ok := v.(map[string]any)
		if !ok {
			d.fail(at, linkHint, "%s, want a table", kind(v))
			continue
		}
		before := len(d.errs)
		l := d.link(t, at, c)
		if to := c.module(l.To.Component); to != nil {
			to.Problems = append(to.Problems, d.errs[before:]...).Sorted()
			if len(d.errs) == before {
				c.links[l.To] = at
				to.Links = append(to.Links, l)
			}
		}
	}
	for i := range c.Modules {
		slices.SortFunc(c.Modules[i].Links, func(a, b Link) int { return cmp.Compare(a.To.Port, b.To.Port) })
	}
}

func (d *decoder) link(t map[string]any, at []string, c *Config) (l Link) {
	d.keys(t, at, "from", "to", "max_age")
	l.From = d.end(t, at, "from", c)
	l.To = d.end(t, at, "to", c)
	if age, ok := d.span(t, at, "max_age"); ok {
		l.MaxAge = age
	}
	known := l.From.Component != "" && l.To.Component != ""
	if known && l.From.Component == l.To.Component {
		d.fail(append(slices.Clip(at), "to"), "a module knows its own values; link it to another component", "%s is linked to itself", l.To.Component)
	}
	if first, ok := c.links[l.To]; ok {
		d.fail(append(slices.Clip(at), "to"), "an input has one source: remove one of the two",
			"%s is linked already, in line %d", l.To, d.at.find(first).line)
	}
	return l
}

// end reads "COMPONENT.PORT".
func (d *decoder) end(t map[string]any, at []string, key string, c *Config) (e End) {
	v, ok := t[key]
	if !ok {
		d.fail(at, linkHint, "%s is missing", key)
		return e
	}
	at = append(slices.Clip(at), key)
	text, ok := v.(string)
	if !ok {
		d.fail(at, "write it in quotes", "%s, want a string", kind(v))
		return e
	}
	component, port, _ := strings.Cut(text, ".")
	if !componentName.MatchString(component) || !portName.MatchString(port) {
		what := map[string]string{"from": "output", "to": "input"}[key]
		d.fail(at, fmt.Sprintf("write it like %q", map[string]string{"from": "door.open", "to": "cooling.door"}[key]),
			"%.100q is not a component and its %s", text, what)
		return e
	}
	if c.module(component) == nil {
		d.fail(at, d.suggest(component, c.names()), "there is no component %q", component)
		return e
	}
	return End{component, port}
}

func (c *Config) module(name string) *Module {
	i, ok := slices.BinarySearchFunc(c.Modules, name, func(m Module, name string) int { return cmp.Compare(m.Name, name) })
	if !ok {
		return nil
	}
	return &c.Modules[i]
}

func (c *Config) names() (all []string) {
	for _, m := range c.Modules {
		all = append(all, m.Name)
	}
	return all
}
