package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator/admin"
)

// shownColumns are what tables show of what is not chosen by a query's own columns.
var shownColumns = map[string][]string{
	"Twin":        {"deviceId", "moduleId", "status", "connectionState", "version", "lastActivityTime"},
	"DeviceJob":   {"jobId", "deviceId", "moduleId", "status", "outcome", "error"},
	"JobResponse": {"jobId", "type", "status", "startTime", "queryCondition", "failureReason"},
}

func queryCommand(f *hubFlags) *cobra.Command {
	var size int
	c := &cobra.Command{
		Use:   "query QUERY",
		Short: "ask in IoT Hub's query language: of devices, devices.modules or devices.jobs",
		Example: `  twinbay-sim query "SELECT deviceId, moduleId FROM devices.modules WHERE tags.department = 'food safety'"
  twinbay-sim query "SELECT tags.site AS site, COUNT() AS machines FROM devices GROUP BY tags.site"`,
		Args: exactly(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			return f.pages(c.OutOrStdout(), func(next string) (admin.Page, error) {
				return client.Query(c.Context(), args[0], size, next)
			})
		},
	}
	c.Flags().IntVar(&size, "page", 0, "rows to ask for at a time; 0 leaves it to the hub")
	return c
}

// pages reads page after page and prints the rows: as one table, or as one array of JSON.
func (f *hubFlags) pages(w io.Writer, page func(continuation string) (admin.Page, error)) error {
	all := []json.RawMessage{}
	kind, next := "", ""
	for {
		p, err := page(next)
		if err != nil {
			return err
		}
		all = append(all, p.Items...)
		kind = p.Type
		if next = p.Continuation; next == "" {
			break
		}
	}
	if f.json {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(all)
	}
	return rowsTable(w, all, shownColumns[kind])
}

// rowsTable prints objects; no columns mean all that there are, in the order in which the rows have them.
func rowsTable(w io.Writer, rows []json.RawMessage, columns []string) error {
	parsed := make([]map[string]json.RawMessage, len(rows))
	var seen []string
	for i, r := range rows {
		if err := json.Unmarshal(r, &parsed[i]); err != nil {
			return fmt.Errorf("read the hub's rows: %w", err)
		}
		seen = mergeNames(seen, names(r))
	}
	if columns == nil {
		columns = seen
	}
	columns = slices.DeleteFunc(slices.Clone(columns), func(name string) bool { return !slices.Contains(seen, name) })
	if len(columns) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, strings.ToUpper(strings.Join(columns, "\t")))
	for _, r := range parsed {
		cells := make([]string, len(columns))
		for i, name := range columns {
			cells[i] = cell(r[name])
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// names are the members of an object that is known to be one, in their order.
func names(object json.RawMessage) []string {
	var all []string
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		return nil
	}
	for d.More() {
		name, err := d.Token()
		var skipped json.RawMessage
		if err != nil || d.Decode(&skipped) != nil {
			return all
		}
		if text, ok := name.(string); ok {
			all = append(all, text)
		}
	}
	return all
}

// mergeNames adds to the columns seen so far those of one more row, each before the one that it stands before there: a row leaves out
// what its twin does not have.
func mergeNames(seen, row []string) []string {
	at := len(seen)
	for _, name := range slices.Backward(row) {
		if i := slices.Index(seen, name); i >= 0 {
			at = i
		} else {
			seen = slices.Insert(seen, at, name)
		}
	}
	return seen
}

// cell is a value in a table: a string without its quotes, "-" for what is not there, all else as JSON.
func cell(v json.RawMessage) string {
	var text string
	switch {
	case len(v) == 0 || string(v) == "null":
		return "-"
	case json.Unmarshal(v, &text) == nil:
		return strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, text)
	}
	return string(v)
}
