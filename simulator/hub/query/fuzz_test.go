package query

import (
	"encoding/json"
	"testing"
)

// FuzzQuery parses anything and runs what it could parse: no panic, and every answer is JSON.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"SELECT * FROM devices",
		"SELECT COUNT(), MAX(tags.n), status, COUNT() AS [[$1]] FROM devices GROUP BY status",
		"select TOP 3 deviceId AS [[a]], tags.[[group]].name from devices.modules where a.[[b]] in [1,'x',null,[ undefined]] and not 0x1F>=-1e3",
		"SELECT AVG(tags.n) AS a, COUNT() AS n, tags.s FROM devices WHERE 1/0%2-tags.n*3 <> 4 GROUP BY tags.s",
		`SELECT * FROM devices.jobs WHERE devices.jobs.jobId = "\u00e9\ud83d\ude00\\\"" OR startswith(deviceId, 'x')`,
		"SELECT * FROM devices WHERE ((((NOT NOT is_defined(tags.list))))) AND ARRAY_CONTAINS(tags.list, null)",
	} {
		f.Add(seed)
	}
	doc := parseDocument(f, sampleTwin)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := Language{NumberAggregates: true}.Parse(text)
		if _, strict := Parse(text); strict == nil && err != nil {
			t.Errorf("%q: only the strictest language has it: %v", text, err)
		}
		if err != nil {
			if e, ok := err.(*Error); !ok || e.At < 1 || e.Text == "" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		q.Meets(doc)
		var rows []any
		if !q.Aggregates() {
			rows = append(rows, q.Project(doc))
		} else {
			g := q.NewGroups()
			g.Add(doc)
			g.Add(document{})
			for _, r := range g.Rows() {
				rows = append(rows, r.Value)
			}
		}
		if _, err := json.Marshal(rows); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// FuzzCondition does the same with conditions.
func FuzzCondition(f *testing.F) {
	for _, seed := range []string{"*", "tags.site='lobby'", "FROM devices.modules WHERE moduleId = 'x'", "deviceId IN ['a','b']"} {
		f.Add(seed)
	}
	doc := parseDocument(f, sampleTwin)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCondition(text)
		if err == nil {
			c.Meets(doc)
			c.Meets(document{})
			c.Paths()
		}
	})
}
