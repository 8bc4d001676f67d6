package agent

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/outbox"
)

// outboxFolder is the outbox's in the state folder.
const outboxFolder = "outbox"

// outboxConfig is the device file's outbox. What may be written to the disk is more than what messages may take: the rest
// is room to move them, see [outbox.LogConfig].
func (a *Agent) outboxConfig() outbox.LogConfig {
	o := a.file().Outbox
	c := outbox.LogConfig{
		Dir: filepath.Join(a.file().Agent.StateDir, outboxFolder), FS: a.disk, Log: a.log,
		Profile: outbox.Profile(o.Profile), MaxAge: o.MaxAge, MinFree: uint64(max(o.MinFree, 0)),
		SegmentBytes: int(max(o.MaxBytes/64, 2<<20)),
	}
	segments := o.MaxBytes / int64(c.SegmentBytes)
	c.MaxBytes = (segments - 1) * int64(c.SegmentBytes) * outbox.FillPercent / 100
	return c
}

// open gives a place its part of the outbox.
func (p *place) open(log *outbox.Log) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.box = log.Box(p.cfg.Name)
}

// queue is the place's part of the outbox for people.
func (p *place) queue() local.Queue {
	p.mu.Lock()
	box := p.box
	p.mu.Unlock()
	if box == nil {
		return local.Queue{}
	}
	return local.QueueOf(box.Stats())
}

// answers tells a module what became of its messages, in their order. The disk says so on a goroutine of its own, which
// must not wait for a module that does not listen.
type answers struct {
	mu    sync.Mutex
	queue []func()
	more  chan struct{} // capacity one
}

func newAnswers() *answers { return &answers{more: make(chan struct{}, 1)} }

// add never blocks. A module has at most 64 messages that wait, so the queue is bounded by the contract.
func (a *answers) add(f func()) {
	a.mu.Lock()
	a.queue = append(a.queue, f)
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// run makes the calls until ctx ends.
func (a *answers) run(ctx context.Context) func() {
	for {
		a.mu.Lock()
		calls := a.queue
		a.queue = nil
		a.mu.Unlock()
		for _, f := range calls {
			f()
		}
		if len(calls) > 0 {
			continue
		}
		select {
		case <-a.more:
		case <-ctx.Done():
			return nil
		}
	}
}
