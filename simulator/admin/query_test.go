package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
)

func TestQueryAndJobs(t *testing.T) {
	h, c := serve(t)
	t.Cleanup(h.Close)
	ctx := t.Context()
	for i := range 5 {
		id := admin.ID{Device: fmt.Sprintf("d%d", i)}
		if _, err := c.Create(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
	}
	next, rows, pages := "", "", 0
	for {
		p, err := c.Query(ctx, "SELECT deviceId FROM devices", 2, next)
		if err != nil || p.Type != "Raw" {
			t.Fatalf("%v %v", p, err)
		}
		for _, r := range p.Items {
			rows += string(r)
		}
		pages++
		if next = p.Continuation; next == "" {
			break
		}
	}
	if want := `{"deviceId":"d0"}{"deviceId":"d1"}{"deviceId":"d2"}{"deviceId":"d3"}{"deviceId":"d4"}`; rows != want || pages != 3 {
		t.Errorf("%s on %d pages", rows, pages)
	}
	_, err := c.Query(ctx, "SELECT", 0, "")
	refused(t, "a query without sense", err, 400, "ArgumentInvalid")

	job := map[string]any{
		"type": "scheduleUpdateTwin", "queryCondition": "deviceId IN ['d1', 'd3']", "updateTwin": map[string]any{"etag": "*", "tags": map[string]any{"x": 1}},
	}
	if _, err := c.ScheduleJob(ctx, "j1", job); err != nil {
		t.Fatal(err)
	}
	_, err = c.ScheduleJob(ctx, "j1", job)
	refused(t, "schedule again", err, 409, "JobAlreadyExists")
	j, _, err := c.WaitScheduledJob(ctx, "j1")
	if err != nil || j.Status != "completed" || j.Statistics.Succeeded != 2 || j.Statistics.Devices != 2 {
		t.Errorf("%+v %v", j, err)
	}
	_, err = c.CancelScheduledJob(ctx, "j1")
	refused(t, "cancel what is over", err, 405, "OperationNotAllowedInCurrentState")
	if j, _, err := c.WaitScheduledJob(ctx, "nothing"); err != nil || j.Status != "unknown" {
		t.Errorf("%+v %v", j, err)
	}
	p, err := c.ScheduledJobs(ctx, "scheduleUpdateTwin", "completed", "")
	if err != nil || len(p.Items) != 1 || p.Type != "JobResponse" {
		t.Errorf("%+v %v", p, err)
	}
	job["startTime"] = time.Now().Add(time.Hour).Format(time.RFC3339)
	if _, err := c.ScheduleJob(ctx, "j2", job); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := c.WaitScheduledJob(gone, "j2"); err == nil {
		t.Error("waited for a job without a context")
	}
}

func TestConfigurations(t *testing.T) {
	h, c := serve(t)
	t.Cleanup(h.Close)
	ctx := t.Context()
	body := map[string]any{"content": map[string]any{"deviceContent": map[string]any{"properties.desired.rate": 1}}, "targetCondition": "*"}
	if _, err := c.CreateConfiguration(ctx, "c%1", body); err != nil {
		t.Fatal(err)
	}
	_, err := c.CreateConfiguration(ctx, "c%1", body)
	refused(t, "create again", err, 409, "ConfigurationAlreadyExists")
	answer, err := c.Configuration(ctx, "c%1")
	if err != nil || !strings.Contains(string(answer), `"id":"c%1"`) {
		t.Errorf("%s %v", answer, err)
	}
	all, err := c.Configurations(ctx)
	var list []json.RawMessage
	if err != nil || json.Unmarshal(all, &list) != nil || len(list) != 1 {
		t.Errorf("%s %v", all, err)
	}
	if err := c.DeleteConfiguration(ctx, "c%1"); err != nil {
		t.Error(err)
	}
	refused(t, "delete again", c.DeleteConfiguration(ctx, "c%1"), 404, "ConfigurationNotFound")
}
