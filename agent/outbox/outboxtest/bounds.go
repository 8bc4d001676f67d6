package outboxtest

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/outbox"
)

func (s suite) full(t *testing.T) {
	b := s.box(t, Limits{MaxRecords: 4})
	put(t, b, "h1", high)
	put(t, b, "n1")
	put(t, b, "n2")
	put(t, b, "h2", high)
	put(t, b, "n3") // n1 goes
	put(t, b, "h3", high)
	put(t, b, "h4", high) // n2 and n3 go
	put(t, b, "n4")       // lowest priority of all: goes at once
	put(t, b, "h5", high) // h1 goes
	dropped(t, b, outbox.DroppedFull, 5)
	expect(t, b, "h2 h3 h4 h5")
	if st := b.Stats(); st.Accepted != 9 || st.Queued != 4 {
		t.Errorf("accepted %d, queued %d; want 9, 4", st.Accepted, st.Queued)
	}
}

func (s suite) bytes(t *testing.T) {
	const limit = 64 << 10
	b := s.box(t, Limits{MaxBytes: limit})
	for i := range 100 {
		put(t, b, fmt.Sprintf("%02d", i)+strings.Repeat("x", 2<<10))
		if n := b.Stats().Bytes; n > limit {
			t.Fatalf("%d bytes after %d records, the bound is %d", n, i+1, limit)
		}
	}
	st := b.Stats()
	if st.Queued < 16 || st.Dropped[outbox.DroppedFull] != uint64(100-st.Queued) {
		t.Errorf("%d queued, %v dropped of 100; want some 30, and the rest counted", st.Queued, st.Dropped)
	}
	got := take(b, 100)
	if last := string(got[len(got)-1].Body[:2]); last != "99" {
		t.Errorf("the newest is %s, want 99", last)
	}
	for _, r := range got {
		b.Acked(r.ID)
	}
	if n := b.Stats().Bytes; n != 0 {
		t.Errorf("%d bytes in an empty box", n)
	}
}

func (s suite) inFlight(t *testing.T) {
	b := s.box(t, Limits{MaxRecords: 3})
	put(t, b, "a")
	put(t, b, "b")
	put(t, b, "c")
	flying := take(b, 3)
	put(t, b, "d")
	put(t, b, "e", high)
	if st := b.Stats(); st.InFlight != 3 {
		t.Errorf("%d in flight, want 3", st.InFlight)
	}
	for _, r := range flying[:2] {
		b.Acked(r.ID)
	}
	b.Returned()
	if got := bodies(take(b, 10)); !strings.Contains(got, "c") {
		t.Errorf("left are %q, want c among them: it was in flight", got)
	}
}

func (s suite) refused(t *testing.T) {
	b := s.box(t, Limits{})
	put(t, b, "a")
	bad := put(t, b, "bad")
	put(t, b, "c")
	for _, r := range take(b, 2) {
		if r.ID == bad {
			b.Refused(r.ID)
			b.Refused(r.ID) // once is enough
		}
	}
	b.Refused("no id of ours")
	b.Returned()
	expect(t, b, "a c")
	dropped(t, b, outbox.DroppedRefused, 1)
	if st := b.Stats(); st.Accepted != 3 || st.Acked != 0 || st.Queued != 2 {
		t.Errorf("accepted %d, acked %d, queued %d; want 3, 0, 2", st.Accepted, st.Acked, st.Queued)
	}
}

func (s suite) expires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := s.box(t, Limits{DefaultTTL: time.Minute})
		put(t, b, "short", ttl(time.Second))
		put(t, b, "default")
		put(t, b, "long", ttl(time.Hour))
		put(t, b, "old clock", func(r *outbox.Record) { r.At = time.Unix(0, 0) }) // set before the clock was
		time.Sleep(time.Second)
		if n := b.Stats().Queued; n != 3 {
			t.Errorf("%d queued after a second, want 3", n)
		}
		time.Sleep(59 * time.Second)
		put(t, b, "new")
		expect(t, b, "long new")
		dropped(t, b, outbox.DroppedExpired, 3)
		time.Sleep(2 * time.Hour)
		if n := b.Stats().InFlight; n != 2 {
			t.Errorf("%d in flight, want 2: the hub may have them", n)
		}
		b.Returned()
		expect(t, b, "")
		dropped(t, b, outbox.DroppedExpired, 5)
	})
}

func (s suite) expiredFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := s.box(t, Limits{MaxRecords: 3})
		put(t, b, "oldest")
		put(t, b, "high", high, ttl(time.Second))
		put(t, b, "young")
		time.Sleep(2 * time.Second)
		put(t, b, "new")
		expect(t, b, "oldest young new")
		dropped(t, b, outbox.DroppedExpired, 1)
		dropped(t, b, outbox.DroppedFull, 0)
	})
}

func (s suite) age(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := s.box(t, Limits{MaxAge: time.Hour})
		put(t, b, "a")
		put(t, b, "b", ttl(24*time.Hour))
		put(t, b, "c", ttl(time.Minute))
		time.Sleep(59 * time.Minute)
		if n := b.Stats().Queued; n != 2 {
			t.Errorf("%d queued after 59 minutes, want 2", n)
		}
		time.Sleep(time.Minute)
		expect(t, b, "")
	})
}

// A record that the hub closes the connection for, while it takes others, is set aside at the fifth close.
func (s suite) setAside(t *testing.T) {
	b := s.box(t, Limits{})
	put(t, b, "bad")
	for good := range 3 {
		for i := range 10 { // alone, it is tried again and again
			if got := bodies(take(b, 10)); got != "bad" {
				t.Fatalf("try %d: next is %q, want the record again", i+1, got)
			}
			b.Returned()
		}
		put(t, b, fmt.Sprintf("good%d", good))
		for {
			r, ok := b.Next()
			if !ok {
				t.Fatal("the good record does not come")
			}
			if string(r.Body) != "bad" {
				b.Acked(r.ID)
				break
			}
			b.Returned()
		}
		if d := b.Stats().Dropped[outbox.SetAside]; d != 0 {
			t.Fatalf("set aside after %d acknowledgements of others", good+1)
		}
		if r, ok := b.Next(); !ok || string(r.Body) != "bad" {
			t.Fatalf("next is %q, want the bad record alone", r.Body)
		}
		b.Returned()
	}
	expect(t, b, "")
	dropped(t, b, outbox.SetAside, 1)
	if st := b.Stats(); st.Queued != 0 || st.Bytes != 0 {
		t.Errorf("%+v, want an empty box", st)
	}
}

// A hub that throttles or whose quota is used up closes on whatever is sent. No record is to blame.
func (s suite) nothingTaken(t *testing.T) {
	b := s.box(t, Limits{})
	const n = 30
	for i := range n {
		put(t, b, fmt.Sprintf("good%d", i))
	}
	for range 200 {
		if len(take(b, 16)) == 0 {
			t.Fatal("nothing to send")
		}
		b.Returned()
	}
	if st := b.Stats(); st.Queued != n || len(st.Dropped) > 0 {
		t.Fatalf("%+v, want %d queued and none dropped", st, n)
	}
	arrived := map[string]bool{}
	for {
		got := take(b, 16)
		if len(got) == 0 {
			break
		}
		for _, r := range got {
			arrived[string(r.Body)] = true
			b.Acked(r.ID)
		}
	}
	if len(arrived) != n {
		t.Errorf("%d arrived, want %d", len(arrived), n)
	}
}

// A record that makes the hub close the connection is sent along with others at first. They must not share its fate.
func (s suite) neighbours(t *testing.T) {
	b := s.box(t, Limits{})
	for i := range 20 {
		text := fmt.Sprintf("good%d", i)
		if i == 5 {
			text = "bad"
		}
		put(t, b, text)
	}
	good := 0
	for connection := 0; b.Stats().Queued > 0; connection++ {
		if connection > 40 {
			t.Fatalf("still %d queued after 40 connections", b.Stats().Queued)
		}
		for open := true; open; {
			got := take(b, 10)
			open = len(got) > 0 // else everything is sent
			// The hub acknowledges nothing of a burst in which the bad one is, and closes.
			if strings.Contains(bodies(got), "bad") {
				break
			}
			for _, r := range got {
				b.Acked(r.ID)
				good++
			}
		}
		b.Returned()
	}
	if good != 19 {
		t.Errorf("%d good records arrived, want 19", good)
	}
	dropped(t, b, outbox.SetAside, 1)
}
