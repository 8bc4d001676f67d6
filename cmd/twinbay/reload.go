package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent/local"
)

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "have the agent read its device file again: only what has changed is touched",
		Long: "Have the agent read its device file again. Components that are new are started, those that are gone are stopped, those whose " +
			"table differs are started again; the others notice nothing. A file with an error changes nothing. SIGHUP does the same.",
		Args: exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			client := a.dial()
			defer client.Close()
			r, err := client.Reload(c.Context())
			if errors.Is(err, local.ErrInvalidFile) {
				return fmt.Errorf("%w\nnothing has changed; mend the device file and try again", err)
			}
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(c.OutOrStdout(), r)
			}
			return printReloaded(c.OutOrStdout(), r)
		},
	}
}

func printReloaded(w io.Writer, r local.Reloaded) error {
	var b strings.Builder
	for _, each := range []struct {
		what  string
		names []string
	}{{"started", r.Added}, {"stopped", r.Removed}, {"started again", r.Changed}} {
		if len(each.names) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", each.what, strings.Join(each.names, ", "))
		}
	}
	if r.Device {
		b.WriteString("the device's own session was started again\n")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Kept)) {
		fmt.Fprintf(&b, "%d messages of %s are kept; put it back into the device file to send them\n", r.Kept[name], name)
	}
	if len(r.Later) > 0 {
		fmt.Fprintf(&b, "counts from the agent's next start: %s\n", strings.Join(r.Later, ", "))
	}
	if b.Len() == 0 {
		b.WriteString("nothing has changed\n")
	}
	_, err := io.WriteString(w, oneLines(b.String()))
	return err
}

// oneLines makes each line safe for a terminal.
func oneLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(oneLine(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}
