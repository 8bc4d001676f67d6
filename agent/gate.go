package agent

import "time"

// gate spaces out what is asked of the hub: a few at once, then one a second, and nothing before a set time. The hub takes
// 50 twin updates a second from all devices together, and 100 reads (Microsoft Learn, "IoT Hub quotas and throttling", S1).
// It belongs to the goroutine of its loop.
type gate struct {
	next  time.Time // when the bucket will be full again
	until time.Time // nothing before
	timer *time.Timer
}

const (
	gateInterval = time.Second
	gateBurst    = 3
)

// pass takes a turn and answers true; or it has the loop call again later, once, when the turn comes.
func (g *gate) pass(l *loop, again func()) bool {
	now := time.Now()
	if g.next.Before(now) {
		g.next = now
	}
	wait := max(g.next.Sub(now)-(gateBurst-1)*gateInterval, g.until.Sub(now))
	if wait <= 0 {
		g.next = g.next.Add(gateInterval)
		return true
	}
	if g.timer == nil {
		g.timer = l.after(wait, func() {
			g.timer = nil
			again()
		})
	}
	return false
}

// shut lets nothing pass for a while.
func (g *gate) shut(d time.Duration) {
	g.until = time.Now().Add(d) // a timer that was set for an earlier time looks again then
}
