package modkit

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// parentGone returns when process ppid is not this process's parent any more. The kernel's parent-death signal
// follows the thread that forked and may come early or never; a pidfd (Linux 5.3) follows the process. Where a
// sandbox or an old kernel has no pidfd, it looks once a second.
func parentGone(ppid int) {
	fd, err := unix.PidfdOpen(ppid, 0)
	if err != nil {
		watchParent(ppid)
		return
	}
	defer unix.Close(fd)
	for os.Getppid() == ppid {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			watchParent(ppid)
			return
		}
		if fds[0].Revents != 0 {
			return // it has exited; the kernel gives this process a new parent in a moment
		}
	}
}
