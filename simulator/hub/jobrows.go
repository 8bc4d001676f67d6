package hub

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/hub/query"
)

// DeviceJob is what a job did to one device or module: a row of devices.jobs. Source: Microsoft Learn, "Queries for IoT Hub
// jobs"; Azure/azure-iot-sdk-csharp, DeviceJob.cs.
type DeviceJob struct {
	DeviceID               string          `json:"deviceId"`
	ModuleID               string          `json:"moduleId,omitempty"`
	JobID                  string          `json:"jobId"`
	JobType                string          `json:"jobType"`
	Status                 string          `json:"status"` // pending, scheduled, running, completed, failed, canceled
	StartTimeUTC           string          `json:"startTimeUtc,omitempty"`
	EndTimeUTC             string          `json:"endTimeUtc,omitempty"`
	CreatedDateTimeUTC     string          `json:"createdDateTimeUtc"`
	LastUpdatedDateTimeUTC string          `json:"lastUpdatedDateTimeUtc"`
	Outcome                *DeviceOutcome  `json:"outcome,omitempty"`
	Error                  *DeviceJobError `json:"error,omitempty"`
}

// DeviceOutcome is what a device answered to a job's direct method; nil for a job on twins.
type DeviceOutcome struct {
	DeviceMethodResponse *MethodResult `json:"deviceMethodResponse"`
}

// DeviceJobError is why a job failed on a device; Code is the number of the hub's error.
type DeviceJobError struct {
	Code        string `json:"code"`
	Description string `json:"description"`
}

func (j *job) deviceJob(t *task) DeviceJob {
	out := DeviceJob{
		DeviceID: t.id.Device, ModuleID: t.id.Module, JobID: j.id, JobType: j.kind, Status: t.status,
		CreatedDateTimeUTC: twinTime(j.created), LastUpdatedDateTimeUTC: twinTime(latest(j.created, t.begun, t.ended)),
	}
	if !t.begun.IsZero() {
		out.StartTimeUTC = twinTime(t.begun)
	}
	if !t.ended.IsZero() {
		out.EndTimeUTC = twinTime(t.ended)
	}
	if t.status == taskCompleted {
		out.Outcome = &DeviceOutcome{t.answer}
	}
	if t.failure != nil {
		out.Error = &DeviceJobError{strconv.Itoa(t.failure.Code), t.failure.Error()}
	}
	return out
}

func latest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.After(first) {
			first = t
		}
	}
	return first
}

// deviceJobObject is a row, looked into by a query.
type deviceJobObject struct {
	row  *DeviceJob
	tree map[string]any
}

func (o *deviceJobObject) Member(name string) (any, bool) {
	switch name {
	case "deviceId":
		return o.row.DeviceID, true
	case "jobId":
		return o.row.JobID, true
	case "status":
		return o.row.Status, true
	}
	if o.tree == nil {
		d := json.NewDecoder(strings.NewReader(string(encode(o.row))))
		d.UseNumber()
		if d.Decode(&o.tree) != nil {
			return nil, false
		}
	}
	v, ok := o.tree[name]
	return v, ok
}

// queryJobs answers rows in the order of jobs and, within, of ids.
func (h *Hub) queryJobs(q *query.Query, after string, limit int) []marked {
	job, rest, _ := strings.Cut(after, "/")
	from := parseKey(rest)
	h.mu.Lock()
	h.forgetJobs(time.Now())
	ids := slices.Sorted(maps.Keys(h.jobs))
	h.unlock()
	var found []marked
	for _, id := range ids {
		if id < job {
			continue
		}
		for _, row := range h.deviceJobs(id) {
			at := ID{row.DeviceID, row.ModuleID}
			if id == job && !at.after(from) || !q.Meets(&deviceJobObject{row: &row}) {
				continue
			}
			found = append(found, marked{id + "/" + at.String(), row})
			if len(found) == limit {
				return found
			}
		}
	}
	return found
}

// after orders ids.
func (id ID) after(o ID) bool {
	if id.Device != o.Device {
		return id.Device > o.Device
	}
	return id.Module > o.Module
}

// deviceJobs answers the rows of a job. For one that has not begun they are whom its condition would choose now.
func (h *Hub) deviceJobs(id string) []DeviceJob {
	h.mu.Lock()
	j, ok := h.jobs[id]
	if !ok {
		h.unlock()
		return nil
	}
	shown := job{id: j.id, kind: j.kind, condition: j.condition, status: j.status, created: j.created, tasks: slices.Clone(j.tasks)}
	h.unlock()
	status := ""
	switch shown.status {
	case stateQueued, stateScheduled:
		status = taskScheduled
	case stateCancelled:
		status = taskCanceled
	}
	if c, err := query.ParseCondition(shown.condition); status != "" && err == nil {
		shown.tasks = h.targets(c, status)
	}
	rows := make([]DeviceJob, len(shown.tasks))
	for i := range shown.tasks {
		rows[i] = shown.deviceJob(&shown.tasks[i])
	}
	return rows
}
