package agent

import (
	"context"
	"errors"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/outbox"
)

const (
	maxFlight = 16 // publishes under way
	// headStart is how long a publish has to reach the wire before the next one begins: Session.Publish answers only with
	// the acknowledgement, so this keeps messages in their order on a link where an acknowledgement takes long.
	headStart = 2 * time.Millisecond
)

// sender empties a component's outbox over its session. It belongs to the goroutine of its loop.
type sender struct {
	loop *loop
	box  outbox.Box
	hub  *contact
	note func(what string, err error)

	flight int             // publishes under way
	newest string          // the publish that still has its head start
	again  []outbox.Record // what the hub was too busy for
	wait   *time.Timer     // the end of a pause; nil when there is none
	lost   bool            // a connection has ended with publishes under way
	idle   func()          // told when nothing is left to send
}

// send begins as many publishes as may be under way.
func (s *sender) send() {
	for s.hub.connected && !s.lost && s.wait == nil && s.newest == "" && s.flight < maxFlight {
		r, ok := s.next()
		if !ok {
			break
		}
		s.begin(r)
	}
	if s.flight == 0 && len(s.again) == 0 && s.newest == "" && s.idle != nil {
		if st := s.box.Stats(); st.Queued == 0 && st.Held == 0 {
			s.idle()
		}
	}
}

func (s *sender) next() (outbox.Record, bool) {
	if len(s.again) > 0 {
		r := s.again[0]
		s.again = s.again[1:]
		return r, true
	}
	return s.box.Next()
}

func (s *sender) begin(r outbox.Record) {
	s.flight++
	s.newest = r.ID
	session := s.hub.session
	s.loop.away(func(ctx context.Context) func() {
		err := session.Publish(ctx, iothub.Message{ID: r.ID, Body: r.Body, Properties: r.Properties, Created: r.At})
		return func() { s.ended(r, err) }
	})
	s.loop.after(headStart, func() { s.ahead(r.ID) })
}

// ahead ends the head start of a publish.
func (s *sender) ahead(id string) {
	if s.newest == id {
		s.newest = ""
		s.send()
	}
}

// ended takes what became of a publish.
func (s *sender) ended(r outbox.Record, err error) {
	s.flight--
	switch {
	case err == nil:
		s.hub.retry.reset()
		s.hub.shown.note(aboutSend, "")
		s.box.Acked(r.ID)
	case errors.Is(err, iothub.ErrRejected):
		s.box.Refused(r.ID) // it would be refused for ever, and hold up what comes behind it
		s.note("the hub refuses a message; it is dropped", err)
	case errors.Is(err, iothub.ErrThrottled):
		s.note("the hub is busy; a message waits", err)
		s.hub.shown.note(aboutSend, clip("messages wait: "+err.Error(), 500))
		s.again = append(s.again, r)
		s.pause()
	default:
		s.lost = true
	}
	if s.lost && s.flight == 0 {
		// All that was under way goes back at once and in order, and what waits for the busy hub with it. The wait is for
		// the case that the session's Down is still to come: a try before would count as one more lost connection.
		s.lost, s.again = false, nil
		s.box.Returned()
		s.pause()
	}
	s.ahead(r.ID)
	s.send()
}

// pause sends nothing for a while, or until the next connection.
func (s *sender) pause() {
	if s.wait != nil {
		return
	}
	s.wait = s.loop.after(s.hub.retry.delay(), s.resume)
}

// resume ends a pause.
func (s *sender) resume() {
	if s.wait != nil {
		s.wait.Stop()
		s.wait = nil
	}
	s.send()
}
