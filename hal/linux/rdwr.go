//go:build linux

package linux

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/twinbay/twinbay/hal"
)

// Requests and flags of linux/i2c-dev.h and linux/i2c.h.
const (
	i2cRetries = 0x0701
	i2cTimeout = 0x0702 // in units of 10 ms
	i2cRDWR    = 0x0707
	i2cRead    = 0x0001
)

// message is struct i2c_msg of linux/i2c.h.
type message struct {
	addr  uint16
	flags uint16
	len   uint16
	buf   *byte
}

// transaction is struct i2c_rdwr_ioctl_data of linux/i2c-dev.h.
type transaction struct {
	msgs  *message
	count uint32
}

// messages makes the transfer's messages and the buffer that it reads into.
func messages(addr uint16, w []byte, rlen int) ([]message, []byte) {
	var msgs []message
	in := make([]byte, rlen)
	if len(w) > 0 || rlen == 0 { // a write of nothing is the probe
		out := append([]byte(nil), w...)
		msgs = append(msgs, message{addr: addr, len: uint16(len(w)), buf: unsafe.SliceData(out)})
	}
	if rlen > 0 {
		msgs = append(msgs, message{addr: addr, flags: i2cRead, len: uint16(rlen), buf: unsafe.SliceData(in)})
	}
	return msgs, in
}

// rdwr returns the number of messages done.
func rdwr(fd int, msgs []message) (int, error) {
	t := &transaction{msgs: unsafe.SliceData(msgs), count: uint32(len(msgs))}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), i2cRDWR, uintptr(unsafe.Pointer(t)))
	runtime.KeepAlive(msgs)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// boundTransfers limits what a transfer may take in the kernel: an ioctl cannot be cancelled, and the default timeout
// is a second for each message on most adapters.
func boundTransfers(fd int) error {
	if err := unix.IoctlSetInt(fd, i2cTimeout, 20); err != nil {
		return fmt.Errorf("set the adapter's timeout: %w", err)
	}
	if err := unix.IoctlSetInt(fd, i2cRetries, 1); err != nil { // after lost arbitration
		return fmt.Errorf("set the adapter's retries: %w", err)
	}
	return nil
}

// i2cError gives an errno its kind. Adapters differ: where nothing acknowledges, bcm2835 says EREMOTEIO, aspeed ENXIO,
// others EIO, and virtio says success with fewer messages done than asked.
func i2cError(done, asked int, err error) error {
	var kind error
	switch {
	case err == nil && done == asked:
		return nil
	case err == nil:
		return fmt.Errorf("%w (%d of %d messages done)", hal.ErrAbsent, done, asked)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.EREMOTEIO), errors.Is(err, unix.EIO):
		kind = hal.ErrAbsent
	case errors.Is(err, unix.ETIMEDOUT):
		kind = hal.ErrTimeout
	case errors.Is(err, unix.EAGAIN):
		kind = hal.ErrArbitration
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESHUTDOWN):
		kind = hal.ErrGone
	case errors.Is(err, unix.EBUSY):
		kind = hal.ErrBusy
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		kind = hal.ErrUnsupported
	default:
		return err
	}
	return fmt.Errorf("%w (%w)", kind, err)
}
