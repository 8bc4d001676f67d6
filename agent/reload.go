package agent

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/systemd"
)

// task is something of the agent's that runs until it is asked to stop. It belongs to Run's goroutine.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (t *task) start(ctx context.Context, wg *sync.WaitGroup, run func(context.Context)) {
	ctx, t.cancel = context.WithCancel(ctx)
	done := make(chan struct{})
	t.done = done
	wg.Go(func() {
		defer close(done)
		run(ctx)
	})
}

// stop asks all to stop and waits for all.
func stop(tasks ...*task) {
	for _, t := range tasks {
		if t.cancel != nil { // else it was never started: safe mode
			t.cancel()
		}
	}
	for _, t := range tasks {
		if t.done != nil {
			<-t.done
		}
	}
}

// reload is a device file that is to come into force.
type reload struct {
	file   *config.Config
	answer chan local.Reloaded // capacity one
}

// errNothingToReload is an agent that was not made from a file.
var errNothingToReload = errors.New("this agent has no device file to read again")

// Reload implements [local.Agent]: it reads the device file again and touches only what has changed. A file with any error
// changes nothing.
//
// A component that is new is started, one that is gone is stopped, one whose table differs, or a link to it, is stopped and
// started. What
// waits in the outbox of one that is gone stays there, and is sent when the component comes back under its name. Another
// hub, or another program of modules, restarts all components and the device's own session. Other keys of [agent], and
// [outbox], count from the agent's next start.
func (a *Agent) Reload(ctx context.Context) (local.Reloaded, error) {
	if a.load == nil {
		return local.Reloaded{}, errNothingToReload
	}
	a.tell(systemd.Reloading(systemd.Monotonic()))
	defer func() { a.tell(systemd.Ready, systemd.Status(a.summary())) }()
	file, err := a.load(ctx)
	if err != nil {
		a.log.Error("the device file is not taken; the one before stays in force", "error", err)
		return local.Reloaded{}, invalid{err}
	}
	r := reload{file: file, answer: make(chan local.Reloaded, 1)}
	select {
	case a.reloads <- r:
		return <-r.answer, nil
	case <-ctx.Done():
		return local.Reloaded{}, ctx.Err()
	}
}

// invalid is a device file with errors: its text is all of them.
type invalid struct{ error }

// Is lets the technician's API tell it from other errors.
func (invalid) Is(err error) bool { return err == local.ErrInvalidFile }

func (i invalid) Unwrap() error { return i.error }

// difference says what another device file changes. Old and new components are told apart by their names.
func difference(old, new *config.Config) (r local.Reloaded, all bool) {
	all = old.Hub != new.Hub || old.Agent.Modules != new.Agent.Modules
	before := map[string]config.Module{}
	for _, m := range old.Modules {
		before[m.Name] = m
	}
	for _, m := range new.Modules {
		was, ok := before[m.Name]
		delete(before, m.Name)
		switch {
		case !ok:
			r.Added = append(r.Added, m.Name)
		case all || !reflect.DeepEqual(was, m):
			r.Changed = append(r.Changed, m.Name)
		}
	}
	for name := range before {
		r.Removed = append(r.Removed, name)
	}
	slices.Sort(r.Removed)
	for key, same := range map[string]bool{
		"agent.socket": old.Agent.Socket == new.Agent.Socket, "agent.run_dir": old.Agent.RunDir == new.Agent.RunDir,
		"agent.state_dir": old.Agent.StateDir == new.Agent.StateDir, "agent.log_level": old.Agent.LogLevel == new.Agent.LogLevel,
		"agent.metrics": old.Agent.Metrics == new.Agent.Metrics,
		"agent.cgroup":  old.Agent.Cgroup == new.Agent.Cgroup,
		"outbox":        old.Outbox == new.Outbox,
	} {
		if !same {
			r.Later = append(r.Later, key)
		}
	}
	slices.Sort(r.Later)
	r.Device = all || old.Device != new.Device
	return r, all
}

// apply brings a device file into force. It belongs to Run's goroutine.
func (a *Agent) apply(ctx context.Context, wg *sync.WaitGroup, file *config.Config) local.Reloaded {
	old := a.file()
	r, _ := difference(old, file)
	inForce := *file
	inForce.Outbox, inForce.Agent = old.Outbox, old.Agent
	inForce.Agent.Modules = file.Agent.Modules

	before := map[string]*place{}
	var ending []*task
	for _, p := range a.places {
		before[p.cfg.Name] = p
		if slices.Contains(r.Removed, p.cfg.Name) || slices.Contains(r.Changed, p.cfg.Name) {
			ending = append(ending, &p.task)
		}
	}
	if r.Device {
		ending = append(ending, &a.device.task)
	}
	stop(ending...)
	safe := a.safeMode() != nil
	for _, name := range r.Removed {
		a.links.forget(name)
		if safe {
			continue // the outbox is not open, and keeps what it has
		}
		before[name].box.Close() // also that of one that could not run
		if n := before[name].queue().Queued; n > 0 {
			if r.Kept == nil {
				r.Kept = map[string]int{}
			}
			r.Kept[name] = n
			a.log.Warn("a component is not in the device file any more; its messages are kept until it comes back", "module", name, "messages", n)
		}
	}
	a.release(slices.Concat(r.Removed, r.Changed)...)
	a.current.Store(&inForce)
	var places, starting []*place
	for _, m := range inForce.Modules {
		if p := before[m.Name]; p != nil && !slices.Contains(r.Changed, m.Name) {
			places = append(places, p)
			continue
		}
		p := newPlace(a, m)
		if !safe {
			p.open(a.outbox.Load())
		}
		places, starting = append(places, p), append(starting, p)
	}
	a.mu.Lock()
	a.places = places
	a.mu.Unlock()
	if safe {
		holdPlaces(starting)
		starting = nil // leaving safe mode starts all
	}
	for _, p := range starting {
		p.task.start(ctx, wg, p.run)
	}
	switch {
	case r.Device:
		a.device.task.start(ctx, wg, a.device.run)
	case len(r.Added)+len(r.Removed)+len(r.Changed) > 0:
		a.device.refresh()
	}
	a.log.Info("the device file is read again", "added", r.Added, "removed", r.Removed, "changed", r.Changed, "later", r.Later)
	return r
}

// release gives back the identities and the hardware of components.
func (a *Agent) release(components ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, owner := range a.owners {
		if slices.Contains(components, owner) {
			delete(a.owners, id)
		}
	}
	for part, owner := range a.parts {
		if slices.Contains(components, owner) {
			delete(a.parts, part)
		}
	}
}
