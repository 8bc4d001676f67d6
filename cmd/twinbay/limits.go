package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/twinbay/twinbay/agent/local"
)

// printLimits says which limits of a module are in force, by what, and why others are not.
func printLimits(w io.Writer, all []local.Limit) error {
	if len(all) == 0 {
		return nil
	}
	var cells, notes []string
	for _, l := range all {
		by := "NOT IN FORCE"
		if l.By != "" {
			by = l.By
		}
		cells = append(cells, fmt.Sprintf("%s %s (%s)", l.Of, limitValue(l), by))
		if l.Note != "" && !slices.Contains(notes, l.Note) {
			notes = append(notes, l.Note)
		}
	}
	_, err := fmt.Fprintf(w, "\nlimits: %s\n", oneLine(strings.Join(cells, ", ")))
	for _, n := range notes {
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", oneLine(n))
		}
	}
	return err
}

func limitValue(l local.Limit) string {
	switch {
	case l.Of == "memory" && l.Value%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", l.Value>>20)
	case l.Of == "memory":
		return fmt.Sprintf("%d B", l.Value)
	case l.Of == "cpu":
		return fmt.Sprintf("%d%%", l.Value)
	}
	return fmt.Sprint(l.Value)
}
