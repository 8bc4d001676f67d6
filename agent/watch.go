package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/systemd"
)

// rounds is how many rounds of questions there are in the time after which the service manager ends the agent: one or two
// may come to nothing.
const rounds = 4

// watch tells the service manager that the agent gets on, for as long as that is so: in each round Run's goroutine, the
// device's loop, each component's and the outbox's writer have to answer. A loop that is blocked cannot be ended by anybody
// within the process, so nobody is told that it gets on, and the service manager ends and starts the whole agent; what was
// accepted is on the disk.
//
// A disk that is slow, or hangs, is no reason: another agent would wait for the same disk. While it does, modules control
// their hardware, and settings and methods work.
func (a *Agent) watch(ctx context.Context) {
	t := time.NewTicker(a.every / rounds)
	defer t.Stop()
	var status, complaint string
	for {
		silent := a.round(ctx, a.every/rounds)
		if ctx.Err() != nil {
			return
		}
		if now := strings.Join(silent, ", "); now != complaint {
			complaint = now
			if now != "" {
				a.log.Error("the agent does not get on; unless that changes, the service manager starts it anew", "silent", now, "watchdog", a.every)
			} else {
				a.log.Info("the agent gets on again")
			}
		}
		states := []string{}
		if complaint == "" {
			states = append(states, systemd.Alive)
		}
		if now := a.summary(); now != status {
			status, states = now, append(states, systemd.Status(now))
		}
		if len(states) > 0 {
			a.tell(states...)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// round asks everybody, and answers who has not answered in time.
func (a *Agent) round(ctx context.Context, limit time.Duration) (silent []string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	ask := func(who string, f func() bool) {
		wg.Go(func() {
			if !f() {
				mu.Lock()
				defer mu.Unlock()
				silent = append(silent, who)
			}
		})
	}
	began, ended := time.Now(), a.disk.Ended()
	ask("agent", func() bool {
		select {
		case a.calls <- func() {}:
			return true
		case <-ctx.Done():
			return false
		}
	})
	ask("device", func() bool { return a.device.life().beat(ctx) })
	for _, p := range a.all() {
		ask("component "+p.cfg.Name, func() bool { return p.life().beat(ctx) })
	}
	if box := a.outbox.Load(); box != nil {
		ask("outbox", func() bool {
			// The writer alone waits for the disk all the time: it gets on when the disk does.
			return box.Beat(ctx) || a.disk.Ended() != ended || !a.disk.Oldest().IsZero()
		})
	}
	wg.Wait()
	if oldest := a.disk.Oldest(); !oldest.IsZero() && !oldest.After(began) {
		return nil // one call on the disk has taken all the time that there was to answer
	}
	slices.Sort(silent)
	return silent
}

// beat says whether a loop answers before ctx ends. One that has ended, or is none, waits for nothing.
func (l *loop) beat(ctx context.Context) bool {
	return l == nil || l.call(ctx, func() {}) || l.ctx.Err() != nil
}

func (d *device) life() *loop {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.loop
}

func (p *place) life() *loop {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bay == nil {
		return nil
	}
	return p.bay.loop
}

// summary is the agent in a line, for the service manager.
func (a *Agent) summary() string {
	if a.safeMode() != nil {
		return "SAFE MODE: no module is started; see twinbay status"
	}
	running := 0
	places := a.all()
	for _, p := range places {
		p.shown.set(func(v *view) {
			if v.process.State == local.Running {
				running++
			}
		})
	}
	return fmt.Sprintf("%d of %d components run; hub %s", running, len(places), a.file().Hub.Host)
}
