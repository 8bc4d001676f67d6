package outbox_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/outbox"
)

// A component with a backlog, and one that hands over and is rid of messages all the time: the busy one's messages do not
// fill the disk because of the quiet one's, and nobody loses any.
func TestSegmentsAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, outbox.LogConfig{SegmentBytes: 16 << 10, MaxBytes: 64 << 10})
		busy, quiet := d.box("busy"), d.box("quiet")
		l := newLedger()
		for n := range 3000 {
			d.put(busy, strings.Repeat("x", 500))
			r, _ := busy.Next()
			busy.Acked(r.ID)
			if n%30 == 0 {
				l.put(quiet, fmt.Sprint(n))
			}
		}
		time.Sleep(time.Second)
		s := d.log.Status()
		if s.DiskBytes > 64<<10*10/6+2*16<<10 {
			t.Errorf("%d bytes on disk", s.DiskBytes)
		}
		if s.Written > 3000*600*3/2 {
			t.Errorf("%d bytes written for 3000 messages of 500", s.Written)
		}
		d.powerCut(3)
		_, records := all(d.box("quiet"))
		if missing := l.missing(byBody(records)); len(missing) > 0 || len(records) != 100 {
			t.Errorf("%d of 100 are there, %q are missing", len(records), missing)
		}
		if st := d.box("quiet").Stats(); st.Accepted != 100 || len(st.Dropped) != 0 {
			t.Errorf("%+v", st)
		}
		if n := d.log.Status().Damaged; n != 0 {
			t.Errorf("%d damaged places", n)
		}
		d.log.Close()
	})
}

// A time to live goes on while the device is off, once the clock is known to be right.
func TestAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, outbox.LogConfig{})
		b := d.box("coins")
		d.log.Confirm(time.Now())
		time.Sleep(time.Hour)
		hours := func(n int) func(*outbox.Record) {
			return func(r *outbox.Record) { r.TTL = time.Duration(n) * time.Hour }
		}
		d.put(b, "for two hours", hours(2))
		d.put(b, "for a day", hours(24))
		d.put(b, "for ever")
		time.Sleep(time.Hour)
		off := func(span time.Duration) {
			if err := d.log.Close(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(span)
			d.start()
			b = d.box("coins")
		}
		off(5 * time.Hour)
		if n := b.Stats().Queued; n != 3 {
			t.Errorf("%d queued before the clock is known to be right, want all 3", n)
		}
		d.log.Confirm(time.Now())
		if st := b.Stats(); st.Queued != 2 || st.Dropped[outbox.DroppedExpired] != 1 {
			t.Errorf("%+v once it is, want one expired", st)
		}
		time.Sleep(10 * time.Hour) // 16 of the 24 are over
		off(0)                     // the clock is not known: it counts from what was saved
		time.Sleep(17 * time.Hour)
		d.log.Confirm(time.Now())
		d.expect(b, "for ever")
		d.log.Confirm(time.Now().Add(-time.Hour)) // a step back makes nothing younger or older
		if st := b.Stats(); st.InFlight != 1 {
			t.Errorf("%+v", st)
		}
		d.log.Close()
	})
}

// What is set aside is still shown after a restart, and the newest are kept.
func TestSetAsideIsKept(t *testing.T) {
	for _, p := range []outbox.Profile{outbox.Durable, outbox.SDCard} {
		d := newDevice(t, outbox.LogConfig{Profile: p})
		b := d.box("coins")
		var ids []string
		for n := range outbox.MaxAside + 2 {
			bad := d.put(b, fmt.Sprint(n))
			ids = append(ids, bad)
			for tries := 0; b.Stats().Dropped[outbox.SetAside] == uint64(n); tries++ {
				switch r, _ := b.Next(); {
				case tries > 50:
					t.Fatalf("%s: message %d is not set aside", p, n)
				case r.ID == bad:
					b.Returned()
				default:
					b.Acked(r.ID)
				}
				if b.Stats().Queued == 1 {
					d.put(b, "good") // what the hub takes between two closes
				}
			}
			for r, ok := b.Next(); ok; r, ok = b.Next() {
				b.Acked(r.ID)
			}
		}
		check := func(when string) {
			t.Helper()
			st := d.box("coins").Stats()
			if len(st.Aside) != outbox.MaxAside || st.Queued != 0 || st.Dropped[outbox.SetAside] != outbox.MaxAside+2 {
				t.Fatalf("%s %s: %+v", p, when, st)
			}
			for i, a := range st.Aside {
				if a.ID != ids[i+2] || a.Bytes == 0 || a.At.IsZero() {
					t.Errorf("%s %s: %+v is shown, want %s", p, when, a, ids[i+2])
				}
			}
		}
		check("at once")
		d.restart()
		check("after a restart")
		d.restart()
		check("after two")
	}
}

// Messages of a component that nobody opens are kept, named, and there when it comes back.
func TestComponentThatIsGone(t *testing.T) {
	d := newDevice(t, outbox.LogConfig{})
	d.put(d.box("door"), "open", withState("o"))
	d.put(d.box("coins"), "1")
	d.restart()
	d.box("coins")
	if left := d.log.Status().Left; len(left) != 1 || left["door"] != 1 {
		t.Errorf("left %v, want one message of door", left)
	}
	d.restart()
	b := d.box("door")
	if len(d.log.Status().Left) != 1 || string(b.State()) != "o" {
		t.Errorf("left %v, state %q", d.log.Status().Left, b.State())
	}
	d.expect(b, "open")
}

// After a kill -9 only what the last moment's acknowledgements were for is sent again.
func TestNoReplayAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, outbox.LogConfig{})
		b := d.box("coins")
		for n := range 200 {
			d.put(b, fmt.Sprint(n))
		}
		for range 150 {
			r, _ := b.Next()
			b.Acked(r.ID)
		}
		time.Sleep(time.Second)
		d.cfg.FS = d.fs.Clone() // what the kernel has: a kill loses nothing of it
		d.log.Close()
		log := outbox.OpenLog(d.cfg)
		bodies, _ := all(log.Box("coins"))
		if len(bodies) != 50 || bodies[0] != "150" {
			t.Errorf("%d are sent again, from %.5q", len(bodies), bodies)
		}
		log.Close()
	})
}

// With the sd-card profile a message that the hub has had is not written, but the state that came with it is. A power cut
// costs what is younger than a second, and nothing else.
func TestSDCardPowerCut(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, outbox.LogConfig{Profile: outbox.SDCard})
			b := d.box("coins")
			for n := range 20 {
				d.put(b, fmt.Sprint(n), withState(fmt.Sprint(n)))
				if n < 10 {
					r, _ := b.Next()
					b.Acked(r.ID)
				}
			}
			time.Sleep(1500 * time.Millisecond)
			d.put(b, "young", withState("young"))
			d.powerCut(seed)
			b = d.box("coins")
			if s := string(b.State()); s != "19" {
				t.Errorf("seed %d: state %q, want that of the last message older than a second", seed, s)
			}
			d.expect(b, "10", "11", "12", "13", "14", "15", "16", "17", "18", "19")

			d.put(b, "sent", withState("sent"))
			r, _ := b.Next()
			b.Acked(r.ID)
			time.Sleep(1500 * time.Millisecond)
			d.powerCut(seed)
			if s := string(d.box("coins").State()); s != "sent" {
				t.Errorf("seed %d: state %q, want that of the message that the hub has", seed, s)
			}
			d.log.Close()
		})
	}
}

// A power cut right after the module's state came with a message that the disk then has: both or neither are there.
func TestStateComesWithItsMessage(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, outbox.LogConfig{})
			b := d.box("coins")
			d.put(b, "0", withState("0"))
			for n := 1; n < 6; n++ {
				b.Put(outbox.Record{Body: fmt.Append(nil, n), State: fmt.Append(nil, n)}, func(string, error) {})
			}
			written := false
			d.fs.Set(func(f *disktest.FS) {
				f.Fault = func(op disktest.Op) disktest.Fault {
					if op.Kind == "write" {
						written = true
					}
					if op.Kind == "sync" && written {
						go f.Cut()
						return disktest.Fault{Delay: time.Millisecond}
					}
					return disktest.Fault{}
				}
			})
			time.Sleep(time.Second)
			d.powerCut(seed)
			b = d.box("coins")
			bodies, _ := all(b)
			if len(bodies) == 0 || string(b.State()) != bodies[len(bodies)-1] {
				t.Errorf("seed %d: the state is %q, the messages are %q", seed, b.State(), bodies)
			}
			d.log.Close()
		})
	}
}

// A checkpoint speaks of messages that leave after it. Their segments are taken out then, and nothing of that is a loss.
func TestMessagesThatLeftAreNotMissing(t *testing.T) {
	d := newDevice(t, outbox.LogConfig{})
	b := d.box("coins")
	const n = 60
	for range n { // eight segments, each with a checkpoint
		d.put(b, strings.Repeat("x", 4<<10))
	}
	segments := len(d.fs.Files())
	_, records := all(b)
	for _, r := range records {
		b.Acked(r.ID)
	}
	d.restart()
	if now := len(d.fs.Files()); segments < 5 || now >= segments {
		t.Fatalf("%d files, %d before: no segment was taken out", now, segments)
	}
	d.restart()
	if st := d.box("coins").Stats(); len(st.Dropped) > 0 || st.Accepted != n || st.Acked != n || st.Queued != 0 {
		t.Errorf("%+v; want %d accepted and acknowledged, and none dropped", st, n)
	}
}
