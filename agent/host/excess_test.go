//go:build linux

package host_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/host"
)

// realGroup is a control group of the machine for a test; the test is skipped where there can be none.
func realGroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			dir, err := os.MkdirTemp(fields[4], "twinbay-test")
			if err != nil {
				t.Skipf("no control group can be made here: %v", err)
			}
			for _, c := range []string{"memory", "pids", "cpu"} { // where they are this hierarchy's
				os.WriteFile(filepath.Join(fields[4], "cgroup.subtree_control"), []byte("+"+c), 0)
			}
			t.Cleanup(func() {
				if err := os.Remove(dir); err != nil {
					t.Errorf("the control group is not left empty: %v", err)
				}
			})
			return dir
		}
	}
	t.Skip("no control groups of version 2 here")
	return ""
}

// inGroup opens a host in a control group of the machine.
func inGroup(t *testing.T) (h *host.Host, group string) {
	t.Helper()
	group = realGroup(t)
	h, err := host.Open(shortFolder(t), group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, group
}

func TestModuleInItsControlGroup(t *testing.T) {
	h, group := inGroup(t)
	var log logBuffer
	spec := self(t, "coins", "escape", filepath.Join(t.TempDir(), "hardware"), "without its environment")
	spec.Log = slog.New(slog.NewTextHandler(&log, nil))
	for range 2 { // the second life takes the group of the first
		p, err := h.Start(t.Context(), spec)
		if err != nil {
			t.Fatalf("%v: %s", err, log.String())
		}
		child := childIn(t, log.String()[strings.LastIndex(log.String(), "child "):])
		for _, pid := range []int{p.PID(), child} {
			if got := procFile(t, pid, "cgroup"); !strings.Contains(got, "0::/"+filepath.Base(group)+"/module-coins\n") {
				t.Errorf("process %d is in %q", pid, got)
			}
		}
		p.Kill("")
		within(t, 3*time.Second, "end of the process", p.Done())
		if err := gone(child, time.Second); err != nil {
			t.Errorf("the child that hid: %v", err)
		}
	}
}

// limited starts a module with limits, and a neighbour.
func limited(t *testing.T, h *host.Host, l host.Limits) (bad, good *host.Process, log *logBuffer) {
	t.Helper()
	log = &logBuffer{}
	spec := self(t, "coins", "module")
	spec.Limits, spec.Log = l, slog.New(slog.NewTextHandler(log, nil))
	bad, err := h.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, bad) })
	neighbour := self(t, "door", "module")
	neighbour.Limits = l
	if good, err = h.Start(t.Context(), neighbour); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, good) })
	return bad, good, log
}

func invoke(t *testing.T, p *host.Process, method, payload string) json.RawMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	a, err := p.Remote().Invoke(ctx, method, json.RawMessage(payload))
	if err != nil || a.Status != 200 {
		t.Fatalf("%s = %d %s, %v", method, a.Status, a.Payload, err)
	}
	return a.Payload
}

// limit is one of those in force.
func limit(p *host.Process, of string) host.Limit {
	for _, l := range p.Limits() {
		if l.Of == of {
			return l
		}
	}
	return host.Limit{}
}

// TestR10_Excess: a module that leaks memory, opens ten thousand files, starts a hundred processes, writes a gigabyte of
// log or answers megabytes reaches a limit, and its neighbour and the agent's memory notice nothing.
func TestR10_Excess(t *testing.T) {
	limits := host.Limits{Memory: 64 << 20, Tasks: 64, CPU: 80, Files: 64}
	if raced {
		limits.Memory = 0
	}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, bad *host.Process, log *logBuffer)
	}{
		{"memory, little by little", func(t *testing.T, bad *host.Process, _ *logBuffer) {
			invoke(t, bad, "leak", "null")
			within(t, 20*time.Second, "end of the process", bad.Done())
			reason := bad.Exit().Reason
			switch by := limit(bad, host.LimitMemory).By; {
			case by == host.ByCgroup && reason == "killed: it used more than 64 MiB of memory":
			case by == host.ByAgent && strings.HasPrefix(reason, "killed: it used ") && strings.HasSuffix(reason, " of memory, 64 MiB are allowed"):
			case by == host.ByAgent && strings.Contains(reason, "out of memory") && strings.HasSuffix(reason, "(64 MiB are allowed)"): // before the agent's look
			default:
				t.Errorf("by %q, ended with %q", by, reason)
			}
		}},
		{"memory, at once", func(t *testing.T, bad *host.Process, log *logBuffer) {
			bad.Remote().Invoke(t.Context(), "leap", nil)
			within(t, 20*time.Second, "end of the process", bad.Done())
			if reason := bad.Exit().Reason; !strings.Contains(reason, "64 MiB") {
				t.Errorf("ended with %q; the log has\n%s", reason, log.String())
			}
		}},
		{"files", func(t *testing.T, bad *host.Process, _ *logBuffer) {
			var n int
			if err := json.Unmarshal(invoke(t, bad, "files", "null"), &n); err != nil || n < 32 || n > 64 {
				t.Errorf("%d files, %v; 64 are allowed", n, err)
			}
		}},
		{"processes", func(t *testing.T, bad *host.Process, _ *logBuffer) {
			var pids []int
			if err := json.Unmarshal(invoke(t, bad, "forks", "null"), &pids); err != nil || len(pids) < 10 {
				t.Fatalf("%v, %v", pids, err)
			}
			if l := limit(bad, host.LimitTasks); l.By == host.ByCgroup && len(pids) > 64 {
				t.Errorf("%d processes, 64 are allowed", len(pids))
			}
			bad.Kill("")
			within(t, 5*time.Second, "end of the process", bad.Done())
			for _, pid := range pids {
				if err := gone(pid, 2*time.Second); err != nil {
					t.Error(err)
				}
			}
		}},
		{"log", func(t *testing.T, bad *host.Process, log *logBuffer) {
			size := 1 << 30
			if testing.Short() {
				size = 50 << 20
			}
			before := system()
			began := time.Now()
			invoke(t, bad, "gigabyte", fmt.Sprint(size))
			took := time.Since(began)
			invoke(t, bad, "flood", "null") // lines of a megabyte
			if after := system(); after > before+16<<20 {
				t.Errorf("the agent has grown by %d MiB", (after-before)>>20)
			}
			if n := len(log.String()); n > 1<<20 {
				t.Errorf("%d bytes of log of a flood of %d", n, size)
			}
			t.Logf("%d MiB in %v", size>>20, took.Round(time.Millisecond))
		}},
		{"answer", func(t *testing.T, bad *host.Process, _ *logBuffer) {
			before := system()
			_, err := bad.Remote().Invoke(t.Context(), "large", json.RawMessage("5000000"))
			if err == nil || !strings.Contains(err.Error(), "message too large") {
				t.Errorf("an answer of 5 MB: %v", err)
			}
			if after := system(); after > before+16<<20 {
				t.Errorf("the agent has grown by %d MiB", (after-before)>>20)
			}
			invoke(t, bad, "echo", "1") // it runs on
		}},
	} {
		for _, where := range []string{"process limits", "control group"} {
			t.Run(tt.name+", "+where, func(t *testing.T) {
				if raced && strings.HasPrefix(tt.name, "memory") {
					t.Skip("the race detector takes more memory than the limit")
				}
				h, _ := open(t)
				if where == "control group" {
					h, _ = inGroup(t)
				}
				bad, good, log := limited(t, h, limits)
				pid := good.PID()
				over, cadence := make(chan struct{}), make(chan int, 1)
				go func() { cadence <- keepUp(good, over) }()
				tt.do(t, bad, log)
				close(over)
				if n := <-cadence; n == 0 {
					t.Error("the neighbour did not answer")
				}
				invoke(t, good, "echo", "1")
				if good.PID() != pid {
					t.Error("the neighbour was started again")
				}
			})
		}
	}
}

// keepUp calls a method again and again until over, and answers how often it was answered; 0 as soon as it was not.
func keepUp(p *host.Process, over <-chan struct{}) int {
	for n := 0; ; n++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		a, err := p.Remote().Invoke(ctx, "echo", json.RawMessage("1"))
		cancel()
		if err != nil || a.Status != 200 {
			return 0
		}
		select {
		case <-over:
			return n + 1
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// system is how much memory this process, the agent's part, has ever had from the system.
func system() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys
}

// What is not in force is said, with what to do.
func TestLimitsAreSaid(t *testing.T) {
	if raced {
		t.Skip("the race detector takes more memory than the limit")
	}
	h, _ := open(t)
	l := host.Limits{Memory: 64 << 20, Tasks: 40, CPU: 80, Files: 99}
	p, _, _ := limited(t, h, l)
	want := []host.Limit{{Of: host.LimitMemory, Value: 64 << 20, By: host.ByAgent}, {Of: host.LimitTasks, Value: 40},
		{Of: host.LimitCPU, Value: 80}, {Of: host.LimitFiles, Value: 99, By: host.ByRlimit}}
	got := p.Limits()
	for i := range got {
		if inForce := got[i].By == host.ByRlimit; inForce != (got[i].Note == "") {
			t.Errorf("limit %+v: want a note where no control group holds it", got[i])
		}
		got[i].Note = ""
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("limits %+v, want %+v", got, want)
	}
	if env := procFile(t, p.PID(), "environ"); !strings.Contains(env, "GOMEMLIMIT=50331648\x00") {
		t.Errorf("the module's environment %q has not three quarters of its memory limit", env)
	}
	var open, data string
	for line := range strings.Lines(procFile(t, p.PID(), "limits")) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			open = strings.Join(strings.Fields(rest), " ")
		}
		if rest, ok := strings.CutPrefix(line, "Max data size"); ok {
			data = strings.Join(strings.Fields(rest), " ")
		}
	}
	if open != "99 99 files" || data != "201326592 201326592 bytes" {
		t.Errorf("files %q, data %q", open, data)
	}
}
