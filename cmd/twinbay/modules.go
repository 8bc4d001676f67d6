package main

import (
	"context"
	"os/exec"
	"strings"
	"time"
)

// bundledModules asks the multi-call program for its modules, one name a line. When it cannot say, the answer is nil
// and any name passes: then the agent finds out by starting the module.
func bundledModules(ctx context.Context, program string) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, program, "list")
	c.Env = []string{} // it needs nothing of ours
	c.WaitDelay = 100 * time.Millisecond
	out, err := c.Output()
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
