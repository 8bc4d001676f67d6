package chips

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func next(t *testing.T, w *Watcher) LineEdge {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	e, err := w.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func quiet(t *testing.T, w *Watcher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if e, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("edge %+v, %v; want none for an hour", e, err)
	}
}

func TestWatchPolarity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(Line)
		l.Set(true)
		w, low := l.Watch(false, 0), l.Watch(true, 0)
		if !w.Level() || low.Level() {
			t.Error("a high line is active, and inactive when active-low")
		}
		time.Sleep(time.Second)
		l.Set(false)
		at := time.Now()
		l.Set(false) // no edge
		if e := next(t, w); e != (LineEdge{false, at, 1}) {
			t.Errorf("edge %+v", e)
		}
		if e := next(t, low); e != (LineEdge{true, at, 1}) {
			t.Errorf("active-low edge %+v", e)
		}
		quiet(t, w)
	})
}

func TestBounceTrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(Line)
		raw, still := l.Watch(false, 0), l.Watch(false, 20*time.Millisecond)
		start := time.Now()
		l.Bounce(true, time.Millisecond, 2*time.Millisecond, time.Millisecond, 3*time.Millisecond)
		for i, want := range []time.Duration{0, 1, 3, 4, 7} {
			e := next(t, raw)
			if e.Level != (i%2 == 0) || e.At.Sub(start) != want*time.Millisecond || e.Seq != uint32(i+1) {
				t.Errorf("edge %d = %+v after %v", i, e, e.At.Sub(start))
			}
		}
		if e := next(t, still); !e.Level || e.At.Sub(start) != 27*time.Millisecond || e.Seq != 1 {
			t.Errorf("debounced edge %+v after %v, want active after 27ms", e, e.At.Sub(start))
		}
		quiet(t, still)
		l.Pulse(false, 5*time.Millisecond) // shorter than the debounce time
		quiet(t, still)
		if !still.Level() {
			t.Error("the debounced level followed a glitch")
		}
	})
}

func TestPulseIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(Line)
		w := l.Watch(false, 0)
		l.Pulse(true, time.Minute)
		next(t, w)
		l.Set(true) // what was planned is off
		quiet(t, w)
		if !l.Level() {
			t.Error("the line went back")
		}
	})
}

func TestSlowReaderSeesAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(Line)
		w, late := l.Watch(false, 0), l.Watch(false, 0)
		gaps := make([]time.Duration, 28)
		for i := range gaps {
			gaps[i] = time.Millisecond
		}
		l.Bounce(true, gaps...) // 29 edges
		time.Sleep(time.Second)
		if e := next(t, w); e.Seq != 29-watcherEvents+1 {
			t.Errorf("first edge has seq %d, want %d: the oldest are dropped", e.Seq, 29-watcherEvents+1)
		}
		for range 3 * lineHistory {
			l.Set(!l.Level())
		}
		for range watcherEvents {
			next(t, late)
		}
		quiet(t, late)
		if late.Level() != l.Level() {
			t.Error("a watcher that lost edges has the wrong level")
		}
	})
}

// TestDebounceProperty: after any train the debounced level is the line's, edges alternate, and none is closer to the
// one before than the debounce time.
func TestDebounceProperty(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			l := new(Line)
			debounce := time.Duration(1+rng.IntN(10)) * time.Millisecond
			w := l.Watch(false, debounce)
			var got []LineEdge
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					e, err := w.Next(ctx)
					if err != nil {
						return
					}
					got = append(got, e)
				}
			}()
			for range 20 {
				gaps := make([]time.Duration, rng.IntN(8))
				for i := range gaps {
					gaps[i] = time.Duration(rng.IntN(12000)) * time.Microsecond
				}
				l.Bounce(rng.IntN(2) == 0, gaps...)
				time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
			}
			time.Sleep(time.Second)
			cancel()
			<-done
			for i, e := range got {
				if e.Level != (i%2 == 0) || e.Seq != uint32(i+1) {
					t.Fatalf("edge %d = %+v", i, e)
				}
				if i > 0 && e.At.Sub(got[i-1].At) < debounce {
					t.Fatalf("edges %v apart, debounced by %v", e.At.Sub(got[i-1].At), debounce)
				}
			}
			if (len(got)%2 == 1) != l.Level() {
				t.Errorf("%d edges, and the line is %v", len(got), l.Level())
			}
		})
	}
}
