package restd

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

func TestQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		for i := range 5 {
			id := "d" + strconv.Itoa(i)
			d.do("PUT /devices/"+id, `{}`)
			d.do("PUT /devices/"+id+"/modules/m", `{}`)
			d.do("PATCH /twins/"+id+"/modules/m", `{"tags":{"n":`+strconv.Itoa(i)+`}}`)
		}
		const all = `{"query":"SELECT deviceId AS DeviceId, statusUpdatedTime as StatusUpdatedTime FROM devices"}`
		r := d.do("POST /devices/query", all)
		if _, there := r.Header["X-Ms-Continuation"]; there || r.Header.Get("x-ms-item-type") != "Raw" {
			t.Errorf("headers of the only page: %v", r.Header)
		}
		d.want("all", r, 200, `[{"DeviceId":"d0"},{"DeviceId":"d1"},{"DeviceId":"d2"},{"DeviceId":"d3"},{"DeviceId":"d4"}]`)
		d.want("Query", d.do("POST /devices/query/", `{"Query":"select count() as n from devices.modules where tags.n > 1"}`), 200, `[{"n":3}]`)
		d.want("nothing", d.do("POST /devices/query", `{"query":"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'x'"}`), 200, `[]`)

		next, got := "", ""
		for pages := 1; ; pages++ {
			headers := []string{"x-ms-max-item-count", "2"}
			if next != "" {
				headers = append(headers, "x-ms-continuation", next)
			}
			r := d.do("POST /devices/query", `{"query":"SELECT * FROM devices.modules"}`, headers...)
			if kind := r.Header.Get("x-ms-item-type"); kind != "Twin" {
				t.Errorf("page %d is of %q", pages, kind)
			}
			next = r.Header.Get("x-ms-continuation")
			got += read(r)
			if next == "" && pages != 3 || pages > 3 {
				t.Fatalf("%d pages", pages)
			}
			if next == "" {
				break
			}
		}
		if n := strings.Count(got, `"moduleId":"m"`); n != 5 {
			t.Errorf("%d rows: %s", n, got)
		}

		d.refused("syntax", d.do("POST /devices/query", `{"query":"SELECT * FROM devices WHERE"}`), 400, "ArgumentInvalid", "BadRequest: at character 28")
		d.refused("no query", d.do("POST /devices/query", `{}`), 400, "ArgumentNull", "query")
		d.refused("null", d.do("POST /devices/query", `null`), 400, "ArgumentNull", "query")
		d.refused("no text", d.do("POST /devices/query", `{"query":7}`), 400, "IotHubFormatError", "")
		d.refused("size", d.do("POST /devices/query", all, "x-ms-max-item-count", "many"), 400, "ArgumentInvalid", "x-ms-max-item-count")
		d.refused("size 0", d.do("POST /devices/query", all, "x-ms-max-item-count", "0"), 400, "ArgumentInvalid", "x-ms-max-item-count")
		d.refused("continuation", d.do("POST /devices/query", all, "x-ms-continuation", "x"), 400, "ArgumentInvalid", "x-ms-continuation")
		d.refused("registry", d.do("POST /devices/query", all, "Authorization", sas("hub1.azure-devices.net", "registryRead")), 401, "IotHubUnauthorizedAccess", "")
		// A department's token covers its own module's twin, and nothing that would show others'.
		d.refused("one module", d.do("POST /devices/query", all, "Authorization", sas("hub1.azure-devices.net/twins/d0/modules/m", "service")), 401, "IotHubUnauthorizedAccess", "")
		d.refused("one device", d.do("POST /devices/query", all, "Authorization", sas("hub1.azure-devices.net/devices/d0", "service")), 401, "IotHubUnauthorizedAccess", "")
	})
}

// FuzzQueryBody sends any body and headers to the query operation.
func FuzzQueryBody(f *testing.F) {
	for _, seed := range []string{`{"query":"SELECT * FROM devices"}`, `{"QUERY":"select moduleId from devices.modules where tags.a in ['x']"}`, `{}`, `[`, "\xff"} {
		f.Add(seed, "1", "e30=")
	}
	s := fuzzDoor(f)
	f.Fuzz(func(t *testing.T, body, size, continuation string) {
		check(t, s, "POST /devices/query", body, "x-ms-max-item-count", size, "x-ms-continuation", continuation)
	})
}
