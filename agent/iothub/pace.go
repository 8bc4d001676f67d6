package iothub

import (
	"context"
	"sync"
	"time"
)

// Limits of a [Pace]. The hub takes 100 new connections a second from all devices together (Microsoft Learn, "IoT Hub
// quotas and throttling", S1), and each costs a small board a TLS handshake.
const (
	paceInterval = 100 * time.Millisecond
	paceBurst    = 5
)

// Pace spreads the connects of all identities of a device: five at once, then ten a second. It is shared by their
// sessions; the zero value is ready.
type Pace struct {
	mu   sync.Mutex
	next time.Time // when the bucket will be full again
}

// wait waits for its turn, and answers ctx's error when that ends before.
func (p *Pace) wait(ctx context.Context) error {
	if p == nil {
		return ctx.Err()
	}
	d := p.reserve()
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reserve takes a turn and answers how long it is until then.
func (p *Pace) reserve() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(paceInterval)
	return p.next.Sub(now) - paceBurst*paceInterval
}

// Signal is raised to wake everybody who waits for it. The zero value is ready.
type Signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// Raised is closed by the next Raise. A nil Signal is never raised.
func (s *Signal) Raised() <-chan struct{} {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Raise wakes those who wait now.
func (s *Signal) Raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
