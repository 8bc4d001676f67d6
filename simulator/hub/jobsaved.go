package hub

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"
)

// jobs is the kind of scheduled jobs; its key is a job's id.
const jobs = "job"

type savedJob struct {
	Kind      string          `json:"kind"`
	Condition string          `json:"condition"`
	Patch     json.RawMessage `json:"patch,omitempty"`
	Method    *savedMethod    `json:"method,omitempty"`
	Limit     time.Duration   `json:"limit"`
	Status    string          `json:"status"`
	Failure   string          `json:"failure,omitempty"`
	Created   time.Time       `json:"created"`
	Start     time.Time       `json:"start"`
	Ended     *time.Time      `json:"ended,omitempty"`
	Tasks     []savedTask     `json:"tasks,omitempty"`
}

type savedMethod struct {
	Name     string          `json:"name"`
	Payload  json.RawMessage `json:"payload,omitempty"`
	Response time.Duration   `json:"response"`
	Connect  time.Duration   `json:"connect"`
}

type savedTask struct {
	Device  string        `json:"device"`
	Module  string        `json:"module,omitempty"`
	Status  string        `json:"status"`
	Begun   *time.Time    `json:"begun,omitempty"`
	Ended   *time.Time    `json:"ended,omitempty"`
	Answer  *MethodResult `json:"answer,omitempty"`
	Code    int           `json:"code,omitempty"`
	Name    string        `json:"name,omitempty"`
	Failure string        `json:"failure,omitempty"`
}

// A running job is saved when it begins and when it ends, not with each of its devices.
func jobKind() kind {
	return kind{
		name: jobs,
		save: func(h *Hub, key string) any {
			j, ok := h.jobs[key]
			if !ok {
				return nil
			}
			return j.save()
		},
		keys: func(h *Hub) []string { return slices.Collect(maps.Keys(h.jobs)) },
		load: func(h *Hub, key string, data []byte) error {
			var s savedJob
			if err := decodeSaved(data, &s); err != nil {
				return err
			}
			j, err := s.load(key)
			if err != nil {
				return err
			}
			h.jobs[key] = j
			now := time.Now()
			switch j.status {
			case stateQueued, stateScheduled:
				h.armJob(j, now)
			case stateRunning:
				j.abandon(now)
				h.endJob(j, stateFailed, "the hub ended while the job ran")
			}
			return nil
		},
	}
}

func (j *job) save() savedJob {
	s := savedJob{
		Kind: j.kind, Condition: j.condition, Patch: j.patch, Limit: j.limit, Status: j.status, Failure: j.failure,
		Created: j.created.UTC(), Start: j.start.UTC(), Ended: savedTime(j.ended),
	}
	if j.kind == deviceMethodJob {
		s.Method = &savedMethod{j.method.Name, j.method.Payload, j.method.Response, j.method.Connect}
	}
	for _, t := range j.tasks {
		saved := savedTask{Device: t.id.Device, Module: t.id.Module, Status: t.status, Begun: savedTime(t.begun), Ended: savedTime(t.ended), Answer: t.answer}
		if t.failure != nil {
			saved.Code, saved.Name, saved.Failure = t.failure.Code, t.failure.Name, t.failure.Text
		}
		s.Tasks = append(s.Tasks, saved)
	}
	return s
}

func (s *savedJob) load(id string) (*job, error) {
	j := &job{
		id: id, kind: s.Kind, condition: s.Condition, limit: s.Limit, status: s.Status, failure: s.Failure,
		created: s.Created, start: s.Start, ended: loadedTime(s.Ended),
	}
	over := j.status == stateCompleted || j.status == stateFailed || j.status == stateCancelled
	switch {
	case !scheduledID.MatchString(id) || !slices.Contains(allStates, j.status) || over == j.ended.IsZero() || j.limit <= 0:
		return nil, errors.New("the record is not whole")
	case j.kind == updateTwinJob:
		if err := j.setPatch(s.Patch); err != nil {
			return nil, err
		}
	case j.kind == deviceMethodJob && s.Method != nil:
		j.method = MethodRequest{Name: s.Method.Name, Payload: s.Method.Payload, Response: s.Method.Response, Connect: s.Method.Connect}
		if err := j.method.check(oldMaxTimeout); err != nil { // the hub may have been told otherwise when it took the job
			return nil, err
		}
	default:
		return nil, errors.New("the record is of no type of job")
	}
	for _, t := range s.Tasks {
		loaded := task{id: ID{t.Device, t.Module}, status: t.Status, begun: loadedTime(t.Begun), ended: loadedTime(t.Ended), answer: t.Answer}
		if t.Code != 0 {
			loaded.failure = &Error{Code: t.Code, Name: t.Name, Text: t.Failure}
		}
		j.tasks = append(j.tasks, loaded)
	}
	return j, nil
}
