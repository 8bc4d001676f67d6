package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent/local"
)

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "leave safe mode: start the components",
		Long: "Leave safe mode. The agent is in it when it has ended early several times in a row; `twinbay status` says why. Mend that first: " +
			"the agent counts anew, and is back in safe mode after as many early ends.",
		Args: exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			client := a.dial()
			defer client.Close()
			if err := client.Resume(c.Context()); err != nil {
				return next(err)
			}
			if a.json {
				return printJSON(c.OutOrStdout(), map[string]bool{"resumed": true})
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "safe mode is over, the components start; twinbay status")
			return err
		},
	}
}

// safeMode says that the agent is in safe mode, why, and what to do.
func safeMode(s *local.SafeMode, now time.Time) (lines []string) {
	if s == nil {
		return nil
	}
	lines = append(lines, fmt.Sprintf("SAFE MODE for %s: no module is started and nothing of theirs is sent, because the agent ended early %d times in a row",
		age(s.Since, now), s.EarlyEnds))
	for _, e := range s.Ends {
		lines = append(lines, fmt.Sprintf("  %s ago: %s", age(e.Found, now), e.Reason))
	}
	return append(lines, fmt.Sprintf("mend what is named above (a device file, a module, the disk; twinbay logs), then: twinbay resume; by itself in %s",
		span(max(0, s.Until.Sub(now)))))
}
