package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Job is an import or export of identities. Source: Microsoft Learn, "Import and export IoT Hub device identities in
// bulk"; Azure/azure-iot-hub-node, src/service.json, JobProperties.
type Job struct {
	ID            string `json:"jobId"`
	Type          string `json:"type"`
	Status        string `json:"status"`   // enqueued, running, completed, failed, cancelled, …
	Progress      int    `json:"progress"` // 0 to 100
	FailureReason string `json:"failureReason"`

	Raw json.RawMessage `json:"-"` // the hub's words
}

// Ended tells whether the job goes on no more.
func (j Job) Ended() bool {
	return j.Status == "completed" || j.Status == "failed" || j.Status == "cancelled"
}

// Export says what to export, and where to.
type Export struct {
	Container   string // SAS URI of a blob container, with permission to read, write and delete
	Blob        string // "" means devices.txt
	ExcludeKeys bool

	Configurations bool // configurations.txt, too
}

// Import says what to import.
type Import struct {
	Container string // SAS URI of a blob container, with permission to read
	Blob      string // "" means devices.txt
	Output    string // SAS URI of the container for importErrors.log, to read, write and delete

	Configurations bool // configurations.txt, too
}

// jobBody is what the service API takes of either.
type jobBody struct {
	Type           string `json:"type"`
	Input          string `json:"inputBlobContainerUri,omitempty"`
	InputBlob      string `json:"inputBlobName,omitempty"`
	Output         string `json:"outputBlobContainerUri"`
	OutputBlob     string `json:"outputBlobName,omitempty"`
	ExcludeKeys    bool   `json:"excludeKeysInExport,omitempty"`
	Configurations bool   `json:"includeConfigurations,omitempty"`
	Authentication string `json:"storageAuthenticationType"`
}

// Export begins an export of all identities and twins.
func (c *Client) Export(ctx context.Context, e Export) (Job, error) {
	return c.createJob(ctx, jobBody{Type: "export", Output: e.Container, OutputBlob: e.Blob, ExcludeKeys: e.ExcludeKeys, Configurations: e.Configurations})
}

// Import begins an import of identities and twins.
func (c *Client) Import(ctx context.Context, i Import) (Job, error) {
	return c.createJob(ctx, jobBody{Type: "import", Input: i.Container, InputBlob: i.Blob, Output: i.Output, Configurations: i.Configurations})
}

func (c *Client) createJob(ctx context.Context, body jobBody) (Job, error) {
	body.Authentication = "keyBased"
	return readJob(c.call(ctx, request{method: http.MethodPost, path: "/jobs/create", body: body}))
}

// Job answers an import or export.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	return readJob(c.call(ctx, request{method: http.MethodGet, path: "/jobs/" + url.PathEscape(id)}))
}

func readJob(answer json.RawMessage, err error) (Job, error) {
	if err != nil {
		return Job{}, err
	}
	j := Job{Raw: answer}
	if err := json.Unmarshal(answer, &j); err != nil {
		return Job{}, fmt.Errorf("admin: read a job: %w", err)
	}
	return j, nil
}

// Wait asks for a job once a second until it has ended: the service API has nothing that tells of it.
func (c *Client) Wait(ctx context.Context, j Job) (Job, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !j.Ended() {
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-tick.C:
		}
		next, err := c.Job(ctx, j.ID)
		if err != nil {
			return j, err
		}
		j = next
	}
	return j, nil
}
