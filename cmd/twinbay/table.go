package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/twinbay/twinbay/agent/local"
)

// maxReading is how much of a reading the table shows.
const maxReading = 44

// printStatus writes the device in a line and its components in a table.
func printStatus(w io.Writer, s local.Status, now time.Time) error {
	host := s.Host
	if s.Address != "" {
		host += " at " + s.Address
	}
	_, err := fmt.Fprintf(w, "device %s · hub %s · %s · %s · up %s\n", oneLine(s.Device), oneLine(host),
		oneLine(s.Protocol), link(s.Session, now), age(s.Started, now))
	if err != nil {
		return err
	}
	for _, line := range safeMode(s.Safe, now) {
		fmt.Fprintf(w, "  %s\n", oneLine(line))
	}
	if s.Clock.Note != "" {
		fmt.Fprintf(w, "  clock: %s\n", oneLine(s.Clock.Note))
	}
	if n := linkNote(s.Session, now); n != "" {
		fmt.Fprintf(w, "  %s\n", oneLine(n))
	}
	if m := s.Metrics; m != nil && m.Error != "" {
		fmt.Fprintf(w, "  metrics: %s is not served: %s\n", oneLine(m.Address), oneLine(m.Error))
	}
	for _, line := range storage(s.Storage, now) {
		fmt.Fprintf(w, "  %s\n", oneLine(line))
	}
	if s.Messages > 0 {
		fmt.Fprintf(w, "  %d cloud-to-device messages wait: twinbay messages\n", s.Messages)
	}
	if len(s.Components) == 0 {
		_, err = fmt.Fprintln(w, "\nno components; add [modules.NAME] to the device file")
		return err
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "COMPONENT\tMODULE ID\tPROCESS\tHUB LINK\tTWIN\tLAST READING\tQUEUE\tRESTARTS\tREASON")
	for _, c := range s.Components {
		cells := []string{c.Name, c.ModuleID, process(c, now), link(c.Link, now), twinCell(c.Versions), reading(c.Last, now),
			queue(c.Queue), strconv.Itoa(c.Process.Restarts), dash(reason(c, now))}
		for i, cell := range cells {
			cells[i] = oneLine(cell)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return printLinks(w, s.Components, now)
}

// printLinks writes a line for each link between components.
func printLinks(w io.Writer, all []local.Component, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	first := true
	for _, c := range all {
		for _, in := range c.Inputs {
			if first {
				fmt.Fprintln(t, "\nLINK\tVALUE\tFOR\tREASON")
				first = false
			}
			value := "unknown"
			if in.Known {
				value = clip(string(in.Value), maxReading)
			}
			cells := []string{in.From + " → " + c.Name + "." + in.Name, value, age(in.At, now), dash(in.Reason)}
			for i, cell := range cells {
				cells[i] = oneLine(cell)
			}
			fmt.Fprintln(t, strings.Join(cells, "\t"))
		}
	}
	return t.Flush()
}

// storage says how safe messages are, and what is wrong.
func storage(s local.Storage, now time.Time) (lines []string) {
	if !s.Busy.IsZero() {
		lines = append(lines, "DISK: one call has been under way for "+age(s.Busy, now)+"; nothing can be accepted or kept meanwhile; the disk may be failing")
	}
	if s.Profile == "" {
		return lines
	}
	line := "outbox " + s.Profile + ": " + s.PowerCut
	if s.Error != "" {
		line = "outbox CANNOT BE WRITTEN for " + age(s.Since, now) + ": " + s.Error +
			"; messages are accepted only once the hub has them; free or replace the disk of " + s.Folder
	}
	lines = append(lines, line)
	if s.Full != "" && s.Error == "" {
		lines = append(lines, "outbox: it cannot grow, so messages are dropped earlier: "+s.Full+"; free the disk of "+s.Folder)
	}
	if s.Damaged > 0 {
		lines = append(lines, fmt.Sprintf("outbox: %d damaged places were found at the start; the disk of %s may be failing", s.Damaged, s.Folder))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Left)) {
		lines = append(lines, fmt.Sprintf("outbox: %d messages of %s are kept, which is not in the device file; put it back to send them", s.Left[name], name))
	}
	return lines
}

func process(c local.Component, now time.Time) string {
	text := c.Module + " " + c.Process.State
	if c.Process.PID != 0 {
		text += " " + strconv.Itoa(c.Process.PID)
	}
	return text + " " + age(c.Process.Since, now)
}

func link(l local.Link, now time.Time) string {
	if l.Connected {
		return "connected " + age(l.Since, now)
	}
	return "offline " + age(l.Since, now)
}

// linkNote says why there is no connection and when the next try is, or what to look at while there is one.
func linkNote(l local.Link, now time.Time) string {
	if l.Connected || l.LastError == "" {
		return l.Notice
	}
	note := "hub: " + l.LastError
	if l.Retry.After(now) {
		note += ", next try in " + span(l.Retry.Sub(now))
	}
	return note
}

// twinCell is the desired version in force, and the reported version that the hub has.
func twinCell(v local.Versions) string {
	return fmt.Sprintf("%s/%s", versionOf(v.Desired), versionOf(v.Reported))
}

func versionOf(v int64) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatInt(v, 10)
}

func reading(r local.Reading, now time.Time) string {
	if r.At.IsZero() {
		return "-"
	}
	var b bytes.Buffer
	if json.Compact(&b, r.Body) != nil {
		b.Reset()
		b.Write(r.Body)
	}
	return age(r.At, now) + " ago " + clip(b.String(), maxReading)
}

func queue(q local.Queue) string {
	text := strconv.Itoa(q.Queued)
	for _, reason := range slices.Sorted(maps.Keys(q.Dropped)) {
		if n := q.Dropped[reason]; n > 0 {
			text += fmt.Sprintf(" (%d %s)", n, reason)
		}
	}
	if q.Held > 0 {
		text += fmt.Sprintf(" (%d held)", q.Held)
	}
	return text
}

// reason is what somebody should know about a component: its health, its link, and why it was started again. Health
// may tell of the other two already.
func reason(c local.Component, now time.Time) string {
	var notes []string
	if c.Health.State != "" && c.Health.State != local.OK {
		notes = append(notes, strings.TrimSuffix(c.Health.State+": "+c.Health.Detail, ": "))
	}
	if n := linkNote(c.Link, now); n != "" && !strings.Contains(c.Health.Detail, c.Link.LastError) && !strings.Contains(c.Health.Detail, n) {
		notes = append(notes, n)
	}
	if exit := c.Process.LastExit; exit != "" && !strings.Contains(c.Health.Detail, exit) {
		notes = append(notes, "last exit: "+exit)
	}
	return strings.ReplaceAll(strings.Join(notes, "; "), "\n", "; ")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(max(0, now.Sub(t)))
}

// span is a duration in its largest unit, and the next one where it matters.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// clip cuts s to n characters.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// printable makes control characters visible: what a module or a hub says must not move the terminal's cursor, nor
// break the table. Line feeds of indented JSON may stay.
func printable(s string) string {
	bad := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if bad(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// oneLine is printable text without a line feed.
func oneLine(s string) string { return strings.ReplaceAll(printable(s), "\n", `\n`) }
