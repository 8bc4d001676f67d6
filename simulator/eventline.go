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
