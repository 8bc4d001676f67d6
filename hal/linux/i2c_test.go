//go:build linux

package linux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
)

// adapter stands in for the kernel: a part at 0x76 answers 0x60.
func adapter(msgs []message) (int, error) {
	for i, m := range msgs {
		if m.addr != 0x76 {
			return i, unix.EREMOTEIO
		}
		if m.flags&i2cRead != 0 {
			p := unsafe.Slice(m.buf, m.len)
			for j := range p {
				p[j] = 0x60
			}
		}
	}
	return len(msgs), nil
}

func free(uint16) bool { return false }

func nothing() error { return nil }

func TestI2CSuite(t *testing.T) {
	haltest.TestI2C(t, func(t *testing.T) haltest.I2CBench {
		gone := false
		b := newBus(func(msgs []message) (int, error) {
			if gone {
				return 0, unix.ENODEV
			}
			return adapter(msgs)
		}, free, nothing)
		return haltest.I2CBench{Bus: b, Present: 0x76, W: []byte{0xd0}, R: []byte{0x60}, Absent: 0x51, Unplug: func() { gone = true }}
	})
}

func TestMessages(t *testing.T) {
	for _, c := range []struct {
		name  string
		w     []byte
		rlen  int
		flags []uint16
	}{
		{"write", []byte{1, 2}, 0, []uint16{0}},
		{"read", nil, 3, []uint16{i2cRead}},
		{"write, then read", []byte{1}, 2, []uint16{0, i2cRead}},
		{"probe", nil, 0, []uint16{0}},
	} {
		msgs, in := messages(0x48, c.w, c.rlen)
		if len(msgs) != len(c.flags) || len(in) != c.rlen {
			t.Errorf("%s: %d messages, buffer of %d", c.name, len(msgs), len(in))
			continue
		}
		for i, m := range msgs {
			want := len(c.w)
			if c.flags[i] == i2cRead {
				want = c.rlen
			}
			if m.addr != 0x48 || m.flags != c.flags[i] || int(m.len) != want {
				t.Errorf("%s: message %d is %+v", c.name, i, m)
			}
		}
	}
	if s := unsafe.Sizeof(message{}); s != 8+unsafe.Sizeof(uintptr(0)) {
		t.Errorf("struct i2c_msg has %d bytes", s)
	}
}

func TestI2CErrors(t *testing.T) {
	for _, c := range []struct {
		done int
		err  error
		want error
	}{
		{2, nil, nil},
		{0, nil, hal.ErrAbsent}, // virtio's no acknowledge
		{1, nil, hal.ErrAbsent},
		{0, unix.ENXIO, hal.ErrAbsent},
		{0, unix.EREMOTEIO, hal.ErrAbsent},
		{0, unix.EIO, hal.ErrAbsent},
		{0, unix.ETIMEDOUT, hal.ErrTimeout},
		{0, unix.EAGAIN, hal.ErrArbitration},
		{0, unix.ENODEV, hal.ErrGone},
		{0, unix.ENOENT, hal.ErrGone},
		{0, unix.EBUSY, hal.ErrBusy},
		{0, unix.EOPNOTSUPP, hal.ErrUnsupported},
		{0, unix.EPERM, unix.EPERM},
	} {
		err := i2cError(c.done, 2, c.err)
		if !errors.Is(err, c.want) || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%d of 2, %v: %v, want %v with the errno", c.done, c.err, err, c.want)
		}
	}
}

func TestSuspectBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		var calls, released atomic.Int32
		b := newBus(func(msgs []message) (int, error) {
			if calls.Add(1) == 1 {
				<-held
			}
			return adapter(msgs)
		}, free, func() error { released.Add(1); return nil })
		read := func(d time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			return b.Tx(ctx, 0x76, []byte{0xd0}, make([]byte, 1))
		}
		if err := read(time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stuck: err = %v, want DeadlineExceeded", err)
		}
		start := time.Now()
		if err := read(time.Second); !errors.Is(err, hal.ErrTimeout) || time.Since(start) != 0 {
			t.Errorf("next: %v after %v, want ErrTimeout at once", err, time.Since(start))
		}
		if calls.Load() != 1 {
			t.Errorf("%d ioctls while one was stuck, want 1", calls.Load())
		}
		close(held)
		synctest.Wait()
		if err := read(time.Second); err != nil || calls.Load() != 2 {
			t.Errorf("after it came back: %v, %d ioctls", err, calls.Load())
		}
		if b.Close(); released.Load() != 1 {
			t.Errorf("released %d times, want 1", released.Load())
		}
	})
}

func TestCloseWhileStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		var released atomic.Int32
		b := newBus(func([]message) (int, error) { <-held; return 1, nil }, free, func() error { released.Add(1); return nil })
		go b.Tx(t.Context(), 0x76, []byte{1}, nil)
		synctest.Wait()
		if err := b.Close(); err != nil || released.Load() != 0 {
			t.Errorf("Close = %v, released %d times while an ioctl runs", err, released.Load())
		}
		close(held)
		synctest.Wait()
		if released.Load() != 1 {
			t.Errorf("released %d times, want 1", released.Load())
		}
	})
}

func TestWaitsForTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(func(msgs []message) (int, error) {
			time.Sleep(10 * time.Millisecond)
			return adapter(msgs)
		}, free, nothing)
		done := make(chan error, 3)
		start := time.Now()
		for range 3 {
			go func() { done <- b.Tx(t.Context(), 0x76, []byte{0xd0}, make([]byte, 1)) }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(start); d != 30*time.Millisecond {
			t.Errorf("three transactions took %v, want 30ms: one after the other", d)
		}
	})
}

func TestSysfs(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("i2c-1/name", "bcm2835 (i2c@7e804000)\n")
	write("i2c-20/name", "twin\n")
	write("i2c-21/name", "twin\n")
	write("1-0068/driver/x", "")
	write("1-0076/name", "no driver")
	if path, err := adapterByName(dir, "bcm2835 (i2c@7e804000)"); err != nil || path != "/dev/i2c-1" {
		t.Errorf("by name: %q, %v", path, err)
	}
	if _, err := adapterByName(dir, "other"); !errors.Is(err, hal.ErrGone) || !strings.Contains(err.Error(), "bcm2835") {
		t.Errorf("unknown name: err = %v, want ErrGone and what there is", err)
	}
	if _, err := adapterByName(dir, "twin"); !errors.Is(err, hal.ErrBadURI) {
		t.Errorf("name of two: err = %v, want ErrBadURI", err)
	}
	if _, err := adapterByName(filepath.Join(dir, "none"), "x"); !errors.Is(err, hal.ErrGone) {
		t.Errorf("no I²C: err = %v, want ErrGone", err)
	}
	b := newBus(adapter, func(a uint16) bool { return kernelOwns(dir, 1, a) }, nothing)
	if err := b.Tx(t.Context(), 0x68, []byte{0}, make([]byte, 1)); !errors.Is(err, hal.ErrBusy) {
		t.Errorf("the kernel's clock: err = %v, want ErrBusy", err)
	}
	if err := b.Tx(t.Context(), 0x76, []byte{0}, make([]byte, 1)); err != nil {
		t.Errorf("free address: %v", err)
	}
}

func TestI2COpenErrors(t *testing.T) {
	if _, err := (I2C{}).OpenI2C(t.Context(), filepath.Join(t.TempDir(), "i2c-1")); !errors.Is(err, hal.ErrGone) {
		t.Errorf("missing: err = %v, want ErrGone", err)
	}
	if _, err := (I2C{}).OpenI2C(t.Context(), "/dev/null"); !errors.Is(err, hal.ErrUnsupported) {
		t.Errorf("/dev/null: err = %v, want ErrUnsupported", err)
	}
}
