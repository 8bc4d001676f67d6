package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
)

// EventLine is an event for a person's terminal: when, who, what. Long bodies are cut.
func EventLine(e admin.Event) string {
	who := e.DeviceID
	if e.ModuleID != "" {
		who += "/" + e.ModuleID
	}
	return fmt.Sprintf("%s  %-20s %-12s %s", e.At.Local().Format(time.TimeOnly), who, e.Kind, eventText(e))
}

// EventProperties are the lines below an event's that show its application properties and its system properties, the hub's
// stamps among them, as JSON; none where there are none.
func EventProperties(e admin.Event) []string {
	var lines []string
	for _, p := range []struct {
		name string
		of   map[string]string
	}{{"properties", e.Properties}, {"system", e.System}} {
		if len(p.of) == 0 {
			continue
		}
		var b bytes.Buffer
		w := json.NewEncoder(&b)
		w.SetEscapeHTML(false)
		if err := w.Encode(p.of); err != nil {
			continue // can't be: it holds strings
		}
		lines = append(lines, fmt.Sprintf("          %-10s  %s", p.name, bytes.TrimSpace(b.Bytes())))
	}
	return lines
}

func eventText(e admin.Event) string {
	const longest = 160 // characters: one line of a wide terminal
	text := e.Detail
	if body := eventBody(e); e.Kind == "c2d" && body != "" {
		text += " " + body
	} else if body != "" {
		text = body
	}
	if r := []rune(text); len(r) > longest {
		text = string(r[:longest]) + "…"
	}
	return text
}

func eventBody(e admin.Event) string {
	if len(e.Base64) > 0 {
		return fmt.Sprintf("%d bytes that are no JSON", len(e.Base64))
	}
	var b bytes.Buffer
	if len(e.Body) == 0 || json.Compact(&b, e.Body) != nil {
		return ""
	}
	return b.String()
}
