package modkit_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h modkit.Handover
		n := 0
		add := func() (int, error) { n++; return n, nil }

		if v, err := modkit.Do(t.Context(), &h, add); v != 1 || err != nil {
			t.Fatalf("before anybody owns it: %d, %v", v, err)
		}
		calls, release := h.Own()
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case call := <-calls:
					n += 10
					call()
				case <-stop:
					release()
					return
				}
			}
		}()
		if v, err := modkit.Do(t.Context(), &h, add); v != 12 || err != nil {
			t.Fatalf("with an owner: %d, %v", v, err)
		}
		close(stop)
		synctest.Wait()
		if v, err := modkit.Do(t.Context(), &h, add); v != 13 || err != nil {
			t.Fatalf("after the owner: %d, %v", v, err)
		}
	})
}

func TestHandoverEndsWithItsCallerAndItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h modkit.Handover
		_, release := h.Own() // an owner that is busy
		never := func() (int, error) { t.Error("was run"); return 0, nil }

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := modkit.Do(ctx, &h, never); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want the caller's deadline", err)
		}
		ended := make(chan error)
		go func() {
			_, err := modkit.Do(t.Context(), &h, never)
			ended <- err
		}()
		synctest.Wait()
		release()
		if err := <-ended; !errors.Is(err, modkit.ErrEnded) {
			t.Errorf("err = %v, want ErrEnded", err)
		}
	})
}

func TestDecode(t *testing.T) {
	type config struct {
		A int `json:"a"`
	}
	for _, row := range []struct {
		raw  string
		want int
		ok   bool
	}{
		{`{"a":3}`, 3, true},
		{``, 1, true},
		{` {} `, 1, true},
		{`{"b":3}`, 1, false},
		{`{"a":3} {}`, 3, false},
		{`{"a":"x"}`, 1, false},
		{`[`, 1, false},
	} {
		c := config{A: 1}
		if err := modkit.Decode(json.RawMessage(row.raw), &c); (err == nil) != row.ok || c.A != row.want {
			t.Errorf("%q: %+v, %v", row.raw, c, err)
		}
	}
}
