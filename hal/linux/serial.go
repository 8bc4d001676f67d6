//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"github.com/twinbay/twinbay/hal"
)

// Serial opens the serial lines of scheme serial: the path of a tty, best one below /dev/serial/by-id.
type Serial struct{ none }

// OpenSerial implements hal.Driver.
//
// go.bug.st/serial sets the line up and flushes it. The bytes go through a descriptor of our own, non-blocking and
// watched by the runtime's poller, because the library's own Read panics on descriptors from 1024 on
// (github.com/bugst/go-serial issue 128), its Write can be ended by nothing, not even Close, and its Close lets the
// descriptor go before the readers have left it.
func (Serial) OpenSerial(ctx context.Context, target string, mode hal.SerialMode) (hal.Serial, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := libraryMode(mode)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(target, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, serialOpenError(err)
	}
	// The lock comes before the set-up, so that a second owner cannot even change the speed. It is flock and not
	// TIOCEXCL because that one does not hold against root, and the first open and close by root ends it.
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("another program holds the line (fuser -v %s names it): %w", target, hal.ErrBusy)
		}
		return nil, fmt.Errorf("lock the line: %w", err)
	}
	// Through /proc the library gets the very device that is locked, whatever the path's symlink says by now. No
	// InitialStatusBits: a pty has no modem lines and the open would fail.
	port, err := serial.Open(fmt.Sprintf("/proc/self/fd/%d", fd), m)
	if err != nil {
		unix.Close(fd)
		return nil, serialOpenError(err)
	}
	f := os.NewFile(uintptr(fd), target)
	if err := f.SetDeadline(time.Time{}); err != nil {
		port.Close()
		f.Close()
		return nil, fmt.Errorf("the device cannot be waited for (%w): %w", err, hal.ErrUnsupported)
	}
	return &line{file: f, port: port, reading: make(chan struct{}, 1), writing: make(chan struct{}, 1)}, nil
}

func libraryMode(mode hal.SerialMode) (*serial.Mode, error) {
	m := &serial.Mode{BaudRate: mode.Baud, DataBits: mode.DataBits}
	if m.BaudRate == 0 {
		m.BaudRate = 9600
	}
	if m.DataBits == 0 {
		m.DataBits = 8
	}
	if m.BaudRate < 0 || m.DataBits < 5 || m.DataBits > 8 {
		return nil, fmt.Errorf("%d baud with %d data bits: %w", mode.Baud, mode.DataBits, hal.ErrUnsupported)
	}
	switch mode.Parity {
	case hal.NoParity:
		m.Parity = serial.NoParity
	case hal.OddParity:
		m.Parity = serial.OddParity
	case hal.EvenParity:
		m.Parity = serial.EvenParity
	default:
		return nil, fmt.Errorf("parity %d: %w", mode.Parity, hal.ErrUnsupported)
	}
	switch mode.StopBits {
	case 0, 1:
		m.StopBits = serial.OneStopBit
	case 2:
		m.StopBits = serial.TwoStopBits
	default:
		return nil, fmt.Errorf("%d stop bits: %w", mode.StopBits, hal.ErrUnsupported)
	}
	return m, nil
}

func serialOpenError(err error) error {
	var pe *serial.PortError
	code := serial.PortErrorCode(-1)
	if errors.As(err, &pe) {
		code = pe.Code()
	}
	switch {
	case errors.Is(err, unix.EBUSY), code == serial.PortBusy:
		return fmt.Errorf("%w: %w", hal.ErrBusy, err)
	case errors.Is(err, fs.ErrPermission), code == serial.PermissionDenied:
		return fmt.Errorf("%w (is the user in group dialout?): %w", hal.ErrDenied, err)
	// EIO is a tty whose other end has hung up.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: %w", hal.ErrGone, err)
	case code == serial.InvalidSerialPort, errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EISDIR):
		return fmt.Errorf("not a serial line (%w): %w", err, hal.ErrUnsupported)
	}
	return err
}

// line is an open serial line.
type line struct {
	file   *os.File    // the bytes, and the lock
	port   serial.Port // the settings
	closed atomic.Bool

	reading, writing chan struct{} // hold a token while a call is under way
}

// Read implements hal.Serial.
func (l *line) Read(ctx context.Context, p []byte) (int, error) {
	n := 0
	err := l.during(ctx, l.reading, l.file.SetReadDeadline, func() (err error) {
		n, err = l.file.Read(p)
		if n > 0 {
			return nil // an error will come again
		}
		return err
	})
	if err != nil {
		return 0, l.kind("read", err)
	}
	return n, nil
}

// Write implements hal.Serial.
func (l *line) Write(ctx context.Context, p []byte) error {
	done := 0
	err := l.during(ctx, l.writing, l.file.SetWriteDeadline, func() error {
		n, err := l.file.Write(p[done:])
		done += n
		return err
	})
	if err != nil {
		return l.kind(fmt.Sprintf("write: %d of %d bytes are out", done, len(p)), err)
	}
	return nil
}

// Flush implements hal.Serial.
func (l *line) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.closed.Load() {
		return hal.ErrClosed
	}
	if err := l.port.ResetInputBuffer(); err != nil {
		return l.kind("flush", err)
	}
	return nil
}

// Close implements hal.Serial. It ends the calls under way.
func (l *line) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	return errors.Join(l.port.Close(), l.file.Close())
}

// during runs io while it holds the token, and makes the end of ctx end it.
func (l *line) during(ctx context.Context, token chan struct{}, setDeadline func(time.Time) error, io func() error) error {
	select {
	case token <- struct{}{}:
		defer func() { <-token }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := setDeadline(time.Time{}); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		setDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	err := io()
	if !stop() {
		<-interrupted // or it would hit the next call
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// kind tells an unplugged line from one that this process closed: the kernel's answers are the same.
func (l *line) kind(op string, err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case l.closed.Load():
		err = hal.ErrClosed
	case errors.Is(err, io.EOF), errors.Is(err, unix.EIO), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		err = fmt.Errorf("%w (%w)", hal.ErrGone, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
