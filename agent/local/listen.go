package local

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Listen opens the socket at path, mode 0600, in a folder that it makes with mode 0700 or that has that mode already.
// The socket of an agent that was killed is replaced; that of a living one is an error. Connections of other users
// than the agent's own and root are closed and logged.
func Listen(path string, log *slog.Logger) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("local socket: %w; set agent.socket to a folder that the agent may write", err)
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	// Two agents that start at once must not both find the same stale socket, so the folder is locked meanwhile.
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("local socket: %w", err)
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		return nil, fmt.Errorf("local socket: lock %s: %w", dir, err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("local socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("local socket: %w", err)
	}
	return &guarded{UnixListener: l, log: log}, nil
}

// private refuses a folder that others may enter, or that belongs to somebody else.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("local socket: whose folder %s is cannot be seen on this system", dir)
	}
	if mode := info.Mode().Perm(); mode != 0o700 {
		return fmt.Errorf("local socket: folder %s has mode %04o, which others may enter; run: chmod 700 %s", dir, mode, dir)
	}
	if int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("local socket: folder %s belongs to user %d, not to the agent's user %d; set agent.socket to another one",
			dir, stat.Uid, os.Geteuid())
	}
	return nil
}

// flock waits for the folder: it is held for as long as one agent needs to open its socket.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("local socket: %s exists and is no socket; remove it or set agent.socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("local socket: another agent serves %s; stop it or set agent.socket", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("local socket: is another agent there? %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("local socket: remove what a killed agent left: %w", err)
	}
	return nil
}

// guarded accepts only the connections of the agent's user and of root.
type guarded struct {
	*net.UnixListener
	log *slog.Logger
}

func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peer(c)
		if err == nil && allowed(uid, os.Geteuid()) {
			return c, nil
		}
		c.Close()
		g.log.Warn("local socket: connection refused", "uid", uid, "error", err)
	}
}

func allowed(peer, self int) bool { return peer == self || peer == 0 }

// peer is the user id of the process that connected, as of then.
func peer(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	uid := -1
	var inner error
	err = raw.Control(func(fd uintptr) {
		var cred *syscall.Ucred
		if cred, inner = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); inner == nil {
			uid = int(cred.Uid)
		}
	})
	return uid, errors.Join(err, inner)
}
