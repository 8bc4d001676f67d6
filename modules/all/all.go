// Package all is the one list of bundled modules. A new module is one line here.
package all

import (
	"maps"
	"slices"

	"github.com/twinbay/twinbay/modules/bme280"
	"github.com/twinbay/twinbay/modules/cctalk"
	"github.com/twinbay/twinbay/modules/door"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/power"
	"github.com/twinbay/twinbay/modules/vend"
)

// bundled is a module and its block of a device file.
type bundled struct {
	make   func() modkit.Module
	sample string
}

var modules = map[string]bundled{
	"bme280": {func() modkit.Module { return bme280.New() }, bme280.Sample},
	"cctalk": {func() modkit.Module { return cctalk.New() }, cctalk.Sample},
	"door":   {func() modkit.Module { return door.New() }, door.Sample},
	"power":  {func() modkit.Module { return power.New() }, power.Sample},
	"vend":   {func() modkit.Module { return vend.New() }, vend.Sample},
}

// Names lists the bundled modules in order.
func Names() []string { return slices.Sorted(maps.Keys(modules)) }

// New makes a module by its name. It touches no hardware.
func New(name string) (modkit.Module, bool) {
	m, ok := modules[name]
	if !ok {
		return nil, false
	}
	return m.make(), true
}

// Sample is a module's block of a device file, with comments.
func Sample(name string) (string, bool) {
	m, ok := modules[name]
	return m.sample, ok
}
