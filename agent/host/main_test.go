//go:build linux

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
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
		modkit.Serve(&module{}, map[string]hal.Driver{})
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
	case "agent": // starts a module and is killed
		h, err := host.Open(args[1])
		if err != nil {
			panic(err)
		}
		p, err := h.Start(context.Background(), host.Spec{Name: "coins", Program: os.Args[0], Args: []string{"be", "module"},
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
type module struct{ stubborn bool }

func (m *module) Describe() modkit.Description {
	return modkit.Description{Name: "test", Version: "1.2.3", Settings: json.RawMessage(`{"type":"object"}`), Wiring: json.RawMessage(`{"type":"object"}`)}
}

func (m *module) Apply(context.Context, modkit.Settings) (modkit.Applied, error) { return nil, nil }

func (m *module) Invoke(_ context.Context, method string, payload json.RawMessage) (modkit.Answer, error) {
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
	case "stdout":
		for range 10_000 {
			fmt.Println("a module that prints")
		}
		return modkit.Answer{Status: 200}, nil
	}
	return modkit.Answer{}, modkit.ErrNoMethod
}

// stderr is the real one: go-plugin replaces os.Stderr.
var stderr = os.NewFile(2, "stderr")

func (m *module) Run(ctx context.Context, bay *modkit.Bay) error {
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
	h, err := host.Open(folder)
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
