package host

import (
	"math/rand/v2"
	"time"
)

// Delays before restarts: a crash loop ends up at twice a minute, and a minute of work makes up for all failures.
const (
	firstDelay   = 125 * time.Millisecond // at most twice that, with jitter
	longestDelay = 30 * time.Second
	healthyAfter = time.Minute
)

// Backoff makes the delays before restarts: doubling from an eighth of a second to half a minute, each with a jitter, so
// that components which died together don't start together. The zero value is ready; it belongs to one goroutine.
type Backoff struct {
	Rand *rand.Rand // of the jitter; nil means the process's
	next time.Duration
}

// After answers the delay after something that worked for as long as up. A minute of work makes up for all failures.
func (b *Backoff) After(up time.Duration) time.Duration {
	if b.next == 0 || up >= healthyAfter {
		b.next = firstDelay
	}
	jitter := rand.Float64
	if b.Rand != nil {
		jitter = b.Rand.Float64
	}
	d := b.next + time.Duration(jitter()*float64(b.next))
	b.next = min(2*b.next, longestDelay)
	return min(d, longestDelay)
}
