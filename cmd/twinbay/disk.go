//go:build !torture

package main

import "github.com/twinbay/twinbay/agent/disk"

// stateDisk is where the agent keeps its state: the real disk.
func stateDisk() disk.FS { return disk.OS{} }
