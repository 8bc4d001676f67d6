package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/lives"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// TestMain lets the test binary be the agent and the modules that the tests start.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(modkit.Handshake.MagicCookieKey) != "":
		beModule(filepath.Base(os.Args[0]))
	case os.Getenv("TWINBAY_TEST_AGENT") != "":
		main()
	}
	os.Exit(m.Run())
}

// beModule is a module whose behaviour is its program's name. Each start is a line of the file "starts".
func beModule(name string) {
	f, err := os.OpenFile("starts", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, name)
	}
	if err != nil {
		panic(err)
	}
	if name == "deaf" { // takes no notice of being asked to end
		go func() {
			for c := make(chan os.Signal, 1); ; {
				signal.Notify(c, syscall.SIGTERM)
				<-c
			}
		}()
	}
	modkit.Serve(&stopping{name: name}, map[string]hal.Driver{})
}

// stopping is a module that shows what it does when it is to end.
type stopping struct{ name string }

func (s *stopping) Describe() modkit.Description {
	return modkit.Description{Name: s.name, Version: "1", Settings: json.RawMessage(`{"type":"object"}`), Wiring: json.RawMessage(`{"type":"object"}`)}
}

func (s *stopping) Apply(context.Context, modkit.Settings) (modkit.Applied, error) { return nil, nil }

func (s *stopping) Invoke(context.Context, string, json.RawMessage) (modkit.Answer, error) {
	return modkit.Answer{}, modkit.ErrNoMethod
}

func (s *stopping) Run(ctx context.Context, bay *modkit.Bay) error {
	pid := os.Getpid()
	ticket, err := bay.Send(modkit.Message{Body: fmt.Appendf(nil, `{"says":"hello","pid":%d}`, pid)})
	if err != nil {
		return err
	}
	select {
	case <-ticket.Done():
		slog.Info(fmt.Sprintf("hello of %d is accepted", pid))
		<-ctx.Done()
	case <-ctx.Done():
	}
	switch s.name {
	case "deaf":
		select {}
	case "failing":
		return errors.New("the motor did not stop")
	}
	_, err = bay.Send(modkit.Message{Body: json.RawMessage(`{"says":"goodbye"}`)})
	return err
}

// device is an agent in a process of its own, and its hub.
type device struct {
	t      *testing.T
	hub    *hubtest.Hub
	dir    string
	cmd    *exec.Cmd
	socket string

	mu   sync.Mutex
	log  bytes.Buffer
	more chan struct{} // capacity one: the log has grown
	done chan error    // how the process has ended
}

// startDevice starts an agent with a component for each behaviour, and waits until the hub has heard of each.
func startDevice(t *testing.T, env []string, names ...string) *device {
	t.Helper()
	dir, err := os.MkdirTemp("", "stop") // a unix socket's path is at most 107 bytes long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &device{t: t, hub: hubtest.New(t), dir: dir, socket: filepath.Join(dir, "run", "s"), more: make(chan struct{}, 1), done: make(chan error, 1)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("[hub]\nhost = %q\naddress = %q\nca_file = \"ca.pem\"\n[agent]\nsocket = %q\nrun_dir = \"run\"\nstate_dir = \"state\"\n"+
		"modules = %q\n[device]\ncredential = \"file:device.cred\"\n", d.hub.Host(), d.hub.Listen(), d.socket, self)
	d.write("ca.pem", string(d.hub.CA()))
	d.write("device.cred", d.hub.Device("d1"))
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		d.write(name+".cred", d.hub.Module("d1", name))
		// The test binary is no module of the usual size, least of all with the race detector.
		file += fmt.Sprintf("[modules.%s]\nuse = %q\npath = %q\ncredential = \"file:%s.cred\"\nlimits = { memory = \"none\" }\n", name, name, filepath.Join(dir, name), name)
	}
	d.write("device.toml", file)
	d.start(env)
	for _, name := range names {
		d.says(name, "hello")
	}
	return d
}

func (d *device) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) start(env []string) {
	d.t.Helper()
	d.cmd = exec.Command("/proc/self/exe", "run", "--config", filepath.Join(d.dir, "device.toml"))
	d.cmd.Dir = d.dir
	d.cmd.Env = append(append(os.Environ(), "TWINBAY_TEST_AGENT=1"), env...)
	stderr, err := d.cmd.StderrPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewReader(stderr); ; {
			line, err := lines.ReadString('\n')
			d.mu.Lock()
			d.log.WriteString(line)
			d.mu.Unlock()
			select {
			case d.more <- struct{}{}:
			default:
			}
			if err != nil {
				break
			}
		}
		io.Copy(io.Discard, stderr)
		d.done <- d.cmd.Wait()
	}()
	d.t.Cleanup(func() {
		d.cmd.Process.Kill()
		if d.t.Failed() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.t.Log(d.log.String())
		}
	})
}

// says waits until a component has said something at the hub.
func (d *device) says(name, what string) {
	d.t.Helper()
	d.hub.Wait(d.t, func(e hub.Event) bool {
		return e.Kind == "telemetry" && e.ModuleID == name && strings.Contains(string(e.Body), what)
	})
}

// logs waits until the agent has logged texts, one after the other.
func (d *device) logs(texts ...string) {
	d.t.Helper()
	for limit := time.After(30 * time.Second); ; {
		d.mu.Lock()
		rest, found := d.log.String(), true
		d.mu.Unlock()
		for _, text := range texts {
			_, after, ok := strings.Cut(rest, text)
			rest, found = after, found && ok
		}
		if found {
			return
		}
		select {
		case <-d.more:
		case <-limit:
			d.t.Fatalf("the agent does not log %q", texts)
		}
	}
}

// pids are the modules' processes.
func (d *device) pids() []int {
	d.t.Helper()
	c := local.Dial(d.socket)
	defer c.Close()
	s, err := c.Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	var pids []int
	for _, c := range s.Components {
		pids = append(pids, c.Process.PID)
	}
	return pids
}

func (d *device) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// ended waits for the agent's end and looks at what is left: no module, and none was started again.
func (d *device) ended(code, starts int, pids []int) {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(30 * time.Second):
		d.t.Fatal("the agent does not end")
	}
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		d.t.Errorf("exit code %d, want %d", got, code)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			d.t.Errorf("module process %d is left: %v", pid, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "starts"))
	if n := strings.Count(string(text), "\n"); err != nil || n != starts {
		d.t.Errorf("%d starts of modules, %v; want %d: %q", n, err, starts, text)
	}
}

// TestR39_Shutdown: real processes and real signals. The exit code is 0 only if the agent kept its budget.
func TestR39_Shutdown(t *testing.T) {
	t.Run("SIGTERM drains", func(t *testing.T) {
		d := startDevice(t, nil, "polite")
		pids := d.pids()
		d.signal(syscall.SIGTERM)
		d.ended(0, 1, pids)
		d.says("polite", "goodbye")
	})
	t.Run("a module that takes no notice, and one that fails to stop", func(t *testing.T) {
		d := startDevice(t, nil, "deaf", "failing", "polite")
		pids := d.pids()
		d.signal(syscall.SIGINT)
		d.signal(syscall.SIGTERM) // one wish: at Ctrl-C both come
		d.ended(0, 3, pids)
		d.says("polite", "goodbye")
	})
	t.Run("a second SIGTERM ends at once, and nothing accepted is lost", func(t *testing.T) {
		d := startDevice(t, nil, "deaf")
		d.hub.Down()
		syscall.Kill(d.pids()[0], syscall.SIGKILL)
		d.logs("the module has ended")
		d.logs("the module runs", "the module runs")
		pids := d.pids()
		hello := fmt.Sprintf("hello of %d is accepted", pids[0])
		d.logs(hello)
		d.signal(syscall.SIGTERM)
		d.logs("the agent stops")
		d.signal(syscall.SIGTERM)
		d.ended(0, 2, pids)
		d.logs("told a second time to end")

		d.hub.Up()
		d.start(nil) // with what is on the disk
		d.says("deaf", fmt.Sprintf(`"pid":%d`, pids[0]))
		d.logs("the module runs", "the module runs", "the module runs")
		d.signal(syscall.SIGTERM)
		d.ended(0, 3, nil)
	})
	t.Run("SIGTERM while a module waits to be started again", func(t *testing.T) {
		d := startDevice(t, nil, "polite")
		pids := d.pids()
		syscall.Kill(pids[0], syscall.SIGSTOP) // so that it cannot be back before the agent is told
		d.signal(syscall.SIGTERM)
		syscall.Kill(pids[0], syscall.SIGKILL)
		d.ended(0, 1, pids)
	})
}

// The service manager is told of start, reload, life and end, over its real socket.
func TestServiceManagerIsTold(t *testing.T) {
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	told := func(want string) {
		t.Helper()
		for {
			buf := make([]byte, 4096)
			n, err := socket.Read(buf)
			if err != nil {
				t.Fatalf("not told %q: %v", want, err)
			}
			if strings.HasPrefix(string(buf[:n]), want) {
				return
			}
		}
	}
	d := startDevice(t, []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify"), "WATCHDOG_USEC=1000000"}, "polite")
	told("READY=1\nSTATUS=")
	told("WATCHDOG=1")
	d.signal(syscall.SIGHUP)
	told("RELOADING=1\nMONOTONIC_USEC=")
	told("READY=1\nSTATUS=1 of 1 components run; hub ")
	told("WATCHDOG=1")
	d.signal(syscall.SIGTERM)
	told("STOPPING=1")
	d.ended(0, 1, nil)
}

func TestTwice(t *testing.T) {
	for _, c := range []struct {
		signals []os.Signal
		want    os.Signal
	}{
		{nil, nil},
		{[]os.Signal{os.Interrupt}, nil},
		{[]os.Signal{os.Interrupt, syscall.SIGTERM}, nil}, // Ctrl-C of `make run`
		{[]os.Signal{os.Interrupt, syscall.SIGTERM, os.Interrupt}, os.Interrupt},
		{[]os.Signal{syscall.SIGTERM, syscall.SIGTERM}, syscall.SIGTERM},
	} {
		signals, end := make(chan os.Signal), make(chan struct{})
		got := make(chan os.Signal, 1)
		go func() { got <- twice(signals, end) }()
		for _, s := range c.signals {
			signals <- s
		}
		if c.want == nil {
			close(end)
		}
		if s := <-got; s != c.want {
			t.Errorf("%v: %v, want %v", c.signals, s, c.want)
		}
	}
}

// An agent that is killed again and again starts its modules no more, says so, and starts them when it is told to.
func TestSafeModeAfterKills(t *testing.T) {
	d := startDevice(t, nil, "polite")
	for n := range lives.Limit {
		d.logs(slices.Repeat([]string{"the agent starts"}, n+1)...)
		end := syscall.SIGKILL
		if n == lives.Limit-1 {
			end = syscall.SIGABRT // the watchdog's
		}
		d.signal(end)
		<-d.done
		d.start(nil)
	}
	d.logs("SAFE MODE", "the agent starts")
	code, out, stderr := call(t.Context(), "", "--socket", d.socket, "status")
	if code != 0 || !strings.Contains(out, "ended early 5 times in a row") || !strings.Contains(out, lives.Unknown) || !strings.Contains(out, "the watchdog ended it") || !strings.Contains(out, "polite held") {
		t.Errorf("status: %d\n%s%s", code, out, stderr)
	}
	if code, out, stderr := call(t.Context(), "", "--socket", d.socket, "resume"); code != 0 {
		t.Errorf("resume: %d\n%s%s", code, out, stderr)
	}
	d.logs("SAFE MODE", "the module runs")
	d.signal(syscall.SIGTERM)
	<-d.done
}
