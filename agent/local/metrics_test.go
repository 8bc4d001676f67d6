package local

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/exposition"
	"github.com/twinbay/twinbay/agent/exposition/expositiontest"
	"github.com/twinbay/twinbay/agent/lives"
	"github.com/twinbay/twinbay/agent/outbox"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// busy is a device on which something of everything is going on.
func busy() Status {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	var took outbox.Latency
	took.Count, took.Sum = 7, 1500*time.Millisecond
	for n := range took.Buckets {
		took.Buckets[n] = uint64(min(n, 6))
	}
	s := Status{
		Version: "1.0.0", Device: "vending-1", Host: "hub.example", Protocol: "mqtt 5", Started: ago(26 * time.Hour),
		Clock: Clock{Source: "hub", OffsetS: -7200.5}, Messages: 2,
		Session:  Link{Connected: true, Since: ago(25 * time.Hour), Reconnects: 3, TokenExpires: noon.Add(time.Hour)},
		Versions: Versions{Desired: 4, Reported: 9},
		Storage: StorageOf(outbox.Status{Profile: outbox.Durable, Bytes: 4096, MaxBytes: 32 << 20, DiskBytes: 6 << 20, Written: 123456, Syncs: 7,
			Took: took, Damaged: 1, Left: map[string]int{"old": 7}}),
		Self: Self{Resident: 20 << 20, CPUS: 12.75, OpenFiles: 31, Goroutines: 80},
		Safe: &SafeMode{Since: ago(time.Minute), EarlyEnds: 5, Ends: []lives.End{{Found: ago(time.Minute), Reason: "panic: no"}}},
		Components: []Component{{
			Name: "coins", ModuleID: "Coins-2", Module: "cctalk",
			Process: Process{PID: 4799, State: Running, Since: ago(75 * time.Second), Restarts: 3, Ends: map[string]int{EndHung: 1, EndSignal: 2},
				Limits: []Limit{{Of: "memory", Value: 128 << 20, By: "agent"}, {Of: "cpu", Value: 80}}},
			Link:     Link{Since: ago(5 * time.Minute), Reconnects: 1},
			Versions: Versions{Desired: 3},
			Queue: Queue{Queued: 1234, InFlight: 4, Bytes: 3000, Oldest: ago(5 * time.Minute), Accepted: 5000, Acked: 3745,
				Dropped: map[string]uint64{"full": 20, "set-aside": 1}, Held: 5},
			Health: Health{State: Degraded},
			Inputs: []Input{{Name: "door", From: "door.open", Known: true}},
		}, {
			Name: "door", ModuleID: "door", Module: "door \"x\"\n", Process: Process{State: Failed, Ends: map[string]int{EndStart: 4}},
			Health: Health{State: Faulted},
		}},
	}
	s.Storage.StateBytes = 234567
	return s
}

func TestMetrics(t *testing.T) {
	text := Metrics(busy(), noon)
	path := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, text)
	}
	families, err := expositiontest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range families {
		if !strings.HasPrefix(name, "twinbay_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "go_") {
			t.Errorf("metric %s has no prefix of ours, nor a usual one", name)
		}
		if !strings.HasSuffix(f.Help, ".") {
			t.Errorf("the help of %s is no sentence: %s", name, f.Help)
		}
	}
	if v, ok := families["twinbay_outbox_oldest_age_seconds"].Value("component", "coins"); !ok || v != 300 {
		t.Errorf("the oldest message is %v s old, want 300", v)
	}
	// One that has not started, and one with nothing at all, are well formed, too.
	for _, s := range []Status{{}, {Components: []Component{{Name: "a"}}}} {
		if _, err := expositiontest.Parse(Metrics(s, noon)); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add("coins", "hung", uint64(3), int64(5))
	f.Add("a\"b\\\n", "\xff", uint64(1)<<63, int64(-1))
	f.Fuzz(func(t *testing.T, name, reason string, n uint64, seconds int64) {
		s := busy()
		s.Version, s.Components[0].Name, s.Components[0].Module = name, name+"0", reason
		s.Components[0].Queue.Dropped = map[string]uint64{reason: n}
		s.Started = time.Unix(seconds%(1<<40), 0)
		if _, err := expositiontest.Parse(Metrics(s, noon)); err != nil {
			t.Error(err)
		}
	})
}

// Prometheus gets the same on the socket and over TCP, and nothing else over TCP.
func TestMetricsEndpoints(t *testing.T) {
	m := &machine{logs: NewLogs(0)}
	path, _ := serve(t, m)
	c := Dial(path)
	defer c.Close()
	text, err := c.Metrics(t.Context())
	if err != nil || !strings.Contains(string(text), `twinbay_outbox_dropped_total{component="climate",reason="full"} 2`) {
		t.Errorf("%v: %s", err, text)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ServeMetrics(ctx, l, m) }()
	for path, want := range map[string]int{"/metrics": 200, "/v1/status": 404, "/": 404, "/v1/reload": 404} {
		res, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want || err != nil {
			t.Errorf("%s: %d, want %d; %v", path, res.StatusCode, want, err)
		}
		if want == 200 && (string(body) != string(text) || res.Header.Get("Content-Type") != exposition.ContentType) {
			t.Errorf("over TCP, as %s: %s", res.Header.Get("Content-Type"), body)
		}
	}
	res, err := http.Post("http://"+l.Addr().String()+"/metrics", "text/plain", nil)
	if err != nil || res.StatusCode != 405 {
		t.Errorf("POST: %v, %v", res, err)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// jsonPaths are the members of a type in JSON: "components[].process.pid".
func jsonPaths(t reflect.Type, prefix string) (paths []string) {
	for n := range t.NumField() {
		f := t.Field(n)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			paths = append(paths, "field "+f.Name+" of "+t.String()+" has no name in JSON")
			continue
		}
		path, ft := prefix+name, f.Type
		for ft.Kind() == reflect.Pointer || ft.Kind() == reflect.Slice && ft != reflect.TypeFor[json.RawMessage]() {
			if ft.Kind() == reflect.Slice {
				path += "[]"
			}
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct && ft != reflect.TypeFor[time.Time]() {
			paths = append(paths, jsonPaths(ft, path+".")...)
			continue
		}
		if ft.Kind() == reflect.Map {
			path += "{}"
		}
		paths = append(paths, path)
	}
	return paths
}

// docs/status.md has a row for every member of `twinbay status --json` and for every metric, and for nothing else.
func TestStatusPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(string(page)) {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && strings.HasPrefix(line, "| `") {
			rows = append(rows, cell)
		}
	}
	var want []string
	links := func(path string) string { // the device's and a component's members are described once
		for _, double := range []string{"components[].hub.", "components[].twin."} {
			path = strings.Replace(path, double, "…", 1)
		}
		return path
	}
	for _, path := range jsonPaths(reflect.TypeFor[Status](), "") {
		if !strings.HasPrefix(path, "session.") && !strings.HasPrefix(path, "twin.") {
			want = append(want, links(path))
		}
	}
	families, err := expositiontest.Parse(Metrics(busy(), noon))
	if err != nil {
		t.Fatal(err)
	}
	for name := range families {
		want = append(want, name)
	}
	for _, name := range want {
		if !slices.Contains(rows, name) {
			t.Errorf("docs/status.md has no row for `%s`", name)
		}
	}
	for _, name := range rows {
		if !slices.Contains(want, name) {
			t.Errorf("docs/status.md has a row for `%s`, which is nothing", name)
		}
	}
	if twice := len(rows) - len(slices.Compact(slices.Sorted(slices.Values(rows)))); twice > 0 {
		t.Error(fmt.Sprint(twice, " rows of docs/status.md stand there twice"))
	}
}
