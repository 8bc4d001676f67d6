//go:build torture

package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/disk/disktest"
)

// stateDisk is the real disk with the faults that `make torture` orders: by a file, named by $TWINBAY_TORTURE_DISK, which is
// there for as long as they last. Nothing but this build has it.
func stateDisk() disk.FS {
	path := os.Getenv("TWINBAY_TORTURE_DISK")
	if path == "" {
		return disk.OS{}
	}
	errnos := map[string]error{"ENOSPC": syscall.ENOSPC, "EIO": syscall.EIO}
	return &disktest.Over{FS: disk.OS{}, Fault: func(op disktest.Op) disktest.Fault {
		text, err := os.ReadFile(path)
		if err != nil {
			return disktest.Fault{}
		}
		var order struct {
			Error string // ENOSPC or EIO
			Keep  int    // bytes of a write that fails
			Delay string // as 20ms
			Die   bool   // in the middle of a write
		}
		if json.Unmarshal(text, &order) != nil || order.Die && op.Kind != "write" {
			return disktest.Fault{}
		}
		f := disktest.Fault{Err: errnos[order.Error], Keep: order.Keep}
		f.Delay, _ = time.ParseDuration(order.Delay) // none is none
		if order.Die {
			f.Then = func() {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		return f
	}}
}

// systemTime is the system's clock, as far off as the file says that $TWINBAY_TORTURE_CLOCK names: "-3h".
func systemTime() time.Time {
	text, err := os.ReadFile(os.Getenv("TWINBAY_TORTURE_CLOCK"))
	if err != nil {
		return time.Now()
	}
	off, _ := time.ParseDuration(strings.TrimSpace(string(text))) // none is none
	return time.Now().Add(off)
}
