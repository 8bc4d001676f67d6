package main

import (
	"fmt"
	"syscall"
)

// raiseOpenFiles raises how many files a process may have open to the hard limit, for this process and those that it
// starts, and says what to do if need is more than that. Each connection is one on both sides.
func raiseOpenFiles(need uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	limit.Cur = limit.Max // Go has done so for this process, but starts others with what it found
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files to the hard limit, %d: %w", limit.Max, err)
	}
	if limit.Max < need {
		return fmt.Errorf("a process may have %d files open here (ulimit -Hn) and this needs %d: "+
			"raise the hard limit, as with LimitNOFILE= in a systemd unit or nofile in /etc/security/limits.conf, and run it again", limit.Max, need)
	}
	return nil
}
