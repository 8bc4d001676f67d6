//go:build !linux

package rig

import (
	"errors"
	"os"
)

// openPTY has no implementation here: a rig, unlike the hub, needs Linux.
func openPTY() (master, slave *os.File, path string, err error) {
	return nil, nil, "", errors.New("simulated hardware needs Linux; serve the hub alone with --no-rig")
}

func baudOf(*os.File) uint32 { return 0 }
