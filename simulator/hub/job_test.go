package hub

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// jobOf reads a job from the body that a client would send.
func jobOf(t testing.TB, body string) JobRequest {
	t.Helper()
	var r JobRequest
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

func schedule(t testing.TB, h *Hub, body string) {
	t.Helper()
	j, err := h.ScheduleJob(jobOf(t, body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if want := `{"jobId":"` + j.JobID + `","type":"` + j.Type + `","status":"queued"}`; string(encode(j)) != want {
		t.Errorf("answer %s, want %s", encode(j), want)
	}
}

// wantJob holds a job to a status and to its numbers: devices, failed, succeeded, running, pending.
func wantJob(t testing.TB, h *Hub, id, status string, numbers ...int) {
	t.Helper()
	j := h.Job(id)
	if j.Status != status {
		t.Errorf("job %s is %s (%s), want %s", id, j.Status, j.FailureReason, status)
	}
	var got []int
	if s := j.DeviceJobStatistics; s != nil {
		got = []int{s.DeviceCount, s.FailedCount, s.SucceededCount, s.RunningCount, s.PendingCount}
	}
	if fmt.Sprint(got) != fmt.Sprint(numbers) {
		t.Errorf("job %s counts %v, want %v", id, got, numbers)
	}
}

// answering connects an identity that answers direct methods with a status, after a while; a status of 0 is no answer.
func answering(t *testing.T, h *Hub, id ID, status int, after time.Duration) {
	t.Helper()
	l, p := attach(t, h, id, time.Hour)
	p.method = func(rid, name string, payload json.RawMessage) {
		if status != 0 {
			time.AfterFunc(after, func() { l.MethodResult(rid, status, payload) })
		}
	}
	l.Want(Methods, true)
}

func TestJobUpdatesTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 4)
		defer h.Close()
		schedule(t, h, `{"jobId":"devices-1","type":"scheduleUpdateTwin","queryCondition":"tags.site = 's0'","updateTwin":{"ETag":"*","Tags":{"n":null,"x":1},"Properties":{"Desired":{"rate":5}},"version":7}}`)
		schedule(t, h, `{"jobId":"modules-1","type":"ScheduleUpdateTwin","queryCondition":"FROM devices.modules WHERE tags.department = 'b' AND tags.n < 3","updateTwin":{"eTag":"*","properties":{"desired":{"interval_ms":250}}}}`)
		schedule(t, h, `{"jobId":"all-1","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"\"*\"","tags":{"all":true}}}`)
		synctest.Wait()
		wantJob(t, h, "devices-1", "completed", 2, 0, 2, 0, 0)
		wantJob(t, h, "modules-1", "completed", 3, 0, 3, 0, 0)
		wantJob(t, h, "all-1", "completed", 4, 0, 4, 0, 0)
		rows, _ := ask(t, h, "SELECT deviceId, tags FROM devices WHERE properties.desired.rate = 5", 0)
		if got, want := strings.Join(rows, " "), `{"deviceId":"d000","tags":{"all":true,"site":"s0","x":1}} {"deviceId":"d003","tags":{"all":true,"site":"s0","x":1}}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		rows, _ = ask(t, h, "SELECT deviceId, moduleId FROM devices.modules WHERE properties.desired.interval_ms = 250", 0)
		if got, want := strings.Join(rows, " "), `{"deviceId":"d000","moduleId":"b"} {"deviceId":"d001","moduleId":"b"} {"deviceId":"d002","moduleId":"b"}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		rows, _ = ask(t, h, "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'modules-1' AND deviceId = 'd001'", 0)
		if got, want := strings.Join(rows, " "), `{"deviceId":"d001","moduleId":"b","jobId":"modules-1","jobType":"scheduleUpdateTwin","status":"completed",`+
			`"startTimeUtc":"2000-01-01T00:00:00.0000000Z","endTimeUtc":"2000-01-01T00:00:00.0000000Z","createdDateTimeUtc":"2000-01-01T00:00:00.0000000Z",`+
			`"lastUpdatedDateTimeUtc":"2000-01-01T00:00:00.0000000Z","outcome":{"deviceMethodResponse":null}}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if rows, pages := ask(t, h, "SELECT * FROM devices.jobs", 2); len(rows) != 9 || pages != 5 {
			t.Errorf("%d rows of jobs on %d pages", len(rows), pages)
		}
		if got, want := string(encode(h.Job("devices-1"))), `{"jobId":"devices-1","queryCondition":"tags.site = 's0'","createdTime":"2000-01-01T00:00:00.0000000Z",`+
			`"startTime":"2000-01-01T00:00:00.0000000Z","endTime":"2000-01-01T00:00:00.0000000Z","maxExecutionTimeInSeconds":3600,"type":"scheduleUpdateTwin",`+
			`"updateTwin":{"etag":"*","tags":{"n":null,"x":1},"properties":{"desired":{"rate":5}}},"status":"completed",`+
			`"deviceJobStatistics":{"deviceCount":2,"failedCount":0,"succeededCount":2,"runningCount":0,"pendingCount":0}}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestJobCallsMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 3)
		defer h.Close()
		answering(t, h, ID{"d000", "a"}, 200, time.Second)
		answering(t, h, ID{"d001", "a"}, 503, 0)
		schedule(t, h, `{"jobId":"m1","type":"scheduleDeviceMethod","queryCondition":"FROM devices.modules WHERE moduleId IN ['a']","maxExecutionTimeInSeconds":60,`+
			`"cloudToDeviceMethod":{"methodName":"reboot","payload":{"in":"5s"},"responseTimeoutInSeconds":10}}`)
		time.Sleep(500 * time.Millisecond)
		wantJob(t, h, "m1", "running", 3, 1, 1, 1, 0)
		_, err := h.CancelJob("m1")
		wantError(t, "cancel what runs", err, 405102)
		time.Sleep(time.Second)
		wantJob(t, h, "m1", "completed", 3, 1, 2, 0, 0)
		rows, _ := ask(t, h, "SELECT * FROM devices.jobs WHERE devices.jobs.status = 'failed'", 0)
		if len(rows) != 1 || !strings.Contains(rows[0], `"deviceId":"d002"`) || !strings.Contains(rows[0], `"error":{"code":"404103","description":"DeviceNotOnline: `) {
			t.Errorf("failed: %s", rows)
		}
		rows, _ = ask(t, h, "SELECT * FROM devices.jobs WHERE outcome.deviceMethodResponse.status = 503", 0)
		if len(rows) != 1 || !strings.Contains(rows[0], `"outcome":{"deviceMethodResponse":{"status":503,"payload":{"in":"5s"}}}`) {
			t.Errorf("refused: %s", rows)
		}
		want := `"cloudToDeviceMethod":{"methodName":"reboot","payload":[123,34,105,110,34,58,34,53,115,34,125],"responseTimeoutInSeconds":10,"connectTimeoutInSeconds":0}`
		if got := string(encode(h.Job("m1"))); !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
		_, err = h.CancelJob("m1")
		wantError(t, "cancel what is over", err, 405102)
	})
}

func TestJobTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 25)
		defer h.Close()
		for i := range 25 {
			answering(t, h, ID{Device: fmt.Sprintf("d%03d", i)}, 200, 4*time.Second)
		}
		schedule(t, h, `{"jobId":"slow","type":"scheduleDeviceMethod","queryCondition":"*","maxExecutionTimeInSeconds":6,"cloudToDeviceMethod":{"methodName":"x","responseTimeoutInSeconds":30}}`)
		time.Sleep(time.Second)
		wantJob(t, h, "slow", "running", 25, 0, 0, 10, 15) // so many at a time
		time.Sleep(10 * time.Second)
		wantJob(t, h, "slow", "failed", 25, 15, 10, 0, 0)
		if j := h.Job("slow"); !strings.Contains(j.FailureReason, "maxExecutionTimeInSeconds") || j.EndTime != "2000-01-01T00:00:06.0000000Z" {
			t.Errorf("%s at %s", j.FailureReason, j.EndTime)
		}
	})
}

func TestJobWaitsForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 2)
		defer h.Close()
		schedule(t, h, `{"jobId":"later","type":"scheduleUpdateTwin","queryCondition":"tags.n >= 1","startTime":"2000-01-02T00:00:00Z","updateTwin":{"etag":"*","tags":{"x":1}}}`)
		schedule(t, h, `{"jobId":"never","type":"scheduleUpdateTwin","queryCondition":"*","startTime":"2000-01-02T00:00:00","updateTwin":{"etag":"*","tags":{"y":1}}}`)
		synctest.Wait()
		wantJob(t, h, "later", "scheduled")
		rows, _ := ask(t, h, "SELECT * FROM devices.jobs WHERE jobId = 'later'", 0)
		if len(rows) != 1 || !strings.Contains(rows[0], `"deviceId":"d001","jobId":"later","jobType":"scheduleUpdateTwin","status":"scheduled"`) {
			t.Errorf("%s", rows)
		}
		if j, err := h.CancelJob("never"); err != nil || j.Status != "cancelled" {
			t.Errorf("cancel: %v %v", j.Status, err)
		}
		time.Sleep(24*time.Hour - time.Second)
		must(t)(h.PutDevice(Device{DeviceID: "new"}, ""))
		set(t, h, ID{Device: "new"}, `{"tags":{"n":5}}`)
		wantJob(t, h, "later", "scheduled")
		time.Sleep(2 * time.Second)
		wantJob(t, h, "later", "completed", 2, 0, 2, 0, 0) // the condition holds at the start, not when it was made
		wantJob(t, h, "never", "cancelled")
		if rows, _ := ask(t, h, "SELECT deviceId FROM devices WHERE tags.y = 1", 0); len(rows) != 0 {
			t.Errorf("a cancelled job wrote %s", rows)
		}
		if rows, _ := ask(t, h, "SELECT * FROM devices.jobs WHERE status = 'canceled'", 0); len(rows) != 3 {
			t.Errorf("canceled: %s", rows)
		}
		time.Sleep(jobHistory + time.Second)
		wantJob(t, h, "later", "unknown")
		if got := string(encode(h.Job("later"))); got != `{"jobId":"later","type":"unknown","status":"unknown"}` {
			t.Error(got)
		}
	})
}

// A tier allows so many jobs at a time, and so many devices in a second.
func TestJobOfATier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Tier: "S1"})
		defer h.Close()
		for i := range 25 {
			must(t)(h.PutDevice(Device{DeviceID: fmt.Sprintf("d%03d", i)}, ""))
		}
		schedule(t, h, `{"jobId":"j","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"x":1}}}`)
		_, err := h.ScheduleJob(jobOf(t, `{"jobId":"k","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"x":1}}}`))
		wantError(t, "a second one", err, 429004)
		synctest.Wait()
		wantJob(t, h, "j", "running", 25, 0, 10, 0, 15)
		time.Sleep(time.Second + time.Millisecond)
		wantJob(t, h, "j", "running", 25, 0, 20, 0, 5)
		time.Sleep(time.Second)
		wantJob(t, h, "j", "completed", 25, 0, 25, 0, 0)
	})
}

func TestJobWithoutSense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 1)
		defer h.Close()
		schedule(t, h, `{"jobId":"j","type":"scheduleUpdateTwin","queryCondition":"SELECT * FROM devices","updateTwin":{"etag":"*","tags":{}}}`)
		synctest.Wait()
		wantJob(t, h, "j", "failed", 0, 0, 0, 0, 0)
		if why := h.Job("j").FailureReason; !strings.Contains(why, "at character 1") {
			t.Error(why)
		}
		if rows, _ := ask(t, h, "SELECT * FROM devices.jobs", 0); len(rows) != 0 {
			t.Errorf("%s", rows)
		}
	})
}

func TestJobRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{MaxJobs: 1})
		defer h.Close()
		const twin = `,"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"x":1}}}`
		for _, c := range []struct {
			body string
			code int
			says string
		}{
			{`{"jobId":"A"` + twin, 400004, "job id"},
			{`{"jobId":"a_b"` + twin, 400004, "job id"},
			{`{"jobId":"` + strings.Repeat("a", 65) + `"` + twin, 400004, "job id"},
			{`{` + twin[1:], 400004, "job id"},
			{`{"jobId":"a","type":"reboot","queryCondition":"*"}`, 400004, "type"},
			{`{"jobId":"a","queryCondition":"*"}`, 400004, "type"},
			{`{"jobId":"a","type":"scheduleUpdateTwin","updateTwin":{"etag":"*"}}`, 400004, "queryCondition"},
			{`{"jobId":"a","type":"scheduleUpdateTwin","queryCondition":"*"}`, 400004, "updateTwin"},
			{`{"jobId":"a","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":null}`, 400004, "updateTwin"},
			{`{"jobId":"a","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"tags":{}}}`, 400004, "etag is missing"},
			{`{"jobId":"a","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"AAAAAAAAAAE=","tags":{}}}`, 400004, "etag is missing"},
			{`{"jobId":"a","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"a.b":1}}}`, 400004, "a.b"},
			{`{"jobId":"a","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":7}`, 400004, "object"},
			{`{"jobId":"a","type":"scheduleDeviceMethod","queryCondition":"*"}`, 400004, "cloudToDeviceMethod"},
			{`{"jobId":"a","type":"scheduleDeviceMethod","queryCondition":"*","cloudToDeviceMethod":{}}`, 400004, "methodName"},
			{`{"jobId":"a","type":"scheduleDeviceMethod","queryCondition":"*","cloudToDeviceMethod":{"methodName":"m","responseTimeoutInSeconds":10,"connectTimeoutInSeconds":11}}`, 400004, "connection timeout"},
			{`{"jobId":"a","type":"scheduleDeviceMethod","queryCondition":"*","cloudToDeviceMethod":{"methodName":"m","responseTimeoutInSeconds":9223372036854775807}}`, 400004, "responseTimeout"},
			{`{"jobId":"a","startTime":"tomorrow"` + twin, 400004, "startTime"},
			{`{"jobId":"a","startTime":"2000-01-08T00:00:01Z"` + twin, 400004, "168 hours"},
			{`{"jobId":"a","maxExecutionTimeInSeconds":-1` + twin, 400004, "maxExecutionTime"},
		} {
			_, err := h.ScheduleJob(jobOf(t, c.body))
			wantError(t, c.body, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %q", c.body, err, c.says)
			}
		}
		schedule(t, h, `{"jobId":"a-1'","startTime":"2000-01-08T00:00:00Z"`+twin)
		_, err := h.ScheduleJob(jobOf(t, `{"jobId":"a-1'"`+twin))
		wantError(t, "again", err, 409104)
		_, err = h.ScheduleJob(jobOf(t, `{"jobId":"b"`+twin))
		wantError(t, "one too many", err, 429004)
		_, err = h.CancelJob("nothing")
		wantError(t, "cancel nothing", err, 404002)
		must(t)(h.CancelJob("a-1'"))
		schedule(t, h, `{"jobId":"b","maxExecutionTimeInSeconds":9223372036854775807,"startTime":"1990-01-01"`+twin)
		synctest.Wait()
		wantJob(t, h, "b", "completed", 0, 0, 0, 0, 0)
	})
}

func TestJobList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 1)
		defer h.Close()
		for i := range 5 {
			time.Sleep(time.Second)
			kind, more := "scheduleUpdateTwin", `"updateTwin":{"etag":"*","tags":{"x":1}}`
			if i%2 == 1 {
				kind, more = "scheduleDeviceMethod", `"cloudToDeviceMethod":{"methodName":"m"},"startTime":"2000-01-02T00:00:00Z"`
			}
			schedule(t, h, fmt.Sprintf(`{"jobId":"j%d","type":%q,"queryCondition":"*",%s}`, i, kind, more))
		}
		synctest.Wait()
		for _, c := range []struct {
			kind, status, want string
			size, pages        int
		}{
			{"", "", "j4 j3 j2 j1 j0", 0, 1},
			{"", "", "j4 j3 j2 j1 j0", 2, 3},
			{"", "", "j4 j3 j2 j1 j0", 5, 1},
			{"scheduleupdatetwin", "", "j4 j2 j0", 2, 2},
			{"ScheduleDeviceMethod", "Scheduled", "j3 j1", 2, 1},
			{"scheduleDeviceMethod", "completed", "", 2, 1},
			{"export", "", "", 2, 1},
		} {
			next, pages := "", 0
			var got []string
			for {
				p, err := h.Jobs(c.kind, c.status, c.size, next)
				if err != nil || p.Type != "JobResponse" {
					t.Fatal(p.Type, err)
				}
				for _, j := range p.Items {
					got = append(got, j.(ScheduledJob).JobID)
				}
				pages++
				if next = p.Continuation; next == "" {
					break
				}
			}
			if strings.Join(got, " ") != c.want || pages != c.pages {
				t.Errorf("%+v: %v on %d pages", c, got, pages)
			}
		}
		_, err := h.Jobs("nonsense", "", 0, "")
		wantError(t, "type", err, 400004)
		_, err = h.Jobs("", "done", 0, "")
		wantError(t, "status", err, 400004)
		_, err = h.Jobs("", "", 0, "e30=")
		wantError(t, "continuation", err, 400004)
	})
}

// A hub that ends while a job waits or runs says so when it comes back.
func TestJobsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 2)
		answering(t, h, ID{Device: "d000"}, 0, 0)
		schedule(t, h, `{"jobId":"done","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"x":1}}}`)
		synctest.Wait()
		schedule(t, h, `{"jobId":"runs","type":"scheduleDeviceMethod","queryCondition":"*","cloudToDeviceMethod":{"methodName":"m","payload":null}}`)
		schedule(t, h, `{"jobId":"waits","type":"scheduleUpdateTwin","queryCondition":"*","startTime":"2000-01-01T01:00:00Z","updateTwin":{"etag":"*","tags":{"late":true}}}`)
		synctest.Wait()
		done := encode(h.Job("done"))
		h.Close()
		var saved []Record
		must(t)(nil, h.Records(func(r Record) error { saved = append(saved, r); return nil }))
		again, err := Open(Options{}, discard{}, saved)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if got := encode(again.Job("done")); string(got) != string(done) {
			t.Errorf("%s, was %s", got, done)
		}
		wantJob(t, again, "runs", "failed", 2, 2, 0, 0, 0)
		wantJob(t, again, "waits", "scheduled")
		time.Sleep(time.Hour)
		synctest.Wait()
		wantJob(t, again, "waits", "completed", 2, 0, 2, 0, 0)
		_, err = h.ScheduleJob(jobOf(t, `{"jobId":"x","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"x":1}}}`))
		must(t)(nil, err)
		synctest.Wait()
		wantJob(t, h, "x", "queued") // a closed hub begins nothing
	})
}

type discard struct{}

func (discard) Append([]Record) {}
func (discard) Sync()           {}

// FuzzJob schedules anything: what is taken runs to an end.
func FuzzJob(f *testing.F) {
	for _, seed := range []string{
		`{"jobId":"a","type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{"x":null},"properties":{"desired":{"n":1.0}}}}`,
		`{"jobId":"b","type":"scheduleDeviceMethod","queryCondition":"FROM devices.modules","startTime":"2000-01-01T00:00:00.5","maxExecutionTimeInSeconds":1,"cloudToDeviceMethod":{"methodName":"m","payload":[1],"connectTimeoutInSeconds":5,"responseTimeoutInSeconds":5}}`,
		`{"jobId":"c","type":"scheduleUpdateTwin","queryCondition":"tags.","updateTwin":{"etag":"*"}}`, `{}`, `null`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var r JobRequest
		if json.Unmarshal([]byte(body), &r) != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			h := newFleet(t, 2)
			defer h.Close()
			j, err := h.ScheduleJob(r)
			if err != nil {
				return
			}
			time.Sleep(maxJobStart + time.Hour)
			if s := h.Job(j.JobID).Status; s != "completed" && s != "failed" {
				t.Errorf("%s: %s", body, s)
			}
			ask(t, h, "SELECT * FROM devices.jobs WHERE outcome.deviceMethodResponse.status = 1 OR jobType != 'x'", 1)
		})
	})
}
