// Package journal keeps what a simulated hub knows in one file, and loads it again: `twinbay-sim serve --state FILE`.
//
// The file is a log: a header, then one frame for each group of changes. A frame is a mark, a length, a CRC-32C and
// records; it is written at once and is whole or not there. While one is being made safe, the changes that come are
// gathered for the next, so that many writers share the disk's time. When the log has grown to twice of what the hub
// knows, a new file with only that is written beside it and takes its name.
//
// Whoever changes the hub is answered once the change is on the disk (fsync). So neither the end of the process nor a
// power cut loses what was acknowledged, if the disk does not lie. What is kept only with the next change of an identity
// and at an orderly end are the times of its last activity and of its last connection.
package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/twinbay/twinbay/simulator/hub"
)

// Source is what a new file is written from: a *hub.Hub.
type Source interface {
	Records(each func(hub.Record) error) error
}

// disk is the log file.
type disk interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
}

// Journal implements hub.Journal. Make it with Open.
type Journal struct {
	path   string
	log    *slog.Logger
	saved  []hub.Record
	wake   chan struct{} // there is something to write; closed by Close
	wrote  chan struct{} // closed when the writer has ended
	failed chan struct{} // closed at the first failure

	mu       sync.Mutex
	moved    sync.Cond // on mu: safe, released or rotating has changed
	pending  []hub.Record
	appended uint64 // changes
	safe     uint64 // of them
	err      error
	released bool // nobody waits any more
	closed   bool
	rotating bool
	source   Source

	files sync.Mutex // held while the file is written or exchanged; never together with mu
	file  disk
	size  int64
	base  int64 // size when the file was new

	smallest int64 // below this size no new file is written
}

// Open opens a state file, or begins one, and takes it for this process alone. log is told of a torn end.
func Open(path string, log *slog.Logger) (*Journal, error) {
	f, err := openLocked(path)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		path:   path,
		log:    log,
		wake:   make(chan struct{}, 1),
		wrote:  make(chan struct{}),
		failed: make(chan struct{}),
		file:   f,

		smallest: 4 << 20,
	}
	j.moved.L = &j.mu
	if err := j.load(f); err != nil {
		f.Close()
		return nil, err
	}
	go j.write()
	return j, nil
}

// load reads the file and leaves it at the end of what is whole.
func (j *Journal) load(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("journal: state file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 { // it holds keys
		if err := f.Chmod(0o600); err != nil {
			return fmt.Errorf("journal: state file %s can be read by others: %w", j.path, err)
		}
	}
	records, whole, err := read(f, info.Size())
	if err != nil {
		return fmt.Errorf("journal: state file %s: %w", j.path, err)
	}
	if torn := info.Size() - whole; torn > 0 {
		j.log.Warn("the state file ends in a record that was not written to its end; it is left out", "file", j.path, "bytes", torn)
	}
	if err := j.begin(f, whole); err != nil {
		return fmt.Errorf("journal: state file %s: %w", j.path, err)
	}
	j.saved = records
	j.base = j.size
	return nil
}

// begin makes the file end where whole ends, with at least a header in it.
func (j *Journal) begin(f *os.File, whole int64) error {
	if err := f.Truncate(whole); err != nil {
		return err
	}
	if _, err := f.Seek(whole, io.SeekStart); err != nil {
		return err
	}
	j.size = whole
	if whole == 0 {
		if _, err := f.WriteString(header); err != nil {
			return err
		}
		j.size = int64(len(header))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncFolder(j.path)
}

// Saved is what the file held when it was opened, oldest first.
func (j *Journal) Saved() []hub.Record { return j.saved }

// Keep says where a new file is written from, and lets go of what Saved answers.
func (j *Journal) Keep(s Source) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.source = s
	j.saved = nil
}

// Append implements hub.Journal.
func (j *Journal) Append(change []hub.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.appended++
	if j.err != nil || j.closed {
		return // and never becomes safe
	}
	j.pending = append(j.pending, change...)
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Sync implements hub.Journal. After a failure it waits for Release or Close, so that nobody is told that a change is
// kept which is not.
func (j *Journal) Sync() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for all := j.appended; j.safe < all && !j.released; {
		j.moved.Wait()
	}
}

// Failed is closed when the file can't be written. The hub has to end then: see Err.
func (j *Journal) Failed() <-chan struct{} { return j.failed }

// Err says why the file can't be written.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Release lets everybody go who waits in Sync.
func (j *Journal) Release() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.released = true
	j.moved.Broadcast()
}

// write is the goroutine that writes.
func (j *Journal) write() {
	defer close(j.wrote)
	for range j.wake {
		j.commit()
	}
	j.commit()
}

// commit makes what is pending safe.
func (j *Journal) commit() {
	j.mu.Lock()
	records, upTo, err := j.pending, j.appended, j.err
	j.pending = nil
	j.mu.Unlock()
	if len(records) == 0 || err != nil {
		return
	}
	grown, err := j.put(frame(records))
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.fail(err)
		return
	}
	j.safe = upTo
	j.moved.Broadcast()
	if grown && !j.rotating && !j.closed && j.source != nil {
		j.rotating = true
		go j.rotateBeside(j.source)
	}
}

// put writes a frame, and tells whether the file has grown so much that a new one is due.
func (j *Journal) put(frame []byte) (grown bool, err error) {
	j.files.Lock()
	defer j.files.Unlock()
	if _, err := j.file.Write(frame); err != nil {
		return false, err
	}
	if err := j.file.Sync(); err != nil {
		return false, err
	}
	j.size += int64(len(frame))
	return j.size > max(j.smallest, 2*j.base), nil
}

// fail is the end of writing: what is on the disk after a failure is not known, so nothing is added to it. Called
// under mu.
func (j *Journal) fail(err error) {
	if j.err != nil {
		return
	}
	j.err = fmt.Errorf("journal: write state file %s: %w; make room or look at the disk, then start again: what was acknowledged is kept", j.path, err)
	close(j.failed)
}

// Close writes what is pending and a new file of what the hub knows, and lets go of the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	close(j.wake)
	for j.rotating {
		j.moved.Wait()
	}
	source := j.source
	j.mu.Unlock()
	<-j.wrote

	err := j.Err()
	if err == nil && source != nil {
		err = j.rotate(source)
	}
	j.Release()
	j.files.Lock()
	defer j.files.Unlock()
	return errors.Join(err, j.file.Close())
}

// syncFolder makes a file's name as safe as its content.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
