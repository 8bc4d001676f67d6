package iothub

import (
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/twinbay/twinbay/agent/iothub/internal/link"
)

// Waits between two tries. Microsoft Learn, "Manage device reconnections to create resilient applications", asks for
// exponential back-off with jitter, and for another pace where trying again does not cure.
const (
	firstWait   = 250 * time.Millisecond // at most, after a connection that stood
	baseWait    = 500 * time.Millisecond
	shortWait   = 8 * time.Second // at most, as long as an outage is short
	shortOutage = 5 * time.Minute
	maxWait     = 30 * time.Second
	refusedWait = 5 * time.Second // after a refused credential, a throttling hub or a takeover
	maxRefused  = 5 * time.Minute
	briefly     = 10 * time.Second // a connection that ends sooner counts as a quick drop
	maxDrops    = 3                // quick drops in a row that make a takeover likely
	calmTime    = 10 * time.Minute // a connection that stands so long ends the suspicion
)

// retry decides how long to wait: decorrelated jitter, each wait between a base and three times the wait before. Its
// random numbers are seeded by the identity, so that the sessions of a device and of a fleet spread, and a run can be
// repeated.
type retry struct {
	rand    *rand.Rand
	wait    time.Duration // the last one; 0 after a connection that stood
	slow    bool          // the last wait was one of the slow ones
	drops   int           // connections in a row that the hub ended within briefly
	suspect bool          // a takeover: from maxDrops on, until a connection has stood for calmTime
	since   time.Time     // the beginning of the outage
}

func newRetry(identity string) *retry {
	h := fnv.New64a()
	h.Write([]byte(identity))
	return &retry{rand: rand.New(rand.NewPCG(h.Sum64(), 1)), since: time.Now()}
}

// next is the wait after a connection that stood for lasted (0: there was none) and ended with err. It answers err too,
// marked as a takeover when the pattern says so.
//
// A takeover and a bad network both look like drops. They differ in what is between: in a takeover the hub ends the
// connection and takes the next one at once; with a bad network nobody ends it, or there are tries that do not get as
// far as the hub.
func (r *retry) next(err error, lasted time.Duration) (time.Duration, error) {
	dropped := errors.Is(err, link.ErrHub) || errors.Is(err, ErrTakenOver)
	r.stood(lasted)
	switch {
	case errors.Is(err, errUnreached):
		r.drops = 0
	case lasted > 0 && lasted < briefly && dropped:
		r.drops++
	}
	if r.drops >= maxDrops {
		r.suspect = true
	}
	if r.suspect && dropped && lasted > 0 && !errors.Is(err, ErrTakenOver) {
		err = &takenOver{err}
	}
	slow := errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrThrottled) || errors.Is(err, ErrRejected) ||
		errors.Is(err, ErrTakenOver)
	if slow != r.slow {
		r.wait, r.slow = 0, slow
	}
	base, limit := baseWait, maxWait
	switch {
	case slow:
		base, limit = refusedWait, maxRefused
	case time.Since(r.since) < shortOutage:
		limit = shortWait
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

// stood takes note of a connection that has ended.
func (r *retry) stood(lasted time.Duration) {
	if lasted == 0 {
		return
	}
	r.since = time.Now()
	if lasted >= calmTime {
		r.suspect = false
	}
	if lasted >= briefly {
		r.drops = 0
		if !r.suspect {
			r.wait = 0
		}
	}
}

// woken says that the network has changed: the waits begin anew. It answers false when the hub has reasons of its own to
// be left alone.
func (r *retry) woken() bool {
	if r.slow {
		return false
	}
	r.wait, r.since = 0, time.Now()
	return true
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

// errUnreached marks a try that did not get as far as the hub's answer to CONNECT.
var errUnreached = errors.New("the hub was not reached")

// unreached is err, marked and otherwise unchanged.
type unreached struct{ err error }

func (u *unreached) Error() string   { return u.err.Error() }
func (u *unreached) Unwrap() []error { return []error{u.err, errUnreached} }

// takenOver is a loss that looks like a takeover: MQTT 3.1.1 has no packet to say so, nor that a quota is used up, which
// looks the same.
type takenOver struct{ err error }

func (t *takenOver) Error() string {
	return t.err.Error() + " (three times in a row soon after connecting: " + suspicion + ")"
}

func (t *takenOver) Unwrap() []error { return []error{t.err, ErrTakenOver} }

const suspicion = "identity used elsewhere? Look for another agent or program with the same credential; a hub whose daily quota is used up does the same"
