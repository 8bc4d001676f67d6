package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator/admin"
)

func exportCommand(f *hubFlags) *cobra.Command {
	var e admin.Export
	var wait bool
	c := &cobra.Command{
		Use:   "export --container SAS_URI",
		Short: "have the hub write all identities, keys and twins to a blob container",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if e.Container == "" {
				return fmt.Errorf("--container is missing: the SAS URI of a blob container; %w", errUsage)
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			j, err := client.Export(c.Context(), e)
			return follow(c, client, j, err, wait)
		},
	}
	c.Flags().StringVar(&e.Container, "container", "", "SAS URI of a blob container, with permission to read, write and delete")
	c.Flags().StringVar(&e.Blob, "blob", "", "name of the blob (default devices.txt)")
	c.Flags().BoolVar(&e.ExcludeKeys, "exclude-keys", false, "leave the keys out")
	c.Flags().BoolVar(&e.Configurations, "configurations", false, "write configurations.txt, too")
	c.Flags().BoolVar(&wait, "wait", false, "until the export has ended")
	return c
}

func importCommand(f *hubFlags) *cobra.Command {
	var i admin.Import
	var wait bool
	c := &cobra.Command{
		Use:   "import --container SAS_URI",
		Short: "have the hub create, update and delete identities and twins as a blob says, a line of JSON each",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if i.Container == "" {
				return fmt.Errorf("--container is missing: the SAS URI of a blob container; %w", errUsage)
			}
			if i.Output == "" {
				i.Output = i.Container
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			j, err := client.Import(c.Context(), i)
			return follow(c, client, j, err, wait)
		},
	}
	c.Flags().StringVar(&i.Container, "container", "", "SAS URI of the blob container, with permission to read")
	c.Flags().StringVar(&i.Blob, "blob", "", "name of the blob (default devices.txt)")
	c.Flags().StringVar(&i.Output, "output-container", "", "SAS URI of the container for importErrors.log, with permission to read, write and delete (default: the same)")
	c.Flags().BoolVar(&i.Configurations, "configurations", false, "read configurations.txt, too")
	c.Flags().BoolVar(&wait, "wait", false, "until the import has ended; lines that failed are in importErrors.log")
	return c
}

// follow shows a job, once it has ended if so wanted.
func follow(c *cobra.Command, client *admin.Client, j admin.Job, err error, wait bool) error {
	if err == nil && wait {
		j, err = client.Wait(c.Context(), j)
		if c.Context().Err() != nil {
			return fmt.Errorf("job %s is %s, and goes on: %w", j.ID, j.Status, context.Cause(c.Context()))
		}
	}
	if err := show(c, j.Raw, err); err != nil {
		return err
	}
	if wait && j.Status != "completed" {
		return fmt.Errorf("the %s is %s: %s", j.Type, j.Status, j.FailureReason)
	}
	return nil
}
