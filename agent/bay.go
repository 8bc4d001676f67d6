package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/host"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/agent/twin"
	"github.com/twinbay/twinbay/modules/modkit"
)

// Budgets of a bay.
const (
	applyBudget = 10 * time.Second
	flushBudget = 200 * time.Millisecond // for what is in the outbox when the agent ends
	// maxMessage leaves room for the system properties that the session adds to a message of at most 256 KiB.
	maxMessage = outbox.MaxMessage - 512
)

// acceptedLine is said of each message that is accepted, with its id, before its module is told: what was promised can so be
// held against what the hub has.
const acceptedLine = "accepted"

// bay is one life of one component: its module's process, its session and its twin. Only its loop's goroutine touches
// it.
type bay struct {
	name    string
	cfg     config.Module
	file    *config.Config
	log     *slog.Logger
	loop    *loop
	shown   *view
	memo    *memory
	box     outbox.Box
	hub     *contact
	send    *sender
	super   *host.Supervisor
	probe   func(component, at string)
	hurry   <-chan struct{} // closed when the end must not take time any more
	answers *answers        // what the module is told of its messages
	confirm func()          // the hub has taken a token: the best known time is right
	links   *links
	hold    func([]holding) (taken holding, other string, ok bool)

	// The module, as it is now.
	described   bool
	description modkit.Description
	schema      *twin.Schema
	remote      *modkit.Remote
	running     *modkit.Running // nil while there is none
	kill        func(reason string)
	asked       *composed // what the module was last given, and has not yet answered
	dirty       bool      // desired properties have changed since
	invoking    int       // direct methods under way
	lastExit    string
	inlet       *inlet // what comes over links to the module
	unbound     bool   // it is said that a limit is not in force

	// What is reported.
	acks  map[string]twin.Ack
	extra map[string]any // the module's own reported properties
}

// composed is one whole settings document on its way to the module.
type composed struct {
	effective map[string]any
	acks      map[string]twin.Ack
	since     map[string]int64 // per setting the version to acknowledge
	version   int64
}

// run is the bay's life: until stop ends, when it answers nil, or something panics.
func (b *bay) run(stop context.Context) (err error) {
	defer b.memo.flush()
	defer b.loop.close()
	defer func() {
		if v := recover(); v != nil {
			err = newCrash(v)
			b.mute("a fault of the agent's own ended it")
		}
	}()
	modules, stopModules := context.WithCancel(b.loop.ctx)
	defer stopModules()
	b.box.Returned() // what an earlier life had under way
	b.loop.away(b.answers.run)
	b.loop.away(func(context.Context) func() { b.super.Run(modules); return nil })
	b.hub.start()

	asked, events := stop.Done(), b.super.Events()
	var flushed <-chan time.Time
	for {
		select {
		case <-asked:
			asked = nil
			stopModules()
		case e, ok := <-events:
			if ok {
				b.onModule(e)
				continue
			}
			events = nil
			b.stopped()
			if !b.hub.connected {
				return nil
			}
			timer := time.NewTimer(flushBudget)
			defer timer.Stop()
			flushed = timer.C
			b.send.idle = b.loop.end
			b.send.send()
		case f := <-b.loop.calls:
			f()
		case <-b.box.More():
			b.send.send()
		case c := <-b.loop.crash:
			return c
		case <-flushed:
			return nil
		case <-b.hurry:
			return nil
		case <-b.loop.ctx.Done():
			return nil
		}
	}
}

// onModule takes one event of the module's process.
func (b *bay) onModule(e host.Event) {
	switch e := e.(type) {
	case host.Ready:
		start, err := b.prepare(e.Description)
		e.Answer(start, err)
	case host.Started:
		b.onStarted(e)
	case host.Said:
		b.onSaid(e)
	case host.Ended:
		b.onEnded(e)
	}
}

func (b *bay) onStarted(e host.Started) {
	b.remote, b.running, b.kill = e.Remote, e.Running, e.Kill
	b.lastExit = ""
	b.log.Info("the module runs", "pid", e.PID, "use", b.description.Name, "version", b.description.Version)
	b.shown.set(func(v *view) {
		v.module, v.fault = local.Health{State: local.OK}, ""
		if v.process.State != local.Starting {
			v.process.Restarts++
		}
		v.process.Limits = limitsOf(e.Limits)
	})
	b.sayLimits(e.Limits)
	b.shown.processIs(local.Running, e.PID)
	b.links.speaks(b.name, b.description.Outputs)
	b.feed(e.Running)
	b.settled(e.Running.Applied, nil)
}

// sayLimits logs, once in a life, which limits are not in force.
func (b *bay) sayLimits(all []host.Limit) {
	for _, l := range all {
		if l.By == "" && !b.unbound {
			b.unbound = true
			b.log.Info("not every limit of the module is in force; see twinbay status "+b.name, "limit", l.Of, "reason", l.Note)
		}
	}
}

func limitsOf(all []host.Limit) (shown []local.Limit) {
	for _, l := range all {
		shown = append(shown, local.Limit(l))
	}
	return shown
}

func (b *bay) onEnded(e host.Ended) {
	b.remote, b.running, b.kill, b.asked = nil, nil, nil, nil
	b.mute("its module has ended: " + e.Exit.Reason)
	state, quarantine := local.Waiting, ""
	switch {
	case e.Quarantined != "":
		state = local.Quarantined
		quarantine = fmt.Sprintf("quarantined: %s; start it with: twinbay restart %s", e.Quarantined, b.name)
	case !e.Ran && !e.Asked:
		state = local.Failed
	}
	b.shown.processIs(state, 0)
	b.shown.set(func(v *view) { v.process.LastExit, v.process.Quarantine = e.Exit.Reason, quarantine })
	if e.Asked {
		return
	}
	b.shown.countEnd(endKind(e.Exit.Reason, e.Ran))
	level := slog.LevelWarn
	if e.Exit.Reason == b.lastExit && !e.Ran {
		level = slog.LevelDebug // said before
	}
	b.lastExit = e.Exit.Reason
	attrs := []any{"reason", e.Exit.Reason}
	if quarantine == "" {
		attrs = append(attrs, "retry_in", max(0, time.Until(e.Retry)).Round(time.Millisecond))
	} else {
		attrs, level = append(attrs, "quarantined", e.Quarantined), slog.LevelError
	}
	if strings.Contains(e.Exit.Stack, "goroutine ") {
		attrs = append(attrs, "stack", e.Exit.Stack)
	}
	what := "the module has ended"
	if !e.Ran {
		what = "the module cannot be started"
	}
	b.log.Log(context.Background(), level, what, attrs...)
}

// stopped is the module's end at the agent's.
func (b *bay) stopped() {
	b.remote, b.running, b.kill = nil, nil, nil
	b.mute("its module is stopped")
	b.shown.processIs(local.Stopped, 0)
}

func (b *bay) onSaid(e host.Said) {
	b.probe(b.name, "said")
	switch up := e.Up.(type) {
	case modkit.Sent:
		b.onSent(e.Running, up)
	case modkit.Health:
		b.onHealth(up)
	case modkit.Output:
		b.onOutput(up)
	case modkit.Reported:
		b.onReported(up)
	}
}

// onSent takes a message over. Whoever is told "accepted" may forget it; until then nobody waits: the disk may be slow.
func (b *bay) onSent(from *modkit.Running, s modkit.Sent) {
	m := s.Message
	if err := checkMessage(m); err != nil {
		b.answers.add(func() { b.refuse(from, s.Seq, err) })
		return
	}
	r := outbox.Record{Body: m.Body, Properties: m.Properties, High: m.Priority == modkit.High, TTL: m.TTL, At: m.At, State: m.State}
	if r.At.IsZero() {
		r.At = time.Now()
	}
	b.box.Put(r, func(id string, err error) {
		b.answers.add(func() {
			if err != nil {
				b.refuse(from, s.Seq, err)
				return
			}
			b.log.Debug(acceptedLine, "id", id)
			b.shown.set(func(v *view) { v.last = local.Reading{At: r.At, Body: m.Body} })
			b.answered(from.Accept(s.Seq))
		})
	})
}

func (b *bay) refuse(from *modkit.Running, seq uint64, err error) {
	b.log.Warn("a message of the module is refused", "error", err)
	b.answered(from.Refuse(seq, err.Error()))
}

// answered takes how telling a module went.
func (b *bay) answered(err error) {
	if err != nil && !errors.Is(err, modkit.ErrEnded) {
		b.log.Debug("the module could not be told what became of its message", "error", err)
	}
}

// checkMessage refuses what no hub would take.
func checkMessage(m modkit.Message) error {
	size := len(m.Body)
	for name, value := range m.Properties {
		switch {
		case name == "":
			return errors.New("a property without a name")
		case strings.HasPrefix(name, "$"):
			return fmt.Errorf("property %.100q: names with $ belong to the hub", name)
		case !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(name+value, 0):
			return fmt.Errorf("property %.100q is not text in UTF-8", name)
		}
		size += len(name) + len(value)
	}
	switch {
	case size > maxMessage:
		return fmt.Errorf("a message of %d bytes, %d are allowed", size, maxMessage)
	case !json.Valid(m.Body) || !utf8.Valid(m.Body):
		return errors.New("the body is not JSON in UTF-8")
	case len(m.State) > modkit.MaxState:
		return fmt.Errorf("a state of %d bytes, %d are allowed", len(m.State), modkit.MaxState)
	}
	return nil
}

// onHealth shows the module's condition, and logs each change.
func (b *bay) onHealth(h modkit.Health) {
	now := local.Health{State: local.OK, Detail: clip(h.Detail, 500)}
	level := slog.LevelInfo
	switch h.State {
	case modkit.Degraded:
		now.State, level = local.Degraded, slog.LevelWarn
	case modkit.Faulted:
		now.State, level = local.Faulted, slog.LevelError
	}
	var before local.Health
	b.shown.set(func(v *view) { before, v.module = v.module, now })
	if before != now {
		b.log.Log(context.Background(), level, "health: "+now.State, "detail", now.Detail)
	}
}

// onHub answers to the connection's coming and going.
func (b *bay) onHub() {
	if b.hub.connected {
		b.confirm()
		b.send.resume()
	}
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
