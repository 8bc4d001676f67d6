package outbox_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/outbox"
)

// ledger is what became of Puts.
type ledger struct {
	mu       sync.Mutex
	accepted map[string]string // body → id
	refused  map[string]error
}

func newLedger() *ledger {
	return &ledger{accepted: map[string]string{}, refused: map[string]error{}}
}

func (l *ledger) put(b outbox.Box, body string, change ...func(*outbox.Record)) {
	r := outbox.Record{Body: []byte(body)}
	for _, c := range change {
		c(&r)
	}
	b.Put(r, func(id string, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil {
			l.refused[body] = err
			return
		}
		l.accepted[body] = id
	})
}

func (l *ledger) count() (accepted, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted), len(l.refused)
}

// missing are the accepted bodies that are not in sent.
func (l *ledger) missing(sent ...map[string]string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for body, id := range l.accepted {
		there := false
		for _, s := range sent {
			there = there || s[body] == id
		}
		if !there {
			out = append(out, body)
		}
	}
	return out
}

func byBody(records []outbox.Record) map[string]string {
	m := map[string]string{}
	for _, r := range records {
		m[string(r.Body)] = r.ID
	}
	return m
}

// A byte of the outbox changes on the disk, at any place, or the rest of the file is gone. The log starts, says so, and has
// every message but those in the damaged place; what comes after works.
func TestDamageAtEveryOffset(t *testing.T) {
	good := &disktest.FS{}
	log := outbox.OpenLog(outbox.LogConfig{Dir: dir, FS: good, SegmentBytes: 16 << 10})
	b := log.Box("coins")
	const messages = 12
	for n := range messages {
		if _, err := b.Append(outbox.Record{Body: fmt.Appendf(nil, "message %d", n), State: fmt.Append(nil, n)}); err != nil {
			t.Fatal(err)
		}
	}
	log.Close()
	path, size := "", 0
	for _, p := range good.Files() {
		good.Edit(p, func(b []byte) []byte {
			if n := strings.LastIndex(string(b), "message "); n > 0 {
				path, size = p, n+20
			}
			return b
		})
	}
	damages := map[string]func(b []byte, at int) []byte{
		"flipped":   func(b []byte, at int) []byte { b[at] ^= 1; return b },
		"zeroed":    func(b []byte, at int) []byte { clear(b[at:min(at+64, size)]); return b },
		"truncated": func(b []byte, at int) []byte { return b[:at] },
		"NUL tail":  func(b []byte, at int) []byte { clear(b[at:]); return b },
	}
	step := 1
	if testing.Short() {
		step = 61
	}
	for name, damage := range damages {
		for at := 0; at < size; at += step {
			fsys := good.Clone()
			fsys.Edit(path, func(b []byte) []byte { return damage(b, at) })
			log := outbox.OpenLog(outbox.LogConfig{Dir: dir, FS: fsys, SegmentBytes: 16 << 10})
			b := log.Box("coins")
			bodies, _ := all(b)
			last := -1
			for _, body := range bodies {
				n := -1
				if fmt.Sscanf(body, "message %d", &n); n <= last || n >= messages {
					t.Fatalf("%s at %d: got %q", name, at, bodies)
				}
				last = n
			}
			lost := messages - len(bodies)
			switch name {
			case "flipped":
				if lost > 1 {
					t.Fatalf("%s at %d: %d messages are lost, want at most the one there: %q", name, at, lost, bodies)
				}
			case "zeroed":
				if lost > 3 {
					t.Fatalf("%s at %d: %d messages are lost, want those there: %q", name, at, lost, bodies)
				}
			}
			if lost > 0 && last == messages-1 && log.Status().Damaged == 0 {
				t.Fatalf("%s at %d: %d messages are lost and nothing is said", name, at, lost)
			}
			if _, err := b.Append(outbox.Record{Body: []byte("new")}); err != nil {
				t.Fatalf("%s at %d: Append: %v", name, at, err)
			}
			log.Close()
			log = outbox.OpenLog(outbox.LogConfig{Dir: dir, FS: fsys, SegmentBytes: 16 << 10})
			if again, _ := all(log.Box("coins")); len(again) != len(bodies)+1 {
				t.Fatalf("%s at %d, the start after: %q, before %q", name, at, again, bodies)
			}
			log.Close()
		}
	}
}

// A disk fails at any one operation of a busy minute, in one of four ways. Whatever was accepted has reached the hub or is
// there after a restart, under its id.
func TestFailureAtEveryOperation(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 29
	}
	faults := map[string]disktest.Fault{
		"EIO":    {Err: syscall.EIO},
		"ENOSPC": {Err: syscall.ENOSPC},
		"torn":   {Err: syscall.EIO, Keep: 100},
		"half":   {Err: syscall.ENOSPC, Keep: 1000},
	}
	for name, fault := range faults {
		for at := 1; ; at += step {
			over := false
			synctest.Test(t, func(t *testing.T) { over = failAt(t, name, fault, at) })
			if over || t.Failed() {
				break
			}
		}
	}
}

func failAt(t *testing.T, name string, fault disktest.Fault, at int) (over bool) {
	d := newDevice(t, outbox.LogConfig{SegmentBytes: 16 << 10, MaxBytes: 24 << 10})
	times := 1 + at%3 // in a row
	d.fs.Set(func(f *disktest.FS) {
		f.Fault = func(op disktest.Op) disktest.Fault {
			if op.N >= at && op.N < at+times && op.Kind != "open" && op.Kind != "read" && op.Kind != "names" {
				return fault
			}
			return disktest.Fault{}
		}
	})
	l := newLedger()
	sent := map[string]string{}
	boxes := []outbox.Box{d.box("coins"), d.box("door")}
	for n := range 60 {
		l.put(boxes[n%2], fmt.Sprint(n)+strings.Repeat("x", 300), withState(fmt.Sprint(n)))
		if n%3 == 2 {
			time.Sleep(5 * time.Millisecond)
		}
		if n%4 == 3 {
			if r, ok := boxes[n%2].Next(); ok {
				sent[string(r.Body)] = r.ID
				boxes[n%2].Acked(r.ID)
			}
		}
	}
	time.Sleep(2 * time.Minute) // the disk is tried again
	over = d.fs.Ops() < at
	if s := d.log.Status(); s.Err != nil {
		t.Errorf("%s at %d: the disk works again, and the log says %v", name, at, s.Err)
	}
	if accepted, refused := l.count(); accepted != 60 || refused != 0 {
		t.Errorf("%s at %d: %d accepted, %d refused", name, at, accepted, refused)
	}
	d.fs.Set(func(f *disktest.FS) { f.Fault = nil })
	d.powerCut(uint64(at))
	left := map[string]string{}
	for _, c := range []string{"coins", "door"} {
		_, records := all(d.box(c))
		maps.Copy(left, byBody(records))
	}
	dropped := d.box("coins").Stats().Dropped[outbox.DroppedFull] + d.box("door").Stats().Dropped[outbox.DroppedFull]
	if fault.Err != syscall.ENOSPC {
		dropped = 0
	}
	if missing := l.missing(sent, left); uint64(len(missing)) > dropped {
		t.Errorf("%s at %d: accepted and lost: %.12q; dropped %v %v", name, at, missing, d.box("coins").Stats().Dropped, d.box("door").Stats().Dropped)
	}
	for i, c := range []string{"coins", "door"} {
		if s, want := string(d.box(c).State()), fmt.Sprint(58+i); s != want {
			t.Errorf("%s at %d: the state of %s is %q, want %s", name, at, c, s, want)
		}
	}
	d.log.Close()
	return over
}

// FuzzOpen opens a log whose segment is whatever a disk may hold. It starts, works, and starts again.
func FuzzOpen(f *testing.F) {
	fsys := &disktest.FS{}
	log := outbox.OpenLog(outbox.LogConfig{Dir: dir, FS: fsys, SegmentBytes: 16 << 10})
	log.Box("coins").Append(outbox.Record{Body: []byte("{}"), State: []byte("1"), Properties: map[string]string{"a": "b"}})
	log.Box("door").Append(outbox.Record{Body: []byte("{}"), High: true, TTL: time.Hour})
	r, _ := log.Box("coins").Next()
	log.Box("coins").Acked(r.ID)
	log.Close()
	segment := dir + "/0000000000000001.log"
	fsys.Edit(segment, func(b []byte) []byte { f.Add(b[:1024]); return b })
	f.Add([]byte{})
	f.Add([]byte{0xB7, 1, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, text []byte) {
		fsys := fsys.Clone()
		fsys.Edit(segment, func([]byte) []byte { return text })
		cfg := outbox.LogConfig{Dir: dir, FS: fsys, SegmentBytes: 16 << 10}
		for start := range 2 {
			log := outbox.OpenLog(cfg)
			b := log.Box("coins")
			if _, err := b.Append(outbox.Record{Body: []byte("new")}); err != nil {
				t.Fatalf("start %d: %v", start, err)
			}
			found := 0
			for {
				r, ok := b.Next()
				if !ok {
					break
				}
				if string(r.Body) == "new" {
					found++
				}
			}
			if found < start+1 {
				t.Fatalf("start %d: %d new messages are there", start, found)
			}
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A sync fails, the process ends and another one starts, and then the power goes. The second process finds the bytes in
// memory: the state that it gives the module must not be that of a message which the third one does not have.
func TestFailedSyncThenRestartThenPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(40) {
			d := newDevice(t, outbox.LogConfig{})
			b := d.box("coins")
			d.put(b, "first", func(r *outbox.Record) { r.State = []byte("1") })
			d.fs.Set(func(f *disktest.FS) { f.Fault = disktest.OfKind("sync", "", syscall.EIO) })
			b.Put(outbox.Record{Body: []byte("second"), State: []byte("2")}, func(string, error) {})
			time.Sleep(100 * time.Millisecond)
			if d.log.Close() == nil {
				t.Fatal("the sync has not failed")
			}
			d.fs.Set(func(f *disktest.FS) { f.Fault = nil })
			d.start()
			state := string(d.box("coins").State())
			d.powerCut(seed)
			if got, _ := all(d.box("coins")); state != fmt.Sprint(len(got)) {
				t.Errorf("seed %d: the module had the state %s, and %q are left", seed, state, got)
			}
			d.log.Close()
		}
	})
}

// A place that never takes its bytes again keeps the rest of the outbox from nothing.
func TestBadPlaceUnderTheLastBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, outbox.LogConfig{})
		d.put(d.box("coins"), "first")
		d.log.Close()
		bad := d.fs.Files()[0]
		d.fs.Set(func(f *disktest.FS) { f.Fault = disktest.OfKind("write", bad, syscall.EIO) })
		d.start()
		d.put(d.box("coins"), "second") // done when it is on the disk: there is no hub
		if got, _ := all(d.box("coins")); !slices.Equal(got, []string{"first", "second"}) || d.log.Status().Err != nil {
			t.Errorf("%q, %v", got, d.log.Status().Err)
		}
	})
}
