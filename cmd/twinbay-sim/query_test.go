package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestQueriesJobsAndConfigurations(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"query", "SELECT deviceId, moduleId FROM devices.modules WHERE moduleId IN ['door', 'coins']", "--page", "1"}, 0,
			"DEVICEID   MODULEID\nvending-1  coins\nvending-1  door\n", ""},
		{[]string{"query", "SELECT status, moduleId, tags.nothing, deviceId AS a FROM devices.modules WHERE moduleId = 'door'"}, 0,
			"STATUS   MODULEID  A\nenabled  door      vending-1\n", ""},
		{[]string{"query", "SELECT status, deviceId AS a FROM devices", "--json"}, 0, "\"status\": \"enabled\",\n    \"a\": \"vending-1\"\n", ""},
		{[]string{"query", "SELECT MAX(version) AS z, deviceId, COUNT() AS a FROM devices GROUP BY deviceId"}, 0, "Z  DEVICEID   A\n", ""},
		{[]string{"query", "SELECT * FROM devices"}, 0, "DEVICEID   STATUS   CONNECTIONSTATE  VERSION  LASTACTIVITYTIME\nvending-1  enabled  Disconnected", ""},
		{[]string{"query", "SELECT COUNT() AS modules FROM devices.modules", "--json"}, 0, "\"modules\": 3", ""},
		{[]string{"query", "SELECT tags FROM devices", "--json"}, 0, `"site": "lobby"`, ""},
		{[]string{"query", "SELECT * FROM devices.jobs"}, 0, "", ""},
		{[]string{"query", "SELECT * FROM machines"}, 1, "", "at character 15: unknown collection"},
		{[]string{"query"}, 2, "", "usage"},
		{[]string{"job", "create", "j1", "--where", "FROM devices.modules WHERE moduleId = 'door'", "--desired", `{"debounce_ms": 30}`, "--wait"}, 0, `"succeededCount": 1`, ""},
		{[]string{"job", "create", "j1", "--where", "*", "--tags", `{"x": 1}`, "--wait"}, 0, `"status": "completed"`, ""},
		{[]string{"job", "create", "j1", "--where", "*", "--method", "reboot", "--payload", "[1]", "--wait"}, 1, `"failedCount": 1`, "failed on 1 of 1"},
		{[]string{"job", "create", "j1", "--where", "tags.", "--tags", "{}", "--wait"}, 1, `"status": "failed"`, "job j1 is failed: queryCondition"},
		{[]string{"job", "create", "j1", "--where", "*", "--method", "reboot", "--start", "2000-01-01T00:00:00Z"}, 0, `"status": "queued"`, ""},
		{[]string{"job", "create", "j1", "--where", "*", "--tags", `{"x":`}, 2, "", "no JSON object"},
		{[]string{"job", "create", "j1", "--where", "*", "--method", "m", "--payload", "{"}, 2, "", "no JSON"},
		{[]string{"job", "create", "j1", "--where", "*"}, 2, "", "either --method"},
		{[]string{"job", "create", "j1", "--tags", "{}"}, 2, "", "--where is missing"},
		{[]string{"job", "create", "j1", "--where", "*", "--tags", "{}", "--payload", "1"}, 2, "", "--payload goes with"},
		{[]string{"job", "create", "J1", "--where", "*", "--tags", "{}"}, 1, "", "ArgumentInvalid"},
		{[]string{"job", "list", "--status", "completed"}, 0, "", ""},
		{[]string{"job", "list", "--type", "ships"}, 1, "", "jobType"},
		{[]string{"job", "show", "nothing"}, 0, `"status": "unknown"`, ""},
		{[]string{"job", "cancel", "nothing"}, 1, "", "JobNotFound"},
		{[]string{"configuration", "create", "slow", "--priority", "3", "--where", "FROM devices.modules WHERE moduleId = 'climate'", "--label", "team=food",
			"--metric", "n=SELECT deviceId, moduleId FROM devices.modules WHERE moduleId != 'x'", "--content", `{"moduleContent":{"properties.desired.interval_ms":60000}}`}, 0, "\"n\": \"SELECT deviceId, moduleId FROM devices.modules WHERE moduleId != 'x'\"", ""},
		{[]string{"configuration", "create", "slow", "--metric", "SELECT", "--content", "{}"}, 2, "", "NAME=QUERY"},
		{[]string{"configuration", "create", "slow", "--content", "{"}, 2, "", "no JSON object"},
		{[]string{"configuration", "create", "slow", "--content", "@nowhere.json"}, 1, "", "nowhere.json"},
		{[]string{"configuration", "create", "slow", "--content", "{}"}, 1, "", "InvalidConfigurationContent"},
		{[]string{"configuration", "list"}, 0, "", ""},
		{[]string{"configuration", "list", "--json"}, 0, "[]", ""},
		{[]string{"configuration", "show", "nothing"}, 1, "", "ConfigurationNotFound"},
		{[]string{"configuration", "delete", "nothing"}, 1, "", "ConfigurationNotFound"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			code, stdout, stderr := against(t, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d, want %d\n%s\n%s", code, tt.code, stdout, stderr)
			}
		})
	}
}

// TestRowsTable: columns have the order of SELECT, also where rows leave some out.
func TestRowsTable(t *testing.T) {
	for want, rows := range map[string][]string{
		"D  B  C  A\n1  -  2  -\n-  3  4  -\n5  -  -  6\n": {`{"d":1,"c":2}`, `{"b":3,"c":4}`, `{"d":5,"a":6}`},
		"A  B\n1  2\n3  4\n": {`{"a":1,"b":2}`, `{"b":4,"a":3}`},
		"A\n{\"b\":1}\n":     {`{"a":{"b":1}}`},
		"":                   {`{}`, `{}`},
	} {
		raw := make([]json.RawMessage, 0, len(rows))
		for _, r := range rows {
			raw = append(raw, json.RawMessage(r))
		}
		var b strings.Builder
		if err := rowsTable(&b, raw, nil); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v; want %q", rows, b.String(), err, want)
		}
	}
}
