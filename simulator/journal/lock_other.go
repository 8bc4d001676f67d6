//go:build !unix

package journal

import (
	"fmt"
	"os"
)

// openLocked opens or makes a state file. That no other process has it is not looked at here.
func openLocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: state file: %w", err)
	}
	return f, nil
}

func createLocked(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}
