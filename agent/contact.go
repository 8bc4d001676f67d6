package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/twin"
)

// Delays of what the hub did not take, or what a person has to mend.
const (
	firstRetry   = time.Second
	longestRetry = 30 * time.Second
	heldPatches  = 64 // desired patches that wait for the answer to a twin GET
)

// contact is one identity's side of the hub: its session, what is known of its twin, and the report. It belongs to
// the goroutine of its loop.
type contact struct {
	loop  *loop
	log   *slog.Logger
	open  func() (*iothub.Session, error)
	host  string // the hub's name
	memo  *memory
	shown *view

	// What the owner does about it.
	changed func()                    // desired properties are not what they were
	method  func(iothub.MethodCall)   // a direct method
	message func(iothub.CloudMessage) // a cloud-to-device message; nil: none come
	moved   func()                    // the connection stands, or has gone

	session   *iothub.Session
	connected bool
	trouble   string // the last thing complained of, so that it is said once

	tracker   twin.Tracker
	wants     bool // want was called; before, an empty document would remove what the hub has
	fresh     bool // the connection is new, and its twin not yet known
	fetching  bool
	asked     bool // the question that fetching waits for is under way
	refetch   bool // something came while fetching that the answer may not hold
	held      []iothub.DesiredPatch
	reporting bool
	retry     retry
	fetches   gate
	reports   gate
}

// retry is a delay that doubles.
type retry struct{ next time.Duration }

func (r *retry) delay() time.Duration {
	r.next = min(max(2*r.next, firstRetry), longestRetry)
	return r.next + rand.N(r.next/4)
}

func (r *retry) reset() { r.next = 0 }

// start opens the session. What a person has to mend first (a missing key file, a wrong CA) is tried again and again.
func (c *contact) start() {
	c.loop.away(func(context.Context) func() {
		s, err := c.open()
		return func() { c.opened(s, err) }
	})
}

func (c *contact) opened(s *iothub.Session, err error) {
	if err != nil {
		c.complain("no session with the hub", err)
		c.shown.linkError(err)
		c.loop.after(c.retry.delay(), c.start)
		return
	}
	c.retry.reset()
	c.session = s
	c.memo.belongs(c.loop, c.host, c.shown.identity())
	c.shown.linked(s)
	c.loop.away(func(ctx context.Context) func() {
		if err := s.Run(ctx); err != nil {
			c.log.Error("the session with the hub has ended", "error", err)
		}
		return nil
	})
	// Another goroutine than the owner's reads the events: a session exists only once it is opened.
	c.loop.away(func(ctx context.Context) func() {
		for {
			select {
			case e := <-s.Events():
				c.loop.call(ctx, func() { c.handle(e) })
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// handle takes one event of the session.
func (c *contact) handle(e iothub.Event) {
	switch e := e.(type) {
	case iothub.Up:
		if !c.connected {
			c.log.Info("connected to the hub")
		}
		c.connected, c.fresh, c.trouble = true, true, ""
		c.retry.reset()
		c.fetch()
		c.moved()
	case iothub.Down:
		c.connected = false
		c.shown.retryAt(e.Retry)
		c.fetching, c.refetch = c.asked, false
		c.held = nil                               // the next connection begins with the whole twin
		if !errors.Is(e.Err, iothub.ErrRenewing) { // planned: MQTT 3.1.1 renews a token by a new connection
			c.complain("no connection to the hub", e.Err)
		}
		c.moved()
	case iothub.DesiredPatch:
		c.patch(e)
	case iothub.MethodCall:
		c.method(e)
	case iothub.CloudMessage:
		if c.message != nil {
			c.message(e)
		}
	}
}

// passing is what makes two texts of one error differ: the time of day, and the port that this end of a connection had.
var passing = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|:\d+->`)

// complain logs a trouble, and its repetitions for those who want to see everything.
func (c *contact) complain(what string, err error) {
	level := slog.LevelWarn
	if text := passing.ReplaceAllString(err.Error(), ""); text == c.trouble {
		level = slog.LevelDebug
	} else {
		c.trouble = text
	}
	c.log.Log(context.Background(), level, what, "error", err)
}

// fetch asks for the whole twin, one question at a time.
func (c *contact) fetch() {
	if c.fetching {
		c.refetch = true
		return
	}
	c.fetching = true // what comes while it waits for its turn is held, as while it is under way
	c.ask()
}

// ask sends the question when it may be sent.
func (c *contact) ask() {
	if !c.fetching || c.asked || !c.fetches.pass(c.loop, c.ask) {
		return
	}
	c.asked = true
	s := c.session
	c.loop.away(func(ctx context.Context) func() {
		t, err := s.Twin(ctx)
		return func() { c.fetched(t, err) }
	})
}

func (c *contact) fetched(t iothub.Twin, err error) {
	c.fetching, c.asked = false, false
	again, held := c.refetch, c.held
	c.refetch, c.held = false, nil
	if err == nil {
		err = c.whole(t)
	}
	switch {
	case !c.connected: // the next Up asks again
	case again:
		c.fetch()
	case err != nil:
		c.complain("the twin could not be read", err)
		c.shown.note(aboutTwin, clip("the twin could not be read, trying again: "+err.Error(), 500))
		c.fetches.shut(c.retry.delay())
		c.fetch()
	default:
		c.shown.note(aboutTwin, "")
		for _, p := range held {
			c.patch(p)
		}
		c.report()
	}
}

// whole takes the answer to a twin GET.
func (c *contact) whole(t iothub.Twin) error {
	// With the identity the hub drops its connection. On one that stands, an answer may only be late.
	if c.fresh && (t.DesiredVersion < c.memo.desired.Version || t.ReportedVersion < c.memo.reported) {
		c.log.Info("the identity has been created anew: its twin begins from the start", "desired_version", t.DesiredVersion, "reported_version", t.ReportedVersion)
		c.memo.desired.Anew()
		c.tracker.Anew()
	}
	if err := c.tracker.Known(t.Reported); err != nil {
		return fmt.Errorf("reported properties: %w", err)
	}
	c.fresh, c.memo.reported = false, t.ReportedVersion
	changed, err := c.memo.desired.Replace(t.DesiredVersion, t.Desired)
	if err != nil {
		return fmt.Errorf("desired properties: %w", err)
	}
	c.shown.reportedVersion(t.ReportedVersion)
	if changed {
		c.memo.keep(c.loop)
		c.changed()
	}
	return nil
}

// patch takes a change of desired properties. While a GET is under way it waits: the answer may be older or newer.
func (c *contact) patch(p iothub.DesiredPatch) {
	if c.fetching {
		if len(c.held) == heldPatches {
			c.held, c.refetch = nil, true
		}
		c.held = append(c.held, p)
		return
	}
	step, err := c.memo.desired.Merge(p.Version, p.Patch)
	if err != nil {
		c.log.Warn("a desired patch cannot be read; asking for the whole twin", "version", p.Version, "error", err)
	}
	switch step {
	case twin.Changed:
		c.memo.keep(c.loop)
		c.changed()
	case twin.Fetch:
		c.fetch()
	}
}

// want sets the reported document and sends what differs.
func (c *contact) want(doc map[string]any) {
	c.wants = true
	note := ""
	if err := c.tracker.Want(doc); err != nil {
		c.complain("reported properties that no twin may hold are left out", err)
		note = clip("left out of what is reported: "+err.Error(), 500)
	}
	c.shown.note(aboutForbidden, note)
	c.shown.wanted(doc)
	c.report()
}

// report sends the difference between what the hub has and what it should have, one patch at a time, until there is
// none.
func (c *contact) report() {
	if c.reporting || c.fetching || !c.connected || !c.wants {
		c.shown.synced(false)
		return
	}
	patch, ok := c.tracker.Patch()
	left := c.tracker.LeftOut()
	if len(left) == 0 {
		c.shown.note(aboutRefused, "")
	}
	c.shown.synced(!ok && len(left) == 0)
	if !ok || !c.reports.pass(c.loop, c.report) {
		return
	}
	c.tracker.Sent()
	c.reporting = true
	s := c.session
	c.loop.away(func(ctx context.Context) func() {
		version, err := s.Report(ctx, patch)
		return func() { c.reported(patch, version, err) }
	})
}

func (c *contact) reported(patch json.RawMessage, version int64, err error) {
	c.reporting = false
	switch {
	case err == nil:
		c.retry.reset()
		c.shown.note(aboutReport, "")
		c.tracker.Acked()
		if version > 0 {
			c.memo.reported = version
			c.shown.reportedVersion(version)
		}
	case errors.Is(err, iothub.ErrRejected):
		c.log.Warn("the hub refuses reported properties", "error", err, "bytes", len(patch))
		if out := c.tracker.Refused(); out != nil {
			c.log.Warn("a reported property is left out", "error", out)
			c.shown.note(aboutRefused, clip(fmt.Sprintf("the hub refuses what is reported; left out until it changes: %s (%v)",
				strings.Join(c.tracker.LeftOut(), ", "), err), 500))
		}
	case errors.Is(err, iothub.ErrStale): // somebody has changed what it was based on
		c.tracker.Failed()
		c.complain("the hub has other reported properties than were thought, asking for them", err)
		c.shown.note(aboutReport, clip("reported properties were not taken, asking for the twin first: "+err.Error(), 500))
		d := c.retry.delay()
		c.fetches.shut(d)
		c.reports.shut(d)
		if c.connected {
			c.fetch() // and then report
		}
		return
	default:
		c.tracker.Failed()
		if !c.connected {
			return // the next Up begins with the whole twin, and then reports
		}
		if !errors.Is(err, iothub.ErrOffline) { // else Down says why
			c.complain("reported properties were not taken, trying again", err)
			c.shown.note(aboutReport, clip("reported properties were not taken, trying again: "+err.Error(), 500))
		}
		c.reports.shut(c.retry.delay())
	}
	c.report()
}
