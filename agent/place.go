package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/host"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/outbox"
)

// place is one component for as long as the agent runs: what outlives the panics of its bay.
type place struct {
	agent *Agent
	cfg   config.Module
	log   *slog.Logger
	shown *view
	memo  memory
	box   outbox.Box // nil before Run; guarded by mu until then

	restarts host.Restarts // of the module; belongs to the bay's supervisor

	task task

	mu  sync.Mutex
	bay *bay // the life that runs; nil when none does
}

func newPlace(a *Agent, m config.Module) *place {
	return &place{
		agent: a,
		cfg:   m,
		log:   a.log.With(local.ComponentKey, m.Name),
		shown: newView(),

		restarts: host.Restarts{Ends: m.Restart.Ends, Within: m.Restart.Within},
	}
}

// run keeps a bay alive until ctx ends. A component that the device file describes wrongly gets none: it is shown with
// what is wrong, and the others run.
func (p *place) run(ctx context.Context) {
	defer p.box.Close()
	if wrong := p.cfg.Problems; len(wrong) > 0 {
		p.log.Error("the component cannot run: the device file has to be mended, and the agent started again", "error", wrong)
		p.shown.set(func(v *view) { v.process.LastExit = wrong.Error() })
		p.shown.processIs(local.Failed, 0)
		p.agent.links.silent(p.cfg.Name, "it cannot run: the device file has to be mended")
		<-ctx.Done()
		return
	}
	p.memo.note = func(text string) { p.shown.note(aboutDisk, text) }
	p.memo.load(p.agent.disk, p.agent.twinFile(p.cfg.Name+componentSuffix), p.log)
	p.memo.show(p.shown)
	keep(ctx, p.log, p.shown, func(ctx context.Context) error {
		b := p.newBay(ctx)
		p.setBay(b)
		defer p.setBay(nil)
		return b.run(ctx)
	})
}

// keep runs one life after the other until ctx ends. Only a panic ends a life before; the next one begins after a
// back-off, and nobody else notices.
func keep(ctx context.Context, log *slog.Logger, shown *view, life func(context.Context) error) {
	var backoff host.Backoff
	for {
		began := time.Now()
		err := life(ctx)
		if err == nil {
			return // ctx has ended
		}
		delay := backoff.After(time.Since(began))
		text := "a fault of the agent's own ended this component, and it starts again; please report it"
		attrs := []any{"error", err, "retry_in", delay.Round(time.Millisecond)}
		if c, ok := errors.AsType[*crash](err); ok {
			attrs = append(attrs, "stack", string(c.stack))
			text += ": " + c.Error()
		}
		log.Error("a fault of the agent's own ended this component", attrs...)
		shown.processIs(local.Waiting, 0)
		shown.set(func(v *view) { v.fault, v.process.LastExit = text, text })
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

// newBay puts a life together. It starts nothing.
func (p *place) newBay(ctx context.Context) *bay {
	b := &bay{
		name: p.cfg.Name, cfg: p.cfg, file: p.agent.file(), log: p.log,
		loop:  newLoop(context.WithoutCancel(ctx)), // it ends when the module and the session have been put down
		shown: p.shown, memo: &p.memo, box: p.box, probe: p.agent.probe, hurry: p.agent.hurry,
		confirm: func() { p.agent.outbox.Load().Confirm(p.agent.clock.Now()) },
		links:   p.agent.links,
		hold:    func(want []holding) (holding, string, bool) { return p.agent.hold(p.cfg.Name, want) },
	}
	b.answers = newAnswers()
	b.super = host.NewSupervisor(p.start, &p.restarts, p.log)
	b.hub = &contact{
		loop: b.loop, log: p.log, memo: &p.memo, shown: p.shown, host: p.agent.file().Hub.Host,
		open: func() (*iothub.Session, error) {
			return p.agent.open(p.cfg.Name, b.key("credential"), p.cfg.Credential, p.log, p.shown)
		},
		changed: b.onDesired, method: b.onMethod, moved: b.onHub,
	}
	b.send = &sender{loop: b.loop, box: p.box, hub: b.hub, note: b.hub.complain}
	return b
}

// start starts the module's process. When the agent's end must not take time any more, it is killed.
func (p *place) start(ctx context.Context) (host.Instance, error) {
	instance, err := p.launch(ctx)
	if err == nil && p.agent.hurry != nil {
		go func() {
			select {
			case <-p.agent.hurry:
				instance.Kill("the agent was told to end at once")
			case <-instance.Done():
			}
		}()
	}
	return instance, err
}

func (p *place) launch(ctx context.Context) (host.Instance, error) {
	if p.agent.start != nil {
		return p.agent.start(ctx, p.cfg)
	}
	spec := host.Spec{Name: p.cfg.Name, Program: p.agent.file().Agent.Modules, Args: []string{p.cfg.Use}, Log: p.log,
		Limits: host.Limits(p.cfg.Limits)}
	if p.cfg.Path != "" {
		spec.Program, spec.Args = p.cfg.Path, nil
	}
	process, err := p.agent.host.Start(ctx, spec)
	if err != nil {
		return nil, err // and no interface around a nil *Process
	}
	return process, nil
}

func (p *place) setBay(b *bay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bay = b
}

// invoke calls a direct method for the technician.
func (p *place) invoke(ctx context.Context, method string, payload []byte) (reply, error) {
	p.mu.Lock()
	b := p.bay
	p.mu.Unlock()
	answers := make(chan reply, 1)
	if b == nil || !b.loop.call(ctx, func() { b.invoke(method, payload, func(r reply) { answers <- r }) }) {
		if ctx.Err() != nil {
			return reply{}, ctx.Err()
		}
		return reply{}, local.ErrNotRunning
	}
	select {
	case r := <-answers:
		return r, r.err
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// restart has the component's module started again, and answers the state that its process was in.
func (p *place) restart() (was string, err error) {
	p.mu.Lock()
	b := p.bay
	p.mu.Unlock()
	if wrong := p.cfg.Problems; len(wrong) > 0 {
		return "", fmt.Errorf("%w: the device file has to be mended first; then: twinbay reload", local.ErrNotRunning)
	}
	if b == nil {
		return "", local.ErrNotRunning
	}
	was = p.shown.state()
	p.log.Info("the module is started again, as somebody asked", "was", was)
	b.super.Restart()
	return was, nil
}
