package iothub

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestRetryPace(t *testing.T) {
	lost := errors.New("lost")
	for seed := range 50 {
		r := newRetry(fmt.Sprint("d/", seed))
		wait, _ := r.next(lost, time.Hour)
		if wait > firstWait {
			t.Fatalf("first wait %v, want at most %v", wait, firstWait)
		}
		var sum time.Duration
		for i := range 100 {
			wait, _ = r.next(lost, 0)
			if wait < baseWait || wait > maxWait {
				t.Fatalf("wait %d is %v", i, wait)
			}
			sum += wait
		}
		if sum < 10*time.Minute {
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
		if wait, _ = r.next(lost, 0); wait > firstWait {
			t.Errorf("after the refusals have ended: %v", wait)
		}
	}
}

func TestRetrySuspectsATakeover(t *testing.T) {
	r := newRetry("d/m")
	lost := errors.New("the hub closed the connection")
	for i := range 5 {
		wait, err := r.next(lost, time.Second)
		if taken := errors.Is(err, ErrTakenOver); taken != (i >= 2) || !errors.Is(err, lost) {
			t.Errorf("drop %d: %v", i+1, err)
		}
		if calm := wait >= refusedWait; calm != (i >= 2) {
			t.Errorf("drop %d: wait %v", i+1, wait)
		}
		_, _ = r.next(lost, 0) // a try that makes no connection changes nothing
	}
	if _, err := r.next(lost, time.Minute); errors.Is(err, ErrTakenOver) {
		t.Errorf("after a connection that stood: %v", err)
	}
	if _, err := r.next(lost, time.Second); errors.Is(err, ErrTakenOver) {
		t.Errorf("the count goes on: %v", err)
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
