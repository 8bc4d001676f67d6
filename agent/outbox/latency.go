package outbox

import "time"

// SyncBounds are the upper bounds of Latency's buckets: from a good disk to one that is failing.
var SyncBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Latency is how long something has taken, each time.
type Latency struct {
	Count   uint64
	Sum     time.Duration
	Buckets [len(SyncBounds)]uint64 // how often at most so long, by SyncBounds; each counts those below it too
}

func (l *Latency) add(took time.Duration) {
	l.Count++
	l.Sum += took
	for n, bound := range SyncBounds {
		if took <= bound {
			l.Buckets[n]++
		}
	}
}
