// Package disktest is a file system in memory that fails as disks do: it fills up, it tears writes, it is slow, it is
// remounted read-only, and the power goes.
//
// The zero value is an endless disk on which everything works. After a power cut, [FS.Restart] answers what the disk then
// holds: what was synced, and of the rest whatever a page cache and a journal may have written by then. Bytes survive in
// sectors of 512, each on its own, whatever the order in which they were written; names change in their order, up to
// some point; a file may have grown without its bytes, and then reads as zeros.
package disktest

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

const sector = 512

// Op is one operation that changes something, or a read.
type Op struct {
	N    int    // counts the operations that change something, from 1; of a read, those before it
	Kind string // mkdir, create, write, sync, rename, remove, syncdir; names, open, read
	Path string
	Len  int // of a write or read
}

// Fault is what goes wrong with an operation.
type Fault struct {
	Err   error         // nil: nothing
	Keep  int           // of a write that fails: how many bytes were written all the same
	Delay time.Duration // before it is done; virtual in a bubble of testing/synctest
	Then  func()        // after it has failed; nil does nothing. Of an Over alone
}

func (f Fault) then() {
	if f.Then != nil {
		f.Then()
	}
}

// ErrCut is every operation's answer after the power has gone.
var ErrCut = errors.New("the power is off")

// FS is the file system. The fields may be set before it is used, and with Set later.
type FS struct {
	Fault    func(Op) Fault // nil: nothing goes wrong
	CutAt    int            // the power goes at this operation, before anything of it is done; 0: never
	ReadOnly bool           // EROFS
	Capacity int64          // of all bytes together; 0: endless
	MaxFiles int            // 0: endless

	mu      sync.Mutex
	n       int
	cut     bool
	dirs    map[string]bool
	names   map[string]*inode // now
	durable map[string]*inode // on the disk
	changes []change          // of names, since they were last synced
	written int64
	syncs   int
}

var _ disk.FS = (*FS)(nil)

type inode struct {
	data    []byte
	durable []byte
	pending []write
}

type write struct {
	off  int
	data []byte
}

// change is one change of a folder's names that is not on the disk yet.
type change struct {
	dir  string
	path string
	node *inode // nil: removed
	with *change
}

// Set changes fields of a file system in use.
func (f *FS) Set(change func(*FS)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// Ops is the number of operations that have changed something.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// Written is the number of bytes written so far, and how often a file was synced.
func (f *FS) Written() (bytes int64, syncs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.written, f.syncs
}

// Cut takes the power away now.
func (f *FS) Cut() { f.Set(func(f *FS) { f.cut = true }) }

// begin is the start of each operation: whether it may go on, and how much of a write is done before it fails. It
// returns with the lock held unless it fails without a trace.
func (f *FS) begin(kind, path string, length int) (Fault, bool) {
	f.mu.Lock()
	changes := !slices.Contains([]string{"names", "open", "read"}, kind)
	if changes {
		f.n++
	}
	if f.cut || changes && f.n == f.CutAt {
		f.cut = true
		f.mu.Unlock()
		return Fault{Err: ErrCut}, false
	}
	if changes && f.ReadOnly && kind != "sync" && kind != "syncdir" {
		f.mu.Unlock()
		return Fault{Err: &fs.PathError{Op: kind, Path: path, Err: syscall.EROFS}}, false
	}
	var fault Fault
	if f.Fault != nil {
		op := Op{N: f.n, Kind: kind, Path: path, Len: length}
		inject := f.Fault
		f.mu.Unlock()
		fault = inject(op)
		if fault.Delay > 0 {
			time.Sleep(fault.Delay)
		}
		if fault.Err != nil {
			fault.Err = &fs.PathError{Op: kind, Path: path, Err: fault.Err}
			if kind != "write" {
				return fault, false
			}
		}
		f.mu.Lock()
		if f.cut {
			f.mu.Unlock()
			return Fault{Err: ErrCut}, false
		}
	}
	if f.names == nil {
		f.names, f.durable, f.dirs = map[string]*inode{}, map[string]*inode{}, map[string]bool{}
	}
	return fault, true
}

// MkdirAll implements [disk.FS]. A folder is on the disk at once.
func (f *FS) MkdirAll(path string) error {
	f.mu.Lock()
	known := f.dirs[filepath.Clean(path)]
	f.mu.Unlock()
	if known {
		return nil
	}
	if fault, ok := f.begin("mkdir", path, 0); !ok {
		return fault.Err
	}
	defer f.mu.Unlock()
	f.dirs[filepath.Clean(path)] = true
	return nil
}

// Create implements [disk.FS].
func (f *FS) Create(path string) (disk.File, error) {
	path = filepath.Clean(path)
	if fault, ok := f.begin("create", path, 0); !ok {
		return nil, fault.Err
	}
	defer f.mu.Unlock()
	fail := func(err error) (disk.File, error) { return nil, &fs.PathError{Op: "create", Path: path, Err: err} }
	switch {
	case !f.dirs[filepath.Dir(path)]:
		return fail(fs.ErrNotExist)
	case f.names[path] != nil:
		return fail(fs.ErrExist)
	case f.MaxFiles > 0 && len(f.names) >= f.MaxFiles:
		return fail(syscall.ENOSPC)
	}
	node := &inode{}
	f.rename(path, node, nil)
	return &file{fs: f, node: node, path: path, writable: true}, nil
}

// rename notes that path is now node.
func (f *FS) rename(path string, node *inode, with *change) *change {
	if node == nil {
		delete(f.names, path)
	} else {
		f.names[path] = node
	}
	c := change{dir: filepath.Dir(path), path: path, node: node, with: with}
	f.changes = append(f.changes, c)
	return &c
}

// Open implements [disk.FS].
func (f *FS) Open(path string, write bool) (disk.File, error) {
	path = filepath.Clean(path)
	if fault, ok := f.begin("open", path, 0); !ok {
		return nil, fault.Err
	}
	defer f.mu.Unlock()
	node := f.names[path]
	if node == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if write && f.ReadOnly {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EROFS}
	}
	return &file{fs: f, node: node, path: path, writable: write}, nil
}

// Rename implements [disk.FS]. Of its two sides, a power cut keeps both or none.
func (f *FS) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	if fault, ok := f.begin("rename", from, 0); !ok {
		return fault.Err
	}
	defer f.mu.Unlock()
	node := f.names[from]
	if node == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	c := f.rename(to, node, nil)
	f.rename(from, nil, c)
	return nil
}

// Remove implements [disk.FS].
func (f *FS) Remove(path string) error {
	path = filepath.Clean(path)
	if fault, ok := f.begin("remove", path, 0); !ok {
		return fault.Err
	}
	defer f.mu.Unlock()
	if f.names[path] == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	f.rename(path, nil, nil)
	return nil
}

// Names implements [disk.FS].
func (f *FS) Names(path string) ([]string, error) {
	path = filepath.Clean(path)
	if fault, ok := f.begin("names", path, 0); !ok {
		return nil, fault.Err
	}
	defer f.mu.Unlock()
	if !f.dirs[path] {
		return nil, &fs.PathError{Op: "names", Path: path, Err: fs.ErrNotExist}
	}
	var names []string
	for p := range f.names {
		if filepath.Dir(p) == path {
			names = append(names, filepath.Base(p))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements [disk.FS].
func (f *FS) SyncDir(path string) error {
	path = filepath.Clean(path)
	if fault, ok := f.begin("syncdir", path, 0); !ok {
		return fault.Err
	}
	defer f.mu.Unlock()
	var rest []change
	for _, c := range f.changes {
		if c.dir == path {
			apply(f.durable, c)
		} else {
			rest = append(rest, c)
		}
	}
	f.changes = rest
	return nil
}

func apply(names map[string]*inode, c change) {
	if c.node == nil {
		delete(names, c.path)
	} else {
		names[c.path] = c.node
	}
}

// Free implements [disk.FS].
func (f *FS) Free(string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Capacity == 0 {
		return 1 << 50, nil
	}
	return uint64(max(f.Capacity-f.used(), 0)), nil
}

func (f *FS) used() (n int64) {
	for _, node := range f.names {
		n += int64(len(node.data))
	}
	return n
}

// Restart is the disk after a power cut, as the next start finds it: another one for each seed.
func (f *FS) Restart(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 0x7077)) // any second word
	names := map[string]*inode{}
	for p, node := range f.durable {
		names[p] = node
	}
	kept := r.IntN(len(f.changes) + 1)
	for i := 0; i < len(f.changes); i++ {
		if i >= kept && (i == 0 || f.changes[i].with == nil) {
			break
		}
		apply(names, f.changes[i])
	}
	next := &FS{names: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{}}
	for d := range f.dirs {
		next.dirs[d] = true
	}
	copies := map[*inode]*inode{}
	paths := make([]string, 0, len(names))
	for p := range names {
		paths = append(paths, p)
	}
	slices.Sort(paths) // the seed decides, not the order of a map
	for _, p := range paths {
		node := names[p]
		if copies[node] == nil {
			data := node.survivor(r)
			copies[node] = &inode{data: data, durable: slices.Clone(data)}
		}
		next.names[p], next.durable[p] = copies[node], copies[node]
	}
	return next
}

// survivor is what a power cut leaves of a file.
func (n *inode) survivor(r *rand.Rand) []byte {
	data := slices.Clone(n.durable)
	mode := r.IntN(4) // nothing, everything, or some of what was not synced
	for _, w := range n.pending {
		for at := 0; at < len(w.data); {
			end := min(len(w.data), at+sector-(w.off+at)%sector)
			if mode == 1 || mode > 1 && r.IntN(2) == 0 {
				data = put(data, w.off+at, w.data[at:end])
			} else if mode == 3 {
				data = put(data, w.off+end, nil) // the size without the bytes
			}
			at = end
		}
	}
	return data
}

func put(data []byte, off int, b []byte) []byte {
	if end := off + len(b); end > len(data) {
		data = append(data, make([]byte, end-len(data))...)
	}
	copy(data[off:], b)
	return data
}

// Edit changes a file's bytes behind everybody's back, on the disk too.
func (f *FS) Edit(path string, edit func([]byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := f.names[filepath.Clean(path)]
	node.data = edit(slices.Clone(node.data))
	node.durable, node.pending = slices.Clone(node.data), nil
}

// Files are the paths of all files, sorted.
func (f *FS) Files() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for p := range f.names {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// Clone is a copy of the disk in which everything is synced.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := &FS{names: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{}}
	for d := range f.dirs {
		next.dirs[d] = true
	}
	for p, node := range f.names {
		n := &inode{data: slices.Clone(node.data), durable: slices.Clone(node.data)}
		next.names[p], next.durable[p] = n, n
	}
	return next
}

// OfKind is a Fault function that fails operations of a kind on paths that contain part.
func OfKind(kind, part string, err error) func(Op) Fault {
	return func(op Op) Fault {
		if op.Kind == kind && strings.Contains(op.Path, part) {
			return Fault{Err: err}
		}
		return Fault{}
	}
}

type file struct {
	fs       *FS
	node     *inode
	path     string
	writable bool
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if fault, ok := f.fs.begin("read", f.path, len(p)); !ok {
		return 0, fault.Err
	}
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	fault, ok := f.fs.begin("write", f.path, len(p))
	if !ok {
		return 0, fault.Err
	}
	defer f.fs.mu.Unlock()
	if !f.writable {
		return 0, &fs.PathError{Op: "write", Path: f.path, Err: syscall.EBADF}
	}
	n, err := len(p), fault.Err
	if err != nil {
		n = min(n, fault.Keep)
	}
	if grow := off + int64(n) - int64(len(f.node.data)); grow > 0 && f.fs.Capacity > 0 {
		if room := f.fs.Capacity - f.fs.used(); grow > room {
			n = max(0, n-int(grow-room))
			err = &fs.PathError{Op: "write", Path: f.path, Err: syscall.ENOSPC}
		}
	}
	f.node.data = put(f.node.data, int(off), p[:n])
	f.node.pending = append(f.node.pending, write{int(off), slices.Clone(p[:n])})
	f.fs.written += int64(n)
	return n, err
}

func (f *file) Sync() error {
	if fault, ok := f.fs.begin("sync", f.path, 0); !ok {
		if !errors.Is(fault.Err, ErrCut) {
			// The kernel takes the pages for clean now: the next Sync succeeds, and they are on no disk.
			f.fs.Set(func(*FS) { f.node.pending = nil })
		}
		return fault.Err
	}
	defer f.fs.mu.Unlock()
	f.fs.syncs++
	for _, w := range f.node.pending {
		f.node.durable = put(f.node.durable, w.off, w.data)
	}
	f.node.pending = nil
	return nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *file) Close() error { return nil }
