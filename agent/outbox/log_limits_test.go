package outbox_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/outbox"
)

// TestR28_DiskFull: no room before the start, no room while messages come, a read-only remount, no inodes.
func TestR28_DiskFull(t *testing.T) {
	room := func(f *disktest.FS) { f.Capacity, f.ReadOnly, f.MaxFiles, f.Fault = 0, false, 0, nil }
	for name, trouble := range map[string]func(*disktest.FS){
		"full":      func(f *disktest.FS) { f.Capacity = 1 },
		"read-only": func(f *disktest.FS) { f.ReadOnly = true },
		"no inodes": func(f *disktest.FS) { f.MaxFiles = 0; f.Fault = disktest.OfKind("create", "", syscall.ENOSPC) },
		"no folder": func(f *disktest.FS) { f.Fault = disktest.OfKind("mkdir", "", syscall.EACCES) },
	} {
		t.Run(name+" before the start", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDevice(t, outbox.LogConfig{})
				d.fs.Set(trouble)
				b, l := d.box("coins"), newLedger()
				for n := range 3 {
					l.put(b, fmt.Sprint(n), withState(fmt.Sprint(n)))
				}
				time.Sleep(time.Minute)
				if n, _ := l.count(); n != 0 {
					t.Fatalf("%d accepted on a disk that takes nothing", n)
				}
				if s := d.log.Status(); s.Err == nil || b.Stats().Held != 3 {
					t.Errorf("the status says %v, %d are held", s.Err, b.Stats().Held)
				}
				r, ok := b.Next()
				if !ok || string(r.Body) != "0" {
					t.Fatalf("next is %q: what the disk does not take goes to the hub all the same", r.Body)
				}
				b.Acked(r.ID)
				if n, _ := l.count(); n != 1 {
					t.Errorf("%d accepted after the hub had one", n)
				}
				d.fs.Set(room)
				time.Sleep(time.Minute)
				if n, _ := l.count(); n != 3 || d.log.Status().Err != nil || b.Stats().Held != 0 {
					t.Errorf("%d accepted, %v, %d held after there was room", n, d.log.Status().Err, b.Stats().Held)
				}
				d.powerCut(1)
				d.expect(d.box("coins"), "1", "2")
				if s := string(d.box("coins").State()); s != "2" {
					t.Errorf("state %q", s)
				}
				d.log.Close()
			})
		})
	}
	t.Run("full while messages come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, outbox.LogConfig{SegmentBytes: 16 << 10, MaxBytes: 1 << 20})
			d.fs.Set(func(f *disktest.FS) { f.Capacity = 5 * 16 << 10 })
			b, l := d.box("coins"), newLedger()
			const n = 400
			for i := range n {
				l.put(b, fmt.Sprint(i)+strings.Repeat("x", 500))
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			if accepted, refused := l.count(); accepted != n || refused != 0 {
				t.Errorf("%d accepted, %d refused of %d", accepted, refused, n)
			}
			if s := d.log.Status(); s.Err != nil || !errors.Is(s.Full, syscall.ENOSPC) || s.DiskBytes > 5*16<<10 {
				t.Errorf("%+v; want a log that works within the room it has, and says so", s)
			}
			st := b.Stats()
			if st.Queued < 50 || uint64(st.Queued)+st.Dropped[outbox.DroppedFull] != n {
				t.Errorf("%d queued, %v dropped", st.Queued, st.Dropped)
			}
			d.restart()
			bodies, _ := all(d.box("coins"))
			if after := d.box("coins").Stats(); len(bodies) != st.Queued || after.Dropped[outbox.DroppedFull] != st.Dropped[outbox.DroppedFull] {
				t.Errorf("%d after a restart, %v; before %d, %v", len(bodies), after.Dropped, st.Queued, st.Dropped)
			}
			if !strings.HasPrefix(bodies[len(bodies)-1], fmt.Sprint(n-1)) {
				t.Errorf("the newest is %.8q", bodies[len(bodies)-1])
			}
			d.log.Close()
		})
	})
	t.Run("little free", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, outbox.LogConfig{SegmentBytes: 16 << 10, MaxBytes: 1 << 20, MinFree: 100 << 10})
			d.fs.Set(func(f *disktest.FS) { f.Capacity = 200 << 10 })
			b := d.box("coins")
			for range 400 {
				d.put(b, strings.Repeat("x", 500))
			}
			if n, _ := d.fs.Free(dir); n < 100<<10 {
				t.Errorf("%d bytes are left free, 100 KiB were asked for", n)
			}
			if s := d.log.Status(); s.Full == nil || s.Err != nil {
				t.Errorf("%+v", s)
			}
			d.log.Close()
		})
	})
}

// TestR15_WeekOffline: a device is offline for seven days and hands over a million messages; the outbox holds what it may,
// its counters are exact, and it is emptied in order.
func TestR15_WeekOffline(t *testing.T) {
	messages := 1_000_000
	if testing.Short() {
		messages = 20_000
	}
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		d := newDevice(t, outbox.LogConfig{SegmentBytes: 256 << 10, MaxBytes: limit, MaxAge: 30 * 24 * time.Hour})
		b, door := d.box("coins"), d.box("door")
		d.put(door, "the quiet one")
		pause := 7 * 24 * time.Hour / time.Duration(messages/1000)
		accepted := 0
		var mu sync.Mutex
		for n := range messages {
			r := outbox.Record{Body: fmt.Appendf(nil, `{"n":%d,"pad":"0123456789012345678901234567890123456789"}`, n)}
			b.Put(r, func(_ string, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					accepted++
				}
			})
			if n%1000 == 999 {
				time.Sleep(pause)
			}
		}
		time.Sleep(time.Minute)
		st := b.Stats()
		if accepted != messages || st.Accepted != uint64(messages) || uint64(st.Queued)+st.Dropped[outbox.DroppedFull] != uint64(messages) {
			t.Errorf("%d accepted, %+v", accepted, st)
		}
		if s := d.log.Status(); s.DiskBytes > limit*10/6+3*256<<10 || s.Bytes > limit || s.Bytes < limit/2 {
			t.Errorf("%d bytes on disk, %d of messages, the bound is %d", s.DiskBytes, s.Bytes, limit)
		}
		d.restart()
		b = d.box("coins")
		want := messages - st.Queued
		for drained := range st.Queued {
			r, ok := b.Next()
			if !ok {
				t.Fatalf("nothing more after %d of %d", drained, st.Queued)
			}
			n := -1
			if fmt.Sscanf(string(r.Body), `{"n":%d`, &n); n != want {
				t.Fatalf("message %d after %d", n, want-1)
			}
			want++
			b.Acked(r.ID)
		}
		time.Sleep(time.Minute)
		d.put(b, "one more")
		if s := d.log.Status(); s.DiskBytes > 5*256<<10 {
			t.Errorf("%d bytes on disk for an empty outbox", s.DiskBytes)
		}
		d.restart()
		d.expect(d.box("coins"), "one more")
		d.expect(d.box("door"), "the quiet one") // it had its share all the time
		d.log.Close()
	})
}

// TestR16_Burst: thousands of messages at once, from some components, are all taken.
func TestR16_Burst(t *testing.T) {
	for _, p := range []outbox.Profile{outbox.Durable, outbox.SDCard} {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, outbox.LogConfig{Profile: p, SegmentBytes: 512 << 10})
			l := newLedger()
			for n := range 5000 {
				l.put(d.box(fmt.Sprint("c", n%4)), fmt.Sprint(n)+strings.Repeat("x", 250))
			}
			time.Sleep(time.Minute)
			if accepted, refused := l.count(); accepted != 5000 || refused != 0 {
				t.Errorf("%s: %d accepted, %d refused of 5000", p, accepted, refused)
			}
			d.restart()
			for c := range 4 {
				bodies, _ := all(d.box(fmt.Sprint("c", c)))
				last := -1
				for _, body := range bodies {
					n := -1
					if fmt.Sscanf(body, "%dx", &n); n <= last {
						t.Fatalf("%s: %d after %d", p, n, last)
					}
					last = n
				}
				if len(bodies) != 1250 {
					t.Errorf("%s: %d of 1250", p, len(bodies))
				}
			}
			d.log.Close()
		})
	}
}
