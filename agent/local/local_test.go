package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is an agent of a test.
type machine struct {
	logs  *Logs
	block chan struct{} // Invoke waits for it, when there is one

	badFile bool
}

func (m *machine) Status() Status {
	return Status{Device: "vending-1", Started: time.Unix(1000, 0).UTC(), Components: []Component{{
		Name: "climate", ModuleID: "climate", Process: Process{PID: 7, State: Running},
		Last: Reading{Body: json.RawMessage(`{"t":1.50}`)}, Queue: Queue{Dropped: map[string]uint64{"full": 2}},
	}}}
}

func (m *machine) Twin(_ context.Context, component string) (TwinView, error) {
	if component != "climate" {
		return TwinView{}, fmt.Errorf("%q: %w", component, ErrNoComponent)
	}
	return TwinView{Component: component, Desired: json.RawMessage(`{"a":1.0}`), DesiredVersion: 7}, nil
}

func (m *machine) Invoke(ctx context.Context, component, method string, payload json.RawMessage) (int, json.RawMessage, error) {
	if m.block != nil {
		select {
		case <-m.block:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
	switch method {
	case "dead":
		return 0, nil, fmt.Errorf("%s: %w", component, ErrNotRunning)
	case "late":
		return 0, nil, fmt.Errorf("%s: %w", component, context.DeadlineExceeded)
	case "odd":
		return 0, nil, errors.New("something odd")
	case "silent":
		return 204, nil, nil
	}
	return 200, json.RawMessage(fmt.Sprintf(`{"method":%q,"payload":%q}`, method, payload)), nil
}

func (m *machine) Resume(context.Context) error {
	if m.badFile {
		return ErrNotSafe
	}
	return nil
}

func (m *machine) Restart(_ context.Context, component string) (Restarted, error) {
	if component != "climate" {
		return Restarted{}, ErrNoComponent
	}
	return Restarted{Component: component, Was: Quarantined}, nil
}

func (m *machine) Reload(context.Context) (Reloaded, error) {
	if m.badFile {
		return Reloaded{}, fmt.Errorf("%w: device.toml:3:1: unknown key", ErrInvalidFile)
	}
	return Reloaded{Added: []string{"cooling"}, Kept: map[string]int{"door": 3}}, nil
}

func (m *machine) Messages(context.Context) ([]CloudMessage, error) {
	return []CloudMessage{{Number: 7, ID: "a/b c", Received: time.Unix(1, 0).UTC(), Body: json.RawMessage(`{"a":1}`)}}, nil
}

func (m *machine) Dismiss(_ context.Context, which string) error {
	if which != "a/b c" && which != "7" {
		return ErrNoMessage
	}
	return nil
}

func (m *machine) Logs(ctx context.Context, q LogQuery) (<-chan LogLine, error) {
	if q.Component == "nobody" {
		return nil, ErrNoComponent
	}
	return m.logs.Query(ctx, q), nil
}

var quiet = slog.New(slog.DiscardHandler)

// serve starts an agent's API in a folder of its own and answers its socket.
func serve(t *testing.T, m *machine) (path string, stop func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "twinbay.sock")
	l, err := Listen(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, m) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { stop() })
	return path, stop
}

func TestAPI(t *testing.T) {
	path, stop := serve(t, &machine{logs: NewLogs(0)})
	c := Dial(path)
	defer c.Close()
	ctx := t.Context()

	s, err := c.Status(ctx)
	if err != nil || s.Device != "vending-1" || len(s.Components) != 1 || s.Components[0].Process.PID != 7 ||
		string(s.Components[0].Last.Body) != `{"t":1.50}` || s.Components[0].Queue.Dropped["full"] != 2 || !s.Started.Equal(time.Unix(1000, 0)) {
		t.Errorf("status %+v, %v", s, err)
	}
	tw, err := c.Twin(ctx, "climate")
	if err != nil || string(tw.Desired) != `{"a":1.0}` || tw.DesiredVersion != 7 {
		t.Errorf("twin %+v, %v", tw, err)
	}
	m, err := c.Invoke(ctx, "climate", "read now/please?", json.RawMessage(`{"x":1}`))
	if err != nil || m.Status != 200 || string(m.Payload) != `{"method":"read now/please?","payload":"{\"x\":1}"}` {
		t.Errorf("method %+v, %v", m, err)
	}
	if m, err = c.Invoke(ctx, "climate", "silent", nil); err != nil || m.Status != 204 || m.Payload != nil {
		t.Errorf("method without an answer %+v, %v", m, err)
	}
	for method, want := range map[string]error{"dead": ErrNotRunning, "late": ErrTimeout} {
		if _, err := c.Invoke(ctx, "climate", method, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", method, err, want)
		}
	}
	if _, err = c.Invoke(ctx, "climate", "odd", nil); err == nil || err.Error() != "something odd" {
		t.Errorf("odd: %v", err)
	}
	if _, err = c.Twin(ctx, "nobody"); !errors.Is(err, ErrNoComponent) || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("unknown component: %v", err)
	}
	if err = c.Logs(ctx, LogQuery{Component: "nobody"}, nil); !errors.Is(err, ErrNoComponent) {
		t.Errorf("log of an unknown component: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v, want nil as asked", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	h := Handler(&machine{logs: NewLogs(0)})
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/components/a/methods/b", `{"x":`, 400},
		{"POST", "/v1/components/a/methods/b", strings.Repeat(" ", maxPayload) + "1", 413},
		{"GET", "/v1/components/a/methods/b", ``, 405},
		{"GET", "/v1/logs?lines=x", ``, 400},
		{"GET", "/v2/status", ``, 404},
		{"DELETE", "/v1/status", ``, 405},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.status)
		}
	}
}

// Somebody who follows the log, or a method that hangs, must not hold up the agent's end.
func TestStopWithOpenRequests(t *testing.T) {
	m := &machine{logs: NewLogs(0), block: make(chan struct{})}
	path, stop := serve(t, m)
	c := Dial(path)
	defer c.Close()
	slog.New(m.logs.Handler(slog.DiscardHandler)).Info("never kept: the handler discards it")
	log := slog.New(m.logs.Handler(slog.NewTextHandler(io.Discard, nil)))
	log.Info("first")
	got, ends := make(chan string, 10), make(chan error, 2)
	go func() {
		ends <- c.Logs(t.Context(), LogQuery{Follow: true}, func(l LogLine) error {
			got <- l.Text
			return nil
		})
	}()
	if text := <-got; text != "first" {
		t.Errorf("first line %q", text)
	}
	log.Info("second")
	if text := <-got; text != "second" {
		t.Errorf("second line %q", text)
	}
	go func() {
		if _, err := c.Invoke(t.Context(), "climate", "hang", nil); err == nil {
			t.Error("a hanging method was answered")
		}
		ends <- nil
	}()
	begin := time.Now()
	stop()
	for range 2 {
		<-ends
	}
	if took := time.Since(begin); took > 1500*time.Millisecond {
		t.Errorf("ending took %s", took)
	}
}

func TestFollowEndsWithItsCaller(t *testing.T) {
	path, _ := serve(t, &machine{logs: NewLogs(0)})
	c := Dial(path)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Logs(ctx, LogQuery{Follow: true}, nil); err != nil {
		t.Errorf("Logs: %v, want nil: its caller ended it", err)
	}
}

func TestListenIsPrivate(t *testing.T) {
	path, _ := serve(t, &machine{})
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", p, info.Mode(), err, want)
		}
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(open, "s"), quiet); err == nil || !strings.Contains(err.Error(), "chmod 700 "+open) {
		t.Errorf("a folder that others may enter: %v, want the next step", err)
	}
	if !allowed(1000, 1000) || !allowed(0, 1000) || allowed(1001, 1000) || allowed(1000, 0) || allowed(-1, 1000) {
		t.Error("allowed are the agent's user and root alone")
	}
}

// The kernel says who is at the other end.
func TestPeer(t *testing.T) {
	path, _ := serve(t, &machine{})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if uid, err := peer(c.(*net.UnixConn)); uid != os.Getuid() || err != nil {
		t.Errorf("peer %d, %v; want %d", uid, err, os.Getuid())
	}
}

func TestListenTwice(t *testing.T) {
	path, stop := serve(t, &machine{})
	if _, err := Listen(path, quiet); err == nil || !strings.Contains(err.Error(), "another agent serves") {
		t.Errorf("a living socket: %v", err)
	}
	if _, err := Dial(path).Status(t.Context()); err != nil {
		t.Errorf("the living agent is gone: %v", err)
	}
	stop()
	// An agent that was killed leaves its socket: nothing listens behind it.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("client of a killed agent: %v", err)
	}
	again, err := Listen(path, quiet)
	if err != nil {
		t.Fatalf("the socket of a killed agent: %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, quiet); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestClientSaysWhatToDo(t *testing.T) {
	_, err := Dial(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is twinbay running? start it with: twinbay run") {
		t.Errorf("no socket: %v", err)
	}
	for cause, want := range map[error]string{
		syscall.EACCES: "belongs to another user",
		io.EOF:         "ask the agent at /s: EOF",
	} {
		if got := Dial("/s").explain(fmt.Errorf("dial: %w", cause)); !strings.Contains(got.Error(), strings.TrimPrefix(want, "ask the agent at /s: ")) {
			t.Errorf("%v: %v, want %q in it", cause, got, want)
		}
	}
	for body, want := range map[string]string{
		`{"error":"no","code":"new-code"}`: "no",
		`nonsense`:                         "the agent answered 500 internal server error; do agent and command line have the same version?",
	} {
		res := &http.Response{StatusCode: 500, Status: "500 Internal Server Error", Body: io.NopCloser(bytes.NewBufferString(body))}
		if got := failed(res); got.Error() != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// Fuzzed answers and requests: nothing that comes over the socket may panic either side.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/components/a/methods/b", `{"x":1}`)
	f.Add("GET", "/v1/logs?component=%00&lines=-5", "")
	h := Handler(&machine{logs: NewLogs(2)})
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequest(method, "http://twinbay"+path, strings.NewReader(body))
		if err != nil || strings.Contains(path, "follow") {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && !strings.Contains(path, "methods/") {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		if w.Code >= 400 {
			failed(w.Result())
		}
	})
}

func TestResume(t *testing.T) {
	for _, normal := range []bool{false, true} {
		path, stop := serve(t, &machine{logs: NewLogs(0), badFile: normal})
		c := Dial(path)
		if err := c.Resume(t.Context()); errors.Is(err, ErrNotSafe) != normal {
			t.Errorf("normal mode %v: %v", normal, err)
		}
		c.Close()
		stop()
	}
}

func TestRestart(t *testing.T) {
	path, _ := serve(t, &machine{logs: NewLogs(0)})
	c := Dial(path)
	defer c.Close()
	if r, err := c.Restart(t.Context(), "climate"); err != nil || r != (Restarted{Component: "climate", Was: Quarantined}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := c.Restart(t.Context(), "nobody"); !errors.Is(err, ErrNoComponent) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestReload(t *testing.T) {
	for _, bad := range []bool{false, true} {
		path, stop := serve(t, &machine{logs: NewLogs(0), badFile: bad})
		c := Dial(path)
		r, err := c.Reload(t.Context())
		if bad {
			if !errors.Is(err, ErrInvalidFile) || !strings.Contains(err.Error(), "device.toml:3:1: unknown key") {
				t.Errorf("%v, want the file's error as ErrInvalidFile", err)
			}
		} else if err != nil || len(r.Added) != 1 || r.Kept["door"] != 3 {
			t.Errorf("%+v, %v", r, err)
		}
		c.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestMessages(t *testing.T) {
	path, _ := serve(t, &machine{logs: NewLogs(0)})
	c := Dial(path)
	defer c.Close()
	got, err := c.Messages(t.Context())
	if err != nil || len(got) != 1 || got[0].Number != 7 || got[0].ID != "a/b c" || string(got[0].Body) != `{"a":1}` {
		t.Errorf("%+v, %v", got, err)
	}
	for _, which := range []string{"7", "a/b c"} {
		if err := c.Dismiss(t.Context(), which); err != nil {
			t.Errorf("dismiss %s: %v", which, err)
		}
	}
	if err := c.Dismiss(t.Context(), "8"); !errors.Is(err, ErrNoMessage) {
		t.Errorf("dismiss what is not there: %v", err)
	}
}
