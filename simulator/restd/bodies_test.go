package restd

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twinbay/twinbay/simulator/hub"
)

// FuzzEveryBody sends any body to each operation that may read one, by whoever may call it: it answers, and with one of the hub's
// errors if not with success.
func FuzzEveryBody(f *testing.F) {
	for _, seed := range []string{
		`{"methodName":"m","payload":{"a":[1]},"responseTimeoutInSeconds":5,"connectTimeoutInSeconds":5}`, `{"methodName":"","payload":1}`,
		`{"type":"export","outputBlobContainerUri":"https://store/box?sig=x","excludeKeysInExport":true}`,
		`{"type":"import","inputBlobContainerUri":"https://store/box?sig=x","outputBlobContainerUri":"https://store/box?sig=x","includeConfigurations":true}`,
		`{"blobName":"a/b.txt"}`, `{"correlationId":"x","isSuccess":true,"statusCode":200,"statusDescription":"OK"}`,
		`{"policyKey":"both","devices":[{"id":"d"},{"id":"d","moduleId":"m"}]}`, `{"query":"SELECT * FROM devices"}`,
		`{"on":"c2d","do":"refuse","for":"1s"}`, `{"on":"connect","do":"refuse","connack":3}`, `{"modulesContent":{"$edgeAgent":{}}}`,
		`[{"body":"MQ=="}]`, `{"deviceId":"d","attributes":{"a":1}}`, `{}`, `[]`, `null`, `"`, "", "\xff",
	} {
		for _, kind := range []string{"application/json", batchType, ""} {
			f.Add(seed, kind, "*", "2000-01-01T00:00:10Z")
		}
	}
	names := strings.NewReplacer("{device}", "d", "{module}", "m", "{lock}", "l", "{correlation}", "c", "{job}", "j", "{configuration}", "c", "{fault}", "1", "{below}", "b", "{id}", "i")
	f.Fuzz(func(t *testing.T, body, kind, ifMatch, expiry string) {
		synctest.Test(t, func(t *testing.T) {
			d := newDoor(t)
			d.hub = hub.New(hub.Options{HostName: d.hub.HostName(), Storage: nowhere{}, Files: shelf{},
				Policies: []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}})
			d.srv = New(d.hub, nil)
			defer d.hub.Close()
			d.identities()
			for _, rt := range routes {
				path := names.Replace(rt.path)
				if rt.method == "GET" || strings.Contains(path, "{") {
					if strings.Contains(path, "{") {
						t.Fatalf("%s: a name that this test does not fill", rt.path)
					}
					continue
				}
				headers := []string{"Content-Type", kind, "If-Match", ifMatch, "iothub-expiry", expiry, "iothub-ack", kind, "iothub-app-x", body}
				if rt.want == 0 {
					who := "devices/d"
					if strings.Contains(path, "/modules/m") {
						who += "/modules/m"
					}
					headers = append(headers, as(who)...)
				}
				check(t, d.srv, rt.method+" /"+path, body, headers...)
			}
		})
	})
}
