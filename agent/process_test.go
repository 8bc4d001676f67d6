//go:build linux

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/hub"
)

// newProcessRig is a device whose modules are processes and whose connections are sockets.
func newProcessRig(t testing.TB, names ...string) *rig {
	t.Helper()
	r := newRig(t, "5", "", names...)
	short, err := os.MkdirTemp("", "agent") // a unix socket's path is at most 107 bytes long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	for i := range r.file.Modules {
		r.file.Modules[i].Limits.Memory = 0 // the test binary is no module of the usual size, least of all with the race detector
	}
	r.file.Agent.RunDir = filepath.Join(short, "run")
	r.file.Agent.Socket = filepath.Join(short, "agent.sock")
	r.file.Hub.Address = r.hub.Listen()
	r.file.Hub.CAFile = filepath.Join(filepath.Dir(r.file.File), "ca.pem")
	if err := os.WriteFile(r.file.Hub.CAFile, r.hub.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{File: r.file, Version: "1.2.3", Logs: r.logs, Log: slog.New(r.logs.Handler(slog.NewTextHandler(t.Output(), nil)))})
	if err != nil {
		t.Fatal(err)
	}
	r.run(a)
	return r
}

func TestRealProcesses(t *testing.T) {
	r := newProcessRig(t, "coins", "door")
	for _, name := range []string{"coins", "door"} {
		r.reported(name, `{"mode":{"value":"normal","ac":203}}`)
	}
	client := local.Dial(r.file.Agent.Socket)
	defer client.Close()
	s, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Components) != 2 || s.Components[0].Process.PID == 0 || s.Device != deviceID {
		t.Fatalf("status = %+v", s)
	}

	t.Run("no credential reaches a module", func(t *testing.T) {
		for _, c := range s.Components {
			text, err := r.hub.ConnectionString(hub.ID{Device: deviceID, Module: c.ModuleID})
			if err != nil {
				t.Fatal(err)
			}
			_, key, _ := strings.Cut(text, "SharedAccessKey=")
			for _, file := range []string{"environ", "cmdline"} {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", c.Process.PID, file))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(b), key) || strings.Contains(string(b), "SharedAccess") || strings.Contains(string(b), ".cred") {
					t.Errorf("%s of %s: %q", file, c.Name, b)
				}
			}
			if found := memoryHolds(t, c.Process.PID, key); found != "" {
				t.Errorf("the memory of %s's process holds its key, at %s", c.Name, found)
			}
			for line := range r.logs.Query(t.Context(), local.LogQuery{}) {
				if strings.Contains(fmt.Sprint(line), key) {
					t.Errorf("the log shows the key of %s: %v", c.Name, line)
				}
			}
		}
	})

	t.Run("the look into a process's memory finds what is there", func(t *testing.T) {
		// The module's socket folder is in its environment.
		if pid := s.Components[0].Process.PID; memoryHolds(t, pid, r.file.Agent.RunDir) == "" {
			t.Errorf("process %d: its own environment is not found", pid)
		}
	})

	t.Run("kill -9", func(t *testing.T) {
		began := time.Now()
		syscall.Kill(s.Components[0].Process.PID, syscall.SIGKILL)
		got := hub.MethodResult{}
		for time.Since(began) < 2*time.Second { // the next caller neither knows nor waits
			if got = r.invoke("coins", "echo", `{"a":1}`); got.Status == 200 {
				break
			}
			syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 10_000})
		}
		if got.Status != 200 {
			t.Fatalf("two seconds after the kill: %d %s", got.Status, got.Payload)
		}
		t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
		if c := r.component("coins"); c.Process.Restarts != 1 || c.Process.LastExit != "killed by signal 9 (SIGKILL)" {
			t.Errorf("status = %+v", c.Process)
		}
	})

	t.Run("end", func(t *testing.T) {
		pids := []int{r.component("coins").Process.PID, r.component("door").Process.PID}
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the agent ended after %v", took)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
				t.Errorf("process %d: %v", pid, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(r.file.Agent.RunDir, "module-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// memoryHolds looks for text in what a process has written to its memory, and answers where it stands; "" if nowhere.
func memoryHolds(t *testing.T, pid int, text string) string {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("the kernel does not let a test look into its own children: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	read := 0
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatalf("maps: %q: %v", line, err)
		}
		if !strings.HasPrefix(mode, "rw") || to-from > 256<<20 {
			continue
		}
		region := make([]byte, to-from)
		n, _ := mem.ReadAt(region, int64(from)) // what cannot be read ends it
		read += n
		if bytes.Contains(region[:n], []byte(text)) {
			return strings.TrimSpace(line)
		}
	}
	if read == 0 {
		t.Errorf("nothing of the memory of process %d could be read", pid)
	}
	return ""
}

func TestSecondAgentIsRefused(t *testing.T) {
	r := newProcessRig(t, "coins")
	r.reported("coins", `{"mode":{"ac":203}}`)
	second, err := New(Config{File: r.file})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("a second agent: %v", err)
	}
}

// The agent ships to devices, the simulator does not; and two implementations that share code prove nothing.
func TestAgentAndSimulatorShareNoCode(t *testing.T) {
	deps := func(pattern string) []string {
		cmd := exec.Command("go", "list", "-deps", pattern)
		cmd.Dir = ".."
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", pattern, err)
		}
		return strings.Fields(string(out))
	}
	const root = "github.com/twinbay/twinbay/"
	for _, tt := range []struct {
		of     string
		forbid []string
	}{
		{"./agent/...", []string{"simulator", "hal/haltest", "modules/modtest", "cmd"}},
		{"./cmd/twinbay", []string{"simulator", "hal/haltest", "modules/modtest", "agent/disk/disktest"}},
		{"./simulator/...", []string{"agent", "modules", "cmd"}},
	} {
		all := deps(tt.of)
		if !slices.ContainsFunc(all, func(p string) bool { return strings.HasPrefix(p, root) }) {
			t.Errorf("%s: no package of ours among %d", tt.of, len(all))
		}
		for _, p := range all {
			path, ours := strings.CutPrefix(p, root)
			for _, f := range tt.forbid {
				if ours && (path == f || strings.HasPrefix(path, f+"/")) {
					t.Errorf("%s must not depend on %s", tt.of, p)
				}
			}
		}
	}
}

// BenchmarkMethod is a direct method's way through the agent, its module's process and back.
func BenchmarkMethod(b *testing.B) {
	r := newProcessRig(b, "coins")
	r.reported("coins", `{"mode":{"ac":203}}`)
	took := make([]time.Duration, 0, b.N)
	payload := []byte(`{"tube":3,"count":2}`)
	for b.Loop() {
		began := time.Now()
		status, _, err := r.agent.Invoke(context.Background(), "coins", "echo", payload)
		if err != nil || status != 200 {
			b.Fatalf("%d, %v", status, err)
		}
		took = append(took, time.Since(began))
	}
	percentiles(b, took)
}

// BenchmarkMethodThroughHub is the same with the hub, TLS and MQTT around it.
func BenchmarkMethodThroughHub(b *testing.B) {
	r := newProcessRig(b, "coins")
	r.reported("coins", `{"mode":{"ac":203}}`)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		began := time.Now()
		if got := r.invoke("coins", "echo", `{"tube":3,"count":2}`); got.Status != 200 {
			b.Fatalf("%d %s", got.Status, got.Payload)
		}
		took = append(took, time.Since(began))
	}
	percentiles(b, took)
}

func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
