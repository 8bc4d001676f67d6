package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/disk/disktest"
)

const (
	folder = "/state"
	path   = folder + "/twin.json"
)

func save(t testing.TB, fsys disk.FS, text string) {
	t.Helper()
	if err := disk.Save(fsys, path, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestSaveOnARealDisk(t *testing.T) {
	p := filepath.Join(t.TempDir(), "a", "twin.json")
	for _, text := range []string{"one", "", "three\nlines\n"} {
		if err := disk.Save(disk.OS{}, p, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, d := disk.Load(disk.OS{}, p, nil); d != nil || string(got) != text {
			t.Fatalf("%q, %v; want %q", got, d, text)
		}
	}
	if n, err := (disk.OS{}).Free(p); err != nil || n == 0 {
		t.Errorf("%d bytes free, %v", n, err)
	}
	if got, d := disk.Load(disk.OS{}, p+"x", nil); got != nil || d != nil {
		t.Errorf("what was never saved: %q, %v", got, d)
	}
}

// The power goes at every operation of a Save, with several outcomes of what was not synced: what is found is what was
// there before, or what is there now, and what is there now once Save has returned.
func TestPowerCutWhileSaving(t *testing.T) {
	for cutAt := 1; ; cutAt++ {
		fsys := &disktest.FS{}
		save(t, fsys, "before before")
		save(t, fsys, "before")
		first := fsys.Ops()
		fsys.Set(func(f *disktest.FS) { f.CutAt = first + cutAt })
		err := disk.Save(fsys, path, []byte("now"))
		if err == nil && cutAt == 1 {
			t.Fatal("the power did not go")
		}
		done := err == nil
		if done {
			fsys.Cut()
		}
		for seed := range uint64(50) {
			got, d := disk.Load(fsys.Restart(seed), path, nil)
			if string(got) != "now" && (done || string(got) != "before") || d != nil {
				t.Fatalf("the power went at operation %d, seed %d: found %q, %v", cutAt, seed, got, d)
			}
		}
		if done {
			return
		}
	}
}

// A disk that fails at any operation of a Save loses nothing of before.
func TestFailureWhileSaving(t *testing.T) {
	for _, failure := range []error{syscall.ENOSPC, syscall.EIO} {
		for at := 1; ; at++ {
			fsys := &disktest.FS{}
			save(t, fsys, "before")
			first := fsys.Ops()
			fsys.Set(func(f *disktest.FS) {
				f.Fault = func(op disktest.Op) disktest.Fault {
					if op.N == first+at && op.Kind != "remove" {
						return disktest.Fault{Err: failure, Keep: 3}
					}
					return disktest.Fault{}
				}
			})
			err := disk.Save(fsys, path, []byte("now"))
			if err != nil && !errors.Is(err, failure) {
				t.Fatalf("operation %d: %v, want %v", at, err, failure)
			}
			fsys.Set(func(f *disktest.FS) { f.Fault = nil })
			got, d := disk.Load(fsys, path, nil)
			if d != nil || err == nil && string(got) != "now" || err != nil && string(got) != "before" && string(got) != "now" {
				t.Fatalf("%v at operation %d: Save says %v, found %q, %v", failure, at, err, got, d)
			}
			save(t, fsys, "next")
			if at > fsys.Ops() {
				break
			}
		}
	}
}

// TestR02_GarbageInAStateFile damages a state file in every way that a disk knows, at every offset. Each is found, what
// was there before is used, and the next Save works.
func TestR02_GarbageInAStateFile(t *testing.T) {
	good := &disktest.FS{}
	save(t, good, `{"old":true}`)
	save(t, good, `{"value":[1,2,3]}`)
	size := 0
	good.Edit(path, func(b []byte) []byte { size = len(b); return b })
	damages := map[string]func(b []byte, at int) []byte{
		"flipped":   func(b []byte, at int) []byte { b[at] ^= 0x20; return b },
		"truncated": func(b []byte, at int) []byte { return b[:at] },
		"zeroed":    func(b []byte, at int) []byte { clear(b[at:]); return b },
		"longer":    func(b []byte, at int) []byte { return append(b, b[:at+1]...) },
	}
	for name, damage := range damages {
		for at := range size {
			fsys := good.Clone()
			fsys.Edit(path, func(b []byte) []byte { return damage(b, at) })
			got, d := disk.Load(fsys, path, nil)
			if string(got) != `{"old":true}` || d == nil || !d.Previous || d.Kept == "" {
				t.Fatalf("%s at %d: %q, %+v; want the copy of before, and the damage told", name, at, got, d)
			}
			if !strings.HasPrefix(d.Kept, path+".corrupt-") {
				t.Fatalf("kept as %s", d.Kept)
			}
			if got, d = disk.Load(fsys, path, nil); string(got) != `{"old":true}` || d != nil {
				t.Fatalf("%s at %d, the start after: %q, %v", name, at, got, d)
			}
			save(t, fsys, "new")
			if got, d = disk.Load(fsys, path, nil); string(got) != "new" || d != nil {
				t.Fatalf("%s at %d, after a new Save: %q, %v", name, at, got, d)
			}
		}
	}
}

func TestLoadWithoutAnythingUsable(t *testing.T) {
	fsys := &disktest.FS{}
	for i := range 4 { // each start leaves one more; two are kept
		save(t, fsys, "x")
		save(t, fsys, "x")
		for _, p := range []string{path, path + ".previous"} {
			fsys.Edit(p, func([]byte) []byte { return nil })
		}
		got, d := disk.Load(fsys, path, nil)
		if got != nil || d == nil || d.Previous || !strings.Contains(d.Error(), "starting without it") {
			t.Fatalf("round %d: %q, %v", i, got, d)
		}
	}
	kept := 0
	for _, p := range fsys.Files() {
		if strings.HasPrefix(p, path+".corrupt-") {
			kept++
		}
	}
	if kept == 0 || kept > 2 {
		t.Errorf("%d damaged files are kept, want one or two: %q", kept, fsys.Files())
	}
}

func TestLoadChecksTheMeaning(t *testing.T) {
	fsys := &disktest.FS{}
	save(t, fsys, "good")
	save(t, fsys, "bad")
	wrong := errors.New("not what it should be")
	got, d := disk.Load(fsys, path, func(b []byte) error {
		if string(b) == "bad" {
			return wrong
		}
		return nil
	})
	if string(got) != "good" || !errors.Is(d, wrong) {
		t.Errorf("%q, %v", got, d)
	}
}

// A disk that cannot be read just now is no reason to move the file away.
func TestLoadFromADiskThatFails(t *testing.T) {
	fsys := &disktest.FS{}
	save(t, fsys, "x")
	fsys.Set(func(f *disktest.FS) { f.Fault = disktest.OfKind("read", "twin", syscall.EIO) })
	if got, d := disk.Load(fsys, path, nil); got != nil || !errors.Is(d, syscall.EIO) || d.Kept != "" {
		t.Errorf("%q, %v", got, d)
	}
	fsys.Set(func(f *disktest.FS) { f.Fault = nil })
	if got, d := disk.Load(fsys, path, nil); string(got) != "x" || d != nil {
		t.Errorf("later: %q, %v", got, d)
	}
}

func TestSaveOnAReadOnlyDisk(t *testing.T) {
	fsys := &disktest.FS{}
	save(t, fsys, "x")
	fsys.Set(func(f *disktest.FS) { f.ReadOnly = true })
	if err := disk.Save(fsys, path, []byte("y")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("%v, want EROFS", err)
	}
	if got, d := disk.Load(fsys, path, nil); string(got) != "x" || d != nil {
		t.Errorf("%q, %v", got, d)
	}
}

// FuzzLoad reads whatever a disk may hold. What is answered is what some Save has written.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("twinbay-state 1 00000000 0\n"))
	f.Add([]byte("twinbay-state 1 e3069283 9\n123456789"))
	f.Add([]byte("twinbay-state 1 E3069283 09\n123456789"))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0}, 64))
	f.Fuzz(func(t *testing.T, text []byte) {
		fsys := &disktest.FS{}
		save(t, fsys, "")
		fsys.Edit(path, func([]byte) []byte { return text })
		got, d := disk.Load(fsys, path, nil)
		if d != nil {
			return
		}
		save(t, fsys, string(got))
		fsys.Edit(path, func(b []byte) []byte {
			if !bytes.Equal(b, text) {
				t.Errorf("%q was read as %q, which is written as %q", text, got, b)
			}
			return b
		})
	})
}

func ExampleDamage() {
	fmt.Println(&disk.Damage{File: "/var/lib/twinbay/coins.twin", Err: errors.New("its checksum does not fit"), Previous: true})
	// Output: state file /var/lib/twinbay/coins.twin cannot be used: its checksum does not fit; the copy of before is used
}
