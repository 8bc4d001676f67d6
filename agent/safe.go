package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/lives"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/agent/systemd"
)

// Files of the agent's lives in the state folder.
const (
	livesFile = "lives"
	crashFile = "crash" // the last words of one that broke down
)

// How long a life has to last so that it does not count as early, beside the watchdog's time: an agent that is blocked lives as
// long as that at least; and how long safe mode lasts when nobody ends it.
const (
	earlyLife = time.Minute
	safeTime  = 30 * time.Minute
)

// life is what the agent knows of its own. Its record belongs to Run's goroutine.
type life struct {
	record lives.Record
	timer  *time.Timer // the life has lasted, or safe mode is over; nil when lives are not counted

	saving sync.Mutex // one save after the other
	newest int        // guarded by saving
	saves  int        // begun; of Run's goroutine
}

// beginLife counts this life, and says whether it has to be lived in safe mode. A file that cannot be read or written is said and
// is no reason not to start. It runs before anything that could break down, and the run folder's lock is held: another agent's
// lives are not touched.
func (a *Agent) beginLife() (safe bool) {
	if a.boot == "" {
		return false
	}
	path := filepath.Join(a.file().Agent.StateDir, livesFile)
	_, damage := disk.Load(a.disk, path, func(text []byte) (err error) {
		a.life.record, err = lives.Decode(text)
		return err
	})
	if damage != nil {
		a.log.Warn("the record of the agent's lives could not be read", "error", damage)
	}
	words := ""
	if a.lastWords != nil {
		var err error
		if words, err = a.lastWords(filepath.Join(a.file().Agent.StateDir, crashFile)); err != nil {
			a.log.Warn("the agent's last words, if it breaks down, will stand on its standard error alone", "error", err)
		}
	}
	began := time.Now()
	a.life.record, safe = a.life.record.Begin(a.boot, words, began)
	if ends := a.life.record.Ends; a.life.record.Early > 0 {
		a.log.Warn("the agent has ended early", "times_in_a_row", a.life.record.Early, "the_last_time", ends[len(ends)-1].Reason)
	}
	a.saveLife(nil)
	limit := earlyLife + a.every
	if safe {
		limit = safeTime
		a.setSafe(&local.SafeMode{Since: began, Until: began.Add(safeTime), EarlyEnds: a.life.record.Early, Ends: a.life.record.Ends})
		a.log.Error("SAFE MODE: the agent has ended early too often. No module is started and nothing is sent before somebody calls twinbay resume, or half an hour has passed",
			"times_in_a_row", a.life.record.Early)
	}
	a.life.timer = time.NewTimer(limit)
	return safe
}

// saveLife keeps the record. With a group it does not wait for the disk.
func (a *Agent) saveLife(wg *sync.WaitGroup) {
	record := a.life.record
	a.life.saves++
	number := a.life.saves
	save := func() {
		a.life.saving.Lock()
		defer a.life.saving.Unlock()
		if number < a.life.newest {
			return // a later one was quicker
		}
		a.life.newest = number
		text, err := record.Encode()
		if err == nil {
			err = disk.Save(a.disk, filepath.Join(a.file().Agent.StateDir, livesFile), text)
		}
		if err != nil {
			a.log.Warn("the record of the agent's lives could not be kept: early ends are not counted", "error", err)
		}
	}
	if wg == nil {
		save()
		return
	}
	wg.Go(save)
}

// lifeOver is when this life has lasted, or safe mode has; nil when lives are not counted.
func (a *Agent) lifeOver() <-chan time.Time {
	if a.life.timer == nil {
		return nil
	}
	return a.life.timer.C
}

// lasted takes that the life has lasted, or ends as asked.
func (a *Agent) lasted(wg *sync.WaitGroup) {
	if a.boot == "" || !a.life.record.Open {
		return
	}
	a.life.record = a.life.record.Lasted()
	a.saveLife(wg)
}

// failed keeps why Run fails, for the next life.
func (a *Agent) failed(err error) {
	if a.boot == "" || err == nil {
		return
	}
	a.life.record = a.life.record.Failed(err)
	a.saveLife(nil)
}

// onLifeOver takes the timer's end: it belongs to Run's goroutine.
func (a *Agent) onLifeOver(ctx context.Context, wg *sync.WaitGroup) {
	if a.safeMode() == nil {
		a.lasted(wg)
		return
	}
	a.log.Warn("safe mode is over by itself; one more early end leads back to it")
	a.leaveSafeMode(ctx, wg, false)
}

// leaveSafeMode starts what safe mode has held back.
func (a *Agent) leaveSafeMode(ctx context.Context, wg *sync.WaitGroup, asked bool) {
	a.life.record = a.life.record.Resumed(asked)
	a.saveLife(wg)
	a.life.timer.Reset(earlyLife + a.every)
	a.setSafe(nil)
	a.openOutbox()
	a.startPlaces(ctx, wg)
	a.device.refresh()
	a.tell(systemd.Status(a.summary()))
}

// openOutbox opens the outbox and gives each place its part.
func (a *Agent) openOutbox() {
	box := outbox.OpenLog(a.outboxConfig())
	a.outbox.Store(box)
	for _, p := range a.places {
		p.open(box)
	}
}

func (a *Agent) closeOutbox() {
	box := a.outbox.Load()
	if box == nil {
		return // safe mode
	}
	if err := box.Close(); err != nil {
		a.log.Error("what was not accepted yet is not kept", "error", err)
	}
}

// startPlaces starts all components.
func (a *Agent) startPlaces(ctx context.Context, wg *sync.WaitGroup) {
	for _, p := range a.places {
		p.shown.processIs(local.Starting, 0)
		p.task.start(ctx, wg, p.run)
	}
}

// holdPlaces shows that components are not started.
func holdPlaces(places []*place) {
	for _, p := range places {
		p.shown.processIs(local.Held, 0)
	}
}

func (a *Agent) setSafe(s *local.SafeMode) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.safe = s
}

// safeMode is nil when the agent is not in it.
func (a *Agent) safeMode() *local.SafeMode {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.safe
}

// Resume implements [local.Agent].
func (a *Agent) Resume(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case a.resumes <- answer:
		return <-answer
	case <-ctx.Done():
		return ctx.Err()
	}
}

// resume leaves safe mode as somebody asked. It belongs to Run's goroutine.
func (a *Agent) resume(ctx context.Context, wg *sync.WaitGroup) error {
	if a.safeMode() == nil {
		return local.ErrNotSafe
	}
	a.log.Info("safe mode is over, as somebody asked")
	a.leaveSafeMode(ctx, wg, true)
	return nil
}

// safeReason is safe mode in a line for the device's twin.
func safeReason(s *local.SafeMode) string {
	text := fmt.Sprintf("the agent ended early %d times in a row", s.EarlyEnds)
	if n := len(s.Ends); n > 0 {
		text += "; the last time: " + s.Ends[n-1].Reason
	}
	return text
}
