//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// group is the control group of one module (cgroup v2: the kernel's Documentation/admin-guide/cgroup-v2.rst). Nil is a
// module without one.
type group struct {
	of     *groups
	dir    string
	fd     *os.File // of dir, nil in a sweep; for clone3(2) with CLONE_INTO_CGROUP
	attach bool     // it is put there after its start
	bounds Limits
	before events
}

// events count what the kernel has done to a group since it was made.
type events struct{ oomKills, refusedTasks int }

// emptyBudget is how long the end of a module waits for the kernel to end all that it has started.
const emptyBudget = 300 * time.Millisecond

// open makes the group of one life of a module, and sets its limits.
//
// Each life has a group of its own: since Linux 6.14 what is started in a group that was killed once may be killed at once
// (kernel/cgroup/cgroup.c: cgroup_css_set_fork compares the kill_seq of the parent's group with that of the child's). Where
// the last life's group cannot be removed, because the kernel cannot end what is in it now, it is used again, and the
// module is put there after its start.
func (g *groups) open(name string, l Limits) (*group, error) {
	if g.dir == "" {
		return nil, nil
	}
	m := &group{of: g, dir: filepath.Join(g.dir, folderPrefix+name), bounds: l, attach: g.attach}
	err := os.Mkdir(m.dir, 0o755)
	if errors.Is(err, os.ErrExist) {
		m.kill()
		os.Remove(m.dir)
		if err = os.Mkdir(m.dir, 0o755); errors.Is(err, os.ErrExist) {
			m.attach, err = true, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make the module's control group: %w", err)
	}
	for _, set := range m.settings() {
		if err := os.WriteFile(filepath.Join(m.dir, set.file), []byte(set.value), 0o644); err != nil && !set.optional {
			return nil, fmt.Errorf("limit the module's %s: %w", set.of, err)
		}
	}
	fd, err := os.Open(m.dir)
	if err != nil {
		return nil, fmt.Errorf("open the module's control group: %w", err)
	}
	m.fd, m.before = fd, m.events()
	return m, nil
}

// setting is one file of a group.
type setting struct {
	of, file, value string
	optional        bool // not every kernel has it
}

// cpuPeriod is the time in which a module may have its share of a processor, in microseconds: the kernel's default.
const cpuPeriod = 100_000

// settings are the limits in the kernel's words.
func (m *group) settings() (all []setting) {
	limit := func(n int64) string {
		if n == 0 {
			return "max"
		}
		return strconv.FormatInt(n, 10)
	}
	if m.limits(LimitMemory) {
		all = append(all, setting{LimitMemory, "memory.max", limit(m.bounds.Memory), false},
			// Swapping would wear out the flash before the limit is felt.
			setting{LimitMemory, "memory.swap.max", "0", true},
			// Half a module is of no use: the kernel ends all of it.
			setting{LimitMemory, "memory.oom.group", "1", true})
	}
	if m.limits(LimitTasks) {
		all = append(all, setting{LimitTasks, "pids.max", limit(int64(m.bounds.Tasks)), false})
	}
	if m.limits(LimitCPU) {
		value := "max"
		if m.bounds.CPU > 0 {
			value = strconv.Itoa(m.bounds.CPU * cpuPeriod / 100)
		}
		all = append(all, setting{LimitCPU, "cpu.max", fmt.Sprintf("%s %d", value, cpuPeriod), false})
	}
	return all
}

// limits says whether the group holds a limit.
func (m *group) limits(of string) bool { return m != nil && m.of.has[controllers[of]] }

// kill ends all that is in the group, and answers when nothing is, within a bounded time.
func (m *group) kill() {
	if m == nil {
		return
	}
	if os.WriteFile(filepath.Join(m.dir, "cgroup.kill"), []byte("1"), 0o644) != nil { // before Linux 5.14
		m.killEach()
	}
	m.empty(emptyBudget)
}

// killEach ends what is in the group one by one, frozen so that nothing new comes. A frozen group dies all the same.
func (m *group) killEach() {
	freeze := filepath.Join(m.dir, "cgroup.freeze")
	os.WriteFile(freeze, []byte("1"), 0o644)
	defer os.WriteFile(freeze, []byte("0"), 0o644)
	for _, pid := range m.processes() {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// processes are the numbers of those in the group.
func (m *group) processes() (pids []int) {
	text, err := os.ReadFile(filepath.Join(m.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	for _, f := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// empty waits until the group has no process any more. The kernel tells each change of cgroup.events.
func (m *group) empty(budget time.Duration) bool {
	f, err := os.Open(filepath.Join(m.dir, "cgroup.events"))
	if err != nil {
		return true
	}
	defer f.Close()
	until := time.Now().Add(budget)
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return true // the group has gone
		}
		if value(string(buf[:n]), "populated") == 0 {
			return true
		}
		left := time.Until(until)
		if left <= 0 {
			return false
		}
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// events reads what the kernel has counted.
func (m *group) events() (e events) {
	if text, err := os.ReadFile(filepath.Join(m.dir, "memory.events")); err == nil {
		e.oomKills = value(string(text), "oom_kill")
	}
	if text, err := os.ReadFile(filepath.Join(m.dir, "pids.events")); err == nil {
		e.refusedTasks = value(string(text), "max")
	}
	return e
}

// ended removes the group after a life, and answers what the limits had to do with its end: words that stand for the
// process's, and words to add; "" is nothing.
func (m *group) ended() (instead, also string) {
	if m == nil {
		return "", ""
	}
	m.fd.Close()
	now := m.events()
	os.Remove(m.dir) // it is empty, unless the kernel cannot end what is in it now
	if now.oomKills > m.before.oomKills {
		instead = "killed: it used more than " + mebibytes(m.bounds.Memory) + " of memory"
	}
	if now.refusedTasks > m.before.refusedTasks {
		also = fmt.Sprintf("it wanted more than %d tasks", m.bounds.Tasks)
	}
	return instead, also
}

// value is a number of a flat keyed file ("populated 1"), 0 when it is not there.
func value(text, key string) int {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			n, err := strconv.Atoi(v)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
