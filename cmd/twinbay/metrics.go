package main

import (
	"github.com/spf13/cobra"
)

func (a *app) metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "print what Prometheus would be told",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			client := a.dial()
			defer client.Close()
			text, err := client.Metrics(c.Context())
			if err == nil {
				_, err = c.OutOrStdout().Write(text)
			}
			return err
		},
	}
}
