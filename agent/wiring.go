package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/twin"
	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// Check holds each component's wiring and settings against what its module says of itself, and the components'
// wires against each other. It touches no hardware. describe answers false for a module that cannot be asked.
func Check(file *config.Config, describe func(config.Module) (modkit.Description, bool)) config.Errors {
	var all config.Errors
	owners := map[string]string{}
	for _, m := range file.Modules {
		d, ok := describe(m)
		if !ok {
			continue
		}
		doc, wrong, err := wiringOf(file, m, d)
		if err != nil {
			all = append(all, file.Error([]string{"modules", m.Name, "use"}, err.Error(), ""))
			continue
		}
		all = append(all, wrong...)
		for _, w := range d.Wires {
			uri, _ := doc[w.Name].(string)
			if uri == "" {
				continue
			}
			if _, _, err := hal.Split(uri); err != nil {
				all = append(all, file.Error([]string{"modules", m.Name, "wiring", w.Name}, err.Error(), ""))
			}
		}
		for _, h := range holdings(d, doc) {
			if other, taken := owners[h.part]; taken {
				all = append(all, heldBy(file, m.Name, h, other))
				continue
			}
			owners[h.part] = m.Name
		}
		schema, err := twin.ParseSchema(d.Settings)
		if err != nil {
			all = append(all, file.Error([]string{"modules", m.Name, "use"}, "the schema of its settings: "+err.Error(), ""))
			continue
		}
		all = append(all, settingsProblems(file, m, schema)...)
		all = append(all, linkProblems(file, m, d, func(component string) (modkit.Description, bool) {
			i := slices.IndexFunc(file.Modules, func(m config.Module) bool { return m.Name == component })
			return describe(file.Modules[i])
		})...)
	}
	return all
}

// wiringOf is the device file's wiring table with the module's defaults, wires relative to the file's folder, and what
// is wrong with it. The error is the module's own fault.
func wiringOf(file *config.Config, m config.Module, d modkit.Description) (map[string]any, config.Errors, error) {
	schema, err := twin.ParseSchema(d.Wiring)
	if err != nil {
		return nil, nil, fmt.Errorf("module %s: the schema of its wiring: %w; this is the module's fault", d.Name, err)
	}
	at := []string{"modules", m.Name, "wiring"}
	readme := "see the README of module " + d.Name
	var wrong config.Errors
	named := map[string]bool{}
	for _, p := range schema.Problems(m.Wiring) {
		hint := readme
		if errors.Is(p.Err, twin.ErrUnknown) {
			hint = "" // the error lists what there is
		}
		wrong = append(wrong, file.Error(append(slices.Clip(at), p.Name), p.Err.Error(), hint))
		named[p.Name] = true
	}
	doc, _ := schema.Compose(m.Wiring, nil, nil)
	for _, w := range d.Wires {
		uri, ok := doc[w.Name].(string)
		switch {
		case ok:
			doc[w.Name] = hal.Resolve(uri, filepath.Dir(file.File))
		case !w.Optional && !named[w.Name]:
			wrong = append(wrong, file.Error(append(slices.Clip(at), w.Name), fmt.Sprintf("module %s needs a wire %s (%s)", d.Name, w.Name, w.Kind), readme))
		}
	}
	return doc, wrong, nil
}

// settingsProblems says what of the device file's settings is left out.
func settingsProblems(file *config.Config, m config.Module, schema *twin.Schema) config.Errors {
	var wrong config.Errors
	for _, p := range schema.Problems(m.Settings) {
		if _, set := m.Settings[p.Name]; !set {
			continue // a required setting without a default may come from the twin; the module refuses its absence
		}
		hint := "the module's default holds"
		if errors.Is(p.Err, twin.ErrUnknown) {
			hint = ""
		}
		wrong = append(wrong, file.Error([]string{"modules", m.Name, "settings", p.Name}, p.Err.Error(), hint))
	}
	return wrong
}

// holding is one piece of hardware that a component has for itself.
type holding struct {
	wire string // the member of the wiring table
	part string // what it is, the same for everybody who names it
}

// holdings are the lines of a component, and its addresses on buses: a bus may be shared, an address on it may not, and
// the kernel would let two processes use one.
func holdings(d modkit.Description, doc map[string]any) []holding {
	var all []holding
	for _, w := range d.Wires {
		uri, _ := doc[w.Name].(string)
		if uri == "" {
			continue
		}
		part := sameFile(uri)
		if w.Kind == modkit.I2C {
			address, ok := doc[modkit.AddressMember].(json.Number)
			if !ok {
				continue
			}
			n, err := address.Int64()
			if err != nil {
				continue
			}
			part += fmt.Sprintf(", address %#02x", n)
		}
		all = append(all, holding{w.Name, part})
	}
	return all
}

// sameFile makes the paths of one device node equal: /dev/serial/by-id has links to it.
func sameFile(uri string) string {
	scheme, path, err := hal.Split(uri)
	if err != nil || !strings.HasPrefix(path, "/") || scheme != "serial" && scheme != "i2c" {
		return uri
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return scheme + ":" + real
	}
	return uri
}

func heldBy(file *config.Config, component string, h holding, other string) *config.Error {
	return file.Error([]string{"modules", component, "wiring", h.wire},
		fmt.Sprintf("%s belongs to component %s already", h.part, other), "give each component its own")
}

// hold gives hardware to one component, or answers whose it is. What the component held before and does not ask for
// again is given back.
func (a *Agent) hold(component string, want []holding) (taken holding, other string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for part, owner := range a.parts {
		if owner == component {
			delete(a.parts, part)
		}
	}
	for _, h := range want {
		if other, held := a.parts[h.part]; held {
			return h, other, false
		}
	}
	for _, h := range want {
		a.parts[h.part] = component
	}
	return holding{}, "", true
}
