package hubtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// kinds are the kinds of events, and whether they can come of an identity only while there is one. A refused device need
// not exist, and a created one does not yet.
var kinds = map[string]bool{
	"connected": true, "disconnected": true, "telemetry": true, "reported": true, "desired": true, "tags": true, "method": true,
	"c2d": true, "file": true, "updated": true,
	"created": false, "deleted": false, "refused": false, "fault": false, "throttled": false, "job": false, "lost": false,
}

// Wait answers the first event that matches and that no Wait has answered before, however long ago it happened. It
// fails the test after ten seconds, or a day inside a bubble, and says what has happened instead.
func (h *Hub) Wait(t testing.TB, match func(e hub.Event) bool) hub.Event {
	t.Helper()
	return h.wait(t, "an event that matches", match, func() string { return "" }, func() string { return "" })
}

// WaitFor answers the first event of a kind (connected, telemetry, reported, …: see hub.Event) and an identity, named
// "device" or "device/module", that no wait has answered before. Like Wait, it fails the test with what has happened
// instead; at once if nothing can ever come, because there is no such identity or kind.
func (h *Hub) WaitFor(t testing.TB, kind, who string) hub.Event {
	t.Helper()
	id, what := named(who), kind+" of "+who
	match := func(e hub.Event) bool { return e.Kind == kind && e.DeviceID == id.Device && e.ModuleID == id.Module }
	needs, ok := kinds[kind]
	if !ok {
		t.Fatalf("hubtest: waiting for %s: there are no events of the kind %q; the kinds are %s",
			what, kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	hopeless := func() string {
		if !needs {
			return ""
		}
		return h.absent(id)
	}
	return h.wait(t, what, match, hopeless, func() string { return h.hint(kind, id) })
}

// wait waits for an event. hopeless says why it will never come, as far as that is known; hint what to do next.
func (h *Hub) wait(t testing.TB, what string, match func(e hub.Event) bool, hopeless, hint func() string) hub.Event {
	t.Helper()
	limit := time.NewTimer(waitLimit())
	defer limit.Stop()
	from := 0
	for {
		event, ok, seen, more := h.events.take(from, match)
		if ok {
			return event
		}
		if why := hopeless(); why != "" {
			h.events.flush() // what an identity did before it was deleted still counts
			if event, ok, _, _ = h.events.take(seen, match); ok {
				return event
			}
			t.Fatalf("hubtest: waiting for %s: %s", what, why)
		}
		from = seen
		select {
		case <-more:
		case <-limit.C:
			t.Fatalf("hubtest: %s has not come in %v.\n%s%s", what, waitLimit(), hint(), h.story())
		}
	}
}

// WaitTwin answers the twin of an identity, named "device" or "device/module", as soon as it is as match wants it: at
// once if it is so already. It looks when something happens to the identity (see hub.Event), never by the clock. It
// fails the test after ten seconds, or a day inside a bubble, and says what the twin is instead; at once if there is no
// such identity. match must not change the twin.
func (h *Hub) WaitTwin(t testing.TB, who string, match func(twin hub.Twin) bool) hub.Twin {
	t.Helper()
	id := named(who)
	return h.waitTwin(t, id, "the twin of "+who+" to be as wanted", match, func(last hub.Twin) string {
		return fmt.Sprintf("Last seen: connection state %s, status %s, tags %s,\n\tdesired %s\n\treported %s\n%s", last.ConnectionState, last.Status,
			text(last.Tags), text(bare(last.Properties.Desired)), text(bare(last.Properties.Reported)), h.reach(id))
	})
}

// WaitReported waits, as WaitTwin does, until an identity's reported properties have all that want has: a JSON object
// whose objects may leave out properties, and whose null stands for a property that is not there.
//
//	h.WaitReported(t, "pi-01/bme280", `{"interval_ms":{"value":5,"ac":200}}`)
func (h *Hub) WaitReported(t testing.TB, who, want string) hub.Twin {
	t.Helper()
	return h.waitSection(t, who, "reported", want, func(twin hub.Twin) map[string]any { return twin.Properties.Reported },
		func(id hub.ID) string {
			if hint := h.reach(id); hint != "" {
				return hint
			}
			return "Next: it is connected, so look at what it publishes to $iothub/twin/PATCH/properties/reported/?$rid=…, and what it is answered.\n"
		})
}

// WaitDesired is WaitReported for desired properties: of a service under test.
func (h *Hub) WaitDesired(t testing.TB, who, want string) hub.Twin {
	t.Helper()
	return h.waitSection(t, who, "desired", want, func(twin hub.Twin) map[string]any { return twin.Properties.Desired },
		func(hub.ID) string {
			return "Next: look at what the service writes and what it is answered; a test writes by h.Desire.\n"
		})
}

func (h *Hub) waitSection(t testing.TB, who, name, want string, section func(hub.Twin) map[string]any, hint func(hub.ID) string) hub.Twin {
	t.Helper()
	var wanted map[string]any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil || wanted == nil {
		t.Fatalf("hubtest: waiting for %s properties of %s: %q is not a JSON object (%v)", name, who, want, err)
	}
	id := named(who)
	return h.waitTwin(t, id, fmt.Sprintf("%s properties of %s with %s", name, who, want),
		func(twin hub.Twin) bool { return differs("", bare(section(twin)), wanted) == "" },
		func(last hub.Twin) string {
			has := bare(section(last))
			return fmt.Sprintf("Last seen: %s\nThe difference: %s\n%s", text(has), differs("", has, wanted), hint(id))
		})
}

// waitTwin waits for a state. explain says what was seen last, and what to do next.
func (h *Hub) waitTwin(t testing.TB, id hub.ID, what string, match func(hub.Twin) bool, explain func(last hub.Twin) string) hub.Twin {
	t.Helper()
	limit := time.NewTimer(waitLimit())
	defer limit.Stop()
	look := func() hub.Twin {
		twin, err := h.Twin(id)
		if err != nil {
			t.Fatalf("hubtest: waiting for %s: %s", what, h.absent(id))
		}
		return twin
	}
	for from := -1; ; {
		seen, news, more := h.events.of(from, id)
		if news {
			if twin := look(); match(twin) {
				return twin
			}
		}
		from = seen
		select {
		case <-more:
		case <-limit.C:
			t.Fatalf("hubtest: waited %v for %s.\n%s%s", waitLimit(), what, explain(look()), h.story())
		}
	}
}
