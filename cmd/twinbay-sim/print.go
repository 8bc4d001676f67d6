package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
)

// show prints a hub's answer, indented for people.
func show(c *cobra.Command, answer json.RawMessage, err error) error {
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, answer, "", "  "); err != nil {
		return fmt.Errorf("the hub's answer is no JSON: %w", err)
	}
	fmt.Fprintln(c.OutOrStdout(), b.String())
	return nil
}

// listed is what the tables show of an identity.
type listed struct {
	DeviceID        string `json:"deviceId"`
	ModuleID        string `json:"moduleId"`
	Status          string `json:"status"`
	ConnectionState string `json:"connectionState"`
	LastActivity    string `json:"lastActivityTime"`
}

// lastActivity is when; a hub says the year 1 for never.
func (l listed) lastActivity() string {
	if strings.HasPrefix(l.LastActivity, "0001-01-01T") {
		return "never"
	}
	return l.LastActivity
}

func listDevices(f *hubFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "up to 1000 devices",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			answer, err := client.Devices(c.Context())
			if err != nil || f.json {
				return show(c, answer, err)
			}
			return table(c.OutOrStdout(), answer, "DEVICE\tSTATUS\tCONNECTION\tLAST ACTIVITY", func(l listed) string {
				return l.DeviceID + "\t" + l.Status + "\t" + l.ConnectionState + "\t" + l.lastActivity()
			})
		},
	}
}

func listModules(f *hubFlags) *cobra.Command {
	return on(f, "list DEVICE", "a device's module identities", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			if err := kind("DEVICE", id); err != nil {
				return err
			}
			answer, err := h.Modules(ctx, id.Device)
			if err != nil || f.json {
				return show(c, answer, err)
			}
			return table(c.OutOrStdout(), answer, "MODULE\tCONNECTION\tLAST ACTIVITY", func(l listed) string {
				return l.ModuleID + "\t" + l.ConnectionState + "\t" + l.lastActivity()
			})
		})
}

func table(w io.Writer, answer json.RawMessage, head string, row func(listed) string) error {
	var all []listed
	if err := json.Unmarshal(answer, &all); err != nil {
		return fmt.Errorf("read the hub's list: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, head)
	for _, l := range all {
		fmt.Fprintln(t, row(l))
	}
	return t.Flush()
}

func eventsCommand(f *hubFlags) *cobra.Command {
	var properties bool
	c := &cobra.Command{
		Use:   "events",
		Short: "what happens at a simulated hub, live: connections, telemetry, twin changes, methods",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			lines := json.NewEncoder(out)
			return client.Events(c.Context(), nil, func(e admin.Event) error {
				if f.json {
					return lines.Encode(e)
				}
				text := []string{simulator.EventLine(e)}
				if properties {
					text = append(text, simulator.EventProperties(e)...)
				}
				_, err := fmt.Fprintln(out, strings.Join(text, "\n"))
				return err
			})
		},
	}
	c.Flags().BoolVar(&properties, "properties", false, "show application and system properties, too, as --json does")
	return c
}
