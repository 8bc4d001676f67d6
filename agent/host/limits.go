//go:build linux

package host

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memoryShare is the part of a module's memory limit at which Go's collector begins to work harder (GOMEMLIMIT): the
// rest is for stacks and for what the kernel keeps for the module.
const memoryShare = 0.75

// dataSlack is what a process may map beyond its memory limit without using it. Go's runtime maps some 40 MiB for its
// tables, a C program eight for the stack of each thread.
const dataSlack = 128 << 20

// watchEvery is how often the agent looks at the memory of a module that has no control group for it.
const watchEvery = time.Second

// rlimits bounds a process that has just started, by prlimit(2): for the moment before, it is the agent's own limits that
// hold. It answers what is in force; why says why a control group does not hold a limit.
func rlimits(pid int, l Limits, g *group, why func(of string) string) []Limit {
	var all []Limit
	if l.Memory > 0 {
		in := Limit{Of: LimitMemory, Value: l.Memory, By: ByCgroup}
		if !g.limits(LimitMemory) {
			in.By, in.Note = ByAgent, why(LimitMemory)
			// The agent's look comes once a second; this is for what happens in between.
			setRlimit(pid, unix.RLIMIT_DATA, uint64(l.Memory)+dataSlack)
		}
		all = append(all, in)
	}
	for _, of := range []struct {
		name  string
		value int
	}{{LimitTasks, l.Tasks}, {LimitCPU, l.CPU}} {
		if of.value == 0 {
			continue
		}
		in := Limit{Of: of.name, Value: int64(of.value), By: ByCgroup}
		if !g.limits(of.name) {
			// RLIMIT_NPROC counts all of a user's tasks: the module that reaches it would not be the one that has too many.
			// RLIMIT_CPU ends a process after a time of work, however slow.
			in.By, in.Note = "", why(of.name)
		}
		all = append(all, in)
	}
	if l.Files > 0 {
		in := Limit{Of: LimitFiles, Value: int64(l.Files), By: ByRlimit}
		if err := setRlimit(pid, unix.RLIMIT_NOFILE, uint64(l.Files)); err != nil {
			in.By, in.Note = "", fmt.Sprintf("prlimit: %v", err)
		}
		all = append(all, in)
	}
	return all
}

func setRlimit(pid, resource int, value uint64) error {
	var before unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &before); err != nil {
		return err
	}
	value = min(value, before.Max) // to raise it takes a right that the agent may not have
	return unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil)
}

// watchMemory kills the process when it uses more than its limit, until it has ended. The kernel's own count is asked:
// what is resident and not shared with a file.
func (r *runner) watchMemory(pid int, limit int64) {
	statm, err := os.Open(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return // it has ended
	}
	defer statm.Close()
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	buf := make([]byte, 256)
	for {
		select {
		case <-r.exited:
			return
		case <-t.C:
		}
		n, err := statm.ReadAt(buf, 0)
		if err != nil && err != io.EOF {
			return
		}
		if used := ownMemory(string(buf[:n])); used > limit {
			r.kill(fmt.Sprintf("killed: it used %s of memory, %s are allowed", mebibytes(used), mebibytes(limit)))
			return
		}
	}
}

// ownMemory reads /proc/PID/statm (proc_pid_statm(5)): size, resident and shared are its first fields, in pages.
func ownMemory(statm string) int64 {
	f := strings.Fields(statm)
	if len(f) < 3 {
		return 0
	}
	resident, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	shared, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return 0
	}
	return (resident - shared) * int64(os.Getpagesize())
}

func mebibytes(n int64) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
