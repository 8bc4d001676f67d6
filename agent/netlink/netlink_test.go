package netlink

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestABatchIsOneCallAndAStormOneASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan struct{}, 1)
		start := time.Now()
		var calls []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			paced(t.Context(), changes, func() { calls = append(calls, time.Since(start)) })
		}()
		change := func() {
			select {
			case changes <- struct{}{}:
			default:
			}
		}
		for range 12 { // link, address, routes: within 60 ms
			change()
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(calls) != 1 || calls[0] != gather {
			t.Errorf("one event made calls at %v", calls)
		}
		calls = nil
		begin := time.Since(start)
		for range 1000 {
			change()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		close(changes)
		<-done
		if len(calls) < 9 || len(calls) > 12 {
			t.Errorf("10 s of flapping made %d calls: %v", len(calls), calls)
		}
		if last := calls[len(calls)-1] - begin; last < 10*time.Second-gap {
			t.Errorf("the last change was not told: the last call was after %v", last)
		}
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, func() {}) }()
	cancel()
	select {
	case err := <-ended: // nil, or this system does not tell
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Fatal("Watch goes on")
	}
}
