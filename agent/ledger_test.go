package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/simulator/hub"
)

// arrived is how often each message of a component has come, by its body and then by its id.
func (x *torture) arrived(name string) map[string]map[string]int {
	all := map[string]map[string]int{}
	for _, e := range x.hub.Events() {
		if e.Kind != "telemetry" || e.ModuleID != name {
			continue
		}
		body := string(e.Body)
		if all[body] == nil {
			all[body] = map[string]int{}
		}
		all[body][e.System["message-id"]]++
	}
	return all
}

// differs says what the two sides do not agree on yet; "" when they are one.
func (x *torture) differs() string {
	for _, name := range x.names {
		tw, err := x.hub.Twin(hub.ID{Device: deviceID, Module: name})
		if err != nil {
			return err.Error()
		}
		v, err := x.agent.Twin(x.t.Context(), name)
		if err != nil {
			return err.Error()
		}
		c := x.component(name)
		desired, reported := plain(x.t, tw.Properties.Desired), plain(x.t, tw.Properties.Reported)
		applied, _ := x.machines[name].lastApplied()
		switch {
		case !c.Link.Connected:
			return fmt.Sprintf("%s is not connected: %s", name, c.Link.LastError)
		case c.Queue.Queued+c.Queue.Held > 0:
			return fmt.Sprintf("%s has %d messages queued and %d held", name, c.Queue.Queued, c.Queue.Held)
		case plain(x.t, v.Desired) != desired:
			return fmt.Sprintf("desired properties of %s: %s at the hub, %s at the agent", name, desired, v.Desired)
		case plain(x.t, v.Reported) != reported:
			return fmt.Sprintf("reported properties of %s: %s at the hub, %s at the agent", name, reported, v.Reported)
		case applied != string(v.Settings):
			return fmt.Sprintf("settings of %s: %s at the module, %s at the agent", name, applied, v.Settings)
		case len(x.arrived(name)) < x.coins[name]-dropped(c.Queue.Dropped):
			return fmt.Sprintf("%d of %d coins of %s have arrived; dropped: %v", len(x.arrived(name)), x.coins[name], name, c.Queue.Dropped)
		}
	}
	return ""
}

// ledger holds what arrived against what was thrown in and what was accepted: nothing lost, nothing invented, nothing
// doubled but under one id.
func (x *torture) ledger() {
	received, duplicates, doubled, lost, promised := 0, 0, 0, 0, 0
	alarms := uint64(0) // said to be lost, although the hub has them: see docs/torture.md
	for _, name := range x.names {
		all := x.arrived(name)
		for reason, n := range x.component(name).Queue.Dropped {
			if reason != outbox.DroppedDamaged {
				x.t.Errorf("%s: %d dropped: %s", name, n, reason)
			}
			alarms += n
		}
		bodies := map[string]string{} // by id
		for body, ids := range all {
			for id, times := range ids {
				if bodies[id] != "" {
					x.t.Errorf("%s: %s came as %s and as %s", name, id, body, bodies[id])
				}
				bodies[id] = body
				duplicates += times - 1
			}
		}
		x.promises.Lock()
		for id := range x.promised[name] {
			promised++
			if bodies[id] == "" {
				x.t.Errorf("%s of %s was accepted, and has not come", id, name)
				lost++
			}
		}
		x.promises.Unlock()
		for n := 1; n <= x.coins[name]; n++ {
			ids := all[fmt.Sprintf(`{"coin":%d}`, n)]
			if len(ids) == 0 {
				x.t.Errorf("coin %d of %s is lost; around it: %s", n, name, x.around(name, n))
				continue
			}
			received++
			if len(ids) > 1 {
				doubled++
				if !x.excused(name, n) {
					x.t.Errorf("coin %d of %s came under %d ids: %s", n, name, len(ids), x.around(name, n))
				}
			}
		}
		if len(all) > x.coins[name] {
			x.t.Errorf("%s: %d coins came, %d were thrown in", name, len(all), x.coins[name])
		}
	}
	var done []string
	for what, n := range x.count {
		done = append(done, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(done)
	thrown := 0
	for _, n := range x.coins {
		thrown += n
	}
	x.note("%d thrown in, %d received; %d ids accepted, %d lost; %d duplicates under one id, %d under two (%d ends with a dead disk), %d false alarms; %s",
		thrown, received, promised, lost, duplicates, doubled, len(x.unkept), alarms, strings.Join(done, ", "))
}

// excused says whether each id of a coin but its last came in a time whose messages the next agent could not know of.
func (x *torture) excused(name string, n int) bool {
	first := map[string]time.Time{} // when each id came
	for _, e := range x.hub.Events() {
		id := e.System["message-id"]
		if _, known := first[id]; !known && e.Kind == "telemetry" && e.ModuleID == name && string(e.Body) == fmt.Sprintf(`{"coin":%d}`, n) {
			first[id] = e.At
		}
	}
	within := 0
	for _, at := range first {
		if slices.ContainsFunc(x.unkept, func(s span) bool { return !at.Before(s.from) && at.Before(s.to) }) {
			within++
		}
	}
	return within >= len(first)-1
}

// around says when the coins before and behind one came, and under which ids: where the log of a failure is to be read.
func (x *torture) around(name string, n int) string {
	var all []string
	for _, e := range x.hub.Events() {
		for k := max(1, n-2); k <= n+2; k++ {
			if e.Kind == "telemetry" && e.ModuleID == name && string(e.Body) == fmt.Sprintf(`{"coin":%d}`, k) {
				all = append(all, fmt.Sprintf("%d at %.3fs as %s", k, e.At.Sub(x.began).Seconds(), e.System["message-id"]))
			}
		}
	}
	return strings.Join(all, ", ")
}

func dropped(reasons map[string]uint64) (n int) {
	for _, k := range reasons {
		n += int(k)
	}
	return n
}

// plain is a twin's section without what the hub adds, in one order.
func plain(t testing.TB, section any) string {
	t.Helper()
	raw, err := json.Marshal(section)
	var doc map[string]any
	if err == nil {
		err = json.Unmarshal(raw, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(doc, "$metadata")
	delete(doc, "$version")
	raw, err = json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
