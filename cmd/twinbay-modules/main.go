// Command twinbay-modules holds all bundled modules in one program: `twinbay-modules bme280` is the module bme280. The
// agent starts it once for each component; the processes share the program's pages.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/linux"
	"github.com/twinbay/twinbay/hal/simbus"
	"github.com/twinbay/twinbay/modules/all"
	"github.com/twinbay/twinbay/modules/modkit"
)

const usage = `usage: twinbay-modules list              the bundled modules
       twinbay-modules describe MODULE   what a module is, as JSON: settings, wiring, methods
       twinbay-modules sample MODULE     its block of a device file
       twinbay-modules version

The agent starts a module itself (twinbay-modules MODULE), as the device file says.
`

func main() {
	if len(os.Args) == 2 {
		if m, ok := all.New(os.Args[1]); ok {
			modkit.Serve(m, drivers())
		}
	}
	os.Exit(answer(os.Args[1:], os.Stdout, os.Stderr))
}

// drivers are the wires that a module can be given, by the URI's scheme.
func drivers() map[string]hal.Driver {
	return map[string]hal.Driver{
		"i2c":    linux.I2C{},
		"serial": linux.Serial{},
		"gpio":   linux.GPIO{},
		"sim":    simbus.Driver{},
	}
}

// answer is the program for people. Its exit code is 2 for a command line that makes no sense.
func answer(args []string, stdout, stderr io.Writer) int {
	switch {
	case len(args) == 1 && args[0] == "list":
		for _, name := range all.Names() {
			m, _ := all.New(name)
			d := m.Describe()
			fmt.Fprintf(stdout, "%s %s\n", d.Name, d.Version)
		}
		return 0
	case len(args) == 1 && args[0] == "version":
		version := "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			version = info.Main.Version
		}
		fmt.Fprintln(stdout, "twinbay-modules", version)
		return 0
	case len(args) == 2 && (args[0] == "describe" || args[0] == "sample"):
		m, ok := all.New(args[1])
		if !ok {
			fmt.Fprintf(stderr, "twinbay-modules: no module %q; there are %s\n", args[1], strings.Join(all.Names(), ", "))
			return 2
		}
		if args[0] == "sample" {
			sample, _ := all.Sample(args[1])
			fmt.Fprint(stdout, sample)
			return 0
		}
		return describe(m, stdout, stderr)
	}
	fmt.Fprint(stderr, usage)
	return 2
}

// described is a module's description for people and their scripts.
type described struct {
	Name     string              `json:"name"`
	Version  string              `json:"version"`
	Settings json.RawMessage     `json:"settings"` // JSON Schema
	Wiring   json.RawMessage     `json:"wiring"`   // JSON Schema
	Methods  []describedMethod   `json:"methods"`
	Wires    []modkit.Wire       `json:"wires"`
	Inputs   []modkit.InputPort  `json:"inputs"`
	Outputs  []modkit.OutputPort `json:"outputs"`
}

type describedMethod struct {
	Name      string  `json:"name"`
	Summary   string  `json:"summary"`
	DeadlineS float64 `json:"deadline_s"`
}

func describe(m modkit.Module, stdout, stderr io.Writer) int {
	d := m.Describe()
	out := described{Name: d.Name, Version: d.Version, Settings: d.Settings, Wiring: d.Wiring, Wires: d.Wires, Inputs: d.Inputs, Outputs: d.Outputs}
	for _, method := range d.Methods {
		deadline := method.Deadline
		if deadline == 0 {
			deadline = modkit.DefaultDeadline
		}
		out.Methods = append(out.Methods, describedMethod{method.Name, method.Summary, deadline.Seconds()})
	}
	e := json.NewEncoder(stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(out); err != nil {
		fmt.Fprintln(stderr, "twinbay-modules:", err)
		return 1
	}
	return 0
}
