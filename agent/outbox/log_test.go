package outbox_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/agent/outbox/outboxtest"
)

const dir = "/var/lib/twinbay/outbox"

// alone is a box whose Close closes its log.
type alone struct {
	outbox.Box
	log *outbox.Log
}

func (a alone) Close() error {
	err := a.Box.Close()
	return errors.Join(err, a.log.Close())
}

func openLog(p outbox.Profile) func(testing.TB, outboxtest.Limits) outbox.Box {
	return func(t testing.TB, l outboxtest.Limits) outbox.Box {
		log := outbox.OpenLog(outbox.LogConfig{
			Dir: dir, FS: &disktest.FS{}, Profile: p,
			MaxRecords: l.MaxRecords, MaxBytes: int64(l.MaxBytes), MaxAge: l.MaxAge, DefaultTTL: l.DefaultTTL,
		})
		return alone{log.Box("coins"), log}
	}
}

func TestDurable(t *testing.T) { outboxtest.Run(t, openLog(outbox.Durable)) }
func TestSDCard(t *testing.T)  { outboxtest.Run(t, openLog(outbox.SDCard)) }

// device is a log on a disk of a test, opened again and again.
type device struct {
	t   testing.TB
	fs  *disktest.FS
	cfg outbox.LogConfig
	log *outbox.Log
}

func newDevice(t testing.TB, cfg outbox.LogConfig) *device {
	d := &device{t: t, fs: &disktest.FS{}, cfg: cfg}
	d.cfg.Dir = dir
	if d.cfg.SegmentBytes == 0 {
		d.cfg.SegmentBytes = 32 << 10
	}
	d.start()
	t.Cleanup(func() { d.log.Close() })
	return d
}

func (d *device) start() {
	d.cfg.FS = d.fs
	d.log = outbox.OpenLog(d.cfg)
}

// restart ends the log and opens it again.
func (d *device) restart() {
	d.t.Helper()
	if err := d.log.Close(); err != nil {
		d.t.Error(err)
	}
	d.start()
}

// powerCut takes the power away and starts again with what the disk then holds.
func (d *device) powerCut(seed uint64) {
	d.fs.Cut()
	d.log.Close() // what it says now, nobody hears
	d.fs = d.fs.Restart(seed)
	d.start()
}

func (d *device) box(name string) outbox.Box { return d.log.Box(name) }

func (d *device) put(b outbox.Box, text string, change ...func(*outbox.Record)) string {
	d.t.Helper()
	r := outbox.Record{Body: []byte(text)}
	for _, c := range change {
		c(&r)
	}
	id, err := b.Append(r)
	if err != nil {
		d.t.Fatalf("Append(%.30s): %v", text, err)
	}
	return id
}

// all takes everything that is to be sent.
func all(b outbox.Box) (bodies []string, records []outbox.Record) {
	for {
		r, ok := b.Next()
		if !ok {
			return bodies, records
		}
		bodies, records = append(bodies, string(r.Body)), append(records, r)
	}
}

func (d *device) expect(b outbox.Box, want ...string) []outbox.Record {
	d.t.Helper()
	bodies, records := all(b)
	if !slices.Equal(bodies, want) {
		d.t.Errorf("next are %q, want %q", bodies, want)
	}
	return records
}

func high(r *outbox.Record) { r.High = true }

func withState(s string) func(*outbox.Record) { return func(r *outbox.Record) { r.State = []byte(s) } }

func TestRestartKeepsEverything(t *testing.T) {
	for _, p := range []outbox.Profile{outbox.Durable, outbox.SDCard} {
		t.Run(string(p), func(t *testing.T) {
			d := newDevice(t, outbox.LogConfig{Profile: p})
			coins, door := d.box("coins"), d.box("door")
			at := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
			first := d.put(coins, "one", func(r *outbox.Record) {
				r.At, r.TTL, r.Properties = at, time.Hour, map[string]string{"kind": "coin", "": "x"}
			})
			d.put(coins, "two", high, withState("2"))
			d.put(door, "open")
			d.put(coins, "three", withState("3"))
			sent, _ := coins.Next()
			coins.Acked(sent.ID)
			d.restart()
			coins, door = d.box("coins"), d.box("door")
			if s := string(coins.State()); s != "3" {
				t.Errorf("state %q, want 3", s)
			}
			if st := coins.Stats(); st.Accepted != 3 || st.Acked != 1 || st.Queued != 2 {
				t.Errorf("%+v, want 3 accepted, one acknowledged", st)
			}
			got := d.expect(coins, "one", "three")
			if r := got[0]; r.ID != first || !r.At.Equal(at) || r.TTL != time.Hour || r.Properties["kind"] != "coin" || r.State != nil {
				t.Errorf("%+v, want the record as it was put", r)
			}
			d.expect(door, "open")
			if id := d.put(coins, "four"); strings.Split(id, "-")[0] == strings.Split(first, "-")[0] {
				t.Errorf("id %s after a restart has the epoch of before", id)
			}
		})
	}
}

// Nothing happens on the disk while nothing happens, and nothing at all for messages that an sd-card's hub has taken.
func TestIdleWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, outbox.LogConfig{Profile: outbox.SDCard})
		b := d.box("climate")
		time.Sleep(time.Hour)
		if n := d.fs.Ops(); n != 0 {
			t.Errorf("%d operations of an idle log", n)
		}
		for range 3600 {
			d.put(b, "{}")
			r, _ := b.Next()
			b.Acked(r.ID)
			time.Sleep(time.Second)
		}
		if n := d.fs.Ops(); n != 0 {
			t.Errorf("%d operations for messages that the hub took at once", n)
		}
		d.put(b, "{}")
		time.Sleep(2 * time.Second)
		n := d.fs.Ops()
		if n == 0 {
			t.Error("what is two seconds old is not written")
		}
		time.Sleep(time.Hour)
		if m := d.fs.Ops(); m != n {
			t.Errorf("%d operations in an idle hour", m-n)
		}
		d.log.Close()
	})
}

// Messages of many components share a sync.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, outbox.LogConfig{SegmentBytes: 1 << 20})
		d.fs.Set(func(f *disktest.FS) {
			f.Fault = func(op disktest.Op) disktest.Fault {
				if op.Kind == "sync" {
					return disktest.Fault{Delay: 20 * time.Millisecond}
				}
				return disktest.Fault{}
			}
		})
		_, before := d.fs.Written()
		var wg sync.WaitGroup
		for c := range 16 {
			b := d.box(fmt.Sprint("component", c))
			wg.Go(func() {
				for range 50 {
					d.put(b, "{}")
				}
			})
		}
		wg.Wait()
		if _, syncs := d.fs.Written(); syncs-before > 60 {
			t.Errorf("%d syncs for 50 messages each of 16 components", syncs-before)
		}
		d.log.Close()
	})
}

// TestR01_PowerCut takes the power away at every operation of a seeded day, with several outcomes of what was not synced.
// What was accepted and not acknowledged is there, in order; the state is that of the last accepted message, or of a
// later one that is there too; nothing comes twice under two ids.
func TestR01_PowerCut(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 17
	}
	total := 0
	for cutAt := 1; ; cutAt += step {
		seeds := uint64(4)
		if !testing.Short() {
			seeds = 25
		}
		over := false
		for seed := range seeds {
			over = powerCutAt(t, cutAt, seed)
			total++
		}
		if t.Failed() || over {
			break
		}
	}
	t.Logf("%d power cuts", total)
}

func powerCutAt(t *testing.T, cutAt int, seed uint64) (over bool) {
	t.Helper()
	type fact struct {
		id string
		n  int
	}
	var mu sync.Mutex
	accepted := map[string]fact{} // by body
	acked := map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, outbox.LogConfig{SegmentBytes: 16 << 10, MaxBytes: 24 << 10})
		d.fs.Set(func(f *disktest.FS) { f.CutAt = cutAt })
		for n := range 60 {
			name := []string{"coins", "door"}[n%2]
			b := d.box(name)
			body := fmt.Sprint(name, n) + strings.Repeat("x", 300)
			b.Put(outbox.Record{Body: []byte(body), High: n%5 == 0, State: fmt.Append(nil, n)}, func(id string, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil && !acked[body] { // else the hub has it, and the disk perhaps not
					accepted[body] = fact{id: id, n: n}
				}
			})
			if n%3 == 2 {
				time.Sleep(5 * time.Millisecond)
			}
			if n%4 == 3 {
				if r, ok := b.Next(); ok {
					mu.Lock()
					acked[string(r.Body)] = true
					mu.Unlock()
					b.Acked(r.ID)
				}
			}
			if n == 40 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(2 * time.Second)
		over = d.fs.Ops() < cutAt
		d.powerCut(seed)
		if s := d.log.Status(); s.Damaged > 0 {
			t.Errorf("cut at %d, seed %d: %d damaged places after a power cut", cutAt, seed, s.Damaged)
		}
		for i, name := range []string{"coins", "door"} {
			b := d.box(name)
			state := -1
			if s := b.State(); s != nil {
				fmt.Sscan(string(s), &state)
			}
			bodies, records := all(b)
			there := map[string]string{}
			for k, body := range bodies {
				there[body] = records[k].ID
			}
			newest := -1
			for body, f := range accepted {
				if !strings.HasPrefix(body, name) {
					continue
				}
				newest = max(newest, f.n)
				id, ok := there[body]
				if !ok && !acked[body] {
					t.Errorf("cut at %d, seed %d: %.12s was accepted and is lost", cutAt, seed, body)
				}
				if ok && id != f.id {
					t.Errorf("cut at %d, seed %d: %.12s was %s and is %s", cutAt, seed, body, f.id, id)
				}
			}
			if state < newest {
				t.Errorf("cut at %d, seed %d: the state is %d, message %d was accepted", cutAt, seed, state, newest)
			}
			for n := i; n <= state; n += 2 {
				body := fmt.Sprint(name, n) + strings.Repeat("x", 300)
				if there[body] == "" && !acked[body] {
					t.Errorf("cut at %d, seed %d: the state says %d, and %.12s is not there", cutAt, seed, state, body)
				}
			}
			if id := d.put(b, "new"); there[id] != "" {
				t.Errorf("id %s again", id)
			}
		}
		d.log.Close()
	})
	return over
}
