package hub

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEventsOfALife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		events := h.Watch(ctx)
		must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
		l, _ := attach(t, h, ID{Device: "d"}, time.Hour)
		must(t)(l.Report([]byte(`{"a":1}`), 0))
		must(t)(h.PatchTwin(ID{Device: "d"}, []byte(`{"properties":{"desired":{"b":2}}}`), ""))
		must(t)(h.PutDevice(Device{DeviceID: "d", Authentication: mustDevice(t, h, "d").Authentication}, "*"))
		l.Detach()
		if err := h.DeleteDevice("d", "*"); err != nil {
			t.Fatal(err)
		}
		cancel()
		var got []string
		for e := range events { // ends: the channel is closed
			got = append(got, e.Kind+" "+e.DeviceID+" "+string(e.Body)+e.Detail)
		}
		want := []string{"created d ", "connected d test", `reported d {"$version":2,"a":1}`, `desired d {"$version":2,"b":2}`,
			"updated d ", "disconnected d the device's end", "deleted d "}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if len(h.watchers) != 0 {
			t.Errorf("%d watchers are left", len(h.watchers))
		}
	})
}

// TestSlowWatcher: the hub does not wait, and the loss is told where it happened, or at the end.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		events := h.Watch(ctx)
		n := 0
		emit := func(times int) {
			h.mu.Lock()
			defer h.unlock()
			for range times {
				n++
				h.emit(Event{Kind: "test", Detail: strconv.Itoa(n)})
			}
		}
		emit(waiting + 9) // 4095 fit, ten are lost
		for i := range 10 {
			if e := <-events; e.Detail != strconv.Itoa(i+1) {
				t.Fatalf("event %d is %s", i+1, e.Detail)
			}
		}
		emit(20) // after the loss, nine minus one slot: eight fit, twelve are lost
		cancel()
		synctest.Wait()
		var all []Event
		for e := range events {
			all = append(all, e)
		}
		gap := slices.IndexFunc(all, func(e Event) bool { return e.Kind == "lost" })
		if gap < 0 || all[gap].Detail != "10" || all[gap-1].Detail != "4095" || all[gap+1].Detail != strconv.Itoa(waiting+10) {
			t.Errorf("the first loss is told at %d: %v", gap, all[max(gap-1, 0):min(gap+2, len(all))])
		}
		last := all[len(all)-1]
		lost, _ := strconv.Atoi(last.Detail)
		before, _ := strconv.Atoi(all[len(all)-2].Detail)
		if last.Kind != "lost" || before+lost != n {
			t.Errorf("the end is %s %s after event %d of %d", last.Kind, last.Detail, before, n)
		}
	})
}

// TestEventsAreDocumented: every kind of event, and every stamp of telemetry, has its place in docs/events.md.
func TestEventsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{stampDevice: true, stampModule: true, stampGeneration: true, stampMethod: true, stampEnqueued: true, stampSource: true, stampModel: true}
	literal := regexp.MustCompile(`(?:Event\{(?:At: now, )?Kind: |kind :?= )"([a-z]+)"`)
	for _, file := range sources {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range literal.FindAllStringSubmatch(string(text), -1) {
			if !strings.HasSuffix(file, "_test.go") {
				names[m[1]] = true
			}
		}
	}
	if len(names) < 20 || !names["updated"] || !names["telemetry"] || !names["lost"] {
		t.Errorf("the source is read wrongly: %v", names)
	}
	for name := range names {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/events.md lacks %s", name)
		}
	}
}
