package disktest

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

func TestOver(t *testing.T) {
	var now Fault
	var kinds []string
	died := 0
	fsys := &Over{FS: disk.OS{}, Fault: func(op Op) Fault {
		kinds = append(kinds, op.Kind)
		return now
	}}
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "f")
	if err := fsys.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.WriteAt([]byte("0123456789"), 0); n != 10 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if err := errors.Join(f.Sync(), fsys.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}

	now = Fault{Err: syscall.EIO, Keep: 3, Then: func() { died++ }}
	if n, err := f.WriteAt([]byte("abcdefghij"), 0); n != 3 || !errors.Is(err, syscall.EIO) {
		t.Errorf("a torn write: %d, %v", n, err)
	}
	_, created := fsys.Create(filepath.Join(dir, "g"))
	for what, err := range map[string]error{
		"sync": f.Sync(), "syncdir": fsys.SyncDir(dir), "rename": fsys.Rename(path, path+"2"), "remove": fsys.Remove(path),
		"mkdir": fsys.MkdirAll(filepath.Join(dir, "sub")), "create": created,
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if died != 7 {
		t.Errorf("told of %d failures, want 7", died)
	}
	if b, err := disk.Read(fsys, path); string(b) != "abc3456789" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if names, err := fsys.Names(dir); len(names) != 1 || err != nil {
		t.Errorf("%v, %v", names, err)
	}

	now = Fault{Delay: time.Millisecond}
	began := time.Now()
	if n, err := f.WriteAt([]byte("X"), 9); n != 1 || err != nil || time.Since(began) < time.Millisecond {
		t.Errorf("a slow write: %d, %v", n, err)
	}
	if len(kinds) != 13 {
		t.Errorf("asked about %v", kinds)
	}
}
