package query

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// document is a twin or a job's result as plain JSON.
type document map[string]any

func (d document) Member(name string) (any, bool) {
	v, ok := d[name]
	return v, ok
}

func parseDocument(t testing.TB, text string) document {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	doc := document{}
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

const sampleTwin = `{
	"deviceId": "dev-1", "moduleId": "cooling", "status": "enabled", "connectionState": "Connected", "version": 7,
	"lastActivityTime": "2021-05-07T00:50:38.0543092Z", "statusReason": null, "authenticationType": "sas",
	"capabilities": {"iotEdge": true}, "parentScopes": ["ms-azure-iot-edge://gw-1"],
	"tags": {"site": "lobby", "floor": 3, "group": {"name": "a"}, "list": [1, "x", null], "o": {}, "Case": 1,
		"text": "it's \"so\" \\ é 😀", "t": true, "f": false, "half": 0.5},
	"properties": {
		"desired": {"interval": 60, "$version": 4, "$metadata": {"$lastUpdated": "2021-05-07T00:00:00Z"}},
		"reported": {"interval": 60.0, "firmware": "1.2", "status": "scanning", "$version": 7}
	},
	"configurations": {"base-1": {"status": "Applied"}}
}`

func TestConditions(t *testing.T) {
	doc := parseDocument(t, sampleTwin)
	for _, c := range []struct {
		text string
		want bool
	}{
		{"*", true},
		{" * ", true},
		{"deviceId = 'dev-1'", true},
		{`deviceId = "dev-1"`, true},
		{"DEVICEID = 'dev-1'", true},
		{"devices.deviceId = 'dev-1'", true},
		{"Devices.DeviceID = 'dev-1'", true},
		{"deviceId = 'DEV-1'", false},
		{"deviceId IN ['a', 'dev-1']", true},
		{"deviceId in ['a']", false},
		{"deviceId NIN ['a']", true},
		{"deviceId nin ['dev-1', 'a']", false},
		{"deviceId IN []", false},
		{"tags.absent IN ['a']", false},
		{"tags.absent NIN ['a']", false},
		{"tags.floor IN [1, 3, 5]", true},
		{"tags.floor IN ['3']", false},
		{"tags.floor NIN ['3']", true},

		// Numbers
		{"tags.floor = 3", true},
		{"tags.floor = 3.0", true},
		{"tags.floor = 0x3", true},
		{"tags.floor = 0X03", true},
		{"tags.floor = 3e0", true},
		{"tags.floor < 0x1F", true},
		{"tags.floor != -3", true},
		{"tags.floor > -1.5e+2", true},
		{"tags.half = 0.5", true},
		{"tags.floor = '3'", false},
		{"tags.floor != '3'", false}, // two types can't be compared
		{"properties.desired.interval = properties.reported.interval", true},
		{"properties.reported.$version >= 7", true},
		{"properties.desired.$metadata.$lastUpdated > '2021-01-01'", true},

		// Arithmetic
		{"tags.floor + 1 = 4", true},
		{"tags.floor - 1 - 1 = 1", true},
		{"tags.floor * 2 + 1 = 7", true},
		{"1 + tags.floor * 2 = 7", true},
		{"(1 + tags.floor) * 2 = 8", true},
		{"tags.floor % 2 = 1", true},
		{"tags.floor / 2 = 1.5", true},
		{"tags.floor / 0 = 1", false},
		{"tags.floor / 0 != 1", false},
		{"tags.site + 1 = 1", false},
		{"tags.floor - tags.absent != 0", false},

		// Logic: what is not true is false
		{"tags.t", true},
		{"tags.f", false},
		{"tags.site", false},
		{"tags.o", false},
		{"tags.list", false},
		{"null", false},
		{"undefined", false},
		{"true", true},
		{"NOT true", false},
		{"NOT tags.absent = 1", true},
		{"NOT undefined", true},
		{"NOT NOT tags.t", true},
		{"tags.t AND tags.f OR tags.t", true},
		{"tags.t OR tags.f AND tags.f", true},
		{"(tags.t OR tags.f) AND tags.f", false},
		{"NOT tags.t OR tags.t", true},
		{"not (tags.t and tags.f)", true},
		{"1 AND 1", false},

		// null, undefined, objects and arrays
		{"statusReason = null", true},
		{"statusReason != null", false},
		{"statusReason = undefined", false},
		{"statusReason < null", false},
		{"tags.absent = null", false},
		{"tags.absent != 'x'", false},
		{"tags.absent.below = 1", false},
		{"tags.site.below = 1", false},
		{"tags.o = tags.o", false},
		{"tags.list = [1]", false},
		{"tags.t = true", true},
		{"tags.t != tags.f", true},
		{"tags.t > tags.f", false},
		{"is_defined(tags.site)", true},
		{"IS_DEFINED(tags.absent)", false},
		{"Is_Defined(statusReason)", true},
		{"NOT is_defined(tags.absent)", true},
		{"is_defined(managedBy)", false},

		// Functions
		{"STARTSWITH(devices.deviceId,'dev')", true},
		{"startswith(deviceId, 'x')", false},
		{"ENDSWITH(deviceId, '-1')", true},
		{"ENDSWITH(tags.floor, '3')", false},
		{"STARTSWITH(tags.absent, '')", false},
		{"array_contains(parentScopes, 'ms-azure-iot-edge://gw-1')", true},
		{"array_contains(tags.list, 1)", true},
		{"ARRAY_CONTAINS(tags.list, '1')", false},
		{"ARRAY_CONTAINS(tags.site, 'lobby')", false},
		{"STARTSWITH(deviceId, 'x') = false", true},

		// Names and strings
		{"tags.[[group]].name = 'a'", true},
		{"tags.Case = 1", true},
		{"tags.case = 1", false},
		{"TAGS.site = 'lobby'", true},
		{"Properties.Reported.firmware = '1.2'", true},
		{"configurations.[[base-1]].status = 'Applied'", true},
		{`tags.text = 'it\'s "so" \\ \u00e9 \ud83d\ude00'`, true},
		{`tags.text = "it's \"so\" \\ é 😀"`, true},
		{"capabilities.iotEdge = true", true},
		{"Capabilities.IotEdge = true", true},
		{"lastActivityTime > '2021'", true},

		// Modules
		{"FROM devices.modules", true},
		{"from devices.modules where moduleId = 'cooling'", true},
		{"FROM devices.modules WHERE devices.modules.moduleId = 'x'", false},
		{"FROM devices.modules WHERE devices.deviceId = 'dev-1'", true},
		{"FROM devices WHERE deviceId = 'dev-1'", true},
	} {
		got, err := ParseCondition(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got.Meets(doc) != c.want {
			t.Errorf("%s: %v, want %v", c.text, !c.want, c.want)
		}
	}
}

func TestConditionSaysWhatItReads(t *testing.T) {
	c, err := ParseCondition("FROM devices.modules WHERE tags.a = 1 AND devices.DeviceId = 'x' AND tags.a > 0 OR properties.Reported.b.c = 2")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(c.Paths(), " "), "tags.a deviceId properties.reported.b.c"; got != want || c.Source != Modules {
		t.Errorf("%s of %s, want %s", got, c.Source, want)
	}
}

// What real clients send: Azure/azure-iot-explorer, Azure/azure-iot-cli-extension, and the documentation.
func TestQueriesOfClients(t *testing.T) {
	twin := parseDocument(t, sampleTwin)
	job := parseDocument(t, `{"deviceId":"dev-1","jobId":"j1","jobType":"scheduleUpdateTwin","status":"completed","createdDateTimeUtc":"2020"}`)
	for _, c := range []struct {
		text  string
		of    Source
		row   string // of a projection
		match bool
	}{
		{"SELECT deviceId as DeviceId, status as Status, lastActivityTime as LastActivityTime, statusUpdatedTime as StatusUpdatedTime, authenticationType as AuthenticationType, cloudToDeviceMessageCount as CloudToDeviceMessageCount, connectionState as ConnectionState, capabilities.iotEdge as IotEdge, modelId as ModelId FROM devices WHERE STARTSWITH(devices.deviceId,'dev')",
			Devices, `{"DeviceId":"dev-1","Status":"enabled","LastActivityTime":"2021-05-07T00:50:38.0543092Z","AuthenticationType":"sas","ConnectionState":"Connected","IotEdge":true}`, true},
		{"SELECT * FROM devices.modules WHERE deviceId in ['dev-1']", Modules, "", true},
		{"select * from devices", Devices, "", true},
		{"select * from devices where capabilities.iotEdge = true", Devices, "", true},
		{"SELECT deviceId, deviceScope FROM devices", Devices, `{"deviceId":"dev-1"}`, true},
		{"select deviceId from devices where array_contains(parentScopes,'ms-azure-iot-edge://gw-1')", Devices, `{"deviceId":"dev-1"}`, true},
		{"select * from devices.modules where devices.deviceId='dev-1'", Modules, "", true},
		{"SELECT * FROM devices.jobs WHERE devices.jobs.jobId='j1'", Jobs, "", true},
		{"SELECT * FROM devices.jobs WHERE devices.jobs.deviceId = 'dev-1'\n AND devices.jobs.jobType = 'scheduleUpdateTwin' AND devices.jobs.status = 'completed' AND devices.jobs.createdTimeUtc > '2016-09-01'", Jobs, "", false},
		{"SELECT * FROM devices.jobs WHERE jobId = 'j1' AND createdDateTimeUtc > '2016'", Jobs, "", true},
		{"SELECT deviceId FROM devices WHERE properties.reported.firmware = '1.2'", Devices, `{"deviceId":"dev-1"}`, true},
		{"select deviceid, moduleid from devices.modules where configurations.[[base-1]].status='Applied' and properties.reported.status='scanning'", Modules, `{"deviceId":"dev-1","moduleId":"cooling"}`, true},
		{"SELECT DeviceId, LastActivityTime FROM devices WHERE status = 'enabled' AND connectionState = 'Disconnected'", Devices, "", false},
		{"SELECT TOP 5 tags.site AS s, properties.desired AS d FROM devices", Devices, `{"s":"lobby","d":{"$metadata":{"$lastUpdated":"2021-05-07T00:00:00Z"},"$version":4,"interval":60}}`, true},
		{"SELECT tags.[[group]].name AS [[group]] FROM devices", Devices, `{"group":"a"}`, true},
	} {
		q, err := Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		doc := twin
		if c.of == Jobs {
			doc = job
		}
		if q.Source != c.of || q.Meets(doc) != c.match {
			t.Errorf("%s: of %s, %v", c.text, q.Source, q.Meets(doc))
		}
		if c.row == "" {
			continue
		}
		if got, _ := json.Marshal(q.Project(doc)); string(got) != c.row || q.All() || q.Aggregates() {
			t.Errorf("%s: %s, want %s", c.text, got, c.row)
		}
	}
}

func TestAggregates(t *testing.T) {
	var docs []document
	for _, text := range []string{
		`{"deviceId":"a","tags":{"n":1,"s":"x"},"properties":{"reported":{"status":"Success"}}}`,
		`{"deviceId":"b","tags":{"n":2.5,"s":"y"},"properties":{"reported":{"status":"Success"}}}`,
		`{"deviceId":"c","tags":{"n":"text"},"properties":{"reported":{"status":"Error"}}}`,
		`{"deviceId":"d","tags":{},"properties":{"reported":{}}}`,
		`{"deviceId":"e","tags":{"n":4},"properties":{"reported":{"status":1}}}`,
		`{"deviceId":"f","tags":{"n":4.0},"properties":{"reported":{"status":1.0}}}`,
	} {
		docs = append(docs, parseDocument(t, text))
	}
	for _, c := range []struct{ text, want string }{
		{"SELECT COUNT() AS total FROM devices", `[{"total":6}]`},
		{"SELECT count() as n FROM devices WHERE deviceId = 'nobody'", `[{"n":0}]`},
		{"SELECT AVG(tags.n) AS a, SUM(tags.n) AS s, MIN(tags.n) AS lo, MAX(tags.n) AS hi FROM devices", `[{"a":2.875,"s":11.5,"lo":1,"hi":"text"}]`},
		{"SELECT AVG(tags.x) AS a, SUM(tags.x) AS s, MIN(tags.x) AS lo FROM devices", `[{"s":0}]`},
		{"SELECT MIN(tags.s) AS lo, MAX(tags.s) AS hi FROM devices", `[{"lo":"x","hi":"y"}]`},
		{"SELECT properties.reported.status AS status,\n COUNT() AS numberOfDevices\n FROM devices\n GROUP BY properties.reported.status",
			`[{"numberOfDevices":1},{"status":1,"numberOfDevices":2},{"status":"Error","numberOfDevices":1},{"status":"Success","numberOfDevices":2}]`},
		{"SELECT COUNT() AS n FROM devices WHERE tags.n > 0 GROUP BY tags.s", `[{"n":2},{"n":1},{"n":1}]`},
		{"SELECT tags.s FROM devices GROUP BY devices.tags.s", `[{},{"s":"x"},{"s":"y"}]`},
	} {
		q, err := Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		g := q.NewGroups()
		for _, d := range docs {
			if q.Meets(d) {
				g.Add(d)
			}
		}
		rows := []Record{}
		for _, r := range g.Rows() {
			rows = append(rows, r.Value)
		}
		if got, _ := json.Marshal(rows); string(got) != c.want || !q.Aggregates() {
			t.Errorf("%s:\n%s, want\n%s", c.text, got, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		text string
		at   int
		says string
	}{
		{"", 1, "want SELECT"},
		{"SELEC * FROM devices", 1, "want SELECT"},
		{"SELECT * FROM", 14, "unknown collection"},
		{"SELECT *", 9, "want FROM"},
		{"SELECT * FRM devices", 10, `want FROM, have "FRM"`},
		{"SELECT deviceId FRM devices", 17, `want FROM, have "FRM"`},
		{"SELECT * FROM machines", 15, "unknown collection"},
		{"SELECT * FROM devices.twins", 23, "unknown collection"},
		{"SELECT * FROM devices WHERE", 28, "want a value, have the end"},
		{"SELECT * FROM devices WHERE deviceId =", 39, "want a value"},
		{"SELECT * FROM devices WHERE deviceId == 'x'", 39, "want a value"},
		{"SELECT * FROM devices WHERE deviceId = 'x", 40, "no end"},
		{"SELECT * FROM devices WHERE é = 1 ; b", 35, "unknown character"},
		{"SELECT * FROM devices WHERE a = 1 = 2", 35, "chained"},
		{"SELECT * FROM devices WHERE (a = 1", 35, `want ")"`},
		{"SELECT * FROM devices WHERE a = 1)", 34, "unexpected"},
		{"SELECT * FROM devices ORDER BY deviceId", 23, "no ORDER"},
		{"SELECT * FROM devices d", 23, "unexpected"},
		{"SELECT * FROM devices JOIN t", 23, "no JOIN"},
		{"SELECT TOP 0 * FROM devices", 12, "TOP"},
		{"SELECT TOP 1.5 * FROM devices", 12, "TOP"},
		{"SELECT TOP x * FROM devices", 12, "TOP"},
		{"SELECT TOP 1e300 * FROM devices", 12, "TOP"},
		{"SELECT COUNT() FROM devices", 16, "needs a name"},
		{"SELECT COUNT(*) AS n FROM devices", 14, `want ")"`},
		{"SELECT MEDIAN(tags.x) AS n FROM devices", 8, "unknown aggregate"},
		{"SELECT deviceId AS FROM devices", 20, "want a name"},
		{"SELECT deviceId AS where FROM devices", 20, "want a name"},
		{"SELECT deviceId, devices.deviceId FROM devices", 18, "two columns"},
		{"SELECT deviceId status FROM devices", 17, "want FROM"},
		{"SELECT *, deviceId FROM devices", 9, "want FROM"},
		{"SELECT tags.a + 1 AS n FROM devices", 15, "want FROM"},
		{"SELECT deviceId, COUNT() AS n FROM devices", 43, "neither"},
		{"SELECT COUNT() AS n, deviceId FROM devices GROUP BY tags.x", 44, "neither"},
		{"SELECT * FROM devices GROUP BY tags.x", 23, "can't be grouped"},
		{"SELECT COUNT() AS n FROM devices GROUP BY tags.x, tags.y", 49, "one property"},
		{"SELECT COUNT() AS n FROM devices.modules GROUP BY tags.x", 42, "device twins only"},
		{"SELECT deviceId FROM devices.jobs", 8, "SELECT * only"},
		{"SELECT COUNT() AS n FROM devices.jobs", 8, "SELECT * only"},
		{"SELECT * FROM devices WHERE tags.group.name = 1", 34, "[[group]]"},
		{"SELECT * FROM devices WHERE tags.[[x = 1", 34, "[[ without ]]"},
		{"SELECT * FROM devices WHERE tags.[[]] = 1", 34, "no name"},
		{"SELECT * FROM devices WHERE tags. = 1", 35, "want the name"},
		{"SELECT * FROM devices WHERE devices = 1", 29, "not a property"},
		{"SELECT * FROM devices WHERE devices.modules.moduleId = 'x'", 29, "joins"},
		{"SELECT * FROM devices.jobs WHERE devices.tags.x = 1", 34, "joins"},
		{"SELECT * FROM devices.modules WHERE devices.jobs.jobId = 'x'", 37, "joins"},
		{"SELECT * FROM devices WHERE STARTS_WITH(deviceId, 'x')", 29, "no function STARTS_WITH"},
		{"SELECT * FROM devices WHERE CONTAINS(deviceId, 'x')", 29, "no function CONTAINS"},
		{"SELECT * FROM devices WHERE is_null(tags.x)", 29, "no function is_null"},
		{"SELECT * FROM devices WHERE is_defined('x')", 29, "takes a property"},
		{"SELECT * FROM devices WHERE is_defined(tags.x, tags.y)", 29, "takes 1 argument, has 2"},
		{"SELECT * FROM devices WHERE STARTSWITH(tags.x)", 29, "takes 2 arguments, has 1"},
		{"SELECT * FROM devices WHERE deviceId IN 'x'", 41, "wants an array"},
		{"SELECT * FROM devices WHERE deviceId IN [tags.x]", 42, "want a value"},
		{"SELECT * FROM devices WHERE deviceId IN ['a' 'b']", 46, `want ","`},
		{`SELECT * FROM devices WHERE a = '\n'`, 34, "unknown escape"},
		{`SELECT * FROM devices WHERE a = '\u12'`, 34, "unknown escape"},
		{`SELECT * FROM devices WHERE a = '\ud83d'`, 34, "unknown escape"},
		{`SELECT * FROM devices WHERE a = '\`, 34, "unknown escape"},
		{"SELECT * FROM devices WHERE a = 1x", 33, "no number"},
		{"SELECT * FROM devices WHERE a = 1_0", 33, "no number"},
		{"SELECT * FROM devices WHERE a = 0x", 33, "no hexadecimal"},
		{"SELECT * FROM devices WHERE a = 0xfffffffffffffffff", 33, "no hexadecimal"},
		{"SELECT * FROM devices WHERE a = 1.2.3", 33, "no number"},
		{"SELECT * FROM devices WHERE a = 1e999", 33, "no number"},
		{"SELECT * FROM devices WHERE -tags.a = 1", 29, "want a value"},
		{"SELECT * FROM devices WHERE a = '" + "\xff'", 1, "not UTF-8"},
		{strings.Repeat("é", maxText) + "x", maxText + 1, "at most 8192"},
		{"SELECT * FROM devices WHERE " + strings.Repeat("(", 4000), 0, "levels"},
		{"SELECT * FROM devices WHERE " + strings.Repeat("NOT ", 2000), 0, "levels"},
		{"SELECT * FROM devices WHERE a IN " + strings.Repeat("[ ", 2000), 0, "levels"},
		{"SELECT * FROM devices WHERE " + strings.Repeat("STARTSWITH(", 700), 0, "levels"},
	} {
		_, err := Parse(c.text)
		e, ok := errors.AsType[*Error](err)
		if !ok || c.at != 0 && e.At != c.at || !strings.Contains(e.Text, c.says) {
			t.Errorf("%.60s: %v, want %d %q", c.text, err, c.at, c.says)
		}
	}
}

func TestConditionsThatAreNone(t *testing.T) {
	for _, text := range []string{"", " ", "SELECT * FROM devices", "FROM devices.jobs", "FROM devices.jobs WHERE a = 1", "FROM devices.modules tags.a = 1",
		"tags.a = 1 GROUP BY tags.a", "* AND true", "tags.a ="} {
		if c, err := ParseCondition(text); err == nil {
			t.Errorf("%q: %v, want an error", text, c)
		}
	}
}

// Long chains are flat: they cost neither depth nor stack.
func TestLongChains(t *testing.T) {
	doc := parseDocument(t, sampleTwin)
	for _, text := range []string{
		"tags.t" + strings.Repeat(" AND tags.t", 700),
		"tags.f" + strings.Repeat(" OR tags.f", 700) + " OR tags.t",
		"0" + strings.Repeat("+1", 2000) + " = 2000",
		"deviceId IN [" + strings.Repeat("1,", 3000) + "'dev-1']",
	} {
		c, err := ParseCondition(text)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Meets(doc) {
			t.Errorf("%.40s…: not met", text)
		}
	}
}
