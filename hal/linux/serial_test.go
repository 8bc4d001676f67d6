//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
)

// pty is a pseudo terminal: the master is the other end of the line.
func pty(t *testing.T) (master *os.File, path string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

func openLine(t *testing.T, path string) hal.Serial {
	t.Helper()
	l, err := Serial{}.OpenSerial(t.Context(), path, hal.SerialMode{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSerialSuite(t *testing.T) {
	haltest.TestSerial(t, func(t *testing.T) haltest.SerialBench {
		master, path := pty(t)
		link := filepath.Join(t.TempDir(), "ttyCOIN") // as the rig has it
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		return haltest.SerialBench{
			Line: openLine(t, link),
			Send: func(p []byte) {
				if _, err := master.Write(p); err != nil {
					t.Error(err)
				}
			},
			Sent: func(ctx context.Context, n int) ([]byte, error) {
				deadline, _ := ctx.Deadline()
				master.SetReadDeadline(deadline)
				p := make([]byte, n)
				_, err := io.ReadFull(master, p)
				return p, err
			},
			Unplug:  func() { master.Close() },
			Stalled: func(*testing.T) {}, // nobody reads the master
		}
	})
}

func TestSerialHasOneOwner(t *testing.T) {
	_, path := pty(t)
	first := openLine(t, path)
	if _, err := (Serial{}).OpenSerial(t.Context(), path, hal.SerialMode{Baud: 300}); !errors.Is(err, hal.ErrBusy) {
		t.Errorf("a second owner: err = %v, want ErrBusy", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openLine(t, path)
}

func TestSerialMode(t *testing.T) {
	master, path := pty(t)
	l, err := Serial{}.OpenSerial(t.Context(), path, hal.SerialMode{Baud: 250000, StopBits: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rc, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		s, err := unix.IoctlGetTermios(int(fd), unix.TCGETS2)
		if err != nil || s.Ospeed != 250000 || s.Cflag&unix.CSTOPB == 0 {
			t.Errorf("termios %+v, %v; want 250000 baud and two stop bits", s, err)
		}
	})
}

func TestSerialOpenErrors(t *testing.T) {
	_, path := pty(t)
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		mode       hal.SerialMode
		want       error
	}{
		{"missing", filepath.Join(t.TempDir(), "ttyUSB0"), hal.SerialMode{}, hal.ErrGone},
		{"a file", plain, hal.SerialMode{}, hal.ErrUnsupported},
		{"a folder", t.TempDir(), hal.SerialMode{}, hal.ErrUnsupported},
		{"9 data bits", path, hal.SerialMode{DataBits: 9}, hal.ErrUnsupported},
		{"3 stop bits", path, hal.SerialMode{StopBits: 3}, hal.ErrUnsupported},
		{"negative speed", path, hal.SerialMode{Baud: -1}, hal.ErrUnsupported},
		{"odd parity value", path, hal.SerialMode{Parity: 9}, hal.ErrUnsupported},
	} {
		if l, err := (Serial{}).OpenSerial(t.Context(), c.path, c.mode); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, err = %v, want %v", c.name, l, err, c.want)
		}
	}
	openLine(t, path) // none of them kept the lock
}

// TestSerialHighDescriptor opens a line with a descriptor beyond FD_SETSIZE, where select(2) cannot go.
func TestSerialHighDescriptor(t *testing.T) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < 1200 {
		t.Skipf("only %d descriptors may be open", lim.Cur)
	}
	for range 1100 {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	master, path := pty(t)
	l := openLine(t, path)
	if _, err := master.Write([]byte{42}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var b [1]byte
	if _, err := l.Read(ctx, b[:]); err != nil || b[0] != 42 {
		t.Errorf("read %d, %v", b[0], err)
	}
}
