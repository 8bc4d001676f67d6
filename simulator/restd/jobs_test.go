package restd

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestScheduledJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		defer d.hub.Close()
		d.do("PUT /devices/d", `{}`)
		d.do("PUT /devices/d/modules/m", `{}`)
		const twin = `{"type":"scheduleUpdateTwin","updateTwin":{"etag":"*","properties":{"desired":{"rate":2}}},"queryCondition":"FROM devices.modules WHERE moduleId = 'm'"`
		d.want("create", d.do("PUT /jobs/v2/j1", twin+`,"JobId":"j1","startTime":"`+time.Now().Add(time.Minute).Format(time.RFC3339)+`","maxExecutionTimeInSeconds":60}`), 200,
			`{"jobId":"j1","type":"scheduleUpdateTwin","status":"queued"}`)
		d.refused("again", d.do("PUT /jobs/v2/j1", twin+`}`), 409, "JobAlreadyExists", "j1")
		if got := read(d.do("GET /jobs/v2/j1", "")); !strings.Contains(got, `"status":"scheduled"`) {
			t.Error(got)
		}
		time.Sleep(time.Minute + time.Second)
		if got := read(d.do("GET /jobs/v2/j1", "")); !strings.Contains(got, `"status":"completed","deviceJobStatistics":{"deviceCount":1,"failedCount":0,"succeededCount":1,"runningCount":0,"pendingCount":0}`) {
			t.Error(got)
		}
		if got := read(d.do("GET /twins/d/modules/m", "")); !strings.Contains(got, `"rate":2`) {
			t.Error(got)
		}
		d.want("method", d.do("PUT /jobs/v2/j2", `{"jobId":"j2","type":"scheduleDeviceMethod","queryCondition":"deviceId IN ['d']","cloudToDeviceMethod":{"methodName":"x","payload":"é","responseTimeoutInSeconds":5}}`), 200,
			`{"jobId":"j2","type":"scheduleDeviceMethod","status":"queued"}`)
		synctest.Wait()
		if got := read(d.do("GET /jobs/v2/j2", "")); !strings.Contains(got, `"payload":[34,195,169,34]`) || !strings.Contains(got, `"failedCount":1`) {
			t.Error(got)
		}
		r := d.do("POST /devices/query", `{"query":"SELECT * FROM devices.jobs WHERE devices.jobs.jobId='j2'"}`)
		if kind, got := r.Header.Get("x-ms-item-type"), read(r); kind != "DeviceJob" || !strings.Contains(got, `"error":{"code":"404103"`) {
			t.Error(kind, got)
		}
		d.want("unknown", d.do("GET /jobs/v2/nothing", ""), 200, `{"jobId":"nothing","type":"unknown","status":"unknown"}`)
		d.refused("cancel what is over", d.do("POST /jobs/v2/j1/cancel", ""), 405, "OperationNotAllowedInCurrentState", "completed")
		d.refused("cancel nothing", d.do("POST /jobs/v2/nothing/cancel", ""), 404, "JobNotFound", "nothing")
		d.do("PUT /jobs/v2/j3", twin+`,"startTime":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`"}`)
		if r := d.do("POST /jobs/v2/j3/cancel", ""); r.StatusCode != 200 || !strings.Contains(read(r), `"status":"cancelled"`) {
			t.Errorf("cancel: %d", r.StatusCode)
		}
		r = d.do("GET /jobs/v2/query?api-version=2021-04-12&jobType=ScheduleUpdateTwin", "", "x-ms-max-item-count", "1")
		next := r.Header.Get("x-ms-continuation")
		if kind, got := r.Header.Get("x-ms-item-type"), read(r); kind != "JobResponse" || next == "" || !strings.Contains(got, `"jobId":"j3"`) {
			t.Error(kind, next, got)
		}
		r = d.do("GET /jobs/v2/query?api-version=2021-04-12&jobType=ScheduleUpdateTwin", "", "x-ms-continuation", next)
		if got := read(r); r.Header.Get("x-ms-continuation") != "" || !strings.Contains(got, `"jobId":"j1"`) || strings.Contains(got, "j2") {
			t.Error(got)
		}
		d.refused("filter", d.do("GET /jobs/v2/query?api-version=2021-04-12&jobStatus=done", ""), 400, "ArgumentInvalid", "jobStatus")
		d.refused("page", d.do("GET /jobs/v2/query", "", "x-ms-max-item-count", "-1"), 400, "ArgumentInvalid", "x-ms-max-item-count")
		d.refused("other id", d.do("PUT /jobs/v2/j4", `{"jobId":"j5"}`), 400, "ArgumentInvalid", "jobId")
		d.refused("upper case", d.do("PUT /jobs/v2/J4", twin+`}`), 400, "ArgumentInvalid", "job id")
		d.refused("no etag", d.do("PUT /jobs/v2/j4", `{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"tags":{}}}`), 400, "ArgumentInvalid", "etag")
		d.refused("too far", d.do("PUT /jobs/v2/j4", twin+`,"startTime":"2001-01-01"}`), 400, "ArgumentInvalid", "168")
		d.refused("no job", d.do("PUT /jobs/v2/j4", `[]`), 400, "IotHubFormatError", "")
		// A department's token reaches its own module's twin, and no job on everybody's.
		for _, line := range []string{"PUT /jobs/v2/j4", "GET /jobs/v2/j1", "GET /jobs/v2/query", "POST /jobs/v2/j1/cancel"} {
			d.refused("one module: "+line, d.do(line, twin+`}`, "Authorization", sas("hub1.azure-devices.net/twins/d/modules/m", "service")), 401, "IotHubUnauthorizedAccess", "")
			d.refused("registry: "+line, d.do(line, twin+`}`, "Authorization", sas("hub1.azure-devices.net", "registryRead")), 401, "IotHubUnauthorizedAccess", "")
		}
	})
}

// FuzzJobBody sends any body to the operations on jobs.
func FuzzJobBody(f *testing.F) {
	for _, seed := range []string{
		`{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"a":1}}}`,
		`{"type":"scheduleDeviceMethod","queryCondition":"x","cloudToDeviceMethod":{"methodName":"m","payload":{}}}`, `{}`, `[]`, "\xff",
	} {
		f.Add(seed, "j", "scheduleUpdateTwin")
	}
	f.Fuzz(func(t *testing.T, body, token, filter string) {
		synctest.Test(t, func(t *testing.T) {
			d := newDoor(t)
			defer d.hub.Close()
			check(t, d.srv, "PUT /jobs/v2/j", body)
			check(t, d.srv, "GET /jobs/v2/j", "")
			check(t, d.srv, "GET /jobs/v2/query?api-version=2021-04-12&jobType=scheduleUpdateTwin", "", "x-ms-continuation", token, "x-ms-max-item-count", filter)
			check(t, d.srv, "POST /jobs/v2/j/cancel", "")
		})
	})
}
