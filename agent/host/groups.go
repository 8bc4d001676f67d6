//go:build linux

package host

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup is the control group of the agent itself, beside its modules': the kernel allows no processes in a group whose
// children have limits.
const ownGroup = "agent"

// controllers are the kernel's parts that hold limits.
var controllers = map[string]string{LimitMemory: "memory", LimitTasks: "pids", LimitCPU: "cpu"}

// What to do where there is no control group for modules.
const (
	delegate = "run the agent as a systemd service with Delegate=yes, or name a control group of its own in [agent] cgroup"
	memoryOn = "the kernel's memory controller is off; add cgroup_enable=memory to its command line (on a Raspberry Pi /boot/firmware/cmdline.txt)"
)

// groups are the control groups of the modules, in one that is the agent's alone.
type groups struct {
	dir    string   // "" when there is none
	lock   *os.File // of dir: two agents would end each other's modules
	own    bool     // dir is the group in which the agent was started
	attach bool     // the kernel cannot start a process in a group: it is put there after its start
	has    map[string]bool
	why    map[string]string // why a controller is not there, and what to do
}

// openGroups finds the group in which this process was started, or takes the one that is named, and makes it ready for
// modules: what an agent that was killed left there is ended. It never fails: why there are no groups, or no limits, is
// in the answer.
func openGroups(named string) *groups {
	g := &groups{has: map[string]bool{}, why: map[string]string{}}
	none := func(why string) *groups {
		for _, c := range controllers {
			g.why[c] = why
		}
		return g
	}
	if named == NoGroups {
		return none(`the device file has [agent] cgroup = "none"`)
	}
	dir := named
	if named == "" {
		var err error
		if dir, err = startedIn(); err != nil {
			return none(err.Error() + "; " + delegate)
		}
		g.own = true
	}
	lock, err := os.Open(dir)
	if err != nil {
		return none(fmt.Sprintf("open the control group: %v; %s", err, delegate))
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return none(fmt.Sprintf("the control group %s is another agent's; give each agent one of its own in [agent] cgroup", dir))
	}
	g.dir, g.lock = dir, lock
	if err := g.prepare(); err != nil {
		lock.Close()
		g.dir, g.lock, g.has = "", nil, map[string]bool{}
		return none(fmt.Sprintf("%v; %s", err, delegate))
	}
	return g
}

// prepare ends what is left in the group, moves this process into a group of its own, and has the kernel hold limits.
func (g *groups) prepare() error {
	for _, file := range []string{"cgroup.procs", "cgroup.subtree_control"} {
		if err := unix.Access(filepath.Join(g.dir, file), unix.W_OK); err != nil {
			return fmt.Errorf("the control group %s is not the agent's: %s: %w", g.dir, file, err)
		}
	}
	if err := g.sweep(); err != nil {
		return err
	}
	if g.own {
		leaf := filepath.Join(g.dir, ownGroup)
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make a control group: %w", err)
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return fmt.Errorf("move the agent into a control group of its own: %w", err)
		}
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the control group: %w", err)
	}
	there := strings.Fields(string(text))
	for _, c := range controllers {
		switch {
		case !slices.Contains(there, c) && c == "memory":
			g.why[c] = memoryOn + ", or: " + delegate
		case !slices.Contains(there, c):
			g.why[c] = fmt.Sprintf("the control group %s has no %s controller; %s", g.dir, c, delegate)
		default:
			if err := os.WriteFile(filepath.Join(g.dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
				g.why[c] = fmt.Sprintf("the %s controller of %s: %v: is something else running in that group? %s", c, g.dir, err, delegate)
				continue
			}
			g.has[c] = true
		}
	}
	g.attach = !startsInGroups(g.dir)
	return nil
}

// sweep ends what agents that were killed left in their modules' groups, and removes the groups.
func (g *groups) sweep() error {
	old, err := filepath.Glob(filepath.Join(g.dir, folderPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for stale control groups: %w", err)
	}
	for _, dir := range old {
		m := &group{of: g, dir: dir}
		m.kill()
		os.Remove(dir) // one whose processes the kernel cannot end now stays, and is taken over by the next life
	}
	return nil
}

// reason says why modules' groups do not hold a limit, and what to do.
func (g *groups) reason(of string) string { return g.why[controllers[of]] }

func (g *groups) close() {
	if g.dir == "" {
		return
	}
	g.sweep()
	g.lock.Close()
}

// startsInGroups says whether the kernel starts a process in a group (clone3(2), CLONE_INTO_CGROUP, Linux 5.7; a sandbox
// may forbid it). A program that does not exist is started: only the second step, its exec, may fail.
func startsInGroups(dir string) bool {
	try := filepath.Join(dir, "try")
	if err := os.Mkdir(try, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return false
	}
	defer os.Remove(try)
	f, err := os.Open(try)
	if err != nil {
		return false
	}
	defer f.Close()
	p, err := os.StartProcess(filepath.Join(dir, "no such program"), []string{"none"},
		&os.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}})
	if err == nil { // there is such a program after all
		p.Kill()
		p.Wait()
		return true
	}
	return errors.Is(err, syscall.ENOENT)
}

// startedIn is the folder of the control group in which this process was started.
func startedIn() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	dir, err := groupFolder(string(mounts), string(own))
	if err != nil {
		return "", err
	}
	if filepath.Base(dir) == ownGroup {
		dir = filepath.Dir(dir) // where the service manager has put this process (systemd's DelegateSubgroup), or an agent that became another
	}
	// The machine's root has no cgroup.events (cgroup-v2.rst, "Core Interface Files": all exist on non-root cgroups).
	if _, err := os.Stat(filepath.Join(dir, "cgroup.events")); err != nil {
		return "", errors.New("the agent runs in the machine's own control group")
	}
	return dir, nil
}

// groupFolder reads /proc/self/mountinfo (proc_pid_mountinfo(5)) and /proc/self/cgroup (cgroups(7)): where this process's
// group of the unified hierarchy is in the file system.
func groupFolder(mountinfo, cgroup string) (string, error) {
	path := ""
	for line := range strings.Lines(cgroup) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = p
		}
	}
	if path == "" || !strings.HasPrefix(path, "/") {
		return "", errors.New("this kernel has no control groups of version 2")
	}
	scan := bufio.NewScanner(strings.NewReader(mountinfo))
	for scan.Scan() {
		before, after, ok := strings.Cut(scan.Text(), " - ")
		fields := strings.Fields(before)
		if kind, _, _ := strings.Cut(after, " "); !ok || kind != "cgroup2" || len(fields) < 5 {
			continue
		}
		root, point := unescape(fields[3]), unescape(fields[4])
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue // a mount of another part of the tree
		}
		return filepath.Join(point, rel), nil
	}
	return "", errors.New("control groups of version 2 are not mounted")
}

// unescape reads a path of mountinfo: space, tab, line feed and backslash stand there in octal.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
