//go:build unix

package journal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// openLocked opens or makes a state file that no other process has.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("journal: state file: %w", err)
		}
		if err := lock(f, path); err != nil {
			f.Close()
			return nil, err
		}
		// The one who had it may have put a new file in its place in between.
		mine, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, named) {
			return f, nil
		}
		f.Close()
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("journal: state file: %w", err)
		}
	}
}

// createLocked makes a file that is locked before it has the state file's name.
func createLocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f, path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func lock(f *os.File, path string) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("journal: state file %s: another twinbay-sim has it; end that one, or name another file", path)
	}
	if err != nil {
		return fmt.Errorf("journal: state file %s: lock: %w", path, err)
	}
	return nil
}
