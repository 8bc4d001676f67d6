package modtest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

// Bench is the agent's end of a module in a test: it keeps what the module says. Its methods may be called from the
// test's goroutine.
type Bench struct {
	Remote  *modkit.Remote
	Running *modkit.Running // of the last Start

	t      testing.TB
	module modkit.Module
	cancel context.CancelFunc
	done   chan struct{} // closed when the stream has ended
	over   chan error    // the module's Run has returned
	config Config

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	sent     []modkit.Sent
	taken    int // by Next
	state    []byte
	health   []modkit.Health
	reported json.RawMessage
	pongs    []modkit.Pong
	outputs  map[string]modkit.Output // the newest of each
	err      error
}

func (b *Bench) begin(r *modkit.Running, cfg Config, cancel context.CancelFunc) {
	b.Running, b.cancel, b.config, b.done = r, cancel, cfg, make(chan struct{})
	b.mu.Lock()
	b.changed = make(chan struct{})
	b.sent, b.taken, b.state, b.health, b.reported, b.pongs, b.err = nil, 0, cfg.State, nil, nil, nil, nil
	b.outputs = map[string]modkit.Output{}
	b.mu.Unlock()
	go b.listen(b.done)
}

// listen keeps what comes up. What the test sees has been accepted before: a record is durable, then known.
func (b *Bench) listen(done chan struct{}) {
	defer close(done)
	for {
		up, err := b.Running.Next()
		if err == nil && !b.config.Hold {
			if s, ok := up.(modkit.Sent); ok {
				err = b.Running.Accept(s.Seq)
			}
			if errors.Is(err, modkit.ErrEnded) {
				err = nil // the run's last word: Next tells how it ended
			}
		}
		if err != nil {
			b.note(func() { b.err = err })
			return
		}
		b.note(func() { b.keep(up) })
	}
}

func (b *Bench) keep(up modkit.Up) {
	switch u := up.(type) {
	case modkit.Sent:
		b.sent = append(b.sent, u)
		if u.Message.State != nil && !b.config.Hold {
			b.state = u.Message.State
		}
	case modkit.Health:
		b.health = append(b.health, u)
	case modkit.Reported:
		b.reported = u.Properties
	case modkit.Output:
		b.outputs[u.Name] = u
	case modkit.Pong:
		b.pongs = append(b.pongs, u)
	}
}

func (b *Bench) note(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// until waits for f, which sees the bench under its lock, and fails the test when it does not come.
func (b *Bench) until(what string, f func() bool) {
	b.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		b.mu.Lock()
		ok, err, changed := f(), b.err, b.changed
		b.mu.Unlock()
		switch {
		case ok:
			return
		case err != nil:
			b.t.Fatalf("modtest: waiting for %s: the run has ended: %v", what, err)
		}
		select {
		case <-changed:
		case <-limit.C:
			b.t.Fatalf("modtest: no %s within %s", what, patience)
		}
	}
}

// Next is the next message of this run that Next has not answered yet; it waits for it.
func (b *Bench) Next() modkit.Sent {
	b.t.Helper()
	var s modkit.Sent
	b.until("message", func() bool {
		if b.taken == len(b.sent) {
			return false
		}
		s = b.sent[b.taken]
		b.taken++
		return true
	})
	return s
}

// NextBody is Next, with the message's body decoded into v.
func (b *Bench) NextBody(v any) modkit.Sent {
	b.t.Helper()
	s := b.Next()
	if err := json.Unmarshal(s.Message.Body, v); err != nil {
		b.t.Fatalf("modtest: body %s: %v", s.Message.Body, err)
	}
	return s
}

// Pending is what has come and Next has not answered yet.
func (b *Bench) Pending() []modkit.Sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.sent[b.taken:])
}

// State is the state of the last message accepted that had one: what the next run would start with.
func (b *Bench) State() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// Accept accepts a message, in a run with Hold.
func (b *Bench) Accept(s modkit.Sent) {
	b.t.Helper()
	if err := b.Running.Accept(s.Seq); err != nil {
		b.t.Fatalf("modtest: %v", err)
	}
	if s.Message.State != nil {
		b.mu.Lock()
		b.state = s.Message.State
		b.mu.Unlock()
	}
}

// Refuse refuses a message, in a run with Hold.
func (b *Bench) Refuse(s modkit.Sent, reason string) {
	b.t.Helper()
	if err := b.Running.Refuse(s.Seq, reason); err != nil {
		b.t.Fatalf("modtest: %v", err)
	}
}

// WaitHealth waits until the module's newest health is state, and answers it.
func (b *Bench) WaitHealth(state modkit.HealthState) modkit.Health {
	b.t.Helper()
	var h modkit.Health
	b.until("such health", func() bool {
		if n := len(b.health); n > 0 {
			h = b.health[n-1]
			return h.State == state
		}
		return false
	})
	return h
}

// HealthSoFar is all that the module has said of its health in this run, oldest first.
func (b *Bench) HealthSoFar() []modkit.Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.health)
}

// WaitReported waits until f accepts the document that the module reports.
func (b *Bench) WaitReported(f func(doc map[string]any) bool) map[string]any {
	b.t.Helper()
	var doc map[string]any
	b.until("such report", func() bool {
		doc = nil
		return b.reported != nil && json.Unmarshal(b.reported, &doc) == nil && f(doc)
	})
	return doc
}

// Input brings a value over a link.
func (b *Bench) Input(in modkit.Input) {
	b.t.Helper()
	if err := b.Running.Input(in); err != nil {
		b.t.Fatalf("modtest: %v", err)
	}
}

// WaitOutput waits until f accepts what the module has said last of an output, and answers it.
func (b *Bench) WaitOutput(name string, f func(modkit.Output) bool) modkit.Output {
	b.t.Helper()
	var o modkit.Output
	b.until("such output "+name, func() bool {
		var said bool
		o, said = b.outputs[name]
		return said && f(o)
	})
	return o
}

// Ping pings the module and waits for its answer.
func (b *Bench) Ping(id uint64) modkit.Pong {
	b.t.Helper()
	if err := b.Running.Ping(id); err != nil {
		b.t.Fatalf("modtest: %v", err)
	}
	var p modkit.Pong
	b.until("pong", func() bool {
		i := slices.IndexFunc(b.pongs, func(p modkit.Pong) bool { return p.ID == id })
		if i >= 0 {
			p = b.pongs[i]
		}
		return i >= 0
	})
	return p
}

// Apply sets the schema's defaults with settings over them, and answers what is in force.
func (b *Bench) Apply(settings map[string]any) modkit.Applied {
	b.t.Helper()
	doc := document(b.t, "settings", b.module.Describe().Settings, settings)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := b.Remote.Apply(ctx, modkit.Settings{Doc: doc, Version: 2})
	if err != nil {
		b.t.Fatalf("modtest: apply %s: %v", doc, err)
	}
	return a
}

// Invoke calls a direct method; payload "" is none.
func (b *Bench) Invoke(method, payload string) modkit.Answer {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := b.Remote.Invoke(ctx, method, json.RawMessage(payload))
	if err != nil {
		b.t.Fatalf("modtest: %v", err)
	}
	return a
}

// Stop ends the run as the agent does, and waits for it. A run that had failed before fails the test.
func (b *Bench) Stop() {
	b.t.Helper()
	if b.cancel == nil {
		return
	}
	if err := b.end(); err != nil {
		b.t.Errorf("modtest: the run failed: %v", err)
	}
}

// Wait waits for the run to end by itself, and answers the module's error.
func (b *Bench) Wait() error {
	b.t.Helper()
	select {
	case <-b.done:
	case <-time.After(patience):
		b.t.Fatalf("modtest: the run has not ended within %s", patience)
	}
	return b.end()
}

// end waits for the module's Run itself to return: a test may then read what the module wrote.
func (b *Bench) end() error {
	b.cancel()
	b.cancel = nil
	<-b.done
	return <-b.over
}

func (b *Bench) cleanup() {
	if b.cancel != nil {
		b.Stop()
	}
}
