package main

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

// ask runs the multi-call program for one answer.
func ask(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = []string{} // it needs nothing of ours
	c.WaitDelay = 100 * time.Millisecond
	return c.Output()
}

// bundledModules asks the multi-call program for its modules, one name a line. When it cannot say, the answer is nil
// and any name passes: then the agent finds out by starting the module.
func bundledModules(ctx context.Context, program string) []string {
	out, err := ask(ctx, program, "list")
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			names = append(names, fields[0])
		}
	}
	return names
}

// describe asks the multi-call program what a module is. When it cannot say, the agent finds out by starting the module.
func describe(ctx context.Context, program, module string) (modkit.Description, bool) {
	out, err := ask(ctx, program, "describe", module)
	if err != nil {
		return modkit.Description{}, false
	}
	var d struct {
		Name             string
		Settings, Wiring json.RawMessage
		Wires            []modkit.Wire
		Inputs           []modkit.InputPort
		Outputs          []modkit.OutputPort
	}
	if json.Unmarshal(out, &d) != nil {
		return modkit.Description{}, false
	}
	return modkit.Description{Name: d.Name, Settings: d.Settings, Wiring: d.Wiring, Wires: d.Wires, Inputs: d.Inputs, Outputs: d.Outputs}, true
}
