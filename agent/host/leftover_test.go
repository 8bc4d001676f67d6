//go:build linux

package host_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/host"
)

// deadAgent runs an agent with one module, kills both as `kill -9` of the agent does, and answers the module's number and
// what the module has said.
func deadAgent(t *testing.T, folder, group string, be ...string) (module int, log string) {
	t.Helper()
	agent := exec.Command(self(t, "").Program, append([]string{"be", "agent", folder, group}, be...)...)
	var said logBuffer
	agent.Stderr = &said
	stdout, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	if module, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	agent.Process.Kill()
	agent.WaitDelay = 100 * time.Millisecond // the module's child has its standard error
	agent.Wait()
	if err := gone(module, 2*time.Second); err != nil {
		t.Error(err)
	}
	return module, said.String()
}

// childIn reads the number of the child that the module has told.
func childIn(t *testing.T, log string) (pid int) {
	t.Helper()
	_, after, _ := strings.Cut(log, "child ")
	if _, err := fmt.Sscan(strings.Trim(after, "\"\n "), &pid); err != nil {
		t.Fatalf("no child in the log %q", log)
	}
	return pid
}

func lives(pid int) bool { return gone(pid, time.Millisecond) != nil }

// TestR07_KilledAgent: an agent that is killed takes its modules along; what they have started, even out of their process
// group, is ended by the next agent before it starts a module. So the hardware is free for it.
func TestR07_KilledAgent(t *testing.T) {
	for _, tt := range []struct {
		name  string
		group func(*testing.T) string
		be    []string
	}{
		{"in its session", noGroup, []string{"escape"}},
		{"hidden, in a control group", realGroup, []string{"escape"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			group := tt.group(t)
			folder := shortFolder(t)
			hardware := filepath.Join(folder, "ttyCOIN")
			be := append(tt.be, hardware)
			if group != host.NoGroups {
				be = append(be, "without its environment")
			}
			_, log := deadAgent(t, folder, group, be...)
			child := childIn(t, log)
			if !lives(child) {
				t.Fatal("the module's child died with it: the test proves nothing")
			}
			if files := sockets(t, folder); len(files) > 0 {
				t.Errorf("stale sockets: %v", files)
			}
			h, err := host.Open(folder, group)
			if err != nil {
				t.Fatalf("the next agent cannot start: %v", err)
			}
			defer h.Close()
			if lives(child) {
				t.Error("the child of a dead agent's module still lives")
			}
			if want := 1; group == host.NoGroups && h.Leftovers() != want {
				t.Errorf("%d leftovers, want %d", h.Leftovers(), want)
			}
			var said logBuffer
			spec := self(t, "coins", be...)
			spec.Log = slog.New(slog.NewTextHandler(&said, nil))
			p, err := h.Start(t.Context(), spec)
			if err != nil {
				t.Fatalf("the next module does not get its hardware: %v", err)
			}
			child = childIn(t, said.String())
			end(t, p)
			if err := gone(child, 2*time.Second); err != nil {
				t.Errorf("the child of a module that was stopped: %v", err)
			}
		})
	}
}

func noGroup(*testing.T) string { return host.NoGroups }

// shortFolder is a run folder whose path is short enough for a socket, whatever the test's name.
func shortFolder(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// TestR08_NumberOfTheDead: the number of a dead agent's module may be anybody's by the time the next agent starts. Neither
// a file with a number, nor a process group of that number, nor a command line or an environment that only looks like a
// module's makes an agent kill a stranger.
func TestR08_NumberOfTheDead(t *testing.T) {
	folder := shortFolder(t)
	module, log := deadAgent(t, folder, host.NoGroups, "escape", filepath.Join(folder, "ttyCOIN"))
	child := childIn(t, log)

	mark := "PLUGIN_UNIX_SOCKET_DIR=" + folder
	strangers := map[string]*exec.Cmd{}
	start := func(name string, env []string, args ...string) {
		t.Helper()
		c := exec.Command("sleep", append([]string{"60"}, args...)...)
		if len(args) > 0 {
			c = exec.Command("sh", append([]string{"-c", "sleep 60 & wait"}, args...)...)
		}
		c.Env, c.SysProcAttr = env, &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		strangers[name] = c
		t.Cleanup(func() {
			syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			c.Wait()
		})
	}
	start("without anything", []string{"PATH=/bin:/usr/bin"})
	start("of another run folder", []string{mark + "2/module-coins", "PATH=/bin:/usr/bin"})
	start("in the run folder, no module", []string{mark + "/keys", "PATH=/bin:/usr/bin"})
	start("with the mark in another variable", []string{"X=" + mark + "/module-coins", "PATH=/bin:/usr/bin"})
	start("with the mark as argument", []string{"PATH=/bin:/usr/bin"}, mark+"/module-coins")
	if reused := withNumber(t, module); reused != nil {
		strangers["with the module's number"] = reused
	}
	for name, c := range strangers { // files as other programs have them
		for _, file := range []string{"coins.pid", "module-coins.pid", name + ".pid"} {
			if err := os.WriteFile(filepath.Join(folder, file), fmt.Appendln(nil, c.Process.Pid), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	h, err := host.Open(folder, host.NoGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if lives(child) {
		t.Error("the module's child still lives")
	}
	if h.Leftovers() != 1 {
		t.Errorf("%d leftovers, want one", h.Leftovers())
	}
	for name, c := range strangers {
		if !lives(c.Process.Pid) {
			t.Errorf("a stranger %s was killed", name)
		}
	}
}

// withNumber starts a process with a number that has become free, as leader of a group with the same number; nil where
// the kernel does not let a test choose (/proc/sys/kernel/ns_last_pid, pid_namespaces(7)).
func withNumber(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	const last = "/proc/sys/kernel/ns_last_pid"
	for range 20 { // others start processes too
		if err := os.WriteFile(last, []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Logf("no process with a number of choice: %v", err)
			return nil
		}
		c := exec.Command("sleep", "60")
		c.Env, c.SysProcAttr = []string{"PATH=/bin:/usr/bin"}, &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Process.Kill()
			c.Wait()
		})
		if c.Process.Pid == pid {
			return c
		}
	}
	t.Logf("no process got the number %d: too much is started here", pid)
	return nil
}
