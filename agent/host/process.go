//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	goplugin "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/twinbay/twinbay/modules/modkit"
)

// startBudget is how long a module may take from its start to its description.
const startBudget = 10 * time.Second

// moduleEnv is all that a module sees of the environment, besides its memory limit and what go-plugin's handshake needs.
// One thread of Go code is enough for one component and saves memory.
var moduleEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"GOMAXPROCS=1",
}

// Spec says what to start.
type Spec struct {
	Name    string   // the component's name in the device file; names the socket's folder
	Program string   // the file to run
	Args    []string // for a multi-call program the module's name
	Dir     string   // the working folder; "" is the agent's
	Log     *slog.Logger
	Limits  Limits
	Budget  time.Duration // from the start to the description; 0 means 10 s
}

// Process is one running module.
type Process struct {
	remote      *modkit.Remote
	description modkit.Description
	runner      *runner
	client      *plugin.Client
	stderr      *lines
	printed     *lines // beside its log: on standard output, after the handshake
	folder      string
	tried       chan struct{} // closed when the start has come to its end, good or bad
	done        chan struct{}

	mu    sync.Mutex
	conns []*grpc.ClientConn
}

// Start starts the module and returns once it has described itself. It fails when the program cannot be run, ends or
// does not speak the contract; nothing is left of it then. ctx bounds the start alone.
func (h *Host) Start(ctx context.Context, s Spec) (*Process, error) {
	folder, err := h.moduleFolder(s.Name)
	if err != nil {
		return nil, err
	}
	group, err := h.groups.open(s.Name, s.Limits)
	if err != nil {
		wipe(folder)
		return nil, fmt.Errorf("start %s: %w", s.Program, err)
	}
	p := &Process{folder: folder, runner: newRunner(s.Limits, group, h.groups.reason, folder), stderr: newLines(s.Log), printed: newLines(s.Log), tried: make(chan struct{}), done: make(chan struct{})}
	budget := s.Budget
	if budget == 0 {
		budget = startBudget
	}
	p.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  modkit.Handshake,
		Plugins:          modkit.Plugins(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, handshake *exec.Cmd, within string) (goplugin.Runner, error) {
			os.Remove(within) // go-plugin's own folder for sockets; ours has a shorter path
			return p.runner, p.runner.prepare(command(s, folder, handshake.Env, group), p.printed)
		},
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: folder},
		StartTimeout:     budget + time.Second, // the context below is earlier, and says more
		SkipHostEnv:      true,
		// go-plugin parses a module's stderr only for its own logger, and dies of lines it does not expect
		// (log_entry.go: unchecked type assertions). Off keeps the parser out; the raw lines come to Stderr.
		Logger:     hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
		Stderr:     p.stderr,
		SyncStdout: p.printed,
		SyncStderr: p.printed,
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithChainStreamInterceptor(p.remember),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(modkit.MaxSaid)), // go-plugin's is two gigabytes
		},
	})
	ctx, cancel := context.WithTimeoutCause(ctx, budget, fmt.Errorf("it was not ready within %v", budget))
	defer cancel()
	if err := p.start(ctx); err != nil {
		return nil, p.startError(s, err)
	}
	return p, nil
}

// command is the process to run, with its socket in folder.
func command(s Spec, folder string, handshake []string, g *group) *exec.Cmd {
	cmd := exec.Command(s.Program, s.Args...)
	cmd.Dir = s.Dir
	cmd.Env = append(cmd.Env, moduleEnv...)
	if s.Limits.Memory > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GOMEMLIMIT=%d", int64(memoryShare*float64(s.Limits.Memory))))
	}
	for _, kv := range handshake {
		if !strings.HasPrefix(kv, plugin.EnvUnixSocketDir+"=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, plugin.EnvUnixSocketDir+"="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // a terminal's Ctrl-C is for the agent; and a kill reaches what the module started
		Pdeathsig: syscall.SIGKILL,
	}
	if g != nil && !g.attach {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(g.fd.Fd())
	}
	return cmd
}

// start brings the process up to its description. go-plugin knows no context, so ctx's end kills the process, and
// every step then fails by itself.
func (p *Process) start(ctx context.Context) error {
	defer close(p.tried)
	defer context.AfterFunc(ctx, func() { p.Kill(context.Cause(ctx).Error()) })()
	_, err := p.client.Start()
	if p.PID() == 0 {
		wipe(p.folder)
		p.runner.group.ended()
		return err
	}
	go p.finish()
	if err != nil {
		return err
	}
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense(modkit.PluginName)
	if err != nil {
		return err
	}
	p.remote = raw.(*modkit.Remote)
	p.description, err = p.remote.Describe(ctx)
	if err != nil {
		return err
	}
	// The connection stands, and it is the only one there will be: without its file the socket can neither be
	// opened by another process nor stay behind when the agent is killed.
	return wipe(p.folder)
}

// startError makes one sentence of a failed start, after the process has gone.
func (p *Process) startError(s Spec, err error) error {
	if p.PID() == 0 {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("start %s: %w; check [agent] modules in the device file and the file's mode", s.Program, err)
		}
		return fmt.Errorf("start %s: %w", s.Program, err)
	}
	select {
	case <-p.runner.exited:
	case <-time.After(drainBudget): // it closed its stdout and lives on
		p.Kill("")
	}
	<-p.done
	if reason, end := p.runner.ended(); reason == "" && end.killed {
		return fmt.Errorf("%s did not become ready: %s", s.Program, refused(err.Error()))
	}
	return fmt.Errorf("%s did not become ready: %s", s.Program, p.Exit().Reason)
}

// refused says in plain words why go-plugin has killed a process that it does not take for a module (client.go, Start).
func refused(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	line, isOther := strings.CutPrefix(first, "Unrecognized remote plugin message:")
	line = strings.TrimSpace(line)
	switch {
	case isOther && line == "":
		return "it closed its standard output and said nothing there: is it a module, and for this machine?"
	case isOther:
		return fmt.Sprintf("it says %.200q where a module says how to reach it: is it a module, and for this machine?", line)
	case strings.HasPrefix(first, "incompatible API version with plugin"), strings.HasPrefix(first, "incompatible core API version with plugin"):
		return fmt.Sprintf("it speaks another version of the contract (%s): agent and module have to be of the same release", first)
	}
	return first + ": is it a module, and for this machine?"
}

// remember keeps each connection that go-plugin makes: it forgets to close one whose module dies during the first call.
func (p *Process) remember(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	p.mu.Lock()
	if len(p.conns) == 0 || p.conns[len(p.conns)-1] != cc {
		p.conns = append(p.conns, cc)
	}
	p.mu.Unlock()
	return streamer(ctx, desc, cc, method, opts...)
}

// finish clears up after the process.
func (p *Process) finish() {
	defer close(p.done)
	<-p.runner.exited
	<-p.tried
	p.mu.Lock()
	conns := p.conns
	p.mu.Unlock()
	for _, cc := range conns {
		cc.Close()
	}
	if len(conns) > 0 {
		p.client.Kill() // of a dead process it waits for go-plugin's own goroutines alone
	}
	p.stderr.Close()
	p.printed.Close()
	wipe(p.folder)
}

// Remote speaks with the module.
func (p *Process) Remote() *modkit.Remote { return p.remote }

// Description is what the module said of itself.
func (p *Process) Description() modkit.Description { return p.description }

// PID is the process's number, which is its process group's too.
func (p *Process) PID() int {
	p.runner.mu.Lock()
	defer p.runner.mu.Unlock()
	return p.runner.pid
}

// Limits are those in force, in a fixed order.
func (p *Process) Limits() []Limit {
	p.runner.mu.Lock()
	defer p.runner.mu.Unlock()
	return p.runner.bounds
}

// Done is closed when the process has ended and nothing is left of it.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit says why the process ended. It is complete once Done is closed.
func (p *Process) Exit() Exit {
	reason, end := p.runner.ended()
	last, stack := p.stderr.tail()
	switch {
	case reason != "":
		return Exit{Reason: reason, Stack: stack}
	case last != "":
		return Exit{Reason: end.words + ": " + last + p.runner.lacked(last), Stack: stack}
	}
	return Exit{Reason: end.words, Stack: stack}
}

// Kill ends the process and all that it started, at once. The reason is for people; the first one counts.
func (p *Process) Kill(reason string) {
	p.runner.kill(reason)
}

// Stop asks the process to end (SIGTERM), and kills it when ctx ends before it has. It returns when nothing is left.
func (p *Process) Stop(ctx context.Context) {
	p.runner.signal(1, syscall.SIGTERM, "stopped by the agent")
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill("")
		<-p.done
	}
}
