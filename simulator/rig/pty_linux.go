package rig

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openPTY makes a raw pseudo terminal. Both files are non-blocking and known to the runtime's poller: Close ends a read.
// Source: ptmx(4), ioctl_tty(2).
func openPTY() (master, slave *os.File, path string, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, "", fmt.Errorf("open /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, "", fmt.Errorf("unlock the pty: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, "", fmt.Errorf("ask for the pty's number: %w", err)
	}
	path = fmt.Sprintf("/dev/pts/%d", n)
	sfd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, "", fmt.Errorf("open %s: %w", path, err)
	}
	slave = os.NewFile(uintptr(sfd), path)
	err = makeRaw(sfd)
	if err == nil {
		err = unix.Fchmod(sfd, 0o600) // devpts lets the group tty write
	}
	if err != nil {
		slave.Close()
		return nil, nil, "", fmt.Errorf("set up %s: %w", path, err)
	}
	return master, slave, path, nil
}

// makeRaw keeps the line discipline from echoing and translating: termios(3), cfmakeraw.
func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB|unix.CBAUD) | unix.CS8 | unix.B9600
	t.Ispeed, t.Ospeed = 9600, 9600
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// baudOf is what the program set on its side; 0 if that cannot be found out.
func baudOf(slave *os.File) (baud uint32) {
	rc, err := slave.SyscallConn()
	if err != nil {
		return 0
	}
	rc.Control(func(fd uintptr) {
		if s, err := unix.IoctlGetTermios(int(fd), unix.TCGETS2); err == nil {
			baud = s.Ospeed
		}
	})
	return baud
}
