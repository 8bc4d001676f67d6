package hub

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Scheduled jobs. Sources: Azure/azure-iot-hub-node, src/service.json, JobRequest and JobResponse; Microsoft Learn, "Schedule
// jobs on multiple devices"; what a hub really answers: github.com/mwalser/terraform-provider-iothub, CONCEPT.md, section 9
// and appendix D.
const (
	jobHistory     = 30 * 24 * time.Hour
	maxJobStart    = 168 * time.Hour // ahead: measured
	defaultJobTime = time.Hour       // maxExecutionTimeInSeconds where it is left out: Azure/azure-iot-cli-extension
	maxJobTime     = jobHistory
)

// The types and states of jobs.
const (
	updateTwinJob   = "scheduleUpdateTwin"
	deviceMethodJob = "scheduleDeviceMethod"

	stateQueued    = "queued"
	stateScheduled = "scheduled"
	stateRunning   = "running"
	stateCompleted = "completed"
	stateFailed    = "failed"
	stateCancelled = "cancelled"
)

// JobRequest is a job to schedule.
type JobRequest struct {
	JobID                     string          `json:"jobId"`
	Type                      string          `json:"type"`           // scheduleUpdateTwin or scheduleDeviceMethod
	QueryCondition            string          `json:"queryCondition"` // as query.ParseCondition has it
	StartTime                 string          `json:"startTime"`      // ISO 8601, at most 168 h from now; "" or past means now
	MaxExecutionTimeInSeconds int64           `json:"maxExecutionTimeInSeconds"`
	UpdateTwin                json.RawMessage `json:"updateTwin"` // a patch, with the etag "*"
	CloudToDeviceMethod       *struct {
		MethodName               string          `json:"methodName"`
		Payload                  json.RawMessage `json:"payload"`
		ResponseTimeoutInSeconds int64           `json:"responseTimeoutInSeconds"`
		ConnectTimeoutInSeconds  int64           `json:"connectTimeoutInSeconds"`
	} `json:"cloudToDeviceMethod"`
}

// ScheduledJob is a job as the service API shows it.
type ScheduledJob struct {
	JobID                     string          `json:"jobId"`
	QueryCondition            string          `json:"queryCondition,omitempty"`
	CreatedTime               string          `json:"createdTime,omitempty"`
	StartTime                 string          `json:"startTime,omitempty"`
	EndTime                   string          `json:"endTime,omitempty"`
	MaxExecutionTimeInSeconds int64           `json:"maxExecutionTimeInSeconds,omitempty"`
	Type                      string          `json:"type"` // "unknown" for a job that is not there
	CloudToDeviceMethod       *JobMethod      `json:"cloudToDeviceMethod,omitempty"`
	UpdateTwin                json.RawMessage `json:"updateTwin,omitempty"`
	Status                    string          `json:"status"` // queued, scheduled, running, completed, failed, cancelled; unknown
	FailureReason             string          `json:"failureReason,omitempty"`
	DeviceJobStatistics       *JobStatistics  `json:"deviceJobStatistics,omitempty"` // once it has begun
}

// JobMethod is a job's direct method. The hub shows its payload as the bytes that it is made of: measured.
type JobMethod struct {
	MethodName               string `json:"methodName"`
	Payload                  []int  `json:"payload"`
	ResponseTimeoutInSeconds int64  `json:"responseTimeoutInSeconds"`
	ConnectTimeoutInSeconds  int64  `json:"connectTimeoutInSeconds"`
}

// JobStatistics counts the devices, or the modules, of a job.
type JobStatistics struct {
	DeviceCount    int `json:"deviceCount"`
	FailedCount    int `json:"failedCount"`
	SucceededCount int `json:"succeededCount"`
	RunningCount   int `json:"runningCount"`
	PendingCount   int `json:"pendingCount"`
}

// job is a job as the hub has it.
type job struct {
	id, kind, condition string
	patch               json.RawMessage // of twins, as it was sent
	write               twinWrite       // the same, read
	method              MethodRequest
	limit               time.Duration // from its start

	status  string
	failure string
	created time.Time
	start   time.Time // when it is to begin
	ended   time.Time
	timer   *time.Timer
	tasks   []task // once it has begun: what it does, in the order of ids
}

// active tells whether a job counts against the limit of jobs at a time: one that waits for its hour does.
func (j *job) active() bool { return j.ended.IsZero() }

// scheduledID is what a job may be called: measured.
var scheduledID = regexp.MustCompile(`^[a-z0-9'-]{1,64}$`)

// ScheduleJob takes a job on. A condition that makes no sense is taken, too: then the job fails.
func (h *Hub) ScheduleJob(r JobRequest) (ScheduledJob, error) {
	now := time.Now()
	j, err := r.job(now, h.maxTimeout())
	if err != nil {
		return ScheduledJob{}, err
	}
	h.mu.Lock()
	defer h.unlock()
	h.forgetJobs(now)
	if _, exists := h.jobs[j.id]; exists {
		return ScheduledJob{}, &Error{Code: 409104, Name: "JobAlreadyExists", Text: "A job with ID '" + j.id + "' exists already."}
	}
	active := 0
	for _, o := range h.jobs {
		if o.active() {
			active++
		}
	}
	if h.maxJobs > 0 && active >= h.maxJobs {
		return ScheduledJob{}, &Error{Code: 429004, Name: "ThrottlingMaxActiveJobCountExceeded",
			Text: fmt.Sprintf("%d jobs run or wait for their time, and this hub allows %d", active, h.maxJobs)}
	}
	h.jobs[j.id] = j
	answer := ScheduledJob{JobID: j.id, Type: j.kind, Status: stateQueued}
	h.armJob(j, now)
	return answer, nil
}

// armJob sets the timer that begins a job.
func (h *Hub) armJob(j *job, now time.Time) {
	j.status = stateQueued
	if j.start.After(now) {
		j.status = stateScheduled
	}
	h.changed(jobs, j.id)
	j.timer = time.AfterFunc(max(0, j.start.Sub(now)), func() { h.runJob(j) })
}

// job reads a request.
func (r *JobRequest) job(now time.Time, longestCall time.Duration) (*job, *Error) {
	j := &job{id: r.JobID, condition: r.QueryCondition, created: now, start: now, limit: defaultJobTime}
	if !scheduledID.MatchString(r.JobID) {
		return nil, argument("job id %q: 1 to 64 of a-z 0-9 - '", r.JobID)
	}
	if strings.TrimSpace(r.QueryCondition) == "" {
		return nil, argument("queryCondition is missing; send * for all devices")
	}
	if r.StartTime != "" {
		t, ok := parseTime(r.StartTime)
		switch {
		case !ok:
			return nil, argument("startTime %q is not a time like 2026-01-31T12:00:00Z", r.StartTime)
		case t.After(now.Add(maxJobStart)):
			return nil, argument("startTime %s is more than 168 hours ahead", r.StartTime)
		case t.After(now):
			j.start = t
		}
	}
	switch s := r.MaxExecutionTimeInSeconds; {
	case s < 0:
		return nil, argument("maxExecutionTimeInSeconds: %d; want at least 1", s)
	case s > 0:
		j.limit = min(time.Duration(min(s, int64(maxJobTime/time.Second)))*time.Second, maxJobTime)
	}
	switch {
	case strings.EqualFold(r.Type, updateTwinJob):
		j.kind = updateTwinJob
		return j, r.twinPatch(j)
	case strings.EqualFold(r.Type, deviceMethodJob):
		j.kind = deviceMethodJob
		return j, r.directMethod(j, longestCall)
	}
	return nil, argument("type %q: want scheduleUpdateTwin or scheduleDeviceMethod", r.Type)
}

func (r *JobRequest) twinPatch(j *job) *Error {
	if len(r.UpdateTwin) == 0 || string(r.UpdateTwin) == "null" {
		return argument("updateTwin is missing")
	}
	return j.setPatch(r.UpdateTwin)
}

// setPatch reads the patch of a twin.
func (j *job) setPatch(patch json.RawMessage) *Error {
	var err *Error
	if j.write, err = parseTwinWrite(patch, true); err != nil {
		return err
	}
	// The names of members are taken in any case, and shown in the hub's.
	var shown struct {
		ETag       *string         `json:"etag"`
		Tags       json.RawMessage `json:"tags,omitempty"`
		Properties *struct {
			Desired json.RawMessage `json:"desired,omitempty"`
		} `json:"properties,omitempty"`
	}
	if json.Unmarshal(patch, &shown) != nil || shown.ETag == nil || unquote(*shown.ETag) != "*" {
		return argument("updateTwin: the etag is missing; a job's patch has \"etag\": \"*\"")
	}
	j.patch = encode(shown)
	return nil
}

func (r *JobRequest) directMethod(j *job, longest time.Duration) *Error {
	m := r.CloudToDeviceMethod
	if m == nil {
		return argument("cloudToDeviceMethod is missing")
	}
	seconds := func(n int64) time.Duration { return time.Duration(min(max(n, -1), 1<<20)) * time.Second }
	j.method = MethodRequest{
		Name: m.MethodName, Payload: slices.Clone(m.Payload),
		Response: seconds(m.ResponseTimeoutInSeconds), Connect: seconds(m.ConnectTimeoutInSeconds),
	}
	if m.ResponseTimeoutInSeconds == 0 {
		j.method.Response = defaultResponse
	}
	return j.method.check(longest)
}

// parseTime reads ISO 8601; without a zone it is UTC.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// Job answers a job. One that is not there is of type and status "unknown", and no error: measured.
func (h *Hub) Job(id string) ScheduledJob {
	h.mu.Lock()
	defer h.unlock()
	h.forgetJobs(time.Now())
	j, ok := h.jobs[id]
	if !ok {
		return ScheduledJob{JobID: id, Type: "unknown", Status: "unknown"}
	}
	return j.show()
}

// CancelJob takes a job back that has not begun.
func (h *Hub) CancelJob(id string) (ScheduledJob, error) {
	h.mu.Lock()
	defer h.unlock()
	h.forgetJobs(time.Now())
	j, ok := h.jobs[id]
	switch {
	case !ok:
		return ScheduledJob{}, &Error{Code: 404002, Name: "JobNotFound", Text: id}
	case j.status != stateQueued && j.status != stateScheduled:
		return ScheduledJob{}, &Error{Code: 405102, Name: "OperationNotAllowedInCurrentState",
			Text: "job " + id + " is " + j.status + " and can't be cancelled"}
	}
	j.timer.Stop()
	h.endJob(j, stateCancelled, "")
	return j.show(), nil
}

// endJob is the last change of a job.
func (h *Hub) endJob(j *job, status, failure string) {
	j.status, j.failure, j.ended = status, failure, time.Now()
	h.changed(jobs, j.id)
}

// forgetJobs drops the jobs that ended longer ago than the history goes.
func (h *Hub) forgetJobs(now time.Time) {
	for id, j := range h.jobs {
		if !j.ended.IsZero() && now.Sub(j.ended) > jobHistory {
			delete(h.jobs, id)
			h.changed(jobs, id)
		}
	}
}

// The names that clients may filter by: Azure/azure-iot-hub-node, src/service.json. Of those types that are not scheduled, none
// is found.
var (
	allTypes = []string{"unknown", "export", "import", "backup", "readDeviceProperties", "writeDeviceProperties",
		"updateDeviceConfiguration", "rebootDevice", "factoryResetDevice", "firmwareUpdate", deviceMethodJob, updateTwinJob,
		"restoreFromBackup", "failoverDataCopy"}
	allStates = []string{"unknown", "enqueued", stateRunning, stateCompleted, stateFailed, stateCancelled, stateScheduled, stateQueued}
)

// Jobs lists jobs, the newest first, like Query does rows. kind and status choose, in any case; "" chooses all.
func (h *Hub) Jobs(kind, status string, size int, continuation string) (Page, error) {
	for _, f := range []struct {
		name, value string
		known       []string
	}{{"jobType", kind, allTypes}, {"jobStatus", status, allStates}} {
		if f.value != "" && !slices.ContainsFunc(f.known, func(k string) bool { return strings.EqualFold(k, f.value) }) {
			return Page{}, argument("%s %q is unknown", f.name, f.value)
		}
	}
	if size == 0 || size > maxPage {
		size = maxPage
	}
	from := mark{Query: fingerprint("jobs " + strings.ToLower(kind+" "+status))}
	if continuation != "" {
		m, err := readMark(continuation, from.Query)
		if err != nil {
			return Page{}, err
		}
		from = m
	}
	h.mu.Lock()
	defer h.unlock()
	h.forgetJobs(time.Now())
	all := slices.SortedFunc(maps.Values(h.jobs), func(a, b *job) int { return strings.Compare(b.place(), a.place()) })
	page := Page{Type: "JobResponse", Items: []any{}}
	last := ""
	for _, j := range all {
		if from.After != "" && j.place() >= from.After ||
			kind != "" && !strings.EqualFold(kind, j.kind) || status != "" && !strings.EqualFold(status, j.status) {
			continue
		}
		if len(page.Items) == size {
			page.Continuation = mark{Query: from.Query, After: last}.String()
			break
		}
		page.Items = append(page.Items, j.show())
		last = j.place()
	}
	return page, nil
}

// place orders jobs by when they were made.
func (j *job) place() string { return fmt.Sprintf("%020d/%s", j.created.UnixNano(), j.id) }

func (j *job) show() ScheduledJob {
	out := ScheduledJob{
		JobID: j.id, QueryCondition: j.condition, Type: j.kind, Status: j.status, FailureReason: j.failure,
		CreatedTime: twinTime(j.created), StartTime: twinTime(j.start),
		MaxExecutionTimeInSeconds: int64(j.limit / time.Second), UpdateTwin: j.patch,
	}
	if !j.ended.IsZero() {
		out.EndTime = twinTime(j.ended)
	}
	if j.kind == deviceMethodJob {
		out.CloudToDeviceMethod = &JobMethod{
			MethodName:               j.method.Name,
			ResponseTimeoutInSeconds: int64(j.method.Response / time.Second),
			ConnectTimeoutInSeconds:  int64(j.method.Connect / time.Second),
		}
		for _, b := range j.method.Payload {
			out.CloudToDeviceMethod.Payload = append(out.CloudToDeviceMethod.Payload, int(b))
		}
	}
	if j.status == stateRunning || j.status == stateCompleted || j.status == stateFailed {
		out.DeviceJobStatistics = j.statistics()
	}
	return out
}
