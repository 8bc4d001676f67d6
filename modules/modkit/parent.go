package modkit

import (
	"os"
	"time"
)

// watchParent returns when process ppid is not this process's parent any more. It looks once a second: the way that
// works on every system.
func watchParent(ppid int) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for os.Getppid() == ppid {
		<-t.C
	}
}
