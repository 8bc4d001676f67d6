//go:build !linux

package modkit

// parentGone returns when process ppid is not this process's parent any more.
func parentGone(ppid int) {
	watchParent(ppid)
}
