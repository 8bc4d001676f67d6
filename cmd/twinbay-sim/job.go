package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator/admin"
)

func jobCommand(f *hubFlags) *cobra.Command {
	c := &cobra.Command{Use: "job", Short: "scheduled jobs: a direct method or a twin update for all that a condition chooses"}
	list := &cobra.Command{Use: "list", Short: "the jobs of the last 30 days", Args: exactly(0, 0)}
	kind := list.Flags().String("type", "", "scheduleDeviceMethod or scheduleUpdateTwin")
	status := list.Flags().String("status", "", "queued, scheduled, running, completed, failed or cancelled")
	list.RunE = func(c *cobra.Command, _ []string) error {
		client, err := f.client()
		if err != nil {
			return err
		}
		return f.pages(c.OutOrStdout(), func(next string) (admin.Page, error) {
			return client.ScheduledJobs(c.Context(), *kind, *status, next)
		})
	}
	c.AddCommand(createJob(f), list,
		onName(f, "show JOB", "a job and its numbers; query devices.jobs for each device's part", func(ctx context.Context, c *cobra.Command, h *admin.Client, id string) error {
			answer, err := h.ScheduledJob(ctx, id)
			return show(c, answer, err)
		}),
		onName(f, "cancel JOB", "take a job back that has not begun", func(ctx context.Context, c *cobra.Command, h *admin.Client, id string) error {
			answer, err := h.CancelScheduledJob(ctx, id)
			return show(c, answer, err)
		}))
	return c
}

// onName is a command about one thing that has a name.
func onName(f *hubFlags, use, short string, do func(context.Context, *cobra.Command, *admin.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  exactly(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			return do(c.Context(), c, client, args[0])
		},
	}
}

// jobFlags say what a job does.
type jobFlags struct {
	where, method, payload, desired, tags, start string
	timeout, connect, limit                      time.Duration
	wait                                         bool
}

func createJob(f *hubFlags) *cobra.Command {
	var j jobFlags
	c := onName(f, "create JOB", "schedule a job; JOB is its id, of a-z 0-9 and -", func(ctx context.Context, c *cobra.Command, h *admin.Client, id string) error {
		body, err := j.body()
		if err != nil {
			return err
		}
		answer, err := h.ScheduleJob(ctx, id, body)
		if err != nil || !j.wait {
			return show(c, answer, err)
		}
		end, answer, err := h.WaitScheduledJob(ctx, id)
		if err := show(c, answer, err); err != nil {
			return err
		}
		switch s := end.Statistics; {
		case end.Status != "completed":
			return fmt.Errorf("job %s is %s: %s", id, end.Status, end.Failure)
		case s.Failed > 0:
			return fmt.Errorf("job %s failed on %d of %d; to see where: twinbay-sim query \"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '%s'\"", id, s.Failed, s.Devices, id)
		}
		return nil
	})
	c.Example = `  twinbay-sim job create faster-1 --where "FROM devices.modules WHERE tags.department = 'food safety'" --desired '{"interval_ms": 500}' --wait
  twinbay-sim job create reboot-1 --where "tags.site = 'lobby'" --method reboot --start 2026-01-31T03:00:00Z`
	p := c.Flags()
	p.StringVar(&j.where, "where", "", "whom: a condition on devices, * for all, or FROM devices.modules WHERE …")
	p.StringVar(&j.method, "method", "", "direct method to call")
	p.StringVar(&j.payload, "payload", "", "its payload, JSON")
	p.DurationVar(&j.timeout, "timeout", 30*time.Second, "how long to wait for each device's answer, 5s to 5m")
	p.DurationVar(&j.connect, "connect-timeout", 0, "how long to wait for a device that is not connected, up to --timeout")
	p.StringVar(&j.desired, "desired", "", "JSON to merge into desired properties; null removes")
	p.StringVar(&j.tags, "tags", "", "JSON to merge into tags; null removes")
	p.StringVar(&j.start, "start", "", "when: a time like 2026-01-31T03:00:00Z, at most 7 days ahead (default now)")
	p.DurationVar(&j.limit, "max-time", time.Hour, "how long the job may take")
	p.BoolVar(&j.wait, "wait", false, "wait for its end; fails if it fails anywhere")
	return c
}

// body is the job as the service API wants it.
func (j *jobFlags) body() (map[string]any, error) {
	usage := func(text string) (map[string]any, error) { return nil, fmt.Errorf("%s; %w", text, errUsage) }
	twin := j.desired != "" || j.tags != ""
	switch {
	case j.where == "":
		return usage("--where is missing; --where '*' chooses all devices")
	case twin == (j.method != ""):
		return usage("want either --method, or --desired and --tags")
	case j.payload != "" && j.method == "":
		return usage("--payload goes with --method")
	}
	body := map[string]any{"queryCondition": j.where, "maxExecutionTimeInSeconds": int64(j.limit / time.Second)}
	if j.start != "" {
		body["startTime"] = j.start
	}
	if !twin {
		method := map[string]any{
			"methodName": j.method, "responseTimeoutInSeconds": int64(j.timeout / time.Second), "connectTimeoutInSeconds": int64(j.connect / time.Second),
		}
		if j.payload != "" {
			if !json.Valid([]byte(j.payload)) {
				return usage(j.payload + " is no JSON")
			}
			method["payload"] = json.RawMessage(j.payload)
		}
		body["type"], body["cloudToDeviceMethod"] = "scheduleDeviceMethod", method
		return body, nil
	}
	patch := map[string]any{"etag": "*"}
	for _, part := range []struct {
		text string
		put  func(json.RawMessage)
	}{
		{j.tags, func(v json.RawMessage) { patch["tags"] = v }},
		{j.desired, func(v json.RawMessage) { patch["properties"] = map[string]any{"desired": v} }},
	} {
		var doc map[string]any
		if part.text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(part.text), &doc); err != nil {
			return usage(part.text + " is no JSON object")
		}
		part.put(json.RawMessage(part.text))
	}
	body["type"], body["updateTwin"] = "scheduleUpdateTwin", patch
	return body, nil
}
