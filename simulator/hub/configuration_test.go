package hub

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func configurationOf(t testing.TB, body string) ConfigurationRequest {
	t.Helper()
	var r ConfigurationRequest
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

// configure puts a configuration and lets the hub apply it.
func configure(t testing.TB, h *Hub, ifMatch, body string) Configuration {
	t.Helper()
	c, err := h.PutConfiguration(configurationOf(t, body), ifMatch)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	settle()
	return c
}

// settle lets the hub's time pass until it has looked at its configurations.
func settle() { time.Sleep(time.Second); synctest.Wait() }

// wantDesired holds desired properties, without what the hub adds, and the states of configurations.
func wantDesired(t testing.TB, h *Hub, id ID, desired, states string) {
	t.Helper()
	twin, err := h.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	delete(twin.Properties.Desired, "$metadata")
	delete(twin.Properties.Desired, "$version")
	if got := string(encode(twin.Properties.Desired)); got != desired {
		t.Errorf("%s: desired %s, want %s", id, got, desired)
	}
	got := "{}"
	if twin.Configurations != nil {
		got = string(encode(twin.Configurations))
	}
	if got != states {
		t.Errorf("%s: configurations %s, want %s", id, got, states)
	}
}

func wantMetrics(t testing.TB, h *Hub, id, system, custom string) {
	t.Helper()
	c, err := h.Configuration(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(encode(c.SystemMetrics.Results)); got != system {
		t.Errorf("%s: system metrics %s, want %s", id, got, system)
	}
	if got := string(encode(c.Metrics.Results)); got != custom {
		t.Errorf("%s: metrics %s, want %s", id, got, custom)
	}
}

func TestConfigurationOfModules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 2)
		defer h.Close()
		l, p := attach(t, h, ID{"d000", "b"}, time.Hour)
		l.Want(Desired, true)
		c, err := h.PutConfiguration(configurationOf(t, `{"id":"slow","content":{"moduleContent":{"properties.desired.interval_ms":60000,"properties.desired.alarm.high_c":8.0}},
			"targetCondition":"FROM devices.modules WHERE tags.department = 'b'","priority":5,
			"metrics":{"queries":{"Slow":"SELECT deviceId, moduleId FROM devices.modules WHERE configurations.[[slow]].status = 'Applied' AND properties.reported.interval_ms = 60000"}}}`), "")
		if err != nil {
			t.Fatal(err)
		}
		want := `{"id":"slow","schemaVersion":null,"labels":null,"content":{"moduleContent":{"properties.desired.alarm.high_c":8.0,"properties.desired.interval_ms":60000}},` +
			`"targetCondition":"FROM devices.modules WHERE tags.department = 'b'","createdTimeUtc":"2000-01-01T00:00:00.0000000Z","lastUpdatedTimeUtc":"2000-01-01T00:00:00.0000000Z","priority":5,` +
			`"systemMetrics":{"results":{},"queries":{"appliedCount":"select deviceId, moduleId from devices.modules where configurations.[[slow]].status = 'Applied'",` +
			`"targetedCount":"select deviceId, moduleId FROM devices.modules WHERE tags.department = 'b'"}},` +
			`"metrics":{"results":{},"queries":{"Slow":"SELECT deviceId, moduleId FROM devices.modules WHERE configurations.[[slow]].status = 'Applied' AND properties.reported.interval_ms = 60000"}},"etag":"` + c.ETag + `"}`
		if got := string(encode(c)); got != want {
			t.Errorf("%s, want\n%s", got, want)
		}
		settle()
		wantMetrics(t, h, "slow", `{"appliedCount":2,"targetedCount":2}`, `{"Slow":0}`)
		wantDesired(t, h, ID{"d000", "b"}, `{"alarm":{"high_c":8.0},"interval_ms":60000}`, `{"slow":{"status":"Applied"}}`)
		wantDesired(t, h, ID{"d000", "a"}, `{"interval_ms":0}`, `{}`)
		if got := strings.Join(p.told(), "; "); got != `3 {"$version":3,"alarm":{"high_c":8.0},"interval_ms":60000}` {
			t.Errorf("the module was told %s", got)
		}
		report(t, h, ID{"d000", "b"}, `{"interval_ms":60000}`)
		wantMetrics(t, h, "slow", `{"appliedCount":2,"targetedCount":2}`, `{"Slow":1}`)

		// A new module, and one whose tags begin to match, get it; one whose tags end to match loses what it set.
		must(t)(h.PutModule(Module{DeviceID: "d001", ModuleID: "new"}, ""))
		set(t, h, ID{"d001", "new"}, `{"tags":{"department":"b"},"properties":{"desired":{"own":1}}}`)
		set(t, h, ID{"d001", "a"}, `{"tags":{"department":"b"}}`)
		set(t, h, ID{"d000", "b"}, `{"tags":{"department":"x"}}`)
		settle()
		wantDesired(t, h, ID{"d001", "new"}, `{"alarm":{"high_c":8.0},"interval_ms":60000,"own":1}`, `{"slow":{"status":"Applied"}}`)
		wantDesired(t, h, ID{"d001", "a"}, `{"alarm":{"high_c":8.0},"interval_ms":60000}`, `{"slow":{"status":"Applied"}}`)
		wantDesired(t, h, ID{"d000", "b"}, `{"alarm":{}}`, `{}`)
		if got := p.told(); got[len(got)-1] != `4 {"$version":4,"alarm":{"high_c":null},"interval_ms":null}` {
			t.Errorf("the module was told %s", got)
		}
		wantMetrics(t, h, "slow", `{"appliedCount":3,"targetedCount":3}`, `{"Slow":0}`)

		// What a person changes stays until the configuration is updated; deleted, it leaves what it has set.
		set(t, h, ID{"d001", "a"}, `{"properties":{"desired":{"interval_ms":1}}}`)
		settle()
		wantDesired(t, h, ID{"d001", "a"}, `{"alarm":{"high_c":8.0},"interval_ms":1}`, `{"slow":{"status":"Applied"}}`)
		configure(t, h, `"`+c.ETag+`"`, `{"id":"slow","content":{"moduleContent":{"properties.desired.other":1}},"targetCondition":"FROM devices.modules WHERE tags.department = 'b'"}`)
		wantDesired(t, h, ID{"d001", "a"}, `{"alarm":{"high_c":8.0},"interval_ms":60000}`, `{"slow":{"status":"Applied"}}`)
		must(t)(nil, h.DeleteConfiguration("slow", ""))
		settle()
		wantDesired(t, h, ID{"d001", "a"}, `{"alarm":{"high_c":8.0},"interval_ms":60000}`, `{}`)
	})
}

func TestConfigurationOfDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 3)
		defer h.Close()
		configure(t, h, "", `{"id":"all","content":{"deviceContent":{"properties.desired.x":{"y":7,"z":null},"properties.desired.rate":1}},"targetCondition":"*"}`)
		wantDesired(t, h, ID{Device: "d002"}, `{"rate":1,"x":{"y":7}}`, `{"all":{"status":"Applied"}}`)
		wantDesired(t, h, ID{"d002", "a"}, `{"interval_ms":2000}`, `{}`)
		// The stronger one counts, and of two of one strength the younger one.
		configure(t, h, "", `{"id":"a-site","content":{"deviceContent":{"properties.desired.x":{"w":1},"properties.desired.rate":2}},"targetCondition":"tags.site IN ['s2','s1']","priority":3}`)
		wantDesired(t, h, ID{Device: "d002"}, `{"rate":2,"x":{"w":1}}`, `{"a-site":{"status":"Applied"},"all":{"status":"Targeted"}}`)
		configure(t, h, "", `{"id":"0-later","content":{"deviceContent":{"properties.desired.rate":3}},"targetCondition":"deviceId = 'd002'","priority":3}`)
		wantDesired(t, h, ID{Device: "d002"}, `{"rate":3,"x":{"w":1}}`, `{"0-later":{"status":"Applied"},"a-site":{"status":"Applied"},"all":{"status":"Targeted"}}`)
		wantDesired(t, h, ID{Device: "d001"}, `{"rate":2,"x":{"w":1}}`, `{"a-site":{"status":"Applied"},"all":{"status":"Targeted"}}`)
		wantMetrics(t, h, "all", `{"appliedCount":1,"targetedCount":3}`, `{}`)
		// What reported properties say counts, too. When the stronger one no longer holds, the next one comes back.
		configure(t, h, `*`, `{"id":"a-site","content":{"deviceContent":{}},"targetCondition":"properties.reported.go = true","priority":3}`)
		wantDesired(t, h, ID{Device: "d001"}, `{"rate":1,"x":{"y":7}}`, `{"all":{"status":"Applied"}}`)
		report(t, h, ID{Device: "d001"}, `{"go":true}`)
		settle()
		wantDesired(t, h, ID{Device: "d001"}, `{"rate":2,"x":{"w":1}}`, `{"a-site":{"status":"Applied"},"all":{"status":"Targeted"}}`)
		// null removes a property, and the empty condition chooses nobody.
		configure(t, h, "", `{"id":"off","content":{"deviceContent":{"properties.desired.rate":null,"properties.desired.none.at.all":null}},"targetCondition":"*","priority":9}`)
		wantDesired(t, h, ID{Device: "d000"}, `{"x":{"y":7}}`, `{"all":{"status":"Applied"},"off":{"status":"Applied"}}`)
		configure(t, h, "*", `{"id":"off","content":{"deviceContent":{}},"targetCondition":""}`)
		wantDesired(t, h, ID{Device: "d000"}, `{"rate":1,"x":{"y":7}}`, `{"all":{"status":"Applied"}}`)
		wantMetrics(t, h, "off", `{"appliedCount":0,"targetedCount":0}`, `{}`)
		// One that has no room is targeted and written nowhere.
		configure(t, h, "", `{"id":"big","content":{"deviceContent":{"properties.desired.big":`+bigObject(30_000)+`}},"targetCondition":"deviceId = 'd000'","priority":10}`)
		configure(t, h, "", `{"id":"big2","content":{"deviceContent":{"properties.desired.big2":`+bigObject(30_000)+`}},"targetCondition":"deviceId = 'd000'","priority":11}`)
		twin, _ := h.Twin(ID{Device: "d000"})
		if twin.Properties.Desired["big2"] != nil || twin.Configurations["big2"].Status != "Targeted" {
			t.Errorf("%v", twin.Configurations)
		}
	})
}

func bigObject(n int) string {
	o := map[string]string{}
	for i := range n / 3000 {
		o[fmt.Sprintf("k%d", i)] = strings.Repeat("x", 2990)
	}
	return string(encode(o))
}

func edgeDevice(t testing.TB, h *Hub, id string) {
	t.Helper()
	if _, err := h.PutDevice(Device{DeviceID: id, Capabilities: &Capabilities{IoTEdge: true}}, ""); err != nil {
		t.Fatal(err)
	}
}

func TestDeployments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 1)
		defer h.Close()
		edgeDevice(t, h, "gw")
		set(t, h, ID{Device: "gw"}, `{"tags":{"site":"s0"}}`)
		const base = `"content":{"modulesContent":{"$edgeAgent":{"properties.desired":{"schemaVersion":"1.1","modules":{"m":{"version":%d}}}},"$edgeHub":{"properties.desired":{"routes":{}}},"m":{"properties.desired":{"rate":%d}}}}`
		configure(t, h, "", fmt.Sprintf(`{"id":"base",`+base+`,"targetCondition":"tags.site = 's0'","priority":1}`, 1, 10))
		wantDesired(t, h, ID{"gw", "$edgeAgent"}, `{"modules":{"m":{"version":1}},"schemaVersion":"1.1"}`, `{"base":{"status":"Applied"}}`)
		wantDesired(t, h, ID{"gw", "m"}, `{"rate":10}`, `{"base":{"status":"Applied"}}`)
		m, err := h.Module(ID{"gw", "m"})
		if err != nil || text(m.ManagedBy) != "iotEdge" {
			t.Errorf("%v %v", text(m.ManagedBy), err)
		}
		if _, err := h.Module(ID{"d000", "m"}); err == nil {
			t.Error("a device that is no IoT Edge device was deployed to")
		}
		wantMetrics(t, h, "base", `{"appliedCount":1,"reportedFailedCount":0,"reportedSuccessfulCount":0,"targetedCount":1}`, `{}`)
		twin, _ := h.Twin(ID{"gw", "$edgeAgent"})
		report(t, h, ID{"gw", "$edgeAgent"}, fmt.Sprintf(`{"lastDesiredVersion":%d,"lastDesiredStatus":{"code":200}}`, twin.Properties.Desired["$version"]))
		wantMetrics(t, h, "base", `{"appliedCount":1,"reportedFailedCount":0,"reportedSuccessfulCount":1,"targetedCount":1}`, `{}`)

		// A layered one adds to the strongest whole one below it, and to nothing if there is none.
		configure(t, h, "", `{"id":"layer","content":{"modulesContent":{"$edgeAgent":{"properties.desired.modules.extra":{"version":9}},"$edgeHub":{"properties.desired.routes.r":"FROM * INTO $upstream"}}},"targetCondition":"*","priority":2}`)
		configure(t, h, "", `{"id":"below","content":{"modulesContent":{"$edgeAgent":{"properties.desired.modules.below":{"version":9}}}},"targetCondition":"*","priority":0}`)
		wantDesired(t, h, ID{"gw", "$edgeAgent"}, `{"modules":{"extra":{"version":9},"m":{"version":1}},"schemaVersion":"1.1"}`, `{"base":{"status":"Applied"},"layer":{"status":"Applied"}}`)
		wantDesired(t, h, ID{"gw", "$edgeHub"}, `{"routes":{"r":"FROM * INTO $upstream"}}`, `{"base":{"status":"Applied"},"layer":{"status":"Applied"}}`)

		// What is applied directly stays until a deployment is updated.
		must(t)(nil, h.ApplyContent("gw", json.RawMessage(`{"modulesContent":{"$edgeAgent":{"properties.desired":{"schemaVersion":"1.0"}},"n":{"properties.desired.a.b":1}}}`)))
		settle()
		set(t, h, ID{Device: "gw"}, `{"tags":{"x":1}}`)
		settle()
		wantDesired(t, h, ID{"gw", "$edgeAgent"}, `{"schemaVersion":"1.0"}`, `{"base":{"status":"Applied"},"layer":{"status":"Applied"}}`)
		wantDesired(t, h, ID{"gw", "n"}, `{"a":{"b":1}}`, `{}`)
		configure(t, h, "*", fmt.Sprintf(`{"id":"base",`+base+`,"targetCondition":"tags.site = 's0'","priority":3}`, 2, 20))
		wantDesired(t, h, ID{"gw", "$edgeAgent"}, `{"modules":{"m":{"version":1}},"schemaVersion":"1.1"}`, `{"base":{"status":"Applied"}}`) // stronger than layer now; its content can't change
		// A device that leaves keeps what it runs.
		set(t, h, ID{Device: "gw"}, `{"tags":{"site":"elsewhere"}}`)
		settle()
		wantDesired(t, h, ID{"gw", "$edgeAgent"}, `{"modules":{"m":{"version":1}},"schemaVersion":"1.1"}`, `{}`)

		for body, code := range map[string]int{
			`{"modulesContent":{"$edgeHub":{}}}`: 400402, `{"deviceContent":{}}`: 400402, `{}`: 400402, `null`: 400402,
		} {
			wantError(t, body, h.ApplyContent("gw", json.RawMessage(body)), code)
		}
		good := json.RawMessage(`{"modulesContent":{"$edgeAgent":{}}}`)
		wantError(t, "no edge device", h.ApplyContent("d000", good), 400004)
		wantError(t, "no device", h.ApplyContent("ghost", good), 404001)
	})
}

func TestConfigurationRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{MaxConfigurations: 2})
		defer h.Close()
		const rest = `"content":{"deviceContent":{"properties.desired.a":1}},"targetCondition":"tags.a = 1"`
		for _, c := range []struct {
			body string
			code int
			says string
		}{
			{`{"id":"A",` + rest + `}`, 400004, "configuration id"},
			{`{"id":"",` + rest + `}`, 400004, "configuration id"},
			{`{"id":"a.b",` + rest + `}`, 400004, "configuration id"},
			{`{"id":"a"}`, 400402, "content is missing"},
			{`{"id":"a","content":null}`, 400402, "content is missing"},
			{`{"id":"a","content":[]}`, 400402, "object"},
			{`{"id":"a","content":{}}`, 400402, "none of"},
			{`{"id":"a","content":{"deviceContent":{},"modulesContent":{"$edgeAgent":{}}}}`, 400402, "both"},
			{`{"id":"a","content":{"deviceContent":7}}`, 400402, "object"},
			{`{"id":"a","content":{"deviceContent":{"tags.x":1}}}`, 400402, "want properties.desired"},
			{`{"id":"a","content":{"deviceContent":{"properties.desiredx":1}}}`, 400402, "want properties.desired"},
			{`{"id":"a","content":{"deviceContent":{"properties.desired.":1}}}`, 400402, "empty"},
			{`{"id":"a","content":{"deviceContent":{"properties.desired.a..b":1}}}`, 400402, "empty"},
			{`{"id":"a","content":{"deviceContent":{"properties.desired":1}}}`, 400402, "object"},
			{`{"id":"a","content":{"deviceContent":{"properties.desired.a b":1}}}`, 400402, "space"},
			{`{"id":"a","content":{"deviceContent":{"properties.desired.a.b.c.d.e.f.g.h.i.j.k.l":1}}}`, 400402, "deep"},
			{`{"id":"a","content":{"deviceContent":{"properties.desired.a":[null]}}}`, 400402, "null"},
			{`{"id":"a","content":{"deviceContent":{"properties.desired.a":` + bigObject(40_000) + `}}}`, 400402, "bytes"},
			{`{"id":"a","content":{"modulesContent":{"$edgeHub":{}}}}`, 400402, "$edgeAgent"},
			{`{"id":"a","content":{"modulesContent":{"$edgeAgent":{},"m":1}}}`, 400402, "object"},
			{`{"id":"a","content":{"modulesContent":{"$edgeAgent":{},"m/n":{}}}}`, 400402, "id"},
			{`{"id":"a","content":{"deviceContent":{}},"targetCondition":"tags.a ="}`, 400401, "character"},
			{`{"id":"a","content":{"deviceContent":{}},"targetCondition":"status = 'enabled'"}`, 400401, "status"},
			{`{"id":"a","content":{"deviceContent":{}},"targetCondition":"properties.desired.a = 1"}`, 400401, "properties.desired.a"},
			{`{"id":"a","content":{"deviceContent":{}},"targetCondition":"FROM devices.modules WHERE tags.a = 1"}`, 400401, "on devices"},
			{`{"id":"a","content":{"moduleContent":{}},"targetCondition":"tags.a = 1"}`, 400401, "FROM devices.modules"},
			{`{"id":"a","content":{"moduleContent":{}},"targetCondition":"*"}`, 400401, "FROM devices.modules"},
			{`{"id":"a",` + rest + `,"metrics":{"queries":{"m":"SELECT"}}}`, 400404, "metric m"},
			{`{"id":"a",` + rest + `,"metrics":{"queries":{"m":"SELECT * FROM devices.jobs"}}}`, 400404, "metric m"},
			{`{"id":"a",` + rest + `,"metrics":{"queries":{"1":"","2":"","3":"","4":"","5":"","6":""}}}`, 400404, "5 are allowed"},
		} {
			_, err := h.PutConfiguration(configurationOf(t, c.body), "")
			wantError(t, c.body, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%.200s: %v, want %q", c.body, err, c.says)
			}
		}
		request := configurationOf(t, `{"id":"a",`+rest+`,"labels":{"l":"1"},"schemaVersion":"1.0"}`)
		c, err := h.PutConfiguration(request, "")
		must(t)(c, err)
		for match, code := range map[string]int{"": 409401, c.ETag: 409401, `"MA=="`: 412001, `"`: 409401} {
			_, err := h.PutConfiguration(request, match)
			wantError(t, "update with "+match, err, code)
		}
		for _, match := range []string{`"` + c.ETag + `"`, `*`, `"*"`} {
			_, err := h.PutConfiguration(request, match)
			wantError(t, "update with "+match, err, 0)
		}
		request.Content = nil
		_, err = h.PutConfiguration(request, "*")
		wantError(t, "update without content", err, 400402)
		_, err = h.PutConfiguration(configurationOf(t, `{"id":"b",`+rest+`}`), "*")
		wantError(t, "update what is not there", err, 404301)
		must(t)(h.PutConfiguration(configurationOf(t, `{"id":"b",`+rest+`}`), ""))
		_, err = h.PutConfiguration(configurationOf(t, `{"id":"c",`+rest+`}`), "")
		wantError(t, "one too many", err, 413101)
		wantError(t, "delete with an old etag", h.DeleteConfiguration("a", `"MA=="`), 412001)
		wantError(t, "delete", h.DeleteConfiguration("a", "*"), 0)
		wantError(t, "delete again", h.DeleteConfiguration("a", ""), 404301)
		_, err = h.Configuration("a")
		wantError(t, "show", err, 404301)
		if all := h.Configurations(); len(all) != 1 || all[0].ID != "b" {
			t.Errorf("%v", all)
		}
	})
}

func TestTestConfiguration(t *testing.T) {
	h := New(Options{})
	for target, says := range map[string]string{
		"tags.a = 1": "", "FROM devices.modules WHERE tags.a = 1 AND moduleId = 'm'": "", "*": "want a condition", "": "want a condition", "tags.": "character", "etag = 'x'": "etag",
	} {
		got := h.TestConfiguration(target, nil).TargetConditionError
		if (got == "") != (says == "") || !strings.Contains(got, says) {
			t.Errorf("%s: %q", target, got)
		}
	}
	got := h.TestConfiguration("tags.a = 1", map[string]string{"good": "SELECT * FROM devices", "bad": "SELECT FROM devices"})
	if len(got.CustomMetricQueryErrors) != 1 || got.CustomMetricQueryErrors["bad"] == "" {
		t.Errorf("%v", got)
	}
}

func TestConfigurationsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFleet(t, 2)
		configure(t, h, "", `{"id":"all","labels":{"a":"b"},"content":{"deviceContent":{"properties.desired.rate":1.0}},"targetCondition":"*","metrics":{"queries":{"n":"SELECT * FROM devices"}}}`)
		set(t, h, ID{Device: "d001"}, `{"properties":{"desired":{"rate":5}}}`)
		shown := encode(h.Configurations())
		h.Close()
		var saved []Record
		must(t)(nil, h.Records(func(r Record) error { saved = append(saved, r); return nil }))
		again, err := Open(Options{}, discard{}, saved)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		settle()
		if got := encode(again.Configurations()); string(got) != string(shown) {
			t.Errorf("%s, was %s", got, shown)
		}
		wantDesired(t, again, ID{Device: "d001"}, `{"rate":5,"x":{"y":1}}`, `{"all":{"status":"Applied"}}`) // it is not applied again
		must(t)(again.PutDevice(Device{DeviceID: "new"}, ""))
		settle()
		wantDesired(t, again, ID{Device: "new"}, `{"rate":1.0}`, `{"all":{"status":"Applied"}}`)
	})
}

// FuzzConfiguration puts anything: what is taken is applied, and every twin stays within its limits.
func FuzzConfiguration(f *testing.F) {
	for _, seed := range []string{
		`{"id":"a","content":{"deviceContent":{"properties.desired.x":{"y":null},"properties.desired.x.y":1.0,"properties.desired":{"z":[1]}}},"targetCondition":"*","metrics":{"queries":{"m":"SELECT * FROM devices"}}}`,
		`{"id":"b","content":{"moduleContent":{"properties.desired.interval_ms":null}},"targetCondition":"FROM devices.modules","priority":-1,"labels":{"a":"b"}}`,
		`{"id":"c","content":{"modulesContent":{"$edgeAgent":{"properties.desired":{}},"m":{"properties.desired.a":1}}},"targetCondition":"tags.site != 'x'"}`,
		`{"id":"d","content":{"modulesContent":{"$edgeAgent":{"properties.desired.modules.m":{}}}},"targetCondition":"deviceId = 'gw'"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var r ConfigurationRequest
		if json.Unmarshal([]byte(body), &r) != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			h := newFleet(t, 1)
			defer h.Close()
			edgeDevice(t, h, "gw")
			if _, err := h.PutConfiguration(r, ""); err != nil {
				return
			}
			settle()
			h.ApplyContent("gw", r.Content)
			r.TargetCondition = ""
			h.PutConfiguration(r, "*")
			settle()
			if _, err := json.Marshal(h.Configurations()); err != nil {
				t.Error(err)
			}
			for _, text := range []string{"SELECT * FROM devices", "SELECT * FROM devices.modules"} {
				ask(t, h, text, 0)
			}
			h.rows(true, ID{}, func(r *row) bool {
				if err := checkSize("desired", r.n.twin.desired.tree, maxSection); err != nil {
					t.Error(err)
				}
				if err := checkTree("desired", r.n.twin.desired.tree, false); err != nil {
					t.Error(err)
				}
				return true
			})
		})
	})
}
