package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator/admin"
)

func c2dCommand(f *hubFlags) *cobra.Command {
	c := &cobra.Command{Use: "c2d", Short: "cloud-to-device messages"}
	c.AddCommand(c2dSend(f), c2dPurge(f), c2dFeedback(f))
	return c
}

func c2dSend(f *hubFlags) *cobra.Command {
	var m admin.C2D
	var properties []string
	var ttl time.Duration
	c := on(f, "send DEVICE[/MODULE] BODY", "put a message into the queue of a device; it waits there for the device", 1,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("usage: %s; %w", c.UseLine(), errUsage)
			}
			m.Body, m.Properties = []byte(args[0]), map[string]string{}
			for _, p := range properties {
				name, value, ok := strings.Cut(p, "=")
				if !ok || name == "" {
					return fmt.Errorf("--property %q: want NAME=VALUE; %w", p, errUsage)
				}
				m.Properties[name] = value
			}
			if ttl > 0 {
				m.Expires = time.Now().Add(ttl)
			}
			return h.SendC2D(ctx, id, m)
		})
	c.Flags().StringArrayVar(&properties, "property", nil, "application property NAME=VALUE; may be given more than once")
	c.Flags().StringVar(&m.Ack, "ack", "", "feedback to ask for: none, positive, negative or full")
	c.Flags().StringVar(&m.MessageID, "id", "", "message id (default: the hub makes one)")
	c.Flags().DurationVar(&ttl, "ttl", 0, "time to live, up to 48h (default: the hub's, 1h)")
	return c
}

func c2dPurge(f *hubFlags) *cobra.Command {
	return on(f, "purge DEVICE[/MODULE]", "throw away what waits for a device", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			n, err := h.PurgeC2D(ctx, id)
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), n, "messages purged")
			}
			return err
		})
}

func c2dFeedback(f *hubFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "feedback",
		Short: "read what has become of messages sent with --ack; what was read does not come again",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := f.client()
			if err != nil {
				return err
			}
			for {
				batch, err := h.Feedback(c.Context())
				if err != nil || batch.Records == nil {
					return err
				}
				if err := show(c, batch.Records, nil); err != nil {
					return err
				}
				if err := h.CompleteFeedback(c.Context(), batch); err != nil {
					return err
				}
			}
		},
	}
}
