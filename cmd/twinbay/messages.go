package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent/local"
)

func (a *app) messagesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "messages",
		Short: "show the cloud-to-device messages that nobody has dismissed",
		Long: "Show the device's cloud-to-device messages. Each stays until it is dismissed; while 200 are kept, or 4 MiB, no more are\n" +
			"taken, and the hub keeps the next ones.",
		Args: exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			client := a.dial()
			defer client.Close()
			messages, err := client.Messages(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(c.OutOrStdout(), messages)
			}
			return printMessages(c.OutOrStdout(), messages, time.Now())
		},
	}
	c.AddCommand(a.dismissCommand())
	return c
}

func (a *app) dismissCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "dismiss ID... | --all",
		Short: "remove messages, by their number or message id",
		Args: func(c *cobra.Command, args []string) error {
			if all != (len(args) == 0) {
				return fmt.Errorf("usage: %s; %w", c.UseLine(), errUsage)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			a.ran = true
			client := a.dial()
			defer client.Close()
			if all {
				messages, err := client.Messages(c.Context())
				if err != nil {
					return err
				}
				for _, m := range messages {
					args = append(args, strconv.FormatUint(m.Number, 10))
				}
			}
			for _, which := range args {
				if err := client.Dismiss(c.Context(), which); err != nil {
					return next(err)
				}
			}
			if a.json {
				return printJSON(c.OutOrStdout(), map[string]int{"dismissed": len(args)})
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%d dismissed\n", len(args))
			return err
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all that there are")
	return c
}

// maxBody is how much of a message the table shows.
const maxBody = 100

func printMessages(w io.Writer, messages []local.CloudMessage, now time.Time) error {
	if len(messages) == 0 {
		_, err := fmt.Fprintln(w, "no messages")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NUMBER\tRECEIVED\tMESSAGE ID\tPROPERTIES\tBODY")
	for _, m := range messages {
		properties := ""
		for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
			properties += " " + name + "=" + m.Properties[name]
		}
		fmt.Fprintf(t, "%d\t%s ago\t%s\t%s\t%s\n", m.Number, age(m.Received, now), dash(oneLine(m.ID)),
			dash(oneLine(clip(properties, maxBody))), oneLine(clip(bodyText(m), maxBody)))
	}
	return t.Flush()
}

// bodyText is a message's body in one line.
func bodyText(m local.CloudMessage) string {
	var b bytes.Buffer
	switch {
	case len(m.Body) > 0 && json.Compact(&b, m.Body) == nil:
		return b.String()
	case len(m.Base64) > 0:
		return "base64:" + base64.StdEncoding.EncodeToString(m.Base64)
	}
	return m.Text
}
