//go:build !torture

package main

import (
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

// stateDisk is where the agent keeps its state: the real disk.
func stateDisk() disk.FS { return disk.OS{} }

// systemTime is the system's clock.
func systemTime() time.Time { return time.Now() }
