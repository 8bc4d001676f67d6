package hubtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/twinbay/twinbay/simulator/hub"
)

// What a wait that fails says.

// absent says that an identity does not exist and what to do, or "" if it does.
func (h *Hub) absent(id hub.ID) string {
	if h.Generation(id) != "" {
		return ""
	}
	what, create := "device", fmt.Sprintf("h.Device(%q)", id.Device)
	if id.Module != "" {
		what, create = "module", fmt.Sprintf("h.Module(%q, %q)", id.Device, id.Module)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the %s identity %q does not exist (ids are case-sensitive). Next: create it with %s; if the program under test creates it, "+
		"wait for that first, with h.WaitFor(t, \"created\", %q).\n", what, id, create, id)
	if n := h.count("deleted", id); n > 0 {
		b.WriteString("It has been deleted.\n")
	}
	b.WriteString(h.identities())
	return b.String()
}

// identities names those that exist.
func (h *Hub) identities() string {
	const most = 20
	var all []string
	for _, d := range h.Devices(most) {
		all = append(all, d.DeviceID)
		modules, err := h.Modules(d.DeviceID)
		if err != nil {
			continue // deleted since
		}
		for _, m := range modules {
			all = append(all, m.DeviceID+"/"+m.ModuleID)
		}
	}
	switch {
	case len(all) == 0:
		return "The hub has no identities.\n"
	case len(all) > most:
		return fmt.Sprintf("The hub has %s, and more.\n", strings.Join(all[:most], ", "))
	}
	return fmt.Sprintf("The hub has %s.\n", strings.Join(all, ", "))
}

// hint says why an event of a kind may not have come, and what to do next.
func (h *Hub) hint(kind string, id hub.ID) string {
	var b strings.Builder
	if n := h.count(kind, id); n > 0 {
		fmt.Fprintf(&b, "Each wait takes an event of its own: there have been %d of these, which earlier waits have answered.\n", n)
	}
	switch kind {
	case "connected", "telemetry", "reported", "method", "file":
		b.WriteString(h.reach(id))
	case "desired":
		fmt.Fprintf(&b, "Next: write desired properties, as with h.Desire(%q, `{…}`).\n", id)
	case "c2d":
		fmt.Fprintf(&b, "Next: send a message, as with h.Send(%q, \"…\").\n", id)
	}
	return b.String()
}

// reach says why a device or module says nothing, or "" if it is connected.
func (h *Hub) reach(id hub.ID) string {
	h.mu.Lock()
	down := h.live == nil
	h.mu.Unlock()
	if down {
		return "Next: the hub is down; h.Up() ends that.\n"
	}
	twin, err := h.Twin(id)
	if err == nil && twin.ConnectionState == "Connected" {
		return ""
	}
	last, ok := h.last(id, "connected", "disconnected", "refused")
	switch {
	case ok && last.Kind == "refused":
		return fmt.Sprintf("Next: %s wanted to connect, and the hub refused it: %s.\n", id, last.Detail)
	case ok:
		return fmt.Sprintf("Next: %s is not connected any more (%s); have it connect again.\n", id, last.Detail)
	}
	return fmt.Sprintf("Next: %s has never connected. Have it dial h.Listen() or h.DialTLS, trust h.TLS(), and use its own connection string.\n", id)
}

// count is how many events of a kind there have been of an identity.
func (h *Hub) count(kind string, id hub.ID) int {
	n := 0
	for _, e := range h.Events() {
		if e.Kind == kind && e.DeviceID == id.Device && e.ModuleID == id.Module {
			n++
		}
	}
	return n
}

// last is the newest event of an identity that has one of the kinds.
func (h *Hub) last(id hub.ID, kinds ...string) (last hub.Event, ok bool) {
	for _, e := range h.Events() {
		if e.DeviceID == id.Device && e.ModuleID == id.Module && slices.Contains(kinds, e.Kind) {
			last, ok = e, true
		}
	}
	return last, ok
}

// story is a line for each event, and the newest of many.
func (h *Hub) story() string {
	const most = 40
	all := h.Events()
	if len(all) == 0 {
		return "Nothing has happened at the hub."
	}
	var b strings.Builder
	b.WriteString("What has happened:\n")
	if over := len(all) - most; over > 0 {
		fmt.Fprintf(&b, "\t… %d events before\n", over)
		all = all[over:]
	}
	for _, e := range all {
		id := hub.ID{Device: e.DeviceID, Module: e.ModuleID}
		b.WriteString(strings.TrimRight(fmt.Sprintf("\t%s %s %s %s %s", e.At.UTC().Format("15:04:05.000"), e.Kind, id, e.Detail, e.Body), " ") + "\n")
	}
	return b.String()
}

// differs says where has lacks something of want, or "". In an object, want's null stands for what is not there.
func differs(path string, has, want any) string {
	wanted, ok := want.(map[string]any)
	if !ok {
		if reflect.DeepEqual(has, want) {
			return ""
		}
		return fmt.Sprintf("%s is %s, not %s", path, text(has), text(want))
	}
	object, ok := has.(map[string]any)
	if !ok {
		return fmt.Sprintf("%s is %s, not an object", path, text(has))
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		at := strings.TrimPrefix(path+"."+key, ".")
		value, there := object[key]
		switch {
		case wanted[key] == nil && !there:
		case wanted[key] == nil:
			return fmt.Sprintf("%s is %s, and should not be there", at, text(value))
		case !there:
			return at + " is not there"
		default:
			if d := differs(at, value, wanted[key]); d != "" {
				return d
			}
		}
	}
	return ""
}

// bare is a section without its $metadata, in the shapes that encoding/json decodes to.
func bare(section map[string]any) (out map[string]any) {
	raw, err := json.Marshal(section)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	delete(out, "$metadata")
	return out
}

func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}
