//go:build linux

// Package host runs modules as processes of their own: it starts them over go-plugin, watches their heartbeat, starts
// them again when they die, and leaves nothing behind when the agent goes, however it goes.
//
// The protocol is go-plugin's (https://github.com/hashicorp/go-plugin, docs/internals.md) with the service of
// modules/modkit. What go-plugin leaves open is decided here: a module gets an environment of its own with no secret
// in it, a process group, a parent-death signal (prctl(2), PR_SET_PDEATHSIG), and a unix socket in a private folder
// that is removed once the agent is connected, so that nobody else can talk to the module.
//
// The end of a module takes along what the module itself has started: all that is in its process group and, where the
// agent may make control groups, in its control group; elsewhere all that still has the module's environment. When the
// agent is killed, the kernel ends the modules; what they had started is ended by the next agent, before it starts a
// module, or by the service manager (systemd's KillMode=mixed ends the unit's whole control group).
package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// folderPrefix marks what in the run folder is ours, so that a sweep cannot touch anybody else's files.
const folderPrefix = "module-"

// maxSocketPath is the longest path of a unix socket (unix(7): sun_path has 108 bytes, one of them the final NUL).
const maxSocketPath = 107

// socketName is as long as the names that go-plugin gives to its sockets ("plugin" and a random uint32).
const socketName = "/plugin4294967295"

// Host is the folder in which modules meet the agent. One agent at a time owns it.
type Host struct {
	folder string
	lock   *os.File
	groups *groups
	ended  int
}

// NoGroups is the name of no control group.
const NoGroups = "none"

// Open makes folder (mode 0700) if need be, takes its lock, ends what modules of a dead agent have left running and
// removes the sockets that are left there. It fails when another agent holds the folder.
//
// Modules are put into control groups below group, or below that in which the agent was started when group is "". Without
// such groups (NoGroups, or where they cannot be had) some limits are not in force: see [Process.Limits].
func Open(folder, group string) (*Host, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("host: make the run folder: %w; set [agent] run_dir to a folder that the agent may write", err)
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("host: open the run folder's lock: %w; set [agent] run_dir to a folder that the agent may write", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("host: the run folder %s is in use by another agent; stop it, or set another [agent] run_dir", folder)
		}
		return nil, fmt.Errorf("host: lock the run folder %s: %w", folder, err)
	}
	h := &Host{folder: folder, lock: lock}
	ours := filepath.Join(folder, folderPrefix)
	h.ended = killLeftovers(func(f string) bool { return strings.HasPrefix(f, ours) })
	h.groups = openGroups(group)
	if err := h.sweep(); err != nil {
		h.groups.close()
		lock.Close()
		return nil, err
	}
	return h, nil
}

// Leftovers is how many processes an agent that was killed had left running.
func (h *Host) Leftovers() int { return h.ended }

// Close gives the folder free. The processes must have ended before.
func (h *Host) Close() error {
	err := h.sweep()
	h.groups.close()
	return errors.Join(err, h.lock.Close())
}

// sweep removes what agents that were killed left in the run folder.
func (h *Host) sweep() error {
	entries, err := os.ReadDir(h.folder)
	if err != nil {
		return fmt.Errorf("host: look for stale sockets: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), folderPrefix) {
			if err := wipe(filepath.Join(h.folder, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// moduleFolder makes the empty private folder for one module's socket.
func (h *Host) moduleFolder(name string) (string, error) {
	folder := filepath.Join(h.folder, folderPrefix+name)
	if over := len(folder) + len(socketName) - maxSocketPath; over > 0 {
		return "", fmt.Errorf("the socket's path in %s would be %d bytes too long for the kernel; set a shorter [agent] run_dir", folder, over)
	}
	if err := wipe(folder); err != nil {
		return "", err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return "", fmt.Errorf("make the socket's folder: %w", err)
	}
	return folder, nil
}

// wipe removes a module's folder and what a module leaves in it, and nothing else: a folder that holds a file of
// somebody else stays, with an error that names it.
func wipe(folder string) error {
	const tries = 5 // a module that is being killed with its agent may still make its socket
	var err error
	for range tries {
		var foreign bool
		if foreign, err = empty(folder); err != nil {
			return err
		}
		err = os.Remove(folder)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if foreign || !errors.Is(err, syscall.ENOTEMPTY) {
			break
		}
	}
	return fmt.Errorf("host: sweep %s: %w; move what is not the agent's out of there", folder, err)
}

// empty removes what modules make in their folder. foreign says that there is something else.
func empty(folder string) (foreign bool, err error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("host: sweep %s: %w", folder, err)
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if !ours(e) {
			foreign = true
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			foreign = true // a folder goes only if it is empty
		}
	}
	return foreign, nil
}

// ours says whether a module made an entry of its folder: a socket or, for the moment before it, the empty file by which
// go-plugin finds a free name (server.go, serverListener_unix). A module that is killed in that moment leaves the file.
func ours(e os.DirEntry) bool {
	if e.IsDir() || e.Type()&os.ModeSocket != 0 {
		return true
	}
	info, err := e.Info()
	if errors.Is(err, os.ErrNotExist) {
		return true // it has gone by itself
	}
	return err == nil && info.Mode().IsRegular() && info.Size() == 0 && strings.HasPrefix(e.Name(), "plugin")
}
