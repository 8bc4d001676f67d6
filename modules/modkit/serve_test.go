package modkit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/twinbay/twinbay/modules/modkit"
)

// The test binary re-executes itself as a module, and once as an agent that dies with a module running.
func TestMain(m *testing.M) {
	switch os.Getenv("MODKIT_TEST_ROLE") {
	case "module":
		modkit.Serve(serveTestModule(), nil)
	case "agent":
		dieAsAgent()
	}
	os.Exit(m.Run())
}

func serveTestModule() *plain {
	quit := make(chan string, 1)
	return &plain{
		run: func(ctx context.Context, b *modkit.Bay) error {
			b.Log.Info("running", "pid", os.Getpid())
			select {
			case how := <-quit:
				if how == "panic" {
					panic("a bug in the driver")
				}
				return errors.New("plain: the part answers nonsense: " + how)
			case <-ctx.Done():
				b.Log.Info("hardware is safe")
				return nil
			}
		},
		invoke: func(method string, _ json.RawMessage) (modkit.Answer, error) {
			if method == "pid" {
				return modkit.Answer{Status: 200, Payload: json.RawMessage(strconv.Itoa(os.Getpid()))}, nil
			}
			quit <- method
			return modkit.Answer{Status: 200}, nil
		},
	}
}

// buffer is a bytes.Buffer that go-plugin's goroutine and the test share.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type child struct {
	*modkit.Remote
	client *plugin.Client
	cmd    *exec.Cmd
	stderr *buffer
}

func launch(role string) (*child, error) {
	c := &child{cmd: exec.Command(os.Args[0]), stderr: &buffer{}}
	c.cmd.Env = append(os.Environ(), "MODKIT_TEST_ROLE="+role)
	c.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: modkit.Handshake, Plugins: modkit.Plugins(), Cmd: c.cmd, SkipHostEnv: true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Off}), Stderr: c.stderr,
	})
	proto, err := c.client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := proto.Dispense(modkit.PluginName)
	if err != nil {
		return nil, err
	}
	c.Remote = raw.(*modkit.Remote)
	return c, nil
}

func start(t *testing.T) (*child, *modkit.Running) {
	t.Helper()
	c, err := launch("module")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Kill)
	r, err := c.Run(t.Context(), modkit.Start{})
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}

// wait is how the process ended. go-plugin reaps it; the state is set when it has.
func (c *child) wait(t *testing.T) int {
	t.Helper()
	c.client.Kill()
	if !c.client.Exited() {
		t.Fatal("the process has not ended")
	}
	return c.cmd.ProcessState.ExitCode()
}

func drainRun(r *modkit.Running) error {
	for {
		if _, err := r.Next(); err != nil {
			return err
		}
	}
}

func TestServeEndsWithItsRun(t *testing.T) {
	c, r := start(t)
	if _, err := c.Invoke(t.Context(), "noise", nil); err != nil {
		t.Fatal(err)
	}
	if err := drainRun(r); err == nil || !strings.Contains(err.Error(), "the part answers nonsense: noise") {
		t.Errorf("the stream ended with %v", err)
	}
	if code := c.wait(t); code != 1 {
		t.Errorf("exit code %d, want 1, so that the agent starts it again", code)
	}
	logs := records(t, c.stderr.String())
	if !strings.Contains(logs["the module's run failed, the process ends"]["error"].(string), "noise") {
		t.Errorf("the log does not tell why: %v", logs)
	}
	if logs["running"]["level"] != "INFO" || logs["running"]["time"] == nil {
		t.Errorf("record without level or time: %v", logs["running"])
	}
}

func TestServeTellsOfAPanic(t *testing.T) {
	c, r := start(t)
	_, _ = c.Invoke(t.Context(), "panic", nil) // it may or may not answer in time
	if err := drainRun(r); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
	if code := c.wait(t); code != 2 {
		t.Errorf("exit code %d, want the runtime's 2", code)
	}
	if s := c.stderr.String(); !strings.Contains(s, "panic: a bug in the driver") || !strings.Contains(s, "goroutine ") {
		t.Errorf("standard error has no stack:\n%s", s)
	}
}

func TestServeEndsAtSIGTERM(t *testing.T) {
	c, r := start(t)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := drainRun(r); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v, want io.EOF: as asked", err)
	}
	if code := c.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if s := c.stderr.String(); !strings.Contains(s, "hardware is safe") {
		t.Errorf("the module was not stopped in order:\n%s", s)
	}
}

func TestServeEndsWhenTheAgentSaysSo(t *testing.T) {
	c, _ := start(t)
	if code := c.wait(t); code != 0 { // wait kills in go-plugin's graceful way first
		t.Errorf("exit code %d, want 0", code)
	}
	if s := c.stderr.String(); !strings.Contains(s, "hardware is safe") {
		t.Errorf("the module was not stopped in order:\n%s", s)
	}
}

// dieAsAgent starts a module, prints its pid and goes away without a word to it.
func dieAsAgent() {
	c, err := launch("module")
	if err != nil {
		os.Stdout.WriteString("launch: " + err.Error() + "\n")
		os.Exit(3)
	}
	a, err := c.Invoke(context.Background(), "pid", nil)
	if err != nil {
		os.Exit(4)
	}
	os.Stdout.WriteString(string(a.Payload) + "\n")
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

func TestServeEndsWithItsAgent(t *testing.T) {
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), "MODKIT_TEST_ROLE=agent")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the agent says %q", line)
	}
	_ = agent.Wait() // killed
	deadline := time.After(5 * time.Second)
	for alive(pid) {
		select {
		case <-deadline:
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("module process %d outlives its agent", pid)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// alive is false for a zombie too: in a container nobody may reap it.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

// records is the log by message; lines that are no JSON objects fail the test.
func records(t *testing.T, s string) map[string]map[string]any {
	t.Helper()
	all := make(map[string]map[string]any)
	for line := range strings.Lines(s) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("log line %q is no JSON object", line)
			continue
		}
		msg, _ := r["msg"].(string)
		all[msg] = r
	}
	return all
}
