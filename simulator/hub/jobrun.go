package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twinbay/twinbay/simulator/hub/query"
)

const jobWorkers = 10 // devices at a time

// The states of one device in a job.
const (
	taskPending   = "pending"
	taskRunning   = "running"
	taskCompleted = "completed"
	taskFailed    = "failed"
	taskScheduled = "scheduled"
	taskCanceled  = "canceled"
)

// task is what a job does to one device or module.
type task struct {
	id      ID
	status  string
	begun   time.Time
	ended   time.Time
	answer  *MethodResult // to a direct method
	failure *Error
}

// runJob is called when a job's time has come.
func (h *Hub) runJob(j *job) {
	if !h.beginJob(j) {
		return
	}
	defer h.work.Done()
	ctx, cancel := context.WithTimeout(h.ctx, j.limit)
	defer cancel()
	c, err := query.ParseCondition(j.condition)
	if err != nil {
		h.mu.Lock()
		defer h.unlock()
		h.endJob(j, stateFailed, "queryCondition: "+badQuery(err).Text)
		return
	}
	h.chooseTargets(j, c)
	h.doTasks(ctx, j)
	h.mu.Lock()
	defer h.unlock()
	switch {
	case h.ctx.Err() != nil: // the hub ends with the job half done; it says so when it comes back
	case ctx.Err() != nil && j.abandon(time.Now()):
		h.endJob(j, stateFailed, "maxExecutionTimeInSeconds is over")
	default:
		h.endJob(j, stateCompleted, "")
	}
}

// beginJob tells whether a job has not been cancelled, nor the hub closed, meanwhile.
func (h *Hub) beginJob(j *job) bool {
	h.mu.Lock()
	defer h.unlock()
	if h.ctx.Err() != nil || j.status != stateQueued && j.status != stateScheduled {
		return false
	}
	h.work.Add(1)
	j.status = stateRunning
	h.changed(jobs, j.id)
	return true
}

func (h *Hub) chooseTargets(j *job, c *query.Condition) {
	tasks := h.targets(c, taskPending)
	h.mu.Lock()
	defer h.unlock()
	j.tasks = tasks
	h.changed(jobs, j.id)
}

// targets lists whom a condition chooses.
func (h *Hub) targets(c *query.Condition, status string) []task {
	var all []task
	h.rows(c.Source == query.Modules, ID{}, func(r *row) bool {
		if c.Meets(r) {
			all = append(all, task{id: r.n.id, status: status})
		}
		return true
	})
	return all
}

// doTasks does what there is to do, some at a time, until ctx ends.
func (h *Hub) doTasks(ctx context.Context, j *job) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(jobWorkers, len(j.tasks)) {
		workers.Go(func() {
			for i := range next {
				h.doTask(ctx, j, i)
			}
		})
	}
	for i := range j.tasks { // the length does not change any more
		select {
		case next <- i:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(next)
	workers.Wait()
}

func (h *Hub) doTask(ctx context.Context, j *job, i int) {
	if !h.holdTask(ctx, j.tasks[i].id) {
		return
	}
	id := h.beginTask(j, i)
	var answer *MethodResult
	var err error
	if j.kind == updateTwinJob {
		_, err = h.writeTwin(id, "", j.write)
	} else {
		var r MethodResult
		if r, err = h.Invoke(ctx, id, j.method); err == nil {
			answer = &r
		}
	}
	h.mu.Lock()
	defer h.unlock()
	t := &j.tasks[i]
	if err != nil && ctx.Err() != nil {
		return // abandon has the right words
	}
	t.status, t.ended, t.answer = taskCompleted, time.Now(), answer
	if e, ok := errors.AsType[*Error](err); ok {
		t.status, t.failure = taskFailed, e
	}
}

// holdTask waits as long as the hub's tier wants between what jobs do to devices; it tells whether there is time left.
func (h *Hub) holdTask(ctx context.Context, id ID) bool {
	for {
		held, err := h.Throttle(OpJobDevice, id, 1)
		if err != nil {
			held = maxHeld
		}
		t := time.NewTimer(held)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
		if err == nil {
			return true
		}
	}
}

func (h *Hub) beginTask(j *job, i int) ID {
	h.mu.Lock()
	defer h.unlock()
	t := &j.tasks[i]
	t.status, t.begun = taskRunning, time.Now()
	return t.id
}

// abandon fails the tasks that have not ended, and tells whether there were any.
func (j *job) abandon(now time.Time) bool {
	some := false
	for i := range j.tasks {
		t := &j.tasks[i]
		if t.ended.IsZero() {
			some = true
			t.status, t.ended = taskFailed, now
			t.failure = &Error{Code: 500008, Name: "GenericTimeout", Text: "the job's time was over before this was done"}
		}
	}
	return some
}

func (j *job) statistics() *JobStatistics {
	s := &JobStatistics{DeviceCount: len(j.tasks)}
	for i := range j.tasks {
		switch j.tasks[i].status {
		case taskPending:
			s.PendingCount++
		case taskRunning:
			s.RunningCount++
		case taskCompleted:
			s.SucceededCount++
		case taskFailed:
			s.FailedCount++
		}
	}
	return s
}

// stopTimers stops what has not begun. Called under the lock.
func (h *Hub) stopTimers() {
	if h.reconciler != nil {
		h.reconciler.Stop()
	}
	for _, j := range h.jobs {
		if j.timer != nil {
			j.timer.Stop()
		}
	}
}
