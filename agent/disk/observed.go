package disk

import (
	"sync"
	"time"
)

// Observed is a file system that knows whether it gets on: how many calls have ended, and since when the one that has been
// under way for longest is. Whoever waits for a call on a disk that hangs cannot say so; this one can. It also counts the
// bytes written.
type Observed struct {
	fs FS

	mu      sync.Mutex
	next    uint64
	ended   uint64
	under   map[uint64]time.Time // calls under way, by when they began
	written uint64
}

var _ FS = (*Observed)(nil)

// Observe puts an observer around a file system.
func Observe(fsys FS) *Observed { return &Observed{fs: fsys, under: map[uint64]time.Time{}} }

// Ended is the number of calls that have ended.
func (o *Observed) Ended() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended
}

// Oldest is when the call began that has been under way for longest; zero when none is.
func (o *Observed) Oldest() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	var oldest time.Time
	for _, began := range o.under {
		if oldest.IsZero() || began.Before(oldest) {
			oldest = began
		}
	}
	return oldest
}

// Written is the number of bytes that have been written to files.
func (o *Observed) Written() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written
}

// call notes the beginning of a call, and answers what notes its end.
func (o *Observed) call() (end func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := o.next
	o.next++
	o.under[id] = time.Now()
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.under, id)
		o.ended++
	}
}

// MkdirAll implements [FS].
func (o *Observed) MkdirAll(path string) error { defer o.call()(); return o.fs.MkdirAll(path) }

// Create implements [FS].
func (o *Observed) Create(path string) (File, error) {
	defer o.call()()
	return o.file(o.fs.Create(path))
}

// Open implements [FS].
func (o *Observed) Open(path string, write bool) (File, error) {
	defer o.call()()
	return o.file(o.fs.Open(path, write))
}

func (o *Observed) file(f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return observedFile{f, o}, nil
}

// Rename implements [FS].
func (o *Observed) Rename(from, to string) error { defer o.call()(); return o.fs.Rename(from, to) }

// Remove implements [FS].
func (o *Observed) Remove(path string) error { defer o.call()(); return o.fs.Remove(path) }

// Names implements [FS].
func (o *Observed) Names(path string) ([]string, error) { defer o.call()(); return o.fs.Names(path) }

// SyncDir implements [FS].
func (o *Observed) SyncDir(path string) error { defer o.call()(); return o.fs.SyncDir(path) }

// Free implements [FS].
func (o *Observed) Free(path string) (uint64, error) { defer o.call()(); return o.fs.Free(path) }

type observedFile struct {
	File
	o *Observed
}

func (f observedFile) ReadAt(b []byte, off int64) (int, error) {
	defer f.o.call()()
	return f.File.ReadAt(b, off)
}

func (f observedFile) WriteAt(b []byte, off int64) (int, error) {
	defer f.o.call()()
	n, err := f.File.WriteAt(b, off)
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	f.o.written += uint64(n)
	return n, err
}

func (f observedFile) Sync() error          { defer f.o.call()(); return f.File.Sync() }
func (f observedFile) Size() (int64, error) { defer f.o.call()(); return f.File.Size() }
func (f observedFile) Close() error         { defer f.o.call()(); return f.File.Close() }
