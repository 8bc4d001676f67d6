//go:build linux

package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/host"
)

func TestStartDescribeInvokeStop(t *testing.T) {
	h, folder := open(t)
	p, err := h.Start(t.Context(), self(t, "coins", "module"))
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Description(); d.Name != "test" || d.Version != "1.2.3" {
		t.Errorf("description = %+v", d)
	}
	if files := sockets(t, folder); len(files) > 0 {
		t.Errorf("while the module runs its socket can be opened by others: %v", files)
	}
	a, err := p.Remote().Invoke(t.Context(), "echo", json.RawMessage(`{"a":1}`))
	if err != nil || a.Status != 200 || string(a.Payload) != `{"a":1}` {
		t.Errorf("echo = %d %s, %v", a.Status, a.Payload, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	p.Stop(ctx)
	if got := p.Exit().Reason; got != "stopped by the agent" {
		t.Errorf("exit reason = %q", got)
	}
	if err := gone(p.PID(), 0+time.Second); err != nil {
		t.Error(err)
	}
}

func TestModuleSeesNoSecret(t *testing.T) {
	const secret = "SharedAccessKey=c2VjcmV0"
	t.Setenv("HUB_CS", secret)
	t.Setenv("HOME", "/home/somebody")
	h, _ := open(t)
	p, err := h.Start(t.Context(), self(t, "coins", "module"))
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, p)
	env := procFile(t, p.PID(), "environ")
	if all := env + procFile(t, p.PID(), "cmdline"); strings.Contains(all, secret) {
		t.Errorf("the module sees the agent's secret: %q", all)
	}
	allowed := []string{"PATH", "GOMAXPROCS", "TWINBAY_MODULE", "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR"}
	for kv := range strings.SplitSeq(strings.Trim(env, "\x00"), "\x00") {
		if name, _, _ := strings.Cut(kv, "="); !slices.Contains(allowed, name) {
			t.Errorf("the module's environment has %s", kv)
		}
	}
}

func TestKilled(t *testing.T) {
	h, folder := open(t)
	p, err := h.Start(t.Context(), self(t, "coins", "module"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	syscall.Kill(p.PID(), syscall.SIGKILL)
	within(t, 2*time.Second, "end of the process", p.Done())
	t.Logf("seen after %v", time.Since(began))
	if got := p.Exit().Reason; got != "killed by signal 9 (SIGKILL)" {
		t.Errorf("exit reason = %q", got)
	}
	if entries, _ := filepath.Glob(filepath.Join(folder, "module-*")); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestPanicStackIsInExit(t *testing.T) {
	h, _ := open(t)
	var log logBuffer
	spec := self(t, "coins", "module")
	spec.Log = slog.New(slog.NewTextHandler(&log, nil))
	p, err := h.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	p.Remote().Invoke(t.Context(), "panic", nil)
	within(t, 5*time.Second, "end of the process", p.Done())
	exit := p.Exit()
	if want := "exit status 2: panic: the coin mech is upside down"; exit.Reason != want {
		t.Errorf("reason = %q, want %q", exit.Reason, want)
	}
	if !strings.Contains(exit.Stack, "goroutine ") || !strings.Contains(exit.Stack, "main_test.go:") {
		t.Errorf("stack = %q", exit.Stack)
	}
	if strings.Contains(log.String(), "goroutine ") {
		t.Error("the stack's lines are in the log one by one")
	}
}

func TestStderrFloodIsBounded(t *testing.T) {
	h, _ := open(t)
	var log logBuffer
	spec := self(t, "coins", "module")
	spec.Log = slog.New(slog.NewTextHandler(&log, nil))
	p, err := h.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if a, err := p.Remote().Invoke(t.Context(), "flood", nil); err != nil || a.Status != 200 {
		t.Fatalf("flood = %+v, %v", a, err)
	}
	end(t, p)
	limit := 500 + 10*int(time.Since(began).Seconds()+2) + 5 // the burst, the rate, and what is said of both
	if n := strings.Count(log.String(), "\n"); n < 500 || n > limit {
		t.Errorf("%d log lines, want from 500 to %d", n, limit)
	}
	if !strings.Contains(log.String(), "the last line repeated 49 times") {
		t.Error("fifty equal lines of a megabyte are not collapsed")
	}
	if !strings.Contains(log.String(), "some were left out") {
		t.Error("the log does not say that lines were left out")
	}
	if n := len(p.Exit().Stack); n > 20<<10 {
		t.Errorf("%d bytes kept", n)
	}
}

// TestR06_BadStarts: whatever a program does instead of becoming a module, the start fails with a sentence that says so,
// within its budget, and nothing is left of it. A module that only prints where it should not is a module all the same.
func TestR06_BadStarts(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(notExecutable, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		spec host.Spec
		want string
	}{
		{"missing program", host.Spec{Program: "/nowhere/twinbay-modules"}, "start /nowhere/twinbay-modules: fork/exec /nowhere/twinbay-modules: no such file or directory; check [agent] modules"},
		{"not executable", host.Spec{Program: notExecutable}, "permission denied; check [agent] modules"},
		{"exits at once", self(t, "", "dies"), "did not become ready: exit status 7: cannot find my configuration"},
		{"prints garbage", self(t, "", "garbage"), `did not become ready: it says "hello, I am no module" where a module says how to reach it: is it a module`},
		{"hangs before its handshake", self(t, "", "silent"), "did not become ready: it was not ready within 300ms"},
		{"garbage without end", self(t, "", "endless"), "xxxxx"},
		{"closes its standard output", self(t, "", "closes"), "did not become ready: it closed its standard output and said nothing there"},
		{"another version", self(t, "", "version"), "did not become ready: it speaks another version of the contract"},
		{"handshake and gone", self(t, "", "handshake"), "did not become ready: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, folder := open(t)
			tt.spec.Name = "coins"
			if tt.name == "hangs before its handshake" {
				tt.spec.Budget = 300 * time.Millisecond
			}
			p, err := h.Start(t.Context(), tt.spec)
			if err == nil {
				end(t, p)
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %q, want %q in it", err, tt.want)
			}
			if entries, _ := filepath.Glob(filepath.Join(folder, "module-*")); len(entries) > 0 {
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}

// A second handshake, and whatever else comes on standard output, is something that a module prints; and it may close it.
func TestPrintingModulesWork(t *testing.T) {
	h, _ := open(t)
	var log logBuffer
	spec := self(t, "coins", "module")
	spec.Log = slog.New(slog.NewTextHandler(&log, nil))
	p, err := h.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"handshake", "stdout", "close stdout", "echo", "nasty", "echo"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if a, err := p.Remote().Invoke(ctx, method, nil); err != nil || a.Status != 200 {
			t.Errorf("%s = %+v, %v", method, a, err)
		}
		cancel()
	}
	end(t, p)
	if !strings.Contains(log.String(), "1|1|unix|/nowhere|grpc") {
		t.Errorf("what it printed is not in the log: %s", log.String())
	}
}

// A module that crashes at start again and again must not make the agent grow.
func TestFailedStartsLeakNothing(t *testing.T) {
	h, _ := open(t)
	for _, be := range []string{"handshake", "dies"} {
		h.Start(t.Context(), self(t, "coins", be))
	}
	before := settled()
	for range 10 {
		h.Start(t.Context(), self(t, "coins", "handshake"))
		h.Start(t.Context(), self(t, "coins", "dies"))
	}
	if after := settled(); after > before+3 {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after twenty failed starts:\n%s", before, after, buf[:runtime.Stack(buf, true)])
	}
}

// settled is the number of goroutines once those that end have ended.
func settled() int {
	n := runtime.NumGoroutine()
	for range 100 {
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 10_000})
		n = min(n, runtime.NumGoroutine())
	}
	return n
}

func TestCancelledStart(t *testing.T) {
	h, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	began := time.Now()
	if _, err := h.Start(ctx, self(t, "coins", "silent")); err == nil {
		t.Fatal("it started")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the start ended %v after its context", took)
	}
}

func TestStopKillsTheStubborn(t *testing.T) {
	h, _ := open(t)
	p, err := h.Start(t.Context(), self(t, "coins", "stubborn"))
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.PID(), syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	p.Stop(ctx)
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("stop took %v", took)
	}
	if err := gone(p.PID(), time.Second); err != nil {
		t.Error(err)
	}
}

func TestWhatAModuleStartedGoesWithIt(t *testing.T) {
	h, _ := open(t)
	var log logBuffer
	spec := self(t, "coins", "parent")
	spec.Log = slog.New(slog.NewTextHandler(&log, nil))
	p, err := h.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.PID(), syscall.SIGKILL) // the child is not asked, and holds the module's stderr
	within(t, 3*time.Second, "end of the process", p.Done())
	var child int
	_, after, _ := strings.Cut(log.String(), "child ")
	if _, err := fmt.Sscan(strings.Trim(after, "\"\n "), &child); err != nil {
		t.Fatalf("no child in the log %q", log.String())
	}
	if err := gone(child, time.Second); err != nil {
		t.Error(err)
	}
}

func TestStaleSocketsAreSweptAndNothingElse(t *testing.T) {
	folder := t.TempDir()
	stale := filepath.Join(folder, "module-coins")
	other := filepath.Join(folder, "keys")
	for _, d := range []string{stale, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(stale, "plugin1")}); err != nil {
		t.Fatal(err)
	}
	// What go-plugin has in the socket's place for a moment, and what only looks like it.
	for _, file := range []string{filepath.Join(stale, "plugin2"), filepath.Join(other, "a")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.Open(folder, host.NoGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("the stale folder is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(other, "a")); err != nil {
		t.Error(err)
	}
	if _, err := host.Open(folder, host.NoGroups); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("a second agent in the same run folder: err = %v", err)
	}
}

func TestForeignFileInAModuleFolderStays(t *testing.T) {
	for name, text := range map[string]string{"diary.txt": "", "plugin2": "dear diary"} {
		folder := t.TempDir()
		file := filepath.Join(folder, "module-coins", name)
		if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := host.Open(folder, host.NoGroups); err == nil || !strings.Contains(err.Error(), "module-coins") {
			t.Errorf("%s: err = %v, want one that names the folder", name, err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}

// A module may make its socket in the very moment in which the next agent sweeps.
func TestSweepWhileAModuleDies(t *testing.T) {
	folder := t.TempDir()
	stale := filepath.Join(folder, "module-coins")
	for range 200 {
		if err := os.Mkdir(stale, 0o700); err != nil {
			t.Fatal(err)
		}
		var dying sync.WaitGroup
		dying.Go(func() { // as go-plugin does; the folder may be gone by then
			f, err := os.CreateTemp(stale, "plugin")
			if err == nil {
				f.Close()
			}
		})
		h, err := host.Open(folder, host.NoGroups)
		dying.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil { // it sweeps what came after the first
			t.Fatal(err)
		}
	}
}

func TestRunFolderTooLongForSockets(t *testing.T) {
	folder := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	h, err := host.Open(folder, host.NoGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Start(t.Context(), self(t, "coins", "module")); err == nil || !strings.Contains(err.Error(), "set a shorter [agent] run_dir") {
		t.Errorf("err = %v", err)
	}
}

// end stops p within a second, by force if need be.
func end(t testing.TB, p *host.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	p.Stop(ctx)
}

func sockets(t testing.TB, folder string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func procFile(t testing.TB, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
