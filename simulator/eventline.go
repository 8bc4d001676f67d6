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

func eventText(e admin.Event) string {
	const longest = 160 // characters: one line of a wide terminal
	text := e.Detail
	if len(e.Body) > 0 {
		var b bytes.Buffer
		if json.Compact(&b, e.Body) != nil {
			return text
		}
		text = b.String()
	} else if len(e.Base64) > 0 {
		text = fmt.Sprintf("%d bytes that are no JSON", len(e.Base64))
	}
	if r := []rune(text); len(r) > longest {
		text = string(r[:longest]) + "…"
	}
	return text
}
