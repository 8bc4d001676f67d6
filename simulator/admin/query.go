package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Page is a page of what was asked for.
type Page struct {
	Type         string            // of the items: Twin, Raw, DeviceJob, JobResponse
	Items        []json.RawMessage // objects
	Continuation string            // for the next page; "" when this is the last
}

// Query asks one page of a query, from where continuation says. size 0 leaves it to the hub how long a page is.
func (c *Client) Query(ctx context.Context, text string, size int, continuation string) (Page, error) {
	return c.page(ctx, request{
		method: http.MethodPost, path: "/devices/query", body: map[string]any{"query": text}, headers: paging(size, continuation),
	})
}

func paging(size int, continuation string) map[string]string {
	h := map[string]string{}
	if size > 0 {
		h["x-ms-max-item-count"] = strconv.Itoa(size)
	}
	if continuation != "" {
		h["x-ms-continuation"] = continuation
	}
	return h
}

func (c *Client) page(ctx context.Context, r request) (Page, error) {
	response, err := c.send(ctx, r)
	if err != nil {
		return Page{}, err
	}
	defer response.Body.Close()
	p := Page{Type: response.Header.Get("x-ms-item-type"), Continuation: response.Header.Get("x-ms-continuation")}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&p.Items); err != nil {
		return Page{}, fmt.Errorf("admin: %s %s: read the page: %w", r.method, r.path, err)
	}
	return p, nil
}

// ScheduledJob is what can be told of every scheduled job.
type ScheduledJob struct {
	ID         string `json:"jobId"`
	Type       string `json:"type"`
	Status     string `json:"status"` // queued, scheduled, running, completed, failed, cancelled; unknown when there is none
	Failure    string `json:"failureReason"`
	Condition  string `json:"queryCondition"`
	Statistics struct {
		Devices   int `json:"deviceCount"`
		Failed    int `json:"failedCount"`
		Succeeded int `json:"succeededCount"`
	} `json:"deviceJobStatistics"`
}

// Ended tells whether nothing more will happen to the job.
func (j *ScheduledJob) Ended() bool {
	switch j.Status {
	case "completed", "failed", "cancelled", "unknown":
		return true
	}
	return false
}

func jobPath(id string) string { return "/jobs/v2/" + url.PathEscape(id) }

// ScheduleJob makes a scheduled job of body, which is as the documentation of the service API has it.
func (c *Client) ScheduleJob(ctx context.Context, id string, body map[string]any) (json.RawMessage, error) {
	return c.create(ctx, jobPath(id), map[string]any{"jobId": id}, body)
}

// create makes something of its ids, and what else body says of it.
func (c *Client) create(ctx context.Context, path string, ids, body map[string]any) (json.RawMessage, error) {
	maps.Copy(ids, body)
	return c.call(ctx, request{method: http.MethodPut, path: path, body: ids})
}

// ScheduledJob answers a scheduled job.
func (c *Client) ScheduledJob(ctx context.Context, id string) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodGet, path: jobPath(id)})
}

// CancelScheduledJob takes a job back that has not begun.
func (c *Client) CancelScheduledJob(ctx context.Context, id string) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodPost, path: jobPath(id) + "/cancel"})
}

// ScheduledJobs asks one page of the scheduled jobs. kind and status choose; "" chooses all.
func (c *Client) ScheduledJobs(ctx context.Context, kind, status, continuation string) (Page, error) {
	q := url.Values{}
	if kind != "" {
		q.Set("jobType", kind)
	}
	if status != "" {
		q.Set("jobStatus", status)
	}
	return c.page(ctx, request{method: http.MethodGet, path: "/jobs/v2/query", query: q, headers: paging(0, continuation)})
}

// WaitScheduledJob follows a job to its end and answers it. The service API tells nobody of an end: so it is asked again and again,
// less and less often.
func (c *Client) WaitScheduledJob(ctx context.Context, id string) (ScheduledJob, json.RawMessage, error) {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	for pause := first; ; pause = min(2*pause, most) {
		answer, err := c.ScheduledJob(ctx, id)
		if err != nil {
			return ScheduledJob{}, nil, err
		}
		var j ScheduledJob
		if err := json.Unmarshal(answer, &j); err != nil {
			return ScheduledJob{}, nil, fmt.Errorf("admin: read job %s: %w", id, err)
		}
		if j.Ended() {
			return j, answer, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ScheduledJob{}, nil, fmt.Errorf("admin: wait for job %s, which is %s: %w", id, j.Status, context.Cause(ctx))
		}
	}
}

func configurationPath(id string) string { return "/configurations/" + url.PathEscape(id) }

// CreateConfiguration makes a configuration of body, which is as the documentation of the service API has it.
func (c *Client) CreateConfiguration(ctx context.Context, id string, body map[string]any) (json.RawMessage, error) {
	return c.create(ctx, configurationPath(id), map[string]any{"id": id}, body)
}

// Configuration answers a configuration.
func (c *Client) Configuration(ctx context.Context, id string) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodGet, path: configurationPath(id)})
}

// Configurations lists the hub's configurations.
func (c *Client) Configurations(ctx context.Context) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodGet, path: "/configurations"})
}

// DeleteConfiguration removes a configuration; what it has set in twins stays.
func (c *Client) DeleteConfiguration(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: configurationPath(id), ifMatch: `"*"`})
	return err
}
