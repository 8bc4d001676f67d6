package hub

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// newFleet is a hub with devices d000, d001, …, each with the modules a, b and c, and something to tell them by.
func newFleet(t testing.TB, devices int) *Hub {
	t.Helper()
	h := New(Options{})
	for i := range devices {
		id := ID{Device: fmt.Sprintf("d%03d", i)}
		if _, err := h.PutDevice(Device{DeviceID: id.Device}, ""); err != nil {
			t.Fatal(err)
		}
		set(t, h, id, fmt.Sprintf(`{"tags":{"site":"s%d","n":%d},"properties":{"desired":{"x":{"y":%d}}}}`, i%3, i, i))
		for _, m := range []string{"a", "b", "c"} {
			id.Module = m
			if _, err := h.PutModule(Module{DeviceID: id.Device, ModuleID: m}, ""); err != nil {
				t.Fatal(err)
			}
			set(t, h, id, fmt.Sprintf(`{"tags":{"department":%q,"n":%d},"properties":{"desired":{"interval_ms":%d}}}`, m, i, 1000*i))
		}
	}
	return h
}

func set(t testing.TB, h *Hub, id ID, patch string) {
	t.Helper()
	if _, err := h.PatchTwin(id, json.RawMessage(patch), ""); err != nil {
		t.Fatal(err)
	}
}

func report(t testing.TB, h *Hub, id ID, patch string) {
	t.Helper()
	tree, bad := parseReported([]byte(patch))
	if bad != nil {
		t.Fatal(bad)
	}
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.report(n, tree, 0); err != nil {
		t.Fatal(err)
	}
}

// ask runs a query to its end, size rows at a time, and answers its rows as JSON.
func ask(t testing.TB, h *Hub, text string, size int) (rows []string, pages int) {
	t.Helper()
	next := ""
	for {
		p, err := h.Query(text, size, next)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		pages++
		for _, item := range p.Items {
			rows = append(rows, string(encode(item)))
		}
		if next = p.Continuation; next == "" {
			return rows, pages
		}
	}
}

func TestQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 4)
		report(t, h, ID{"d001", "b"}, `{"firmware":"1.2","n":1.0}`)
		attach(t, h, ID{"d002", "c"}, time.Hour)
		for _, c := range []struct {
			text, kind, want string
		}{
			{"SELECT deviceId FROM devices WHERE tags.site = 's0'", "Raw", `{"deviceId":"d000"} {"deviceId":"d003"}`},
			{"SELECT deviceId, moduleId FROM devices.modules WHERE tags.department = 'b' AND tags.n > 1", "Raw",
				`{"deviceId":"d002","moduleId":"b"} {"deviceId":"d003","moduleId":"b"}`},
			{"SELECT moduleId FROM devices.modules WHERE connectionState = 'Connected'", "Raw", `{"moduleId":"c"}`},
			{"SELECT moduleId FROM devices", "Raw", `{} {} {} {}`},
			{"SELECT COUNT() AS n FROM devices.modules", "Raw", `{"n":12}`},
			{"SELECT tags.site AS site, COUNT() AS n FROM devices GROUP BY tags.site", "Raw", `{"site":"s0","n":2} {"site":"s1","n":1} {"site":"s2","n":1}`},
			{"SELECT TOP 2 deviceId FROM devices", "Raw", `{"deviceId":"d000"} {"deviceId":"d001"}`},
			{"SELECT TOP 1 tags.site AS site, COUNT() AS n FROM devices GROUP BY tags.site", "Raw", `{"site":"s0","n":2}`},
			{"SELECT properties.desired.x.y AS y FROM devices WHERE properties.desired.x.y = tags.n AND tags.n IN [1, 2]", "Raw", `{"y":1} {"y":2}`},
			{"SELECT properties.reported.firmware AS f, properties.reported.n AS n FROM devices.modules WHERE is_defined(properties.reported.firmware)", "Raw", `{"f":"1.2","n":1.0}`},
			{"SELECT deviceId FROM devices WHERE properties.desired.$version = 2 AND properties.desired.$metadata.x.$lastUpdatedVersion = 2 AND tags.n = 0", "Raw", `{"deviceId":"d000"}`},
			{"SELECT properties.desired.$metadata.x.y AS m FROM devices WHERE tags.n = 3", "Raw", `{"m":{"$lastUpdated":"2000-01-01T00:00:00.0000000Z","$lastUpdatedVersion":2}}`},
			{"SELECT properties.desired FROM devices WHERE tags.n = 9", "Raw", ``},
			{"SELECT etag, version, authenticationType, capabilities.iotEdge, cloudToDeviceMessageCount, status, x509Thumbprint FROM devices WHERE status='enabled' AND tags.n = 0", "Raw",
				`{"etag":"AAAAAAAAAAI=","version":3,"authenticationType":"sas","iotEdge":false,"cloudToDeviceMessageCount":0,"status":"enabled","x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null}}`},
			{"SELECT statusReason FROM devices WHERE deviceEtag = 'MQ=='", "Raw", `{}`},
			{"SELECT * FROM devices.jobs", "DeviceJob", ``},
		} {
			p, err := h.Query(c.text, 0, "")
			if err != nil {
				t.Errorf("%s: %v", c.text, err)
				continue
			}
			rows, _ := ask(t, h, c.text, 0)
			if got := strings.Join(rows, " "); got != c.want || p.Type != c.kind || p.Continuation != "" {
				t.Errorf("%s:\n%s %s %q, want\n%s %s", c.text, p.Type, got, p.Continuation, c.kind, c.want)
			}
		}
		// Whole twins are what a GET of them answers.
		for text, id := range map[string]ID{
			"SELECT * FROM devices WHERE deviceId = 'd001'":                            {Device: "d001"},
			"SELECT * FROM devices.modules WHERE deviceId = 'd001' AND moduleId = 'b'": {"d001", "b"},
		} {
			rows, _ := ask(t, h, text, 0)
			twin, err := h.Twin(id)
			if err != nil || len(rows) != 1 || rows[0] != string(encode(twin)) {
				t.Errorf("%s: %s, want %s", text, rows, encode(twin))
			}
		}
		// And so are whole sections.
		rows, _ := ask(t, h, "SELECT properties FROM devices.modules WHERE deviceId = 'd001' AND moduleId = 'b'", 0)
		twin, _ := h.Twin(ID{"d001", "b"})
		if want := `{"properties":` + string(encode(twin.Properties)) + `}`; len(rows) != 1 || rows[0] != want {
			t.Errorf("%s, want %s", rows, want)
		}
	})
}

func TestQueryPages(t *testing.T) {
	h := newFleet(t, 7)
	for _, c := range []struct {
		text        string
		size        int
		rows, pages int
	}{
		{"SELECT * FROM devices", 0, 7, 1},
		{"SELECT * FROM devices", 7, 7, 1},
		{"SELECT * FROM devices", 6, 7, 2},
		{"SELECT deviceId, moduleId FROM devices.modules", 4, 21, 6},
		{"SELECT deviceId, moduleId FROM devices.modules", 1, 21, 21},
		{"SELECT moduleId FROM devices.modules WHERE moduleId != 'b' AND tags.n != 3", 5, 12, 3},
		{"SELECT TOP 5 * FROM devices", 2, 5, 3},
		{"SELECT TOP 4 * FROM devices", 2, 4, 2},
		{"SELECT TOP 50 * FROM devices", 3, 7, 3},
		{"SELECT tags.n AS n, COUNT() AS c FROM devices GROUP BY tags.n", 3, 7, 3},
		{"SELECT TOP 4 tags.n AS n, COUNT() AS c FROM devices GROUP BY tags.n", 3, 4, 2},
		{"SELECT * FROM devices WHERE tags.n < 0", 3, 0, 1},
	} {
		rows, pages := ask(t, h, c.text, c.size)
		if len(rows) != c.rows || pages != c.pages {
			t.Errorf("%s by %d: %d rows on %d pages, want %d on %d", c.text, c.size, len(rows), pages, c.rows, c.pages)
		}
		seen := map[string]bool{}
		for _, r := range rows {
			if seen[r] && !strings.Contains(c.text, "SELECT moduleId ") {
				t.Errorf("%s: %s twice", c.text, r)
			}
			seen[r] = true
		}
	}
	big := newFleet(t, 101)
	if rows, pages := ask(t, big, "SELECT deviceId FROM devices", 5000); len(rows) != 101 || pages != 2 {
		t.Errorf("%d rows on %d pages: a page is at most 100", len(rows), pages)
	}
}

// A continuation names the row that came last: rows that go, or come before it, change nothing.
func TestContinuationUnderChange(t *testing.T) {
	h := newFleet(t, 4)
	const text = "SELECT deviceId, moduleId FROM devices.modules"
	p, err := h.Query(text, 5, "")
	if err != nil || len(p.Items) != 5 { // up to d001/b
		t.Fatalf("%v %v", p, err)
	}
	must(t)(nil, h.DeleteDevice("d000", "*"))
	must(t)(nil, h.DeleteModule(ID{"d001", "b"}, "*"))
	must(t)(h.PutModule(Module{DeviceID: "d001", ModuleID: "aa"}, ""))
	must(t)(h.PutModule(Module{DeviceID: "d001", ModuleID: "d"}, ""))
	must(t)(nil, h.DeleteDevice("d002", "*"))
	p, err = h.Query(text, 0, p.Continuation)
	if err != nil {
		t.Fatal(err)
	}
	got := string(encode(p.Items))
	if want := `[{"deviceId":"d001","moduleId":"c"},{"deviceId":"d001","moduleId":"d"},{"deviceId":"d003","moduleId":"a"},{"deviceId":"d003","moduleId":"b"},{"deviceId":"d003","moduleId":"c"}]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestQueryErrors(t *testing.T) {
	h := newFleet(t, 3)
	p, err := h.Query("SELECT * FROM devices", 1, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, continuation, says string }{
		{"SELECT * FROM machines", "", "BadRequest: at character 15: unknown collection"},
		{"", "", "BadRequest: at character 1"},
		{"SELECT * FROM devices", "nonsense", "not a token"},
		{"SELECT * FROM devices", "bnVsbA", "not a token"},
		{"SELECT * FROM devices", "e30=", "another query"},
		{"SELECT *  FROM devices", p.Continuation, "another query"},
		{"SELECT * FROM devices", p.Continuation + "x", "not a token"},
	} {
		_, err := h.Query(c.text, 1, c.continuation)
		wantError(t, c.text+" "+c.continuation, err, 400004)
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.text, err, c.says)
		}
	}
}

// FuzzHubQuery runs any query, whole and from any continuation, on a hub: no panic, and all rows are JSON.
func FuzzHubQuery(f *testing.F) {
	f.Add("SELECT * FROM devices", "")
	f.Add("SELECT properties.desired.$metadata.x AS m, tags FROM devices.modules WHERE etag != 'x' AND modelId = ''", "eyJxIjoiIiwiYSI6ImQwMDAvYSJ9")
	f.Add("SELECT TOP 1 MAX(tags.n) AS n, tags.site FROM devices WHERE version > 1 GROUP BY tags.site", "e30=")
	h := newFleet(f, 3)
	f.Fuzz(func(t *testing.T, text, continuation string) {
		p, err := h.Query(text, 2, continuation)
		if err != nil {
			if e, ok := err.(*Error); !ok || e.Code != 400004 {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if _, err := json.Marshal(p.Items); err != nil || len(p.Items) > 2 {
			t.Errorf("%q: %d rows, %v", text, len(p.Items), err)
		}
	})
}

// BenchmarkQueryModules finds one department's modules among 30,000 of 10,000 devices.
func BenchmarkQueryModules(b *testing.B) {
	h := newFleet(b, 10_000)
	for b.Loop() {
		p, err := h.Query("SELECT COUNT() AS n FROM devices.modules WHERE tags.department = 'b' AND properties.desired.interval_ms >= 5000 AND STARTSWITH(deviceId, 'd')", 0, "")
		if err != nil || string(encode(p.Items)) != `[{"n":9995}]` {
			b.Fatalf("%s %v", encode(p.Items), err)
		}
	}
}

// BenchmarkQueryPage reads one page from the middle of 30,000 modules.
func BenchmarkQueryPage(b *testing.B) {
	h := newFleet(b, 10_000)
	const text = "SELECT * FROM devices.modules"
	middle := mark{Query: fingerprint(text), After: "d5000/b"}.String()
	for b.Loop() {
		if p, err := h.Query(text, 100, middle); err != nil || len(p.Items) != 100 {
			b.Fatalf("%d %v", len(p.Items), err)
		}
	}
}

// Queries, jobs and configurations look at copies while everybody writes: the race detector says whether that is so.
func TestQueryWhileEverythingChanges(t *testing.T) {
	h := newFleet(t, 30)
	defer h.Close()
	if _, err := h.PutConfiguration(configurationOf(t, `{"id":"c","content":{"moduleContent":{"properties.desired.rate":1}},"targetCondition":"FROM devices.modules WHERE tags.n > 3"}`), ""); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := range 40 {
				id := ID{Device: fmt.Sprintf("d%03d", (i+w*10)%30), Module: "a"}
				h.PatchTwin(id, json.RawMessage(fmt.Sprintf(`{"tags":{"n":%d,"o":{"p":[%d]}},"properties":{"desired":{"x":%d}}}`, i, w, i)), "")
				h.DeleteModule(ID{id.Device, "b"}, "*")
				h.PutModule(Module{DeviceID: id.Device, ModuleID: "b"}, "")
				h.PutDevice(Device{DeviceID: id.Device, StatusReason: nullable(fmt.Sprint(i))}, "*")
				h.ScheduleJob(jobOf(t, fmt.Sprintf(`{"jobId":"j-%d-%d","type":"scheduleUpdateTwin","queryCondition":"deviceId = '%s'","updateTwin":{"etag":"*","tags":{"j":%d}}}`, w, i, id.Device, i)))
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		for _, text := range []string{"SELECT * FROM devices.modules WHERE tags.n >= 0", "SELECT * FROM devices", "SELECT properties, tags, configurations FROM devices.modules",
			"SELECT * FROM devices.jobs WHERE status != 'x'", "SELECT statusReason AS r, COUNT() AS n FROM devices GROUP BY statusReason"} {
			ask(t, h, text, 7)
		}
		h.Configurations()
		h.Jobs("", "", 5, "")
	}
	if rows, _ := ask(t, h, "SELECT deviceId FROM devices.modules", 100); len(rows) != 90 {
		t.Errorf("%d modules", len(rows))
	}
}
