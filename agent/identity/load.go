package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxFile bounds what is read of a credential file: three ids of 128 characters, a host and a key take less.
const maxFile = 4 << 10

// Load reads a credential by reference: "file:PATH", a regular file that holds one connection string and that nobody
// but its owner may read or write. Its errors name the path and never the content.
func Load(ref string) (Credential, error) {
	path, ok := strings.CutPrefix(ref, "file:")
	if !ok || path == "" {
		// A connection string pasted in place of a reference must not be repeated here.
		return Credential{}, errors.New("credential: the reference must be file:PATH, a file that holds the connection string")
	}
	text, err := readPrivate(path)
	if err != nil {
		return Credential{}, fmt.Errorf("credential: %w", err)
	}
	c, err := ParseConnectionString(strings.TrimRight(text, "\r\n"))
	if err != nil {
		return Credential{}, fmt.Errorf("credential %s: %w", path, err)
	}
	return c, nil
}

// readPrivate opens first and checks what it has opened, so that nobody swaps the file in between. O_NONBLOCK keeps
// the open of a pipe from waiting for a writer; a regular file does not notice.
func readPrivate(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s does not exist: write the identity's connection string into it", path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("%s may not be read by this user: chown it to uid %d", path, os.Getuid())
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is a %s and must be a regular file", path, kind(info.Mode()))
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("%s may be read or written by others (mode %04o): chmod 600 %s", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxFile {
		return "", fmt.Errorf("%s is longer than %d bytes: it must hold one connection string", path, maxFile)
	}
	return string(text), nil
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "folder"
	case mode&fs.ModeNamedPipe != 0:
		return "pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	default:
		return "device"
	}
}
