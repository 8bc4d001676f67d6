package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/lives"
	"github.com/twinbay/twinbay/agent/local"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden holds got against testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s\nwant\n%s", path, got, want)
	}
}

// call runs the program.
func call(ctx context.Context, stdin string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = Main(ctx, args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// vending is a machine with one component of each kind of trouble.
func vending() local.Status {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	return local.Status{
		Version: "1.0.0", Device: "vending-1", Host: "localhost", Address: "127.0.0.1:8883", Protocol: "mqtt 5",
		Started: ago(26 * time.Hour), Session: local.Link{Connected: true, Since: ago(25 * time.Hour)},
		Storage: local.Storage{Profile: "durable", PowerCut: "a power cut costs no accepted message", Folder: "/var/lib/twinbay/outbox",
			Error: "no space left on device", Since: ago(3 * time.Minute), Damaged: 2, Left: map[string]int{"old": 7}},
		Components: []local.Component{{
			Name: "climate", ModuleID: "climate", Module: "bme280",
			Process: local.Process{PID: 4711, State: local.Running, Since: ago(26 * time.Hour), Limits: []local.Limit{
				{Of: "memory", Value: 128 << 20, By: "agent", Note: "the kernel's memory controller is off"},
				{Of: "tasks", Value: 64, By: "cgroup"}, {Of: "cpu", Value: 80, Note: "the kernel's memory controller is off"},
				{Of: "files", Value: 256, By: "rlimit"}}},
			Link:     local.Link{Connected: true, Since: ago(12 * time.Minute), Reconnects: 2},
			Versions: local.Versions{Desired: 7, Reported: 12},
			Last:     local.Reading{At: ago(2 * time.Second), Body: json.RawMessage(`{ "temperature_c": 4.25, "humidity_pct": 61.0 }`)},
			Health:   local.Health{State: local.OK},
			Inputs: []local.Input{
				{Name: "door", From: "door.open", At: ago(3 * time.Second), Reason: "door.open: its module has ended: killed by signal 9 (SIGKILL)"},
				{Name: "power", From: "power.volts", Known: true, Value: json.RawMessage("23.9"), At: ago(90 * time.Second)},
			},
		}, {
			Name: "coins", ModuleID: "Coins-2", Module: "cctalk",
			Process:  local.Process{PID: 4799, State: local.Running, Since: ago(75 * time.Second), Restarts: 3, LastExit: "signal: killed"},
			Link:     local.Link{Since: ago(5 * time.Minute), LastError: "dial tcp 127.0.0.1:8883: connection refused", Retry: noon.Add(8 * time.Second)},
			Versions: local.Versions{Desired: 3},
			Queue:    local.Queue{Queued: 1234, InFlight: 4, Dropped: map[string]uint64{"full": 20, "expired": 0, "set-aside": 1}, Held: 5},
			Health:   local.Health{State: local.Degraded, Detail: "coin path is blocked at sensor 2: open the acceptor and clear it"},
		}, {
			Name: "door", ModuleID: "door", Module: "door\x1b[31m",
			Process: local.Process{State: local.Failed, Since: ago(time.Hour), LastExit: "no such line\ngpio:x/17"},
			Link:    local.Link{Since: ago(72 * time.Hour)},
		}},
	}
}

func TestStatusTable(t *testing.T) {
	var b bytes.Buffer
	if err := printStatus(&b, vending(), noon); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.txt", b.String())
	b.Reset()
	held := vending()
	held.Components = held.Components[:1]
	held.Components[0].Process = local.Process{State: local.Held, Since: noon.Add(-4 * time.Minute)}
	held.Components[0].Health = local.Health{State: local.Degraded, Detail: "not started: the agent is in safe mode; see twinbay status"}
	held.Safe = &local.SafeMode{Since: noon.Add(-4 * time.Minute), Until: noon.Add(26 * time.Minute), EarlyEnds: 5, Ends: []lives.End{
		{Found: noon.Add(-5 * time.Minute), Reason: "panic: assignment to entry in nil map"}, {Found: noon.Add(-4 * time.Minute), Reason: lives.Unknown}}}
	if err := printStatus(&b, held, noon); err != nil {
		t.Fatal(err)
	}
	golden(t, "status-safe.txt", b.String())
	b.Reset()
	if err := printStatus(&b, local.Status{Device: "bare", Host: "hub", Protocol: "mqtt 3.1.1", Session: local.Link{
		LastError: "the hub refused the credential"}}, noon); err != nil {
		t.Fatal(err)
	}
	golden(t, "status-bare.txt", b.String())
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59*time.Second + 999*time.Millisecond: "59s", time.Minute: "1m00s", 9*time.Minute + 59*time.Second: "9m59s",
		10 * time.Minute: "10m", 59 * time.Minute: "59m", time.Hour: "1h00m", 47*time.Hour + 30*time.Minute: "47h30m", 48 * time.Hour: "2d",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %s, want %s", d, got, want)
		}
	}
}

// vendor is an agent of a test.
type vendor struct{ logs *local.Logs }

func (v vendor) Status() local.Status { return vending() }

func (v vendor) Twin(_ context.Context, name string) (local.TwinView, error) {
	if name != "climate" {
		return local.TwinView{}, fmt.Errorf("%q: %w", name, local.ErrNoComponent)
	}
	return local.TwinView{Component: name, ModuleID: name, Desired: json.RawMessage(`{"interval_ms":2000}`), DesiredVersion: 2,
		Reported: json.RawMessage(`{"interval_ms":{"ac":200,"av":2,"value":2000}}`), ReportedVersion: 5,
		Settings: json.RawMessage(`{"interval_ms":2000}`), Synced: true}, nil
}

func (v vendor) Invoke(_ context.Context, name, method string, payload json.RawMessage) (int, json.RawMessage, error) {
	switch method {
	case "echo":
		return 200, payload, nil
	case "dead":
		return 0, nil, fmt.Errorf("%s: %w", name, local.ErrNotRunning)
	}
	return 404, json.RawMessage(`{"error":"no such direct method"}`), nil
}

func (v vendor) Restart(_ context.Context, name string) (local.Restarted, error) {
	if name != "climate" {
		return local.Restarted{}, local.ErrNoComponent
	}
	return local.Restarted{Component: name, Was: local.Quarantined}, nil
}

func (v vendor) Reload(context.Context) (local.Reloaded, error) {
	return local.Reloaded{Added: []string{"cooling"}, Removed: []string{"door"}, Kept: map[string]int{"door": 12}, Later: []string{"outbox"}}, nil
}

func (v vendor) Resume(context.Context) error { return local.ErrNotSafe }

func (v vendor) Messages(context.Context) ([]local.CloudMessage, error) {
	return []local.CloudMessage{
		{Number: 3, ID: "promo-1", Received: noon, Properties: map[string]string{"lang": "de"}, Body: json.RawMessage(`{ "text": "hello" }`)},
		{Number: 12, Received: noon, Text: "plain \x1b[31m"},
		{Number: 13, Received: noon, Base64: []byte{0, 255}},
	}, nil
}

func (v vendor) Dismiss(_ context.Context, which string) error {
	if which != "3" && which != "12" && which != "13" && which != "promo-1" {
		return local.ErrNoMessage
	}
	return nil
}

func (v vendor) Logs(ctx context.Context, q local.LogQuery) (<-chan local.LogLine, error) {
	return v.logs.Query(ctx, q), nil
}

func serve(t *testing.T) (socket string, log *slog.Logger) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "s")
	l, err := local.Listen(socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v := vendor{local.NewLogs(0)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- local.Serve(ctx, l, v) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return socket, slog.New(v.logs.Handler(slog.NewTextHandler(io.Discard, nil)))
}

func TestCommands(t *testing.T) {
	socket, log := serve(t)
	log.Info("started")
	log.Warn("no answer\x1b[2J", "module", "climate", "b", 2, "a", 1)
	for _, c := range []struct {
		name           string
		stdin          string
		args           string
		code           int
		stdout, stderr string // in it; "" means none
	}{
		{"status", "", "status", 0, "device vending-1 · hub localhost at 127.0.0.1:8883 · mqtt 5", ""},
		{"status as JSON", "", "status --json", 0, `"module_id": "Coins-2"`, ""},
		{"status of one", "", "status climate", 0, "climate    climate    bme280 running 4711", ""},
		{"limits of one", "", "status climate", 0, "\nlimits: memory 128 MiB (agent), tasks 64 (cgroup), cpu 80% (NOT IN FORCE), files 256 (rlimit)\n" +
			"  the kernel's memory controller is off\n", ""},
		{"no limits", "", "status door", 0, "last exit: no such line; gpio:x/17\n", ""},
		{"status of nobody", "", "status nobody", 1, "", "twinbay: nobody: no such component; `twinbay status` lists the components\n"},
		{"process number", "", "status climate --pid", 0, "4711\n", ""},
		{"process number of none", "", "status door --pid", 1, "", "twinbay: door: the module is not running now; `twinbay status` says why\n"},
		{"process number of whom", "", "status --pid", 2, "", "twinbay: --pid is of one component; add its NAME; see --help\n"},
		{"twin", "", "twin climate", 0, "reported, version 5, acknowledged by the hub\n{\n  \"interval_ms\": {", ""},
		{"twin as JSON", "", "--json twin climate", 0, `"desired_version": 2`, ""},
		{"twin of nobody", "", "twin nobody", 1, "", "twinbay: \"nobody\": no such component; `twinbay status` lists the components\n"},
		{"twin of whom", "", "twin", 2, "", "twinbay: usage: twinbay twin NAME"},
		{"method", "", `method climate echo {"x":1}`, 0, "status 200\n{\n  \"x\": 1\n}\n", ""},
		{"method from a pipe", `{"y":2}`, `method climate echo -`, 0, "\"y\": 2", ""},
		{"method without payload", "", `method climate echo`, 0, "status 200\n", ""},
		{"method as JSON", "", `method climate echo 5 --json`, 0, "{\n  \"status\": 200,\n  \"payload\": 5\n}\n", ""},
		{"method with bad JSON", "", `method climate echo {x:1}`, 2, "", "the payload is not JSON; put it into single quotes"},
		{"unknown method", "", `method climate fly`, 1, "no such direct method", "twinbay: climate fly: the module answered status 404\n"},
		{"method of a dead module", "", `method coins dead`, 1, "", "the module is not running now; `twinbay status` says why"},
		{"reload", "", "reload", 0, "started: cooling\nstopped: door\n12 messages of door are kept; put it back into the device file to send them\n" +
			"counts from the agent's next start: outbox\n", ""},
		{"metrics", "", "metrics", 0, "twinbay_module_restarts_total{component=\"coins\"} 3\n", ""},
		{"resume without safe mode", "", "resume", 1, "", "twinbay: the agent is not in safe mode\n"},
		{"restart", "", "restart climate", 0, "climate was quarantined and is being started; twinbay status climate\n", ""},
		{"restart as JSON", "", "restart climate --json", 0, `"was": "quarantined"`, ""},
		{"restart of nobody", "", "restart nobody", 1, "", "twinbay: no such component; `twinbay status` lists the components\n"},
		{"restart of whom", "", "restart", 2, "", "twinbay: usage: twinbay restart NAME"},
		{"logs", "", "logs", 0, "INFO  started\n", ""},
		{"logs of one", "", "logs climate", 0, `WARN  climate: no answer\x1b[2J a=1 b=2` + "\n", ""},
		{"last line as JSON", "", "logs climate -n 1 --json", 0, `"component":"climate"`, ""},
		{"no line", "", "logs -n 0", 0, "", ""},
		{"version", "", "version", 0, "twinbay ", ""},
		{"version as JSON", "", "version --json", 0, `"version": `, ""},
		{"help", "", "--help", 0, "Available Commands", ""},
		{"nothing", "", "", 0, "Available Commands", ""},
		{"unknown command", "", "statsu", 2, "", "twinbay: there is no command \"statsu\"; did you mean \"status\"? see --help\n"},
		{"unknown flag", "", "status --jsn", 2, "", "twinbay: unknown flag: --jsn; see --help\n"},
		{"run without a file", "", "run", 2, "", "twinbay: no device file is named; add --config FILE; see --help\n"},
		{"run with a missing file", "", "run --config /nonexistent/d.toml", 1, "", "no such file or directory; name one with --config\n"},
		{"check with a missing file", "", "check -c /nonexistent/d.toml", 1, "", "no such file or directory"},
	} {
		args := append([]string{"--socket", socket}, strings.Fields(c.args)...)
		code, stdout, stderr := call(t.Context(), c.stdin, args...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: code %d\n%s\n%s\nwant %d\n%s\n%s", c.name, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
		if c.stdout == "" && stdout != "" || c.stderr == "" && stderr != "" {
			t.Errorf("%s: unexpected output %q, %q", c.name, stdout, stderr)
		}
	}
}

func TestNoAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, args := range [][]string{{"status"}, {"twin", "x"}, {"method", "x", "y"}, {"reload"}, {"logs"}, {"logs", "-f"}} {
		code, out, stderr := call(t.Context(), "", append(args, "--socket", socket)...)
		if code != 1 || out != "" || !strings.Contains(stderr, "is twinbay running?") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: code %d, %q, %q", args, code, out, stderr)
		}
	}
}

// The socket: --socket, then the environment, then ./.run, then the system's.
func TestSocketLookup(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(socketEnv, "")
	tried := func(args ...string) string {
		_, _, stderr := call(t.Context(), "", append([]string{"status"}, args...)...)
		return stderr
	}
	if err := os.Mkdir(".run", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socketHere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tried(); !strings.Contains(got, " "+socketHere) {
		t.Errorf("with ./.run: %s", got)
	}
	t.Setenv(socketEnv, "/nonexistent/env.sock")
	if got := tried(); !strings.Contains(got, " /nonexistent/env.sock") {
		t.Errorf("with the environment: %s", got)
	}
	if got := tried("--socket", "/nonexistent/flag.sock"); !strings.Contains(got, " /nonexistent/flag.sock") {
		t.Errorf("with --socket: %s", got)
	}
	t.Setenv(socketEnv, "")
	if err := os.Remove(socketHere); err != nil {
		t.Fatal(err)
	}
	a := app{}
	c := a.dial()
	defer c.Close()
	if _, err := os.Stat(config.DefaultSocket); errors.Is(err, os.ErrNotExist) {
		if got := tried(); !strings.Contains(got, config.DefaultSocket) {
			t.Errorf("without anything: %s", got)
		}
	}
}

func TestLogsFollow(t *testing.T) {
	socket, log := serve(t)
	log.Info("one")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() { done <- Main(ctx, []string{"--socket", socket, "logs", "-f"}, nil, w, io.Discard) }()
	buf := make([]byte, 200)
	for _, next := range []string{"one", "two"} {
		n, err := r.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), "INFO  "+next) {
			t.Fatalf("%q, %v; want line %s", buf[:n], err, next)
		}
		log.Info("two")
	}
	cancel()
	go io.Copy(io.Discard, r)
	if code := <-done; code != 0 {
		t.Errorf("exit code %d after Ctrl-C, want 0", code)
	}
}

func TestUntilStopped(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		run   func(context.Context) error
		want  error
		took  time.Duration
		hurry time.Duration // the second signal, after the start; 0 is none
	}{
		{"ends by itself", func(context.Context) error { return broken }, broken, 0, 0},
		{"ends when asked", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			return nil
		}, nil, 2 * time.Second, 0},
		{"hangs", func(ctx context.Context) error {
			time.Sleep(time.Minute)
			return nil
		}, errLate, time.Second + stopLimit, 0},
		{"hangs, and is told twice", func(ctx context.Context) error {
			time.Sleep(time.Minute)
			return nil
		}, errLate, 1500*time.Millisecond + hurryLimit, 1500 * time.Millisecond},
		{"is told twice at once", func(ctx context.Context) error {
			time.Sleep(time.Minute)
			return nil
		}, errLate, time.Second + hurryLimit, 500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begin := time.Now()
			hurry := make(chan struct{})
			if c.hurry > 0 {
				time.AfterFunc(c.hurry, func() { close(hurry) })
			}
			if err := untilStopped(ctx, hurry, c.run); !errors.Is(err, c.want) || time.Since(begin) != c.took {
				t.Errorf("%s: %v after %s, want %v after %s", c.name, err, time.Since(begin), c.want, c.took)
			}
			time.Sleep(time.Minute) // the one that hangs has to be gone when the bubble ends
		})
	}
	if stopLimit >= 2*time.Second {
		t.Error("2 s are promised")
	}
}
