package systemd

import (
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func env(m map[string]string) func(string) string { return func(name string) string { return m[name] } }

// manager is a service manager's socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSend(t *testing.T) {
	folder, err := os.MkdirTemp("", "sd") // a unix socket's path is at most 107 bytes long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	for _, name := range []string{filepath.Join(folder, "notify"), fmt.Sprintf("@twinbay-test-%d", os.Getpid())} {
		c := manager(t, name)
		n, err := New(env(map[string]string{"NOTIFY_SOCKET": name}))
		if err != nil {
			t.Fatal(err)
		}
		for _, send := range []struct {
			states []string
			want   string
		}{
			{[]string{Ready}, "READY=1"},
			{[]string{Ready, Status("3 components run")}, "READY=1\nSTATUS=3 components run"},
			{[]string{Reloading(1500 * time.Microsecond)}, "RELOADING=1\nMONOTONIC_USEC=1500"},
			{[]string{Status("coins\nREADY=1\x00")}, "STATUS=coins READY=1 "},
			{[]string{Alive}, "WATCHDOG=1"},
			{[]string{Stopping}, "STOPPING=1"},
		} {
			if err := n.Send(send.states...); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 500)
			size, err := c.Read(buf)
			if err != nil || string(buf[:size]) != send.want {
				t.Errorf("%s: got %q, %v; want %q", name, buf[:size], err, send.want)
			}
		}
	}
}

func TestNoManager(t *testing.T) {
	n, err := New(env(nil))
	if n != nil || err != nil {
		t.Fatalf("without a socket: %v, %v", n, err)
	}
	if err := n.Send(Ready); err != nil {
		t.Errorf("nobody to tell: %v", err)
	}
	for _, wrong := range []string{"notify", "/", "@", "host:1", "vsock:2:1234"} {
		if n, err := New(env(map[string]string{"NOTIFY_SOCKET": wrong})); n != nil || err == nil {
			t.Errorf("%q is taken: %v, %v", wrong, n, err)
		}
	}
	n, err = New(env(map[string]string{"NOTIFY_SOCKET": "/nonexistent/notify"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Send(Ready); err == nil || !strings.Contains(err.Error(), "/nonexistent/notify") {
		t.Errorf("a manager that is gone: %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		wrong     bool
	}{
		{"", "", 0, false},
		{"60000000", "", time.Minute, false},
		{"60000000", "42", time.Minute, false},
		{"60000000", "43", 0, false}, // of another process
		{"", "42", 0, false},
		{"0", "42", 0, true},
		{"-5", "", 0, true},
		{"1e6", "", 0, true},
		{"99999999999999999999", "", 0, true},
		{fmt.Sprint(uint64(math.MaxUint64)), "", 0, true},
	} {
		got, err := Watchdog(env(map[string]string{"WATCHDOG_USEC": c.usec, "WATCHDOG_PID": c.pid}), 42)
		if got != c.want || (err != nil) != c.wrong {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, %v; want %v", c.usec, c.pid, got, err, c.want)
		}
	}
}

func FuzzWatchdog(f *testing.F) {
	f.Add("60000000", "42")
	f.Add("-1", "")
	f.Add("9223372036854775807", "0042")
	f.Fuzz(func(t *testing.T, usec, pid string) {
		got, err := Watchdog(env(map[string]string{"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}), 42)
		if got < 0 || got > maxWatchdog || err != nil && got != 0 {
			t.Errorf("%q, %q: %v, %v", usec, pid, got, err)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add("3 components run")
	f.Add("a\nWATCHDOG=1")
	f.Fuzz(func(t *testing.T, text string) {
		if s := Status(text); strings.Count(s, "\n") > 0 || !strings.HasPrefix(s, "STATUS=") {
			t.Errorf("%q becomes %q", text, s)
		}
	})
}
