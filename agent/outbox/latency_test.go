package outbox

import (
	"testing"
	"time"
)

func TestLatency(t *testing.T) {
	var l Latency
	for _, took := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, time.Second, time.Minute} {
		l.add(took)
	}
	want := [len(SyncBounds)]uint64{2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4}
	if l.Count != 5 || l.Sum != time.Minute+time.Second+4*time.Millisecond || l.Buckets != want {
		t.Errorf("%+v, want %v", l, want)
	}
}
