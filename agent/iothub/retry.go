package iothub

import (
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Waits between two tries. Microsoft Learn, "Manage device reconnections to create resilient applications", asks for
// exponential back-off with jitter, and for another pace where trying again does not cure.
const (
	firstWait   = 250 * time.Millisecond // at most, after a connection that stood
	baseWait    = 500 * time.Millisecond
	maxWait     = 30 * time.Second
	refusedWait = 5 * time.Second // after a refused credential, a throttling hub or a takeover
	maxRefused  = 5 * time.Minute
	briefly     = 10 * time.Second // a connection that ends sooner counts as a quick drop
	maxDrops    = 3                // quick drops in a row that make a takeover likely
)

// retry decides how long to wait: decorrelated jitter, each wait between a base and three times the wait before. Its
// random numbers are seeded by the identity, so that the sessions of a device and of a fleet spread, and a run can be
// repeated.
type retry struct {
	rand  *rand.Rand
	wait  time.Duration // the last one; 0 after a connection that stood
	slow  bool          // the last wait was one of the slow ones
	drops int           // connections in a row that ended within briefly
}

func newRetry(identity string) *retry {
	h := fnv.New64a()
	h.Write([]byte(identity))
	return &retry{rand: rand.New(rand.NewPCG(h.Sum64(), 1))}
}

// next is the wait after a connection that stood for lasted (0: there was none) and ended with err. It answers err too,
// marked as a takeover when the pattern says so.
func (r *retry) next(err error, lasted time.Duration) (time.Duration, error) {
	switch {
	case lasted >= briefly:
		r.wait, r.drops = 0, 0
	case lasted > 0:
		r.drops++
		if r.drops >= maxDrops && !errors.Is(err, ErrTakenOver) {
			err = &takenOver{err}
		}
	}
	slow := errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrThrottled) || errors.Is(err, ErrRejected) ||
		errors.Is(err, ErrTakenOver)
	if slow != r.slow {
		r.wait, r.slow = 0, slow
	}
	base, limit := baseWait, maxWait
	if slow {
		base, limit = refusedWait, maxRefused
	}
	switch {
	case r.wait > 0:
		r.wait = min(limit, r.between(base, 3*r.wait))
	case slow:
		r.wait = r.between(base, 2*base)
	default:
		r.wait = r.between(firstWait/4, firstWait)
	}
	return r.wait, err
}

// renewal is when to renew a token of this life: around four fifths of it, spread so that the sessions of a device do
// not all come at once.
func (r *retry) renewal(life time.Duration) time.Duration {
	return r.between(life*3/4, life*17/20)
}

func (r *retry) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(r.rand.Int64N(int64(high-low)))
}

// takenOver is a loss that looks like a takeover: MQTT 3.1.1 has no packet to say so.
type takenOver struct{ err error }

func (t *takenOver) Error() string {
	return t.err.Error() + " (three times in a row soon after connecting: " + ErrTakenOver.Error() + ")"
}

func (t *takenOver) Unwrap() []error { return []error{t.err, ErrTakenOver} }
