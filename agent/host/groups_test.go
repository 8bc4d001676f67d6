//go:build linux

package host

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

func TestGroupFolder(t *testing.T) {
	for _, tt := range []struct{ name, mounts, cgroup, want string }{
		{"a service", "23 1 0:2 / /sys rw - sysfs sysfs rw\n" + unified, "0::/system.slice/twinbay.service\n", "/sys/fs/cgroup/system.slice/twinbay.service"},
		{"both versions", "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			"4:memory:/x\n0::/user.slice\n", "/sys/fs/cgroup/unified/user.slice"},
		{"a part of the tree", "30 23 0:26 /system.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/system.slice/a\n", "/sys/fs/cgroup/a"},
		{"another part of the tree", "30 23 0:26 /user.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/system.slice/a\n", ""},
		{"a space", "30 23 0:26 / /mnt/c\\040g rw - cgroup2 cgroup2 rw\n", "0::/a\n", "/mnt/c g/a"},
		{"the first version alone", "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/x\n", ""},
		{"not mounted", "", "0::/a\n", ""},
		{"nothing", "", "", ""},
	} {
		got, err := groupFolder(tt.mounts, tt.cgroup)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

func FuzzGroupFolder(f *testing.F) {
	f.Add(unified, "0::/system.slice/twinbay.service\n")
	f.Add("30 23 0:26 /../.. / - cgroup2 x", "0::/../../x")
	f.Add("- cgroup2", "0::")
	f.Fuzz(func(t *testing.T, mounts, cgroup string) {
		if dir, err := groupFolder(mounts, cgroup); err == nil && dir == "" {
			t.Error("neither a folder nor an error")
		}
	})
}

func FuzzKernelNumbers(f *testing.F) {
	f.Add("populated 1\nfrozen 0\n", "populated")
	f.Add("2034 512 300 1 0 400 0\n", "oom_kill")
	f.Fuzz(func(t *testing.T, text, key string) {
		value(text, key)
		ownMemory(text)
		unescape(text)
	})
}

func TestKernelNumbers(t *testing.T) {
	page := int64(os.Getpagesize())
	for statm, want := range map[string]int64{"2034 512 300 1 0 400 0\n": 212 * page, "1 2": 0, "": 0, "a b c": 0, "1 5 x": 0} {
		if got := ownMemory(statm); got != want {
			t.Errorf("memory of %q = %d, want %d", statm, got, want)
		}
	}
	const events = "low 0\nhigh 3\noom_kill 2\noom_kill_x 7\n"
	for key, want := range map[string]int{"high": 3, "oom_kill": 2, "absent": 0} {
		if got := value(events, key); got != want {
			t.Errorf("%s = %d, want %d", key, got, want)
		}
	}
}

// fakeGroup is a folder that looks like a control group as far as this package looks.
func fakeGroup(t *testing.T, controllers string) string {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.procs": "", "cgroup.subtree_control": ""} {
		write(t, filepath.Join(dir, file), text)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// What is written into the kernel's files, limit by limit.
func TestLimitsInTheKernelsWords(t *testing.T) {
	for _, tt := range []struct {
		name, controllers string
		limits            Limits
		want              map[string]string
	}{
		{"all", "cpuset cpu io memory pids", Limits{Memory: 64 << 20, Tasks: 40, CPU: 150, Files: 9},
			map[string]string{"memory.max": "67108864", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "40", "cpu.max": "150000 100000"}},
		{"none", "cpu memory pids", Limits{},
			map[string]string{"memory.max": "max", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "max", "cpu.max": "max 100000"}},
		{"a Raspberry Pi as it comes", "cpuset cpu io pids", Limits{Memory: 1, Tasks: 2, CPU: 3}, map[string]string{"pids.max": "2", "cpu.max": "3000 100000"}},
		{"no controllers", "", Limits{Memory: 1, Tasks: 2, CPU: 3}, map[string]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := openGroups(fakeGroup(t, tt.controllers))
			defer g.close()
			m, err := g.open("coins", tt.limits)
			if err != nil {
				t.Fatal(err)
			}
			defer m.ended()
			if got := files(t, m.dir); !maps.Equal(got, tt.want) {
				t.Errorf("files %v, want %v", got, tt.want)
			}
			for of, controller := range controllers {
				if there := slices.Contains(strings.Fields(tt.controllers), controller); m.limits(of) != there || (m.of.reason(of) == "") != there {
					t.Errorf("%s: in force %t, because %q", of, m.limits(of), m.of.reason(of))
				}
			}
			if !m.limits(LimitMemory) && !strings.Contains(m.of.reason(LimitMemory), "cgroup_enable=memory") {
				t.Errorf("why no memory limit: %q", m.of.reason(LimitMemory))
			}
		})
	}
}

// What the kernel has counted since the last life becomes the reason of an end.
func TestEndByALimit(t *testing.T) {
	g := openGroups(fakeGroup(t, "memory pids"))
	defer g.close()
	dir := filepath.Join(g.dir, "module-coins")
	l := Limits{Memory: 64 << 20, Tasks: 40}
	for _, tt := range []struct{ memory, pids, instead, also string }{
		{"oom 3\noom_kill 2\n", "max 5\n", "killed: it used more than 64 MiB of memory", "it wanted more than 40 tasks"},
		{"oom 3\noom_kill 2\n", "max 5\n", "", ""}, // as before
		{"oom 3\noom_kill 3\n", "max 5\n", "killed: it used more than 64 MiB of memory", ""},
		{"oom 3\noom_kill 3\n", "max 6\n", "", "it wanted more than 40 tasks"},
	} {
		m, err := g.open("coins", l)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "memory.events"), tt.memory)
		write(t, filepath.Join(dir, "pids.events"), tt.pids)
		if instead, also := m.ended(); instead != tt.instead || also != tt.also {
			t.Errorf("%q, %q; want %q, %q", instead, also, tt.instead, tt.also)
		}
	}
}

// A kernel before 5.14 has no cgroup.kill: those in the group are killed one by one, frozen.
func TestKillWithoutCgroupKill(t *testing.T) {
	g := openGroups(fakeGroup(t, ""))
	defer g.close()
	m, err := g.open("coins", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.ended()
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(m.dir, "cgroup.kill"), 0o700); err != nil { // nobody can write it
		t.Fatal(err)
	}
	write(t, filepath.Join(m.dir, "cgroup.procs"), fmt.Sprintf("%d\nx\n0\n1\n", sleep.Process.Pid))
	m.kill()
	if err := sleep.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process ended with %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(m.dir, "cgroup.freeze")); err != nil || string(text) != "0" {
		t.Errorf("cgroup.freeze is %q, %v: the next life would not run", text, err)
	}
}

// What keeps an agent from having groups is said, with what to do.
func TestNoGroups(t *testing.T) {
	taken := openGroups(fakeGroup(t, "cpu"))
	defer taken.close()
	foreign := fakeGroup(t, "cpu")
	if err := os.Remove(filepath.Join(foreign, "cgroup.procs")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		taken.dir:                             "is another agent's; give each agent one of its own in [agent] cgroup",
		foreign:                               "is not the agent's: cgroup.procs",
		filepath.Join(t.TempDir(), "nothing"): "no such file or directory; run the agent as a systemd service with Delegate=yes",
	} {
		g := openGroups(dir)
		defer g.close()
		m, err := g.open("coins", everyLimit)
		if m != nil || err != nil || !strings.Contains(g.why["cpu"], want) {
			t.Errorf("%s: group %v, %v, because %q; want %q", dir, m, err, g.why["cpu"], want)
		}
	}
}

// everyLimit has every limit.
var everyLimit = Limits{Memory: 64 << 20, Tasks: 64, CPU: 50, Files: 64}

func TestHandshakeReader(t *testing.T) {
	const line = "1|1|unix|/run/x|grpc\n"
	long := strings.Repeat("x", 3*maxHandshake)
	for _, tt := range []struct{ name, in, first, rest string }{
		{"as it should be", line, line, ""},
		{"twice", line + line, line, line},
		{"no line feed", "1|1", "1|1", ""},
		{"nothing", "", "", ""},
		{"endless", long, long[:maxHandshake-1] + "\n", long[maxHandshake:]},
		{"one that just fits", long[:maxHandshake-1] + "\nmore", long[:maxHandshake-1] + "\n", "more"},
	} {
		for way, in := range map[string]io.Reader{"at once": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)),
			"the end with the data": iotest.DataErrReader(strings.NewReader(tt.in))} {
			var rest strings.Builder
			got, err := io.ReadAll(&handshake{ReadCloser: io.NopCloser(in), rest: &rest})
			if err != nil || string(got) != tt.first || rest.String() != tt.rest {
				t.Errorf("%s, %s: %d bytes, %v, rest %d bytes; want %d and %d", tt.name, way, len(got), err, rest.Len(), len(tt.first), len(tt.rest))
			}
		}
	}
}
