//go:build linux

package host_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/host"
	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// TestMain lets the test binary be the modules and the agents that the tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "be" {
		be(os.Args[2:])
	}
	os.Exit(m.Run())
}

// be is one of the programs that tests start.
func be(args []string) {
	switch args[0] {
	case "module":
		modkit.Serve(&module{}, map[string]hal.Driver{"stuck": stuck{}})
	case "escape": // a module with a child that leaves its process group; with an argument also its environment, its lock on that file kept
		child := exec.Command(os.Args[0], append([]string{"be", "hidden"}, args[1:]...)...)
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if len(args) > 2 {
			child.Env = []string{"PATH=/bin"}
		}
		stdout, err := child.StdoutPipe()
		if err != nil {
			panic(err)
		}
		if err := child.Start(); err != nil {
			panic(err)
		}
		if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil { // it has the lock
			panic("the child has not got its hardware: " + err.Error())
		}
		fmt.Fprintf(os.Stderr, "child %d\n", child.Process.Pid)
		modkit.Serve(&module{}, map[string]hal.Driver{})
	case "hidden": // has a piece of hardware, a file's lock, for itself, for as long as it lives
		f, err := os.OpenFile(args[1], os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			panic(err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			panic(err)
		}
		fmt.Println("mine")
		hang()
	case "endless": // garbage without a line feed
		text := strings.Repeat("x", 1<<16)
		for {
			if _, err := io.WriteString(os.Stdout, text); err != nil {
				hang()
			}
		}
	case "closes": // its standard output, at once
		os.Stdout.Close()
		hang()
	case "version": // of a contract to come
		fmt.Println("1|2|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/nothing|grpc")
		hang()
	case "parent": // a module with a child that outlives it
		child := exec.Command("sleep", "20") // longer than any test looks for it
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stderr, "child %d\n", child.Process.Pid)
		modkit.Serve(&module{}, map[string]hal.Driver{})
	case "stubborn": // does not end when asked to
		go func() {
			for c := make(chan os.Signal, 1); ; {
				signal.Notify(c, syscall.SIGTERM)
				<-c
			}
		}()
		modkit.Serve(&module{stubborn: true}, map[string]hal.Driver{})
	case "garbage":
		fmt.Println("hello, I am no module")
		hang()
	case "silent":
		hang()
	case "handshake": // says that it is there, and is not
		fmt.Println("1|1|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/nothing|grpc")
	case "dies":
		fmt.Fprintln(os.Stderr, "cannot find my configuration")
		os.Exit(7)
	case "agent": // in a run folder and a control group, starts the module that the rest names, and is killed
		h, err := host.Open(args[1], args[2])
		if err != nil {
			panic(err)
		}
		p, err := h.Start(context.Background(), host.Spec{Name: "coins", Program: os.Args[0], Args: append([]string{"be"}, args[3:]...),
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err != nil {
			panic(err)
		}
		fmt.Println(p.PID())
		hang()
	default:
		panic("unknown program " + strings.Join(args, " "))
	}
	os.Exit(0)
}

// hang blocks until the process is killed. A bare select would do when other goroutines live; without them the runtime
// ends the program as deadlocked.
func hang() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	for {
		<-c
	}
}

// module answers what it is asked, and misbehaves when it is told to.
type module struct {
	stubborn bool
	leaked   [][]byte
	bay      atomic.Pointer[modkit.Bay]
}

// stuck has serial lines whose calls never end, whatever their context says.
type stuck struct{ hal.Driver }

func (stuck) OpenSerial(context.Context, string, hal.SerialMode) (hal.Serial, error) {
	return stuckLine{}, nil
}

type stuckLine struct{ hal.Serial }

func (stuckLine) Write(context.Context, []byte) error       { select {} }
func (stuckLine) Read(context.Context, []byte) (int, error) { select {} }

func (m *module) Describe() modkit.Description {
	return modkit.Description{Name: "test", Version: "1.2.3", Settings: json.RawMessage(`{"type":"object"}`), Wiring: json.RawMessage(`{"type":"object"}`)}
}

func (m *module) Apply(context.Context, modkit.Settings) (modkit.Applied, error) { return nil, nil }

func (m *module) Invoke(ctx context.Context, method string, payload json.RawMessage) (modkit.Answer, error) {
	switch method {
	case "echo":
		return modkit.Answer{Status: 200, Payload: payload}, nil
	case "panic":
		go func() { panic("the coin mech is upside down") }()
		select {}
	case "flood":
		line := strings.Repeat("x", 1<<20) + "\n"
		for range 50 {
			io.WriteString(stderr, line)
		}
		for i := range 50_000 {
			fmt.Fprintf(stderr, `{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"line","n":%d}`+"\n", i)
		}
		return modkit.Answer{Status: 200}, nil
	case "nasty":
		io.WriteString(stderr, `{"@message":1}`+"\n"+`{"@level":{},"@message":"x","@timestamp":3}`+"\n"+`{"msg":2,"level":[]}`+"\n\xff\xfe\n")
		return modkit.Answer{Status: 200}, nil
	case "gigabyte": // of log lines: payload says how many bytes
		var size int
		if err := json.Unmarshal(payload, &size); err != nil {
			return modkit.Answer{}, err
		}
		chunk := bytes.Repeat([]byte(`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"a line that nobody needs"}`+"\n"), 1000)
		for n := 0; n < size; n += len(chunk) {
			chunk[100]++ // not the same each time
			stderr.Write(chunk)
		}
		return modkit.Answer{Status: 200}, nil
	case "leak": // a megabyte a millisecond
		go func() {
			for range time.Tick(time.Millisecond) {
				block := make([]byte, 1<<20)
				for i := range block {
					block[i] = 1
				}
				m.leaked = append(m.leaked, block)
			}
		}()
		return modkit.Answer{Status: 200}, nil
	case "leap": // a gigabyte at once
		block := make([]byte, 1<<30)
		for i := range block {
			block[i] = 1
		}
		m.leaked = append(m.leaked, block)
		return modkit.Answer{Status: 200}, nil
	case "files": // opens as many as it can, up to ten thousand
		var open []*os.File
		for len(open) < 10_000 {
			f, err := os.Open("/dev/null")
			if err != nil {
				break
			}
			open = append(open, f)
		}
		for _, f := range open {
			f.Close()
		}
		return modkit.Answer{Status: 200, Payload: json.RawMessage(strconv.Itoa(len(open)))}, nil
	case "forks": // processes that outlive it; answers their numbers
		var pids []int
		for range 100 {
			child := exec.Command("sleep", "60")
			if err := child.Start(); err != nil {
				break
			}
			pids = append(pids, child.Process.Pid)
		}
		text, err := json.Marshal(pids)
		return modkit.Answer{Status: 200, Payload: text}, err
	case "spin": // uses all the processor that it gets
		go func() {
			for {
			}
		}()
		return modkit.Answer{Status: 200}, nil
	case "write", "read": // of a serial line that never comes to an end
		line, err := m.bay.Load().Wires.Serial(ctx, "stuck:line", hal.SerialMode{})
		if err != nil {
			return modkit.Answer{}, err
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			if method == "write" {
				line.Write(ctx, []byte{1})
			} else {
				line.Read(ctx, make([]byte, 1))
			}
		}()
		return modkit.Answer{Status: 200}, nil
	case "large": // answers as many bytes as payload says
		var size int
		if err := json.Unmarshal(payload, &size); err != nil {
			return modkit.Answer{}, err
		}
		return modkit.Answer{Status: 200, Payload: json.RawMessage(`"` + strings.Repeat("x", size) + `"`)}, nil
	case "handshake": // once more
		fmt.Fprintln(stdout, "1|1|unix|/nowhere|grpc")
		return modkit.Answer{Status: 200}, nil
	case "close stdout":
		return modkit.Answer{Status: 200}, stdout.Close()
	case "stdout":
		for range 10_000 {
			fmt.Println("a module that prints")
		}
		return modkit.Answer{Status: 200}, nil
	}
	return modkit.Answer{}, modkit.ErrNoMethod
}

// stdout and stderr are the real ones: go-plugin replaces those of package os.
var stdout, stderr = os.NewFile(1, "stdout"), os.NewFile(2, "stderr")

func (m *module) Run(ctx context.Context, bay *modkit.Bay) error {
	m.bay.Store(bay)
	if _, err := bay.Send(modkit.Message{Body: json.RawMessage(`{"hello":1}`), State: []byte("s1")}); err != nil {
		return err
	}
	<-ctx.Done()
	if m.stubborn {
		select {}
	}
	bay.Send(modkit.Message{Body: json.RawMessage(`{"last":1}`)})
	return nil
}

// self is the test binary as the program that `be` names.
func self(t testing.TB, name string, be ...string) host.Spec {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return host.Spec{Name: name, Program: program, Args: append([]string{"be"}, be...)}
}

// open opens a run folder whose path is short enough for a socket, whatever the test's name.
func open(t testing.TB) (*host.Host, string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	h, err := host.Open(folder, host.NoGroups)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, folder
}

// within waits for what, no longer than limit.
func within[T any](t testing.TB, limit time.Duration, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
		panic("unreachable")
	}
}

// gone waits until process pid is no more, or a zombie that waits for somebody else's parent.
func gone(pid int, limit time.Duration) error {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return nil
		}
		if _, state, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(state, "Z") {
			return nil
		}
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 5000}) // another process's end makes no sound here
	}
	return fmt.Errorf("process %d still lives", pid)
}
