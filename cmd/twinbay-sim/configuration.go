package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator/admin"
)

func configurationCommand(f *hubFlags) *cobra.Command {
	c := &cobra.Command{Use: "configuration", Short: "configurations: desired properties that hold for all that a condition chooses, new ones too"}
	list := &cobra.Command{Use: "list", Short: "the hub's configurations", Args: exactly(0, 0)}
	list.RunE = func(c *cobra.Command, _ []string) error {
		client, err := f.client()
		if err != nil {
			return err
		}
		answer, err := client.Configurations(c.Context())
		if err != nil || f.json {
			return show(c, answer, err)
		}
		var rows []json.RawMessage
		if err := json.Unmarshal(answer, &rows); err != nil {
			return fmt.Errorf("read the hub's list: %w", err)
		}
		return rowsTable(c.OutOrStdout(), rows, []string{"id", "priority", "targetCondition", "systemMetrics"})
	}
	c.AddCommand(createConfiguration(f), list,
		onName(f, "show CONFIGURATION", "a configuration and how many it holds for", func(ctx context.Context, c *cobra.Command, h *admin.Client, id string) error {
			answer, err := h.Configuration(ctx, id)
			return show(c, answer, err)
		}),
		onName(f, "delete CONFIGURATION", "remove a configuration; what it has set stays", func(ctx context.Context, _ *cobra.Command, h *admin.Client, id string) error {
			return h.DeleteConfiguration(ctx, id)
		}))
	return c
}

func createConfiguration(f *hubFlags) *cobra.Command {
	var where, content string
	var priority int
	var metrics []string
	var labels map[string]string
	c := onName(f, "create CONFIGURATION", "make a configuration; CONFIGURATION is its id, in lower case", func(ctx context.Context, c *cobra.Command, h *admin.Client, id string) error {
		text := []byte(content)
		if path, isFile := strings.CutPrefix(content, "@"); isFile {
			var err error
			if text, err = os.ReadFile(path); err != nil {
				return fmt.Errorf("content: %w", err)
			}
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(text, &doc); err != nil {
			return fmt.Errorf("--content is no JSON object: %w; %w", err, errUsage)
		}
		queries := map[string]string{}
		for _, m := range metrics {
			name, text, ok := strings.Cut(m, "=")
			if !ok || name == "" {
				return fmt.Errorf("--metric %q: want NAME=QUERY; %w", m, errUsage)
			}
			queries[name] = text
		}
		body := map[string]any{"content": doc, "targetCondition": where, "priority": priority, "metrics": map[string]any{"queries": queries}}
		if len(labels) > 0 {
			body["labels"] = labels
		}
		answer, err := h.CreateConfiguration(ctx, id, body)
		return show(c, answer, err)
	})
	c.Example = `  twinbay-sim configuration create slow-climate --priority 10 --where "FROM devices.modules WHERE tags.department = 'food safety'" \
    --content '{"moduleContent": {"properties.desired.interval_ms": 60000}}'`
	p := c.Flags()
	p.StringVar(&where, "where", "", "for whom: a condition on devices, * for all, or FROM devices.modules WHERE …")
	p.StringVar(&content, "content", "", "JSON with deviceContent, moduleContent or modulesContent; @FILE reads a file")
	p.IntVar(&priority, "priority", 0, "of two that set the same, the higher one counts")
	p.StringArrayVar(&metrics, "metric", nil, "NAME=QUERY to count the rows of, up to five times")
	p.StringToStringVar(&labels, "label", nil, "NAME=VALUE")
	return c
}
