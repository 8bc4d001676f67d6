package host

import (
	"context"
	"fmt"
	"time"
)

// Restarts decides when a module that has ended is started again. It outlives supervisors, so that a fault of the agent's
// own does not wipe out what a module has done. It belongs to one supervisor at a time.
//
// The first end after a minute of work costs no time: most modules that end once run again. Whoever ends again at once
// waits longer each time (see [Backoff]). That never gives up, unless Ends is set: then the module is quarantined after so
// many ends Within a time, and stays away until somebody asks for a restart.
type Restarts struct {
	Ends   int           // 0: never quarantined
	Within time.Duration // of the Ends

	backoff Backoff
	ended   []time.Time // the newest, at most Ends of them
	verdict string      // why it is quarantined, "" when it is not
	last    Exit        // of the module that is
}

// after takes the end of a module that worked for as long as up, and answers when to start it again; false means that it
// is quarantined.
func (r *Restarts) after(exit Exit, up time.Duration, now time.Time) (delay time.Duration, again bool) {
	if r.Ends > 0 {
		r.ended = append(r.ended, now)
		if len(r.ended) > r.Ends {
			r.ended = r.ended[len(r.ended)-r.Ends:]
		}
		if len(r.ended) == r.Ends && now.Sub(r.ended[0]) <= r.Within {
			r.verdict = fmt.Sprintf("it ended %d times within %v", r.Ends, r.Within)
			r.last = exit
			return 0, false
		}
	}
	if r.backoff.next == 0 || up >= healthyAfter {
		r.backoff.next = firstDelay
		return 0, true
	}
	return r.backoff.After(0), true
}

// forget gives the module a fresh start, as somebody has asked for.
func (r *Restarts) forget() {
	r.backoff, r.ended, r.verdict, r.last = Backoff{Rand: r.backoff.Rand}, nil, "", Exit{}
}

// Restart has the module stopped and started again; one that waits for its next start, or is quarantined, is started at
// once. All that it has done is forgotten. It does not wait for that, and may be called from any goroutine.
func (s *Supervisor) Restart() {
	select {
	case s.again <- struct{}{}:
	default: // asked already
	}
}

// life is one life of the module. asked says that it was ended because somebody wants it started again.
func (s *Supervisor) life(ctx context.Context) (exit Exit, ran, asked bool) {
	select {
	case <-s.again: // this is the start that was asked for
	default:
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.again:
			asked = true
			end()
		case <-ctx.Done():
		}
	}()
	exit, ran = s.once(ctx)
	end()
	<-watched
	return exit, ran, asked
}

// wait waits for d, or for a restart that somebody asks for; with again false for that alone.
func (s *Supervisor) wait(ctx context.Context, d time.Duration, again bool) {
	var due <-chan time.Time
	if again {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	case <-s.again:
		s.restarts.forget()
	}
}
