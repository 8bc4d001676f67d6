//go:build linux

package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mark is what every process that a module starts has in its environment, unless it is taken out on purpose: the folder
// of the module's socket. Its run folder belongs to one agent at a time, so while the agent has no such module running,
// a process with the mark is a leftover, whatever its number, and in whichever process group or session it is.
//
// No number is written down anywhere: after a reboot, or when the kernel has given the number to somebody else, a file
// with numbers would have the agent kill a stranger (https://github.com/hashicorp/nomad/issues/23969).
const mark = "PLUGIN_UNIX_SOCKET_DIR="

// sweepBudget is how long a sweep waits for those that it has killed.
const sweepBudget = time.Second

// killLeftovers ends all processes whose socket folder is one of those, and waits until they have. It answers how many
// there were.
func killLeftovers(those func(folder string) bool) int {
	killed := 0
	const rounds = 5 // one that forks while it is looked at has a child in the next
	for range rounds {
		found := leftovers(those)
		if len(found) == 0 {
			break
		}
		killed += len(found)
		for _, p := range found {
			unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
		}
		until := time.Now().Add(sweepBudget)
		for _, p := range found {
			p.wait(time.Until(until))
			unix.Close(p.fd)
		}
	}
	return killed
}

// leftover is a process by a descriptor that follows it, and never another that gets its number.
type leftover struct{ pid, fd int }

// wait waits for the process's end.
func (l leftover) wait(limit time.Duration) {
	for until := time.Now().Add(limit); limit > 0; limit = time.Until(until) {
		fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(limit.Milliseconds())+1); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// leftovers looks at all processes that this one may look into. Their descriptors are the caller's.
func leftovers(those func(string) bool) (found []leftover) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid <= 1 || pid == os.Getpid() || !marked(pid, those) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended; or a kernel before 5.3, where its number cannot be held on to
		}
		if !marked(pid, those) { // the number was another's when it was looked at first
			unix.Close(fd)
			continue
		}
		found = append(found, leftover{pid, fd})
	}
	return found
}

// marked says whether a process's mark is one of those.
func marked(pid int, those func(folder string) bool) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(env) == 0 {
		return false
	}
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if value, ok := strings.CutPrefix(string(kv), mark); ok && those(value) {
			return true
		}
	}
	return false
}
