package restd

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestConfigurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		defer d.hub.Close()
		d.do("PUT /devices/d", `{}`)
		d.do("PUT /devices/gw", `{"capabilities":{"iotEdge":true}}`)
		const body = `{"Id":"c1","content":{"deviceContent":{"properties.desired.rate":1.0}},"targetCondition":"*","priority":2,"labels":{"a":"b"},"etag":"x","systemMetrics":{"results":{},"queries":{}}}`
		r := d.do("PUT /configurations/c1", body)
		etag := r.Header.Get("ETag")
		got := read(r)
		if r.StatusCode != 200 || len(etag) < 3 || etag[0] != '"' || !strings.HasSuffix(got, `"etag":`+etag+`}`) || !strings.Contains(got, `"content":{"deviceContent":{"properties.desired.rate":1.0}}`) {
			t.Errorf("create: %d %s %s", r.StatusCode, etag, got)
		}
		d.refused("again", d.do("PUT /configurations/c1", body), 409, "ConfigurationAlreadyExists", "c1")
		d.refused("without quotes", d.do("PUT /configurations/c1", body, "If-Match", strings.Trim(etag, `"`)), 409, "ConfigurationAlreadyExists", "c1")
		d.refused("stale", d.do("PUT /configurations/c1", body, "If-Match", `"MA=="`), 412, "PreconditionFailed", "")
		if r := d.do("PUT /configurations/c1", body, "If-Match", etag); r.StatusCode != 200 || r.Header.Get("ETag") == etag {
			t.Errorf("update: %d", r.StatusCode)
		}
		d.refused("update what is not there", d.do("PUT /configurations/c2", `{"content":{"deviceContent":{}}}`, "If-Match", "*"), 404, "ConfigurationNotFound", "c2")
		d.refused("no content", d.do("PUT /configurations/c2", `{"id":"c2"}`), 400, "InvalidConfigurationContent", "content")
		d.refused("condition", d.do("PUT /configurations/c2", `{"content":{"deviceContent":{}},"targetCondition":"status = 'x'"}`), 400, "InvalidConfigurationTargetCondition", "status")
		d.refused("metric", d.do("PUT /configurations/c2", `{"content":{"deviceContent":{}},"metrics":{"queries":{"m":"x"}}}`), 400, "InvalidConfigurationCustomMetricsQuery", "m")
		d.refused("other id", d.do("PUT /configurations/c2", `{"id":"c3"}`), 400, "ArgumentInvalid", "id")
		d.refused("upper case", d.do("PUT /configurations/C2", `{"content":{"deviceContent":{}}}`), 400, "ArgumentInvalid", "configuration id")
		time.Sleep(time.Second)
		synctest.Wait()
		if got := read(d.do("GET /twins/d", "")); !strings.Contains(got, `"configurations":{"c1":{"status":"Applied"}}`) || !strings.Contains(got, `"rate":1.0`) {
			t.Error(got)
		}
		if got := read(d.do("GET /configurations/c1", "")); !strings.Contains(got, `"results":{"appliedCount":2,"targetedCount":2}`) {
			t.Error(got)
		}
		if got := read(d.do("GET /configurations?api-version=2021-04-12&top=0", "")); !strings.HasPrefix(got, `[{"id":"c1"`) {
			t.Error(got)
		}
		d.want("query", d.do("POST /devices/query", `{"query":"select deviceid from devices where configurations.[[c1]].status='Applied'"}`), 200, `[{"deviceId":"d"},{"deviceId":"gw"}]`)
		d.want("test", d.do("POST /configurations/testQueries", `{"targetCondition":"tags.a = 1","customMetricQueries":{"m":"SELECT * FROM devices"}}`), 200,
			`{"targetConditionError":"","customMetricQueryErrors":{}}`)
		d.want("test what is wrong", d.do("POST /configurations/testQueries", `{"targetCondition":"*","customMetricQueries":{"m":"SELECT"}}`), 200,
			`{"targetConditionError":"targetCondition: at character 1: want a condition","customMetricQueryErrors":{"m":"at character 7: want the name of a property, have the end of the query"}}`)
		const content = `{"modulesContent":{"$edgeAgent":{"properties.desired":{"schemaVersion":"1.1"}}}}`
		d.want("apply", d.do("POST /devices/gw/applyConfigurationContent", content), 204, "")
		if got := read(d.do("GET /twins/gw/modules/%24edgeAgent", "")); !strings.Contains(got, `"schemaVersion":"1.1"`) {
			t.Error(got)
		}
		d.refused("apply to no edge device", d.do("POST /devices/d/applyConfigurationContent", content), 400, "ArgumentInvalid", "not an Azure IoT Edge device")
		d.refused("apply nothing", d.do("POST /devices/gw/applyConfigurationContent", `{}`), 400, "InvalidConfigurationContent", "")
		d.refused("apply to nobody", d.do("POST /devices/x/applyConfigurationContent", content), 404, "DeviceNotFound", "x")
		for policy, code := range map[string]int{"service": 200, "registryRead": 200, "iothubowner": 200} {
			if r := d.do("GET /configurations/c1", "", "Authorization", sas("hub1.azure-devices.net", policy)); r.StatusCode != code {
				t.Errorf("%s: %d", policy, r.StatusCode)
			}
		}
		d.refused("registryRead writes", d.do("PUT /configurations/c2", body, "Authorization", sas("hub1.azure-devices.net", "registryRead")), 401, "IotHubUnauthorizedAccess", "")
		d.refused("one module's token", d.do("GET /configurations", "", "Authorization", sas("hub1.azure-devices.net/twins/d/modules/m", "service")), 401, "IotHubUnauthorizedAccess", "")
		d.want("delete", d.do("DELETE /configurations/c1", ""), 204, "")
		d.refused("delete again", d.do("DELETE /configurations/c1", "", "If-Match", "*"), 404, "ConfigurationNotFound", "c1")
		d.want("none", d.do("GET /configurations", ""), 200, `[]`)
	})
}

// FuzzConfigurationBody sends any body to the operations on configurations.
func FuzzConfigurationBody(f *testing.F) {
	for _, seed := range []string{
		`{"content":{"deviceContent":{"properties.desired.a":1}},"targetCondition":"*"}`, `{"targetCondition":"*","customMetricQueries":{"a":"b"}}`,
		`{"modulesContent":{"$edgeAgent":{}}}`, `{}`, `[]`, "\xff",
	} {
		f.Add(seed, `"MQ=="`)
	}
	f.Fuzz(func(t *testing.T, body, ifMatch string) {
		synctest.Test(t, func(t *testing.T) {
			d := newDoor(t)
			defer d.hub.Close()
			d.do("PUT /devices/gw", `{"capabilities":{"iotEdge":true}}`)
			check(t, d.srv, "PUT /configurations/c", body)
			check(t, d.srv, "PUT /configurations/c", body, "If-Match", ifMatch)
			check(t, d.srv, "POST /configurations/testQueries", body)
			check(t, d.srv, "POST /devices/gw/applyConfigurationContent", body)
			check(t, d.srv, "GET /configurations", "")
			check(t, d.srv, "DELETE /configurations/c", "", "If-Match", ifMatch)
		})
	})
}
