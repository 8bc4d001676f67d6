package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const link = "\n[[link]]\nfrom = \"door.open\"\nto = \"climate.door\"\n"

func TestLinks(t *testing.T) {
	c, err := Parse("device.toml", []byte(complete+link+`
[[link]]
from = "custom.level"
to = "climate.a_level"
max_age = "30s"
[[link]]           # two components may be linked both ways
from = "climate.temperature_c"
to = "door.t"
`), known)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]Link{
		"climate": {
			{From: End{"custom", "level"}, To: End{"climate", "a_level"}, MaxAge: 30 * time.Second},
			{From: End{"door", "open"}, To: End{"climate", "door"}},
		},
		"door": {{From: End{"climate", "temperature_c"}, To: End{"door", "t"}}},
	}
	for _, m := range c.Modules {
		if !reflect.DeepEqual(m.Links, want[m.Name]) {
			t.Errorf("%s: %+v, want %+v", m.Name, m.Links, want[m.Name])
		}
	}
	first := strings.Count(complete, "\n") + 2
	if got := c.Line(c.LinkKey(End{"climate", "door"})...); got != first {
		t.Errorf("the first link is in line %d, want %d", got, first)
	}
	e := c.Error(c.LinkKey(End{"climate", "a_level"}, "from"), "no such output", "")
	if e.Line != first+5 || e.Key != "link.1.from" {
		t.Errorf("%v, want line %d", e, first+5)
	}
}

// What is wrong with a link is wrong with the component of its input; where that is not known, with the file.
func TestLinkErrors(t *testing.T) {
	for _, row := range []struct{ name, text, component, want string }{
		{"no table", "link = 1" + complete, "", "link: an integer, want an array of tables; write [[link]]"},
		{"no tables", "link = [1]" + complete, "", "link.0: an integer, want a table"},
		{"no input", complete + "[[link]]\nfrom = 'door.open'", "", "device.toml:48:3: link.0: to is missing; write [[link]]"},
		{"no output", complete + "[[link]]\nto = 'climate.door'", "climate", "device.toml:48:3: link.0: from is missing"},
		{"unknown key", complete + link + "form = 1", "climate", `device.toml:52:1: link.0.form: unknown key; did you mean "from"?`},
		{"unknown consumer", complete + strings.Replace(link, "climate", "climat", 1), "", `device.toml:51:1: link.0.to: there is no component "climat"; did you mean "climate"?`},
		{"unknown source", complete + strings.Replace(link, "door.open", "doors.open", 1), "climate", `link.0.from: there is no component "doors"; did you mean "door"?`},
		{"no port", complete + strings.Replace(link, "door.open", "door", 1), "climate", `link.0.from: "door" is not a component and its output; write it like "door.open"`},
		{"no name", complete + strings.Replace(link, "door.open", "door.Open it", 1), "climate", `"door.Open it" is not a component and its output`},
		{"a number", complete + strings.Replace(link, `"climate.door"`, "5", 1), "", "link.0.to: an integer, want a string; write it in quotes"},
		{"to itself", complete + strings.Replace(link, "door.open", "climate.open", 1), "climate", "link.0.to: climate is linked to itself"},
		{"twice", complete + link + strings.Replace(link, "door.open", "custom.open", 1), "climate",
			"device.toml:55:1: link.1.to: climate.door is linked already, in line 49; an input has one source: remove one of the two"},
		{"age", complete + link + "max_age = 5", "climate", "device.toml:52:1: link.0.max_age: 5 is no duration"},
	} {
		c, err := Parse("device.toml", []byte(row.text), known)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v\nwant %s", row.name, err, row.want)
			continue
		}
		if row.component == "" {
			if c != nil {
				t.Errorf("%s: the file passes", row.name)
			}
			continue
		}
		for _, m := range c.Modules {
			if (len(m.Problems) > 0) != (m.Name == row.component) {
				t.Errorf("%s: component %s has the problems %v", row.name, m.Name, m.Problems)
			}
		}
	}
}
