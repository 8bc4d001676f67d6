package edges

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
)

func TestOrderAndBound(t *testing.T) {
	q := New()
	for i := range Depth + 3 {
		q.Push(hal.Edge{Seq: uint32(i + 1)})
	}
	for i := range Depth {
		e, err := q.Next(t.Context())
		if err != nil || e.Seq != uint32(i+4) {
			t.Fatalf("edge %d = %+v, %v, want seq %d: the oldest three are dropped", i, e, err, i+4)
		}
	}
}

func TestEnd(t *testing.T) {
	q := New()
	q.Push(hal.Edge{Seq: 1})
	q.End(hal.ErrGone, false)
	if e, err := q.Next(t.Context()); err != nil || e.Seq != 1 {
		t.Errorf("kept edge = %+v, %v, want seq 1", e, err)
	}
	if _, err := q.Next(t.Context()); !errors.Is(err, hal.ErrGone) {
		t.Errorf("after the last edge err = %v, want ErrGone", err)
	}
	q.End(hal.ErrClosed, true)
	if _, err := q.Next(t.Context()); !errors.Is(err, hal.ErrClosed) {
		t.Errorf("after close err = %v, want ErrClosed", err)
	}
}

func TestWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New()
		got := make(chan uint32, 2)
		for range 2 {
			go func() {
				e, err := q.Next(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- e.Seq
			}()
		}
		synctest.Wait()
		q.Push(hal.Edge{Seq: 1})
		q.Push(hal.Edge{Seq: 2})
		if sum := <-got + <-got; sum != 3 {
			t.Errorf("two waiters took edges that sum to %d, want 3", sum)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want DeadlineExceeded", err)
		}
	})
}
