// Package disk is what the agent does with files: few operations behind an interface, so that a test can take the power
// away at any of them, and files that survive that.
//
// What survives what is POSIX's: the bytes of a file after its Sync, its name after SyncDir of its folder (fsync(2),
// rename(2)); nothing else is relied on.
package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// FS is a file system. Errors are those of package os. It may be used by several goroutines.
type FS interface {
	// MkdirAll makes a folder of mode 0700, and those around it.
	MkdirAll(path string) error
	// Create makes a file of mode 0600 for reading and writing. It fails when there is one.
	Create(path string) (File, error)
	// Open opens a file for reading and, if write, for writing.
	Open(path string, write bool) (File, error)
	// Rename gives a file another name, whose owner until then is no more.
	Rename(from, to string) error
	Remove(path string) error
	// Names are the names of the files in a folder, sorted; folders in it are left out.
	Names(path string) ([]string, error)
	// SyncDir returns when the names in a folder are on the disk.
	SyncDir(path string) error
	// Free is the number of bytes that may still be written beside path.
	Free(path string) (uint64, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns when the file's bytes and its size are on the disk. After an error nobody knows what is there, and a
	// second Sync does not tell: Linux marks the pages clean (https://lwn.net/Articles/752063/).
	Sync() error
	Size() (int64, error)
}

// OS is the real file system.
type OS struct{}

var _ FS = OS{}

// MkdirAll implements [FS].
func (OS) MkdirAll(path string) error { return os.MkdirAll(path, 0o700) }

// Create implements [FS].
func (OS) Create(path string) (File, error) {
	return open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// Open implements [FS].
func (OS) Open(path string, write bool) (File, error) {
	if write {
		return open(path, os.O_RDWR)
	}
	return open(path, os.O_RDONLY)
}

func open(path string, flags int) (File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

// Rename implements [FS].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements [FS].
func (OS) Remove(path string) error { return os.Remove(path) }

// Names implements [FS].
func (OS) Names(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// SyncDir implements [FS].
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems cannot sync a folder and say so; there is nothing more to do then.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// Free implements [FS].
func (OS) Free(path string) (uint64, error) { return free(path) }

type file struct{ *os.File }

func (f file) Sync() error { return datasync(f.File) }

func (f file) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// maxRead bounds what Read takes into memory.
const maxRead = 64 << 20

// Read answers the whole of a file of at most 64 MiB.
func Read(fsys FS, path string) ([]byte, error) {
	f, err := fsys.Open(path, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > maxRead {
		return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EFBIG}
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return data[:n], err
}

// remove removes a file that may not be there.
func remove(fsys FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func folder(path string) string { return filepath.Dir(path) }

func join(dir, name string) string { return filepath.Join(dir, name) }
