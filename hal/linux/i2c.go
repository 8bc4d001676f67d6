//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/twinbay/twinbay/hal"
)

// i2cSysfs lists the adapters and the devices that kernel drivers hold.
const i2cSysfs = "/sys/bus/i2c/devices"

// maxMessage is i2c-dev's limit for one message (drivers/i2c/i2c-dev.c, i2cdev_ioctl_rdwr).
const maxMessage = 8192

// I2C opens the adapters of scheme i2c: by device node (/dev/i2c-1, or a udev link to it) or by the name that
// /sys/bus/i2c/devices/i2c-1/name shows, which does not change with the order of discovery.
type I2C struct{ none }

// OpenI2C implements hal.Driver.
func (I2C) OpenI2C(ctx context.Context, target string) (hal.I2C, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := target
	if !strings.HasPrefix(target, "/") {
		var err error
		if path, err = adapterByName(i2cSysfs, target); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, i2cOpenError(err)
	}
	number, err := adapterNumber(fd)
	if err == nil {
		err = boundTransfers(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newBus(
		func(msgs []message) (int, error) { return rdwr(fd, msgs) },
		func(addr uint16) bool { return kernelOwns(i2cSysfs, number, addr) },
		func() error { return unix.Close(fd) },
	), nil
}

// adapterByName finds the device node of the adapter with that name.
func adapterByName(sysfs, name string) (string, error) {
	entries, err := os.ReadDir(sysfs)
	if err != nil {
		return "", fmt.Errorf("no I²C here, is the bus enabled (dtparam=i2c_arm=on) and i2c-dev loaded? %w (%w)", hal.ErrGone, err)
	}
	var found, have []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "i2c-") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(sysfs, e.Name(), "name"))
		if err != nil {
			continue // it went while we looked
		}
		n := strings.TrimSpace(string(b))
		have = append(have, fmt.Sprintf("%q", n))
		if n == name {
			found = append(found, "/dev/"+e.Name())
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("no I²C adapter has this name; here are %s: %w", strings.Join(have, ", "), hal.ErrGone)
	}
	return "", fmt.Errorf("%w: this name is that of %s; write the one you mean", hal.ErrBadURI, strings.Join(found, " and "))
}

// adapterNumber is N of /dev/i2c-N, whatever the node's name is: i2c-dev's minor number.
func adapterNumber(fd int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	const i2cMajor = 89 // Documentation/admin-guide/devices.txt
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(uint64(st.Rdev)) != i2cMajor {
		return 0, fmt.Errorf("not an I²C adapter's device node: %w", hal.ErrUnsupported)
	}
	return int(unix.Minor(uint64(st.Rdev))), nil
}

// kernelOwns says whether a kernel driver is bound to the address. I2C_RDWR, unlike I2C_SLAVE, would let us through.
func kernelOwns(sysfs string, number int, addr uint16) bool {
	_, err := os.Lstat(filepath.Join(sysfs, fmt.Sprintf("%d-%04x", number, addr), "driver"))
	return err == nil
}

func i2cOpenError(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (is the user in group i2c?): %w", hal.ErrDenied, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("no such adapter, is the bus enabled and i2c-dev loaded? %w (%w)", hal.ErrGone, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", hal.ErrBusy, err)
	}
	return err
}

// bus is an open adapter. A transfer runs on a goroutine of its own, because an ioctl cannot be interrupted: when ctx
// ends first, the bus is suspect, and no second ioctl is started while the first is stuck.
type bus struct {
	transfer func([]message) (int, error)
	owned    func(addr uint16) bool
	release  func() error

	mu      sync.Mutex
	idle    chan struct{} // closed while no transfer runs
	suspect bool          // the one that runs has been given up
	closed  bool
	free    map[uint16]bool // addresses found free of kernel drivers
}

func newBus(transfer func([]message) (int, error), owned func(uint16) bool, release func() error) *bus {
	idle := make(chan struct{})
	close(idle)
	return &bus{transfer: transfer, owned: owned, release: release, idle: idle, free: make(map[uint16]bool)}
}

// Tx implements hal.I2C.
func (b *bus) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if addr > 0x7f {
		return fmt.Errorf("address %#x has more than 7 bits: %w", addr, hal.ErrUnsupported)
	}
	if len(w) > maxMessage || len(r) > maxMessage {
		return fmt.Errorf("write %d and read %d bytes, at most %d go in one message: %w", len(w), len(r), maxMessage, hal.ErrUnsupported)
	}
	if err := b.tx(ctx, addr, w, r); err != nil {
		return fmt.Errorf("write %d, read %d at %#02x: %w", len(w), len(r), addr, err)
	}
	return nil
}

func (b *bus) tx(ctx context.Context, addr uint16, w, r []byte) error {
	idle, err := b.acquire(ctx, addr)
	if err != nil {
		return err
	}
	// The buffers are copies: a transfer that is given up may write into them much later.
	msgs, in := messages(addr, w, len(r))
	result := make(chan error, 1)
	go func() {
		n, err := b.transfer(msgs)
		b.done(idle)
		result <- i2cError(n, len(msgs), err)
	}()
	select {
	case err := <-result:
		if err == nil {
			copy(r, in)
		}
		return err
	case <-ctx.Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		select {
		case <-idle: // it came back just now
		default:
			b.suspect = true
		}
		return ctx.Err()
	}
}

// acquire waits for the bus and takes it, until done.
func (b *bus) acquire(ctx context.Context, addr uint16) (chan struct{}, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.mu.Lock()
		idle := b.idle
		select {
		case <-idle:
			defer b.mu.Unlock()
			return b.start(addr)
		default:
		}
		suspect, closed := b.suspect, b.closed
		b.mu.Unlock()
		if closed {
			return nil, hal.ErrClosed
		}
		if suspect {
			return nil, fmt.Errorf("an earlier transaction still holds the bus: %w", hal.ErrTimeout)
		}
		select {
		case <-ctx.Done():
		case <-idle:
		}
	}
}

// start marks the bus as taken. The lock is held.
func (b *bus) start(addr uint16) (chan struct{}, error) {
	if b.closed {
		return nil, hal.ErrClosed
	}
	if !b.free[addr] {
		if b.owned(addr) {
			return nil, fmt.Errorf("a kernel driver is bound to the address (see %s): %w", i2cSysfs, hal.ErrBusy)
		}
		b.free[addr] = true
	}
	b.idle = make(chan struct{})
	return b.idle, nil
}

// done lets the bus go.
func (b *bus) done(idle chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.suspect = false
	close(idle)
	if b.closed {
		b.release() // Close has returned, there is nobody to tell
	}
}

// Close implements hal.I2C. An open descriptor keeps a pulled adapter alive in the kernel; a stuck transfer keeps the
// descriptor until it returns.
func (b *bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	select {
	case <-b.idle:
		return b.release()
	default:
		return nil
	}
}
