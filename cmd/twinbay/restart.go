package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent/local"
)

func (a *app) restartCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restart NAME",
		Short: "have a component's module started again, also one that is quarantined",
		Long: "Have a component's module started again. A running module is asked to stop first; one that waits for its next start is started at " +
			"once; one that is quarantined gets a fresh start. The component's connection and queue are not touched.",
		Args: exactly(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			client := a.dial()
			defer client.Close()
			r, err := client.Restart(c.Context(), args[0])
			if err != nil {
				return next(err)
			}
			if a.json {
				return printJSON(c.OutOrStdout(), r)
			}
			what := "is being started"
			if r.Was == local.Running {
				what = "is being started again"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s was %s and %s; twinbay status %s\n", oneLine(args[0]), oneLine(r.Was), what, oneLine(args[0]))
			return err
		},
	}
}
