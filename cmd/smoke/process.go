package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// process is one of the programs under test.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it has ended
	err  error         // how, once done
}

// start runs a program. Its standard error goes to a tail that a failure prints; standard output to out, if any.
func start(out io.Writer, name string, args ...string) (*process, error) {
	p := prepare(name, args...)
	if out != nil {
		p.cmd.Stdout = out
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	return p, nil
}

// prepare is a program that is to be started. What it says goes to its tail.
func prepare(name string, args ...string) *process {
	p := &process{name: filepath.Base(name), log: &tail{}, done: make(chan struct{})}
	p.cmd = exec.Command(name, args...)
	p.cmd.Stderr = p.log
	p.cmd.Stdout = p.log
	p.cmd.WaitDelay = time.Second
	return p
}

func (p *process) start() error {
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// stop sends SIGTERM and waits at most budget for a clean end; a process that needs longer is killed, and that is an
// error.
func (p *process) stop(budget time.Duration) error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(budget):
		p.kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM", p.name, budget)
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// run runs a command to its end and answers what it printed.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, diag bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %q: %w: %s", filepath.Base(name), args, err, bytes.TrimSpace(diag.Bytes()))
	}
	return out.Bytes(), nil
}

// lines hands over each line that is written to it. It is a process's standard output.
func lines(each func([]byte)) io.WriteCloser {
	r, w := io.Pipe()
	go func() {
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			each(s.Bytes())
		}
		io.Copy(io.Discard, r)
	}()
	return w
}

// tail keeps the last part of what a program said, for the report of a failure.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - 8<<10; over > 0 {
		t.buf = t.buf[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// gone says whether a process has ended. One that has, and waits for its parent to notice, is a zombie (proc(5), stat).
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	after := bytes.LastIndexByte(text, ')') // of the command's name, which may hold anything
	return after < 0 || bytes.HasPrefix(text[after:], []byte(") Z"))
}

// children lists the processes whose command line names the folder dir: what a run must not leave behind.
func children(dir string) ([]int, error) {
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, environ := range procs {
		text, err := os.ReadFile(environ)
		var pid int
		if _, scan := fmt.Sscanf(environ, "/proc/%d/", &pid); err != nil || scan != nil || pid == os.Getpid() {
			continue
		}
		if cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(environ), "cmdline")); bytes.Contains(text, []byte(dir)) ||
			bytes.Contains(cmdline, []byte(dir)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// waitGone waits until a process that is not our child has ended, which only looking can tell.
func waitGone(ctx context.Context, pid int) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	limit := time.After(2 * time.Second)
	for !gone(pid) {
		select {
		case <-look.C:
		case <-limit:
			return fmt.Errorf("process %d still runs after 2 s", pid)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
