package hub

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Defaults of import and export. Source: Microsoft Learn, "Import and export IoT Hub device identities in bulk".
const (
	devicesBlob        = "devices.txt"
	configurationsBlob = "configurations.txt"
	importErrorsBlob   = "importErrors.log"
)

// maxImportExports is how many of these jobs a hub remembers; GET /jobs answers recent ones.
const maxImportExports = 100

// What an import or export does, and how it stands.
const (
	jobExport = "export"
	jobImport = "import"

	jobEnqueued  = "enqueued"
	jobRunning   = "running"
	jobCompleted = "completed"
	jobFailed    = "failed"
	jobCancelled = "cancelled"
)

// JobProperties is an import or export of identities. Taken in, type, what begins with input, output, exclude, include and
// configurations, and storageAuthenticationType count. Source: Azure/azure-iot-hub-node, src/service.json; that the answer
// holds no container URI, whose signature is a credential, is measured for the output one (github.com/mwalser/
// terraform-provider-iothub, CONCEPT.md).
type JobProperties struct {
	JobID                     string  `json:"jobId"`
	Type                      string  `json:"type"`   // export or import
	Status                    string  `json:"status"` // enqueued, running, completed, failed or cancelled
	Progress                  int     `json:"progress"`
	StartTimeUTC              *string `json:"startTimeUtc"`
	EndTimeUTC                *string `json:"endTimeUtc"`
	FailureReason             *string `json:"failureReason"` // null even if single lines of an import failed
	InputBlobContainerURI     string  `json:"inputBlobContainerUri,omitempty"`
	InputBlobName             string  `json:"inputBlobName,omitempty"` // "" means devices.txt
	OutputBlobContainerURI    string  `json:"outputBlobContainerUri,omitempty"`
	OutputBlobName            string  `json:"outputBlobName,omitempty"` // of an export; "" means devices.txt
	ExcludeKeysInExport       bool    `json:"excludeKeysInExport"`
	IncludeConfigurations     bool    `json:"includeConfigurations,omitempty"`
	ConfigurationsBlobName    string  `json:"configurationsBlobName,omitempty"`    // in and out; "" means configurations.txt
	StorageAuthenticationType *string `json:"storageAuthenticationType,omitempty"` // keyBased; identityBased is refused
}

// importExport is one such job. The hub's lock guards it.
type importExport struct {
	JobProperties
	number        uint64    // jobs are numbered in the order in which they are made
	input, output Container // input is nil for an export

	cancel context.CancelFunc
	done   chan struct{} // closed when nothing of it runs any more
}

func blobContainer(format string, args ...any) *Error {
	return &Error{Code: 400008, Name: "BlobContainerValidationError", Text: fmt.Sprintf(format, args...)}
}

func jobNotFound(id string) *Error {
	return &Error{Code: 404002, Name: "JobNotFound", Text: "no job " + id}
}

// CreateImportExport begins an import or export, of which there is one at a time. Whether the containers can be read
// and written is looked at before it returns, for which ctx and 20 seconds are the limit.
func (h *Hub) CreateImportExport(ctx context.Context, in JobProperties) (JobProperties, error) {
	j, err := h.newImportExport(in)
	if err != nil {
		return JobProperties{}, err
	}
	if err := h.takeSlot(j); err != nil {
		return JobProperties{}, err
	}
	if err := j.check(ctx); err != nil {
		h.freeSlot(j)
		return JobProperties{}, err
	}
	h.mu.Lock()
	defer h.unlock()
	if h.importExports.over {
		return JobProperties{}, &Error{Code: 503001, Name: "ServiceUnavailable", Text: "this hub is about to end"}
	}
	var run context.Context
	run, j.cancel = context.WithCancel(context.Background())
	h.keepImportExport(j)
	go h.runImportExport(run, j)
	return j.JobProperties, nil
}

func (h *Hub) newImportExport(in JobProperties) (*importExport, *Error) {
	j := &importExport{done: make(chan struct{})}
	switch {
	case strings.EqualFold(in.Type, jobExport):
		j.Type = jobExport
		j.OutputBlobName = orDefault(in.OutputBlobName, devicesBlob)
		j.ExcludeKeysInExport = in.ExcludeKeysInExport
	case strings.EqualFold(in.Type, jobImport):
		j.Type = jobImport
		j.InputBlobName = orDefault(in.InputBlobName, devicesBlob)
	default:
		return nil, argument("type %q: want import or export", in.Type)
	}
	if in.IncludeConfigurations {
		j.IncludeConfigurations = true
		j.ConfigurationsBlobName = orDefault(in.ConfigurationsBlobName, configurationsBlob)
	}
	if t := text(in.StorageAuthenticationType); t != "" && !strings.EqualFold(t, "keyBased") {
		return nil, &Error{Code: 400032, Name: "ManagedIdentityNotEnabled",
			Text: "this hub is simulated and has no managed identity; use a container SAS URI and keyBased"}
	}
	j.StorageAuthenticationType = in.StorageAuthenticationType
	if h.storage == nil {
		return nil, blobContainer("this hub was made without access to blob storage")
	}
	var err error
	if j.output, err = h.storage.Container(in.OutputBlobContainerURI); err != nil {
		return nil, blobContainer("outputBlobContainerUri: %v", err)
	}
	if j.Type == jobImport {
		if j.input, err = h.storage.Container(in.InputBlobContainerURI); err != nil {
			return nil, blobContainer("inputBlobContainerUri: %v", err)
		}
	}
	j.JobID = newJobID()
	j.Status = jobEnqueued
	return j, nil
}

// newJobID is a random UUID (RFC 9562, version 4), as a hub's job ids are.
func newJobID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: package crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func orDefault(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}

// check looks at the containers.
func (j *importExport) check(ctx context.Context) *Error {
	if err := j.output.CheckWrite(ctx); err != nil {
		return blobContainer("%v", err)
	}
	if j.input != nil {
		if err := j.input.CheckRead(ctx, j.InputBlobName); err != nil {
			return blobContainer("%v", err)
		}
	}
	return nil
}

// importExports are the jobs of a hub, oldest first, and the one that runs or is about to.
type importExports struct {
	jobs []*importExport
	made uint64 // last number given
	slot *importExport
	over bool // the hub ends
}

// keepImportExport remembers a job, and forgets the oldest beyond the limit, which has ended: one runs at a time.
func (h *Hub) keepImportExport(j *importExport) {
	all := &h.importExports
	all.made++
	j.number = all.made
	all.jobs = append(all.jobs, j)
	h.changed(importExportJobs, j.JobID)
	if len(all.jobs) > maxImportExports {
		h.changed(importExportJobs, all.jobs[0].JobID)
		all.jobs = slices.Delete(all.jobs, 0, 1)
	}
}

func (h *Hub) takeSlot(j *importExport) *Error {
	h.mu.Lock()
	defer h.unlock()
	if h.importExports.slot != nil {
		return &Error{Code: 403003, Name: "JobQuotaExceeded", Text: "an import or export runs already, and a hub does one at a time"}
	}
	h.importExports.slot = j
	return nil
}

func (h *Hub) freeSlot(j *importExport) {
	h.mu.Lock()
	defer h.unlock()
	if h.importExports.slot == j {
		h.importExports.slot = nil
	}
}

// ImportExports answers the recent imports and exports, the newest first.
func (h *Hub) ImportExports() []JobProperties {
	h.mu.Lock()
	defer h.unlock()
	out := make([]JobProperties, 0, len(h.importExports.jobs))
	for _, j := range slices.Backward(h.importExports.jobs) {
		out = append(out, j.JobProperties)
	}
	return out
}

// ImportExport answers one import or export.
func (h *Hub) ImportExport(id string) (JobProperties, error) {
	h.mu.Lock()
	defer h.unlock()
	j := h.importExports.find(id)
	if j == nil {
		return JobProperties{}, jobNotFound(id)
	}
	return j.JobProperties, nil
}

func (all *importExports) find(id string) *importExport {
	if i := slices.IndexFunc(all.jobs, func(j *importExport) bool { return j.JobID == id }); i >= 0 {
		return all.jobs[i]
	}
	return nil
}

// CancelImportExport ends a job that has not ended. When it has returned nil, nothing of the job goes on, and another
// one may begin; what an import has done stays done.
func (h *Hub) CancelImportExport(ctx context.Context, id string) error {
	j, err := h.cancelImportExport(id)
	if err != nil {
		return err
	}
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return &Error{Code: 500008, Name: "GenericTimeout", Text: "job " + id + " is cancelled; what it was at has not come to its end yet"}
	}
}

func (h *Hub) cancelImportExport(id string) (*importExport, *Error) {
	h.mu.Lock()
	defer h.unlock()
	j := h.importExports.find(id)
	if j == nil {
		return nil, jobNotFound(id)
	}
	h.endImportExport(j, jobCancelled, nil)
	return j, nil
}

// Close ends what a hub does by itself: the import or export that runs, scheduled jobs, configurations. It waits for that end.
// What is asked of a closed hub it still answers.
func (h *Hub) Close() {
	h.mu.Lock()
	h.cancel() // under the lock: nothing begins any more
	h.stopTimers()
	h.importExports.over = true
	j := h.importExports.slot
	runs := j != nil && j.cancel != nil // else its containers are looked at, and it will not begin
	if runs {
		h.endImportExport(j, jobFailed, errEnded)
	}
	h.unlock()
	if runs {
		<-j.done
	}
	h.work.Wait()
}

var errEnded = errors.New("the simulator ended while the job ran")

// endImportExport is the end of a job, if it has not ended. Called under the lock.
func (h *Hub) endImportExport(j *importExport, status string, why error) {
	if j.ended() {
		return
	}
	j.Status = status
	j.EndTimeUTC = nullable(twinTime(time.Now()))
	if why != nil {
		j.FailureReason = nullable(why.Error())
	}
	if status == jobCompleted {
		j.Progress = 100
	}
	h.changed(importExportJobs, j.JobID)
	h.emit(Event{Kind: "job", Detail: j.JobID + " " + j.Type + " " + j.Status})
	j.cancel()
}

func (j *JobProperties) ended() bool {
	return j.Status != jobEnqueued && j.Status != jobRunning
}

// runImportExport is the goroutine of a job.
func (h *Hub) runImportExport(ctx context.Context, j *importExport) {
	defer close(j.done)
	defer h.freeSlot(j)
	if !h.startImportExport(j) {
		return
	}
	var err error
	if j.Type == jobExport {
		err = h.runExport(ctx, j)
	} else {
		err = h.runImport(ctx, j)
	}
	h.mu.Lock()
	defer h.unlock()
	if err != nil {
		h.endImportExport(j, jobFailed, err)
		return
	}
	h.endImportExport(j, jobCompleted, nil)
}

func (h *Hub) startImportExport(j *importExport) bool {
	h.mu.Lock()
	defer h.unlock()
	if j.ended() {
		return false
	}
	j.Status = jobRunning
	j.StartTimeUTC = nullable(twinTime(time.Now()))
	return true
}

// advance shows how far a running job is: done of all.
func (h *Hub) advance(j *importExport, done, all int64) {
	h.mu.Lock()
	defer h.unlock()
	if !j.ended() && all > 0 {
		j.Progress = int(min(99, 100*done/all)) // 100 is for what is committed
	}
}

const importExportJobs = "importExport" // key: job id

type savedImportExport struct {
	JobProperties
	Number uint64 `json:"number"`
}

var importExportKind = kind{
	name: importExportJobs,
	save: func(h *Hub, key string) any {
		if j := h.importExports.find(key); j != nil {
			return savedImportExport{j.JobProperties, j.number}
		}
		return nil
	},
	keys: func(h *Hub) []string {
		keys := make([]string, len(h.importExports.jobs))
		for i, j := range h.importExports.jobs {
			keys[i] = j.JobID
		}
		return keys
	},
	load: func(h *Hub, key string, data []byte) error {
		var s savedImportExport
		if err := decodeSaved(data, &s); err != nil {
			return err
		}
		j := &importExport{JobProperties: s.JobProperties, number: s.Number, done: make(chan struct{}), cancel: func() {}}
		close(j.done)
		if j.JobID != key {
			return fmt.Errorf("the record is of job %q", j.JobID)
		}
		if !j.ended() {
			j.Status = jobFailed
			j.FailureReason = nullable(errEnded.Error())
			j.EndTimeUTC = nullable(twinTime(time.Now()))
		}
		all := &h.importExports
		i, _ := slices.BinarySearchFunc(all.jobs, j.number, func(j *importExport, n uint64) int { return cmp.Compare(j.number, n) })
		all.jobs = slices.Insert(all.jobs, i, j)
		all.made = max(all.made, j.number)
		return nil
	},
}
