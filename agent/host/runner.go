//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drainBudget is how long the pipes of a dead process are read to their end. Only a grandchild that has left the
// process group keeps them open for longer.
const drainBudget = 300 * time.Millisecond

// runner is one operating system process, as go-plugin's runner.Runner wants it.
type runner struct {
	cmd    *exec.Cmd
	stdout *pipe
	stderr *pipe
	limits Limits
	group  *group                 // nil when there is none
	why    func(of string) string // why there is none, or it does not hold a limit
	folder string                 // of the module's socket: see mark
	exited chan struct{}          // closed when the process is reaped and its pipes are read

	mu     sync.Mutex
	pid    int    // 0 before the start
	doomed bool   // killed before it had a pid: it ends as soon as it has one
	reaped bool   // the kernel may give the pid to somebody else from now on
	reason string // why we ended it, "" when we did not
	end    end
	bounds []Limit // in force
}

// newRunner returns a runner without a process, which may be killed already.
func newRunner(l Limits, g *group, why func(of string) string, folder string) *runner {
	return &runner{exited: make(chan struct{}), limits: l, group: g, why: why, folder: folder}
}

// prepare says what to run.
func (r *runner) prepare(cmd *exec.Cmd, printed io.Writer) error {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	r.cmd, r.stdout, r.stderr = cmd, newPipe(&handshake{ReadCloser: stdout, rest: printed}), newPipe(stderr)
	return nil
}

// Start forks the process from a thread that lives as long as the process: PR_SET_PDEATHSIG follows the thread that
// forked, not the process (prctl(2), PR_SET_PDEATHSIG), and Go ends idle threads.
func (r *runner) Start(context.Context) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := r.cmd.Start()
		if err == nil {
			bounds := r.bind()
			r.mu.Lock()
			r.pid, r.bounds = r.cmd.Process.Pid, bounds
			if r.limits.Memory > 0 && !r.group.limits(LimitMemory) {
				go r.watchMemory(r.pid, r.limits.Memory)
			}
			if r.doomed {
				syscall.Kill(-r.pid, syscall.SIGKILL)
			}
			r.mu.Unlock()
		}
		started <- err
		if err == nil {
			r.reap()
		} else {
			r.group.ended()
		}
	}()
	return <-started
}

// bind sets the limits of the process that has just started, and answers what is in force.
func (r *runner) bind() []Limit {
	pid := r.cmd.Process.Pid
	if r.group != nil && r.group.attach {
		procs := filepath.Join(r.group.dir, "cgroup.procs")
		if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			r.group.ended()
			r.group = nil
			r.why = func(string) string { return fmt.Sprintf("put the module into its control group: %v", err) }
		}
	}
	return rlimits(pid, r.limits, r.group, r.why)
}

// reap waits for the process's end. The dead process stays a zombie until its group is killed, so that the group's
// number cannot have become another's.
func (r *runner) reap() {
	defer close(r.exited)
	for {
		err := unix.Waitid(unix.P_PID, r.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	r.mu.Lock()
	syscall.Kill(-r.pid, syscall.SIGKILL) // what the module started and left behind
	r.reaped = true
	r.mu.Unlock()
	if r.group != nil {
		r.group.kill()
	} else { // what has left the process group as well
		killLeftovers(func(folder string) bool { return folder == r.folder })
	}

	late := time.NewTimer(drainBudget)
	defer late.Stop()
	for _, p := range []*pipe{r.stdout, r.stderr} {
		select {
		case <-p.ended:
		case <-late.C:
			late.Reset(0)
		}
	}
	err := r.cmd.Wait() // reaps, and closes the pipes
	instead, also := r.group.ended()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = endOf(err, r.cmd)
	if instead != "" {
		r.end.words = instead
	}
	if also != "" {
		r.end.words += " (" + also + ")"
	}
}

// end is how a process ended.
type end struct {
	words  string
	killed bool // by SIGKILL: most likely ours
}

func endOf(err error, cmd *exec.Cmd) end {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return end{words: fmt.Sprintf("ended: %v", err)}
	case status.Signaled():
		words := fmt.Sprintf("killed by signal %d (%s)", int(status.Signal()), unix.SignalName(status.Signal()))
		return end{words: words, killed: status.Signal() == syscall.SIGKILL}
	case status.ExitStatus() == 0:
		return end{words: "ended by itself with exit status 0"}
	default:
		return end{words: fmt.Sprintf("exit status %d", status.ExitStatus())}
	}
}

// kill ends the process and all it started. The first reason is kept.
func (r *runner) kill(reason string) {
	r.signal(-1, syscall.SIGKILL, reason)
}

// signal signals the process (sign 1) or its whole group (sign -1), unless it has ended.
func (r *runner) signal(sign int, sig syscall.Signal, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reaped {
		return
	}
	if r.reason == "" {
		r.reason = reason
	}
	if r.pid == 0 {
		r.doomed = true
		return
	}
	syscall.Kill(sign*r.pid, sig)
}

// lacked adds to a process's last words how much memory it may have, where that is what they are about.
func (r *runner) lacked(last string) string {
	switch {
	case r.limits.Memory == 0:
	case strings.Contains(last, "out of memory"), strings.Contains(strings.ToLower(last), "cannot allocate memory"):
		return fmt.Sprintf(" (%s are allowed)", mebibytes(r.limits.Memory))
	case strings.HasPrefix(last, "SIGSEGV: ") && !r.group.limits(LimitMemory):
		// Go's collector does not always look whether it was given the memory for its own tables.
		return fmt.Sprintf(" (or short of memory: %s are allowed)", mebibytes(r.limits.Memory))
	}
	return ""
}

// ended answers why we ended the process, "" when we did not, and how it ended.
func (r *runner) ended() (string, end) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason, r.end
}

// The rest is what go-plugin asks of a runner.

func (r *runner) Wait(context.Context) error { <-r.exited; return nil }

func (r *runner) Kill(context.Context) error {
	r.kill("")
	return nil
}

func (r *runner) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pid == 0 {
		return ""
	}
	return strconv.Itoa(r.pid)
}

func (r *runner) Stdout() io.ReadCloser           { return r.stdout }
func (r *runner) Stderr() io.ReadCloser           { return r.stderr }
func (r *runner) Name() string                    { return r.cmd.Path }
func (r *runner) Diagnose(context.Context) string { return "" }

func (r *runner) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

func (r *runner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// pipe tells when it has been read to its end.
type pipe struct {
	io.ReadCloser
	once  sync.Once
	ended chan struct{}
}

func newPipe(r io.ReadCloser) *pipe { return &pipe{ReadCloser: r, ended: make(chan struct{})} }

func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	if err != nil {
		p.once.Do(func() { close(p.ended) })
	}
	return n, err
}
