package iothub

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/iothub/internal/link"
)

func TestRetryPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := errors.New("lost")
		for seed := range 50 {
			r := newRetry(fmt.Sprint("d/", seed))
			wait, _ := r.next(lost, time.Hour)
			if wait > firstWait {
				t.Fatalf("first wait %v, want at most %v", wait, firstWait)
			}
			var sum time.Duration
			for i := range 100 {
				limit := shortWait
				if sum >= shortOutage {
					limit = maxWait
				}
				wait, _ = r.next(lost, 0)
				if wait < baseWait || wait > limit {
					t.Fatalf("wait %d is %v, want at most %v", i, wait, limit)
				}
				sum += wait
				time.Sleep(wait)
			}
			if sum < 8*time.Minute {
				t.Errorf("100 tries take only %v", sum)
			}
			if wait, _ = r.next(lost, time.Minute); wait > firstWait {
				t.Errorf("after a connection that stood: %v", wait)
			}
			refused := fmt.Errorf("x: %w", ErrUnauthorized)
			for i := range 50 {
				if wait, _ = r.next(refused, 0); wait < refusedWait || wait > maxRefused {
					t.Fatalf("refused: wait %d is %v", i, wait)
				}
			}
			if r.woken() {
				t.Error("a link that comes up does not mend a credential")
			}
			if wait, _ = r.next(lost, 0); wait > firstWait {
				t.Errorf("after the refusals have ended: %v", wait)
			}
		}
	})
}

func TestRetrySuspectsATakeover(t *testing.T) {
	r := newRetry("d/m")
	for i := range 5 {
		wait, err := r.next(link.ErrHub, time.Second)
		if taken := errors.Is(err, ErrTakenOver); taken != (i >= 2) || !errors.Is(err, link.ErrHub) {
			t.Errorf("drop %d: %v", i+1, err)
		}
		if calm := wait >= refusedWait; calm != (i >= 2) {
			t.Errorf("drop %d: wait %v", i+1, wait)
		}
		_, _ = r.next(link.ErrHub, 0) // a try that makes no connection changes nothing
	}
	// The other one may be calm too: a connection of a minute proves nothing.
	if wait, err := r.next(link.ErrHub, time.Minute); !errors.Is(err, ErrTakenOver) || wait < refusedWait {
		t.Errorf("after a minute: %v, %v", wait, err)
	}
	if _, err := r.next(link.ErrHub, calmTime); errors.Is(err, ErrTakenOver) {
		t.Errorf("after a connection that stood: %v", err)
	}
	if _, err := r.next(link.ErrHub, time.Second); errors.Is(err, ErrTakenOver) {
		t.Errorf("the count goes on: %v", err)
	}
}

func TestBadNetworkIsNoTakeover(t *testing.T) {
	r := newRetry("d/m")
	for i := range 20 {
		ends := []error{link.ErrHub, errors.New("the hub has been silent")}
		if _, err := r.next(ends[i%2], time.Second); errors.Is(err, ErrTakenOver) {
			t.Fatalf("drop %d: %v", i+1, err)
		}
		if i%2 == 1 {
			if _, err := r.next(&unreached{errors.New("no route")}, 0); errors.Is(err, ErrTakenOver) {
				t.Fatalf("dial %d: %v", i+1, err)
			}
		}
	}
	if r.suspect {
		t.Error("a takeover is suspected")
	}
}

func TestRenewalIsEarlyAndSpread(t *testing.T) {
	seen := map[time.Duration]bool{}
	for i := range 20 {
		d := newRetry(fmt.Sprint("d/", i)).renewal(time.Hour)
		if d < 45*time.Minute || d > 51*time.Minute {
			t.Errorf("renewal after %v", d)
		}
		seen[d.Truncate(time.Second)] = true
	}
	if len(seen) < 15 {
		t.Errorf("20 identities renew at %d different seconds", len(seen))
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		start := time.Now()
		for i := range 50 {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if want := max(0, i-paceBurst+1) * int(paceInterval); time.Since(start) != time.Duration(want) {
				t.Errorf("connect %d after %v", i+1, time.Since(start))
			}
		}
		time.Sleep(time.Minute)
		start = time.Now()
		for range paceBurst {
			if err := p.wait(t.Context()); err != nil || time.Since(start) != 0 {
				t.Errorf("a burst after a pause: %v, %v", time.Since(start), err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}
