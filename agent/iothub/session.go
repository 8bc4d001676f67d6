package iothub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Session keeps one connection of one identity open, for as long as Run runs.
type Session struct {
	cfg   Config
	id    string
	dial  Dial
	log   *slog.Logger
	box   *mailbox
	out   chan Event
	retry *retry // of Run alone
	stale bool   // the credential was refused; of Run alone
	ran   atomic.Bool

	live atomic.Pointer[live] // nil while there is no connection

	mu     sync.Mutex
	status Status
}

// Status is what a person wants to know of a session.
type Status struct {
	Connected    bool
	Since        time.Time // of Connected being as it is; zero before the first try
	Reconnects   int       // connections made after the first one
	LastError    error     // why the last connection ended or could not be made; kept after the next one stands
	Notice       string    // what somebody should look at although the connection may stand just now; "" is nothing
	TokenExpires time.Time
	Protocol     string // "3.1.1" or "5"; "" before the first connection
}

// New returns a session. It does nothing until Run.
func New(cfg Config) *Session {
	if cfg.Host == "" {
		cfg.Host = cfg.Credential.Host
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	id := cfg.Credential.ID.String()
	s := &Session{
		cfg:   cfg,
		id:    id,
		dial:  cfg.Dial,
		log:   cfg.Log,
		box:   newMailbox(),
		out:   make(chan Event),
		retry: newRetry(id),
	}
	if s.dial == nil {
		s.dial = dialTLS(cfg)
	}
	return s
}

// Events is what happens, in order. The owner reads it for as long as Run runs; it is never closed. A slow owner
// blocks nobody: see Up, Down and MethodCall for what becomes of events that wait. At most 64 patches and 32 methods
// wait; a method beyond that is answered with status 429.
func (s *Session) Events() <-chan Event { return s.out }

// Status may be called at any time.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	if st.Connected && time.Since(st.Since) >= calmTime {
		st.Notice = ""
	}
	return st
}

func (s *Session) setStatus(set func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&s.status)
}

// Run connects, and connects again after each loss, until ctx ends; then it says goodbye to the hub and answers nil. It
// may be called once.
func (s *Session) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("iothub: the session of " + s.id + " has been run before: make a new one")
	}
	var delivery sync.WaitGroup
	defer delivery.Wait()
	delivery.Go(func() { s.box.deliver(ctx, s.out) })

	for {
		// What changes from here on makes the next try worth it.
		network, clock := s.cfg.Network.Raised(), s.cfg.Clock.Changed()
		l, err := s.open(ctx, network)
		var lasted time.Duration
		if l != nil {
			start := time.Now()
			err = s.stand(ctx, l)
			lasted = max(time.Since(start), 1)
		}
		if ctx.Err() != nil {
			s.setStatus(func(st *Status) { st.Connected, st.Since = false, time.Now() })
			l.close()
			return nil
		}
		if l != nil {
			network, clock = s.cfg.Network.Raised(), s.cfg.Clock.Changed()
		}
		s.stale = errors.Is(err, ErrUnauthorized)
		if doubtsClock(err) {
			s.cfg.Clock.Refused()
		} else {
			clock = nil
		}
		retry := time.NewTimer(s.down(err, lasted))
		if errors.Is(err, ErrRenewing) {
			l.drain(ctx)
		}
		l.close()
		s.rest(ctx, retry, network, clock)
	}
}

// rest waits until the next try is due: by its time, or because the network or the clock has changed.
func (s *Session) rest(ctx context.Context, retry *time.Timer, network, clock <-chan struct{}) {
	defer retry.Stop()
	for {
		select {
		case <-retry.C:
			return
		case <-network:
			if s.retry.woken() {
				return
			}
			network = nil
		case <-clock:
			return
		case <-ctx.Done():
			return
		}
	}
}

// stand is the time in which a connection can be used: why it ended. The wire is still there then.
func (s *Session) stand(ctx context.Context, l *live) error {
	s.setStatus(func(st *Status) {
		if st.Protocol != "" {
			st.Reconnects++
		}
		st.Connected, st.Since, st.Protocol, st.TokenExpires = true, time.Now(), l.wire.Protocol(), l.expires
	})
	s.live.Store(l)
	defer s.live.Store(nil)
	s.box.put(Up{})
	return s.keep(ctx, l)
}

// down tells the owner before anything else is done, so that it does not try in vain: it answers how long to wait.
func (s *Session) down(err error, lasted time.Duration) time.Duration {
	var wait time.Duration
	if errors.Is(err, ErrRenewing) {
		s.retry.stood(lasted)
	} else {
		wait, err = s.retry.next(err, lasted)
		err = fmt.Errorf("hub %s as %s: %w", s.cfg.Host, s.id, err)
	}
	s.setStatus(func(st *Status) {
		st.Notice = ""
		if s.retry.suspect {
			st.Notice = suspicion
		}
		if st.Connected || st.Since.IsZero() {
			st.Connected, st.Since = false, time.Now()
		}
		if wait > 0 {
			st.LastError = err
		}
	})
	s.box.put(Down{Err: err, Retry: time.Now().Add(wait)})
	return wait
}

// open makes a connection and everything on it, when it is this session's turn.
func (s *Session) open(ctx context.Context, network <-chan struct{}) (*live, error) {
	if err := s.cfg.Pace.wait(ctx); err != nil {
		return nil, err
	}
	s.reload()
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	conn, err := s.reach(ctx, network)
	if err != nil {
		return nil, &unreached{err}
	}
	now, since := s.cfg.Clock.Stamp()
	l := newLive(now.Add(tokenLife))
	l.since = since
	p := OpenParams{
		Host:       s.cfg.Host,
		Credential: s.cfg.Credential,
		At:         now,
		Expires:    l.expires,
		KeepAlive:  keepAlive,
		Desired: func(p DesiredPatch) {
			if !s.box.put(p) {
				s.log.Warn("desired patches came faster than they were taken: the whole twin will be asked for")
			}
		},
		Method: func(m MethodCall) {
			if !s.box.put(l.track(m)) {
				s.log.Warn("direct method refused: too many wait", "method", m.Name)
			}
		},
	}
	if s.cfg.Messages {
		p.Message = func(m CloudMessage) { s.box.put(m) } // one that does not fit comes again
	}
	wire, err := s.cfg.Wire(ctx, conn, p)
	if err != nil {
		return nil, err
	}
	l.wire = wire
	s.cfg.Clock.Accepted(since)
	return l, nil
}

// reload takes another key, if somebody has put it where the refused one was.
func (s *Session) reload() {
	if !s.stale || s.cfg.Reload == nil {
		return
	}
	s.stale = false
	c, err := s.cfg.Reload()
	switch {
	case err != nil:
		s.log.Debug("the credential could not be read again", "error", err)
	case c.ID == s.cfg.Credential.ID && c.Host == s.cfg.Credential.Host:
		s.cfg.Credential = c
	}
}

// reach dials. When a link comes up meanwhile, it gives up: what has been sent before went nowhere, and TCP would wait
// long before it sends again.
func (s *Session) reach(ctx context.Context, network <-chan struct{}) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var up atomic.Bool
	if network != nil {
		done := make(chan struct{})
		defer func() { <-done }()
		defer cancel()
		go func() {
			defer close(done)
			select {
			case <-network:
				up.Store(true)
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	conn, err := s.dial(ctx)
	if err != nil && up.Load() {
		return nil, errors.New("a link of this device came up: trying again at once")
	}
	return conn, err
}

// keep waits for the end of a connection, and renews its token in time: early, and at once when the clock has jumped so far
// that the hub may think otherwise of it.
func (s *Session) keep(ctx context.Context, l *live) error {
	renew := time.NewTimer(s.retry.renewal(s.left(l)))
	defer renew.Stop()
	clock := l.since
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wire.Done():
			return l.reason()
		case <-l.given:
			return l.reason()
		case <-clock:
			clock = s.cfg.Clock.Changed()
			if left := s.left(l); left < tokenLife/5 || left > tokenLife+clockSlack {
				renew.Reset(s.retry.between(0, resignTime)) // not with all the others of this device
			} else {
				renew.Reset(s.retry.renewal(left))
			}
			continue
		case <-renew.C:
		}
		r, ok := l.wire.(Renewer)
		if !ok {
			return ErrRenewing
		}
		if err := s.renew(ctx, l, r); err != nil {
			return err
		}
		renew.Reset(s.retry.renewal(s.left(l)))
	}
}

// left is what the token still has to live.
func (s *Session) left(l *live) time.Duration { return l.expires.Sub(s.cfg.Clock.Now()) }

func (s *Session) renew(ctx context.Context, l *live, r Renewer) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	now, since := s.cfg.Clock.Stamp()
	if err := r.Renew(ctx, now, now.Add(tokenLife)); err != nil {
		return fmt.Errorf("renew the token: %w", err)
	}
	s.cfg.Clock.Accepted(since)
	l.expires = now.Add(tokenLife)
	s.setStatus(func(st *Status) { st.TokenExpires = l.expires })
	s.log.Debug("token renewed", "until", l.expires)
	return nil
}

// Publish sends m and returns when the hub has acknowledged it. Without a connection it fails at once with ErrOffline;
// when the connection ends before the acknowledgement too, and then nobody knows whether the hub has the message. Up to
// MaxInFlight calls are under way at once; more wait for their turn.
func (s *Session) Publish(ctx context.Context, m Message) error {
	size, err := m.check()
	if err != nil {
		return err
	}
	l := s.live.Load()
	if l == nil {
		return ErrOffline
	}
	return l.publish(ctx, m, size)
}

// Twin asks the hub for the whole twin. Its errors are those of Report.
func (s *Session) Twin(ctx context.Context) (Twin, error) {
	return request(ctx, s, "get the twin", func(ctx context.Context, w Wire) (Twin, error) { return w.Twin(ctx) })
}

// Report merges patch, a JSON object in which null deletes, into the reported properties and answers their new version.
// It fails with ErrOffline, ErrThrottled or ErrRejected, or with another error that may pass.
func (s *Session) Report(ctx context.Context, patch json.RawMessage) (version int64, err error) {
	return request(ctx, s, "report properties", func(ctx context.Context, w Wire) (int64, error) { return w.Report(ctx, patch) })
}

// request does f on the connection. An answer that does not come ends the connection: MQTT 3.1.1 has no other way to
// find out what the hub has taken.
func request[T any](ctx context.Context, s *Session, what string, f func(context.Context, Wire) (T, error)) (T, error) {
	var zero T
	l := s.live.Load()
	if l == nil || !l.begin() {
		return zero, ErrOffline
	}
	defer l.end()
	inner, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	v, err := f(inner, l.wire)
	switch {
	case err == nil:
		l.heard()
		return v, nil
	case ctx.Err() != nil:
		return zero, ctx.Err()
	case inner.Err() != nil:
		l.kill(fmt.Errorf("the hub has not answered a request for %v", requestTime))
		return zero, fmt.Errorf("%s: %w: no answer for %v", what, ErrOffline, requestTime)
	}
	return zero, fmt.Errorf("%s: %w", what, l.explain(err))
}
