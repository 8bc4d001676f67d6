// Package outboxtest is what every [outbox.Box] has to do: one suite, and each implementation is one call.
package outboxtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/outbox"
)

// Limits are what a test asks of a new box; 0 is the implementation's default.
type Limits struct {
	MaxRecords int
	MaxBytes   int
	MaxAge     time.Duration
	DefaultTTL time.Duration
}

// Run holds the suite against boxes that open makes: empty, each on its own.
func Run(t *testing.T, open func(testing.TB, Limits) outbox.Box) {
	s := suite{open}
	t.Run("first in, first out", s.order)
	t.Run("high priority first", s.priority)
	t.Run("ids never repeat", s.ids)
	t.Run("acknowledged out of order", s.outOfOrder)
	t.Run("returned in order", s.returned)
	t.Run("drops the oldest of the lowest priority", s.full)
	t.Run("bytes are bounded", s.bytes)
	t.Run("never drops what is in flight", s.inFlight)
	t.Run("expires", s.expires)
	t.Run("expired goes before the oldest", s.expiredFirst)
	t.Run("age is bounded", s.age)
	t.Run("sets aside at five closes", s.setAside)
	t.Run("sets nothing aside for a hub that takes nothing", s.nothingTaken)
	t.Run("keeps the neighbours of a bad record", s.neighbours)
	t.Run("counts what the hub refuses", s.refused)
	t.Run("state", s.state)
	t.Run("too large", s.tooLarge)
	t.Run("more", s.more)
	t.Run("stats", s.stats)
	t.Run("closed", s.closed)
	t.Run("concurrent use", s.concurrent)
	t.Run("loses nothing that it has not counted", s.counted)
}

type suite struct {
	open func(testing.TB, Limits) outbox.Box
}

func (s suite) box(t testing.TB, l Limits) outbox.Box {
	t.Helper()
	b := s.open(t, l)
	t.Cleanup(func() { b.Close() })
	return b
}

// put appends a record with text as body.
func put(t testing.TB, b outbox.Box, text string, change ...func(*outbox.Record)) string {
	t.Helper()
	r := outbox.Record{Body: []byte(text)}
	for _, c := range change {
		c(&r)
	}
	id, err := b.Append(r)
	if err != nil {
		t.Fatalf("Append(%.20s): %v", text, err)
	}
	return id
}

func high(r *outbox.Record) { r.High = true }

func ttl(d time.Duration) func(*outbox.Record) { return func(r *outbox.Record) { r.TTL = d } }

// take marks up to n records in flight and answers them.
func take(b outbox.Box, n int) []outbox.Record {
	var out []outbox.Record
	for range n {
		r, ok := b.Next()
		if !ok {
			break
		}
		out = append(out, r)
	}
	return out
}

func bodies(records []outbox.Record) string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Body))
	}
	return strings.Join(out, " ")
}

// expect takes everything and fails unless it is want.
func expect(t testing.TB, b outbox.Box, want string) {
	t.Helper()
	if got := bodies(take(b, 1000)); got != want {
		t.Errorf("next are %q, want %q", got, want)
	}
}

func dropped(t testing.TB, b outbox.Box, reason string, want uint64) {
	t.Helper()
	if got := b.Stats().Dropped[reason]; got != want {
		t.Errorf("%d dropped as %s, want %d", got, reason, want)
	}
}

func (s suite) order(t *testing.T) {
	b := s.box(t, Limits{})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id := put(t, b, "a", func(r *outbox.Record) { r.At, r.Properties = at, map[string]string{"k": "v"} })
	put(t, b, "b")
	put(t, b, "c")
	r, ok := b.Next()
	if !ok || r.ID != id || string(r.Body) != "a" || r.Properties["k"] != "v" || !r.At.Equal(at) {
		t.Errorf("first is %+v, %v; want a under id %s with its properties and time", r, ok, id)
	}
	expect(t, b, "b c")
	expect(t, b, "")
}

func (s suite) priority(t *testing.T) {
	b := s.box(t, Limits{})
	put(t, b, "n1")
	put(t, b, "h1", high)
	put(t, b, "n2")
	put(t, b, "h2", high)
	expect(t, b, "h1 h2 n1 n2")
	put(t, b, "n3")
	b.Returned()
	expect(t, b, "h1 h2 n1 n2 n3")
}

func (s suite) ids(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		b := s.box(t, Limits{})
		for range 50 {
			id := put(t, b, "x")
			epoch, seq, ok := strings.Cut(id, "-")
			if !ok || len(epoch) < 8 || seq == "" {
				t.Fatalf("id %q, want <random epoch>-<seq>", id)
			}
			if seen[id] {
				t.Fatalf("id %s came twice", id)
			}
			seen[id] = true
		}
	}
}

func (s suite) outOfOrder(t *testing.T) {
	b := s.box(t, Limits{})
	for _, x := range []string{"a", "b", "c", "d"} {
		put(t, b, x)
	}
	got := take(b, 3)
	b.Acked(got[1].ID)
	b.Acked(got[1].ID) // PUBACK twice
	b.Acked("00000000-1")
	b.Acked(got[0].ID)
	b.Returned()
	expect(t, b, "c d")
	if n := b.Stats().Acked; n != 2 {
		t.Errorf("%d acknowledged, want 2", n)
	}
}

func (s suite) returned(t *testing.T) {
	b := s.box(t, Limits{})
	for i := range 6 {
		put(t, b, fmt.Sprint(i), func(r *outbox.Record) { r.High = i%3 == 0 })
	}
	take(b, 4) // 0 3 1 2
	b.Returned()
	b.Returned() // nothing in flight: no harm
	expect(t, b, "0 3 1 2 4 5")
}

func (s suite) state(t *testing.T) {
	b := s.box(t, Limits{MaxRecords: 1})
	if st := b.State(); st != nil {
		t.Errorf("a new box has state %q", st)
	}
	state := []byte("one")
	put(t, b, "a", func(r *outbox.Record) { r.State = state })
	state[0] = 'X' // the caller may use its buffer again
	put(t, b, "b") // without a state: unchanged, also when a is dropped
	if got := string(b.State()); got != "one" {
		t.Errorf("state %q, want one", got)
	}
	put(t, b, "c", func(r *outbox.Record) { r.State = []byte("two") })
	r, _ := b.Next()
	b.Acked(r.ID)
	if got := string(b.State()); got != "two" {
		t.Errorf("state %q after the acknowledgement, want two", got)
	}
	put(t, b, "d", func(r *outbox.Record) { r.State = []byte{} })
	if st := b.State(); len(st) != 0 || st == nil {
		t.Errorf("state %v, want an empty one that was set", st)
	}
}

func (s suite) tooLarge(t *testing.T) {
	b := s.box(t, Limits{})
	for name, r := range map[string]outbox.Record{
		"body":       {Body: make([]byte, 256<<10+1)},
		"properties": {Body: make([]byte, 256<<10-1), Properties: map[string]string{"k": "v"}},
		"state":      {State: make([]byte, 4<<10+1)},
	} {
		if id, err := b.Append(r); !errors.Is(err, outbox.ErrTooLarge) {
			t.Errorf("%s: id %q, %v; want ErrTooLarge", name, id, err)
		}
	}
	if st := b.Stats(); st.Accepted != 0 || st.Queued != 0 || b.State() != nil {
		t.Errorf("%+v after refusals, want nothing", st)
	}
	if _, err := b.Append(outbox.Record{Body: make([]byte, 256<<10), State: make([]byte, 4<<10)}); err != nil {
		t.Errorf("the largest record: %v", err)
	}
}

func (s suite) more(t *testing.T) {
	b := s.box(t, Limits{})
	signalled := func() bool {
		select {
		case _, ok := <-b.More():
			if !ok {
				t.Fatal("More is closed")
			}
			return true
		default:
			return false
		}
	}
	if signalled() {
		t.Error("an empty box signals")
	}
	put(t, b, "a")
	put(t, b, "b")
	if !signalled() || signalled() {
		t.Error("two appends make one signal")
	}
	take(b, 2)
	b.Returned()
	if !signalled() {
		t.Error("no signal after Returned")
	}
}

func (s suite) stats(t *testing.T) {
	b := s.box(t, Limits{})
	if st := b.Stats(); st.Queued != 0 || st.Bytes != 0 || !st.Oldest.IsZero() || len(st.Dropped) != 0 {
		t.Errorf("a new box: %+v", st)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	put(t, b, "12345", func(r *outbox.Record) { r.At = at })
	put(t, b, "12345", func(r *outbox.Record) { r.At = at.Add(time.Hour) })
	first, _ := b.Next()
	st := b.Stats()
	if st.Queued != 2 || st.InFlight != 1 || st.Bytes < 10 || !st.Oldest.Equal(at) || st.Accepted != 2 || st.Acked != 0 {
		t.Errorf("%+v, want two queued, one of them in flight, the oldest of %s", st, at)
	}
	b.Acked(first.ID)
	if st = b.Stats(); st.Queued != 1 || st.InFlight != 0 || st.Acked != 1 || !st.Oldest.Equal(at.Add(time.Hour)) {
		t.Errorf("%+v after an acknowledgement", st)
	}
	if st.Dropped != nil {
		st.Dropped["x"] = 1 // the caller's own copy
	}
	dropped(t, b, "x", 0)
}

func (s suite) closed(t *testing.T) {
	b := s.box(t, Limits{})
	put(t, b, "a")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(outbox.Record{Body: []byte("b")}); !errors.Is(err, outbox.ErrClosed) {
		t.Errorf("Append after Close: %v, want ErrClosed", err)
	}
	if r, ok := b.Next(); ok {
		t.Errorf("Next after Close: %s", r.Body)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// concurrent has a module that appends, a session that sends and a technician who looks, all at once.
func (s suite) concurrent(t *testing.T) {
	b := s.box(t, Limits{})
	const n = 500
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range n {
				if _, err := b.Append(outbox.Record{Body: []byte("x"), State: []byte("s")}); err != nil {
					t.Errorf("Append: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		for range n {
			b.Stats()
			b.State()
		}
	})
	acked := 0
	for acked < 2*n {
		r, ok := b.Next()
		if !ok {
			<-b.More()
			continue
		}
		b.Acked(r.ID)
		acked++
	}
	wg.Wait()
	if st := b.Stats(); st.Queued != 0 || st.Acked != 2*n {
		t.Errorf("%+v, want everything acknowledged", st)
	}
}

// counted holds the sums after seeded random use: what was accepted is acknowledged, dropped and counted, or queued.
func (s suite) counted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 2))
			b := s.open(t, Limits{MaxRecords: 20, MaxAge: time.Minute})
			var flying []outbox.Record
			for range 400 {
				switch r.IntN(6) {
				case 0, 1:
					put(t, b, "x", func(x *outbox.Record) {
						x.High, x.TTL = r.IntN(3) == 0, time.Duration(r.IntN(30))*time.Second
					})
				case 2:
					flying = append(flying, take(b, 1+r.IntN(5))...)
				case 3:
					if len(flying) > 0 {
						i := r.IntN(len(flying))
						b.Acked(flying[i].ID)
						flying = slices.Delete(flying, i, i+1)
					}
				case 4:
					time.Sleep(time.Duration(r.IntN(5)) * time.Second)
				case 5:
					if r.IntN(5) == 0 {
						b.Returned()
						flying = nil
					}
				}
				st := b.Stats()
				sum := st.Acked + uint64(st.Queued)
				for _, n := range st.Dropped {
					sum += n
				}
				if sum != st.Accepted || st.InFlight != len(flying) || st.Queued > 20+len(flying) {
					t.Fatalf("seed %d: %+v with %d in flight: the sums differ", seed, st, len(flying))
				}
			}
			b.Close()
		}
	})
}
