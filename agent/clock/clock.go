// Package clock is the best known time of a device whose own clock may be wrong: a board without a battery-backed clock
// begins in 1970, somebody sets the time, a time server is out of reach. Tokens are signed and certificates are checked
// with it, or else a device with a wrong clock never reaches its hub.
//
// Where the time comes from, in this order:
//
//   - The system's clock, as long as nothing speaks against it: it is not before the time the program was built, nor before
//     the last time that a connection stood with, and the hub takes what is signed with it.
//   - The time from before, when the system's clock jumps to where it cannot be right, or by more than a token's life
//     after the hub has taken a token: it goes on by a clock that nobody sets.
//   - The last time known, from before the power went, when the system's clock is behind it.
//   - The hub's, from the Date header of an HTTPS answer. It is asked for only when the hub refuses a token, a certificate
//     seems not to be valid now, or the system's clock is implausible: at most once a minute at first, once an hour later.
//
// What is trusted of that Date: see [DateOf]. It is a hint, on trial until a connection stands that was made with it: one
// whose token the hub has taken and whose certificate is valid at that time. A hint from before the program was built is
// never used, so that nobody can turn the time back to where an old certificate is valid again.
//
// A step of the system's clock is found whenever the time is used, by holding it against the time that has passed, and at
// once where the kernel tells ([Watch]). Nothing here runs by itself as long as nothing happens.
package clock

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Limits of what counts as what.
const (
	agree     = 2 * time.Minute  // two times that differ by less are the same: the hub allows five minutes (see below)
	stepSize  = 2 * time.Second  // less is what a time server corrects, or a busy machine
	farStep   = 65 * time.Minute // more than a token's life and the hub's five minutes: what was taken before was no lie
	trialTime = time.Minute      // for all identities of a device to try a hint
	trustTime = 12 * time.Hour   // how long a token that the hub has taken speaks for the clock
	firstAsk  = time.Minute
	lastAsk   = time.Hour
	saveEvery = 24 * time.Hour
	askTime   = 15 * time.Second
)

// The five minutes are MaxClockSkew of SharedAccessSignature.cs in github.com/Azure/iotedge, edge-util.

// Source says where the time comes from.
type Source string

// Sources.
const (
	System Source = "system" // the system's clock
	Before Source = "before" // what the system's clock said before it jumped
	Saved  Source = "saved"  // the last time known from before the agent's start, or when the program was built
	Hub    Source = "hub"    // the hub's Date
)

// Options are what a clock is made of. The zero value is the system's clock, and nothing else.
type Options struct {
	Now     func() time.Time                                // the system's clock; nil means time.Now
	Elapsed func() time.Duration                            // a clock that nobody sets; nil means the monotonic one of time.Now
	Floor   time.Time                                       // no time is before it: when the program was built
	Ask     func(ctx context.Context) (time.Time, error)    // the hub's time; nil means that nobody can be asked
	Watch   func(ctx context.Context, stepped func()) error // tells of steps at once; nil means that they are found at use
	Save    func(time.Time)                                 // keeps a time for the next start; nil means that it is not kept
	Log     *slog.Logger
}

// Clock is the best known time. Its methods may be called from any goroutine.
type Clock struct {
	opt  Options
	want chan struct{}  // capacity one: Run should ask
	save chan time.Time // capacity one: Run should save it

	mu       sync.Mutex
	saved    time.Time
	source   Source
	own      time.Time     // the time at ownAt, unless the source is System
	ownAt    time.Duration // by opt.Elapsed
	seen     time.Time     // the system's clock when it was looked at last
	seenAt   time.Duration
	taken    bool // the hub has taken a token at takenAt
	takenAt  time.Duration
	followed time.Duration // the steps of the system's clock since, together
	trial    *trial        // of the hub's time; nil when there is none
	askAt    time.Duration // not before
	askWait  time.Duration // the pause before that
	kept     bool          // Save was called at keptAt
	keptAt   time.Duration
	changed  chan struct{}
}

// trial is what to go back to when the hub's time does no better.
type trial struct {
	since  time.Duration
	source Source
	own    time.Time
	ownAt  time.Duration
}

// New returns a clock.
func New(o Options) *Clock {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Elapsed == nil {
		began := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(began) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Clock{opt: o, want: make(chan struct{}, 1), save: make(chan time.Time, 1), source: System, changed: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.seenAt = o.Now().Round(0), o.Elapsed()
	c.settle()
	return c
}

// Remember takes the last time that is known from before the agent's start, as Save was given it. It is for the start.
func (c *Clock) Remember(saved time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saved = saved.Round(0)
	if c.source == System || c.source == Saved {
		c.settle()
	}
}

// settle decides at the start, or after a step before the hub has taken anything: the system's clock, unless it is
// implausible.
func (c *Clock) settle() {
	c.source = System
	if floor := c.floor(); c.seen.Before(floor) {
		c.source, c.own, c.ownAt = Saved, floor, c.seenAt
		c.doubt()
	}
}

// floor is the time that it is at least.
func (c *Clock) floor() time.Time {
	if c.saved.After(c.opt.Floor) {
		return c.saved
	}
	return c.opt.Floor
}

// Now is the best known time, without a monotonic reading.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.look()
}

// Stamp is Now, for something that takes a while: since is closed when the best known time has gone another way meanwhile.
func (c *Clock) Stamp() (now time.Time, since <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now = c.look()
	return now, c.changed
}

// look reads the system's clock, takes note of a step, and answers the best known time.
func (c *Clock) look() time.Time {
	sys, at := c.opt.Now().Round(0), c.opt.Elapsed()
	step := sys.Sub(c.seen) - (at - c.seenAt)
	before := c.time(c.seen, c.seenAt).Add(at - c.seenAt) // what it would be without a step
	c.seen, c.seenAt = sys, at
	if step > stepSize || step < -stepSize {
		c.stepped(step, before)
	}
	if c.source != System && near(sys, c.time(sys, at)) {
		c.follow() // somebody has set the system's clock right, or it was right all the time
	}
	return c.time(sys, at)
}

// time is the time by the present source.
func (c *Clock) time(sys time.Time, at time.Duration) time.Time {
	if c.source == System {
		return sys
	}
	return c.own.Add(at - c.ownAt)
}

func near(a, b time.Time) bool {
	d := a.Sub(b)
	return d <= agree && d >= -agree
}

// stepped decides about a step of the system's clock. before is what the time would be without it.
func (c *Clock) stepped(step time.Duration, before time.Time) {
	c.opt.Log.Info("the system's clock has been set", "by", step.Round(time.Second), "to", c.seen.UTC().Format(time.RFC3339))
	switch {
	case c.source == Saved && !c.taken:
		c.settle()
		c.raise()
	case c.source != System: // what is known is better than what somebody sets, unless it agrees: see look
		c.doubt()
	case c.seen.Before(c.opt.Floor), c.taken && (c.followed+step > farStep || c.followed+step < -farStep):
		c.source, c.own, c.ownAt = Before, before, c.seenAt
		c.doubt()
	default:
		c.followed += step
		c.raise()
	}
}

// follow goes back to the system's clock.
func (c *Clock) follow() {
	c.opt.Log.Info("the system's clock is right", "instead_of", string(c.source))
	c.source, c.trial = System, nil
	c.raise()
}

// raise wakes those who wait for a change.
func (c *Clock) raise() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Changed is closed when the best known time goes another way than time passes: what was signed should be signed again,
// and what was refused may be taken.
func (c *Clock) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Accepted says that a connection stands which was made with what Stamp answered. When the time has gone another way since,
// that says nothing of the time as it is now.
func (c *Clock) Accepted(since <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.look()
	if since != c.changed {
		return
	}
	c.taken, c.takenAt, c.followed = true, c.seenAt, 0
	if c.trial != nil {
		c.trial = nil
		c.opt.Log.Warn("the hub takes what is signed with its own time", "note", c.note())
	}
	c.askWait = 0
	if c.source != Saved && (!c.kept || c.seenAt-c.keptAt >= saveEvery) {
		c.kept, c.keptAt = true, c.seenAt
		select {
		case c.save <- now:
		default: // the disk is slow, and an older one will do
		}
	}
}

// keep saves a time for the next start.
func (c *Clock) keep(now time.Time) {
	if c.opt.Save != nil {
		c.opt.Save(now)
	}
}

// last saves the time when Run ends, if the hub has ever taken it.
func (c *Clock) last() {
	c.mu.Lock()
	now, ok := c.look(), c.taken && c.source != Saved
	c.mu.Unlock()
	if ok {
		c.keep(now)
	}
}

// Refused says that the hub has refused what was signed with Now, or that its certificate does not hold at Now. Either may
// have other reasons than the clock.
func (c *Clock) Refused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	switch {
	case c.trusted(): // others are taken: it is not the clock
	case c.trial != nil && c.seenAt-c.trial.since < trialTime: // the hint may have been too late for this try
	case c.trial != nil:
		c.opt.Log.Info("the hub's time is of no help; back to the time from before", "source", string(c.trial.source))
		c.source, c.own, c.ownAt = c.trial.source, c.trial.own, c.trial.ownAt
		c.trial = nil
	default:
		c.doubt()
	}
}

// doubt has Run ask the hub for its time, if it is not too soon.
func (c *Clock) doubt() {
	if c.opt.Ask == nil {
		return
	}
	select {
	case c.want <- struct{}{}:
	default:
	}
}

// Run asks for the hub's time when there is a reason, and saves the time for the next start, until ctx ends.
func (c *Clock) Run(ctx context.Context) {
	defer c.last()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case t := <-c.save:
				c.keep(t)
			case <-ctx.Done():
				return
			}
		}
	})
	if c.opt.Watch != nil {
		wg.Go(func() {
			if err := c.opt.Watch(ctx, func() { c.Now() }); err != nil {
				c.opt.Log.Debug("nobody tells when the system's clock is set: it is found at use", "error", err)
			}
		})
	}
	for {
		select {
		case <-c.want:
		case <-ctx.Done():
			return
		}
		if !c.pause(ctx) {
			return
		}
		if c.settled() {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, askTime)
		hint, err := c.opt.Ask(asking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		c.hint(hint, err)
	}
}

// pause waits until the hub may be asked again; false when ctx has ended.
func (c *Clock) pause(ctx context.Context) bool {
	c.mu.Lock()
	wait := c.askAt - c.opt.Elapsed()
	c.mu.Unlock()
	if wait <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// settled says that the doubt has gone meanwhile.
func (c *Clock) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.source == System && c.trusted() || c.trial != nil
}

// trusted says that the hub has taken a token lately, and that no step was followed since.
func (c *Clock) trusted() bool {
	return c.taken && c.followed == 0 && c.seenAt-c.takenAt < trustTime
}

// hint takes the hub's Date, or why there is none.
func (c *Clock) hint(t time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.look()
	c.askWait = min(max(2*c.askWait, firstAsk), lastAsk)
	c.askAt = c.seenAt + c.askWait
	switch {
	case err != nil:
		c.opt.Log.Debug("the hub could not be asked for its time", "error", err)
		if c.source != System {
			c.doubt() // the device may have no network yet
		}
	case t.Before(c.opt.Floor):
		c.opt.Log.Warn("what answers for the hub tells a time from before this program was built: not used", "time", t.UTC().Format(time.RFC3339))
	case near(t, c.seen):
		if c.source != System {
			c.follow()
		}
	case near(t, now):
		if c.source == Before || c.source == Saved {
			c.source = Hub // on that both agree
			c.own, c.ownAt = t, c.seenAt
		}
	default:
		c.trial = &trial{since: c.seenAt, source: c.source, own: c.own, ownAt: c.ownAt}
		if c.source == System {
			c.trial.own, c.trial.ownAt = c.seen, c.seenAt
		}
		c.source, c.own, c.ownAt, c.taken = Hub, t.Round(0), c.seenAt, false
		c.opt.Log.Warn("the clock seems to be wrong: trying the hub's time", "clock", c.seen.UTC().Format(time.RFC3339), "hub", t.UTC().Format(time.RFC3339))
		c.raise()
	}
}
