package disktest

import (
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

// Over is another file system, most likely the real one, on which operations go wrong. Reads do not.
type Over struct {
	disk.FS
	Fault func(Op) Fault

	n atomic.Int64
}

var _ disk.FS = (*Over)(nil)

// fault is what goes wrong with an operation that changes something.
func (o *Over) fault(kind, path string, length int) Fault {
	f := o.Fault(Op{N: int(o.n.Add(1)), Kind: kind, Path: path, Len: length})
	if f.Delay > 0 {
		time.Sleep(f.Delay)
	}
	if f.Err != nil {
		f.Err = &fs.PathError{Op: kind, Path: path, Err: f.Err}
	}
	return f
}

// do does an operation that fails as a whole or not at all.
func (o *Over) do(kind, path string, f func() error) error {
	if fault := o.fault(kind, path, 0); fault.Err != nil {
		fault.then()
		return fault.Err
	}
	return f()
}

// Create implements [disk.FS].
func (o *Over) Create(path string) (f disk.File, err error) {
	err = o.do("create", path, func() error {
		f, err = o.FS.Create(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &overFile{f, o, path}, nil
}

// Open implements [disk.FS].
func (o *Over) Open(path string, write bool) (disk.File, error) {
	f, err := o.FS.Open(path, write)
	if err != nil {
		return nil, err
	}
	return &overFile{f, o, path}, nil
}

// MkdirAll implements [disk.FS].
func (o *Over) MkdirAll(path string) error {
	return o.do("mkdir", path, func() error { return o.FS.MkdirAll(path) })
}

// Rename implements [disk.FS].
func (o *Over) Rename(from, to string) error {
	return o.do("rename", from, func() error { return o.FS.Rename(from, to) })
}

// Remove implements [disk.FS].
func (o *Over) Remove(path string) error {
	return o.do("remove", path, func() error { return o.FS.Remove(path) })
}

// SyncDir implements [disk.FS].
func (o *Over) SyncDir(path string) error {
	return o.do("syncdir", path, func() error { return o.FS.SyncDir(path) })
}

type overFile struct {
	disk.File
	over *Over
	path string
}

// WriteAt implements [disk.File]. A write that fails has written what Keep says.
func (f *overFile) WriteAt(b []byte, off int64) (int, error) {
	fault := f.over.fault("write", f.path, len(b))
	if fault.Err == nil {
		return f.File.WriteAt(b, off)
	}
	n, err := f.File.WriteAt(b[:min(fault.Keep, len(b))], off)
	fault.then()
	if err != nil {
		return n, err
	}
	return n, fault.Err
}

// Sync implements [disk.File].
func (f *overFile) Sync() error {
	return f.over.do("sync", f.path, f.File.Sync)
}
