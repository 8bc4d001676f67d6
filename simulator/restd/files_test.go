package restd

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// shelf is a container that has every blob but "missing".
type shelf struct{}

func (shelf) Grant(blob string, _ time.Time) (hub.UploadPlace, error) {
	return hub.UploadPlace{HostName: "acc.blob.core.windows.net", ContainerName: "box", SASToken: "?sv=1&sig=a%2Fb"}, nil
}

func (shelf) Describe(_ context.Context, blob string) (hub.UploadedBlob, error) {
	if strings.HasSuffix(blob, "missing") {
		return hub.UploadedBlob{}, errors.New("not there")
	}
	return hub.UploadedBlob{URI: "https://acc.blob.core.windows.net/box/" + blob, Size: 5}, nil
}

func TestFileUploadByHTTPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.identities()
		d.refused("no storage", d.do("POST /devices/d/files", `{"blobName":"x.txt"}`, as("devices/d")...), 400, "DefaultStorageEndpointNotConfigured", "--storage")

		d.hub = hub.New(hub.Options{HostName: "hub1.azure-devices.net", Files: shelf{},
			Policies: []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}})
		d.srv = New(d.hub, nil)
		d.identities()
		begin := func(name string) string {
			r := d.status("begin", d.do("POST /devices/d/files/?api-version=2016-11-14", `{"blobName":"`+name+`"}`, as("devices/d")...), 200)
			var u struct{ CorrelationID string }
			body := read(r)
			if err := json.Unmarshal([]byte(body), &u); err != nil {
				t.Fatal(body)
			}
			want := `{"correlationId":"` + u.CorrelationID + `","hostName":"acc.blob.core.windows.net","containerName":"box","blobName":"d/` + name + `","sasToken":"?sv=1&sig=a%2Fb"}`
			if body != want {
				t.Errorf("%s, want %s", body, want)
			}
			return u.CorrelationID
		}
		const end = "POST /devices/d/files/notifications"
		done := func(id string) string {
			return `{"correlationId":"` + id + `","isSuccess":true,"statusCode":200,"statusDescription":"OK"}`
		}
		id := begin("x.txt")
		d.want("Python, Java, C#", d.do(end, done(id), as("devices/d")...), 204, "")
		d.refused("again", d.do(end+"/", done(id), as("devices/d")...), 400, "InvalidFileUploadCorrelationId", id)
		d.want("Node", d.do(end+"/"+begin("y.txt"), `{"isSuccess":true,"statusCode":200,"statusDescription":"OK"}`, as("devices/d")...), 204, "")
		id = begin("missing")
		d.refused("not there", d.do(end, done(id), as("devices/d")...), 400, "InvalidStorageEndpointOrBlob", "not there")
		d.want("failed", d.do(end, `{"correlationId":"`+id+`","isSuccess":false,"statusCode":500}`, as("devices/d")...), 204, "")
		d.refused("a module", d.do("POST /devices/d/modules/m/files", `{"blobName":"x"}`, as("devices/d/modules/m")...), 400, "InvalidOperation", "")
		d.refused("no name", d.do("POST /devices/d/files", `{}`, as("devices/d")...), 400, "ArgumentInvalid", "blobName")
		d.refused("a stranger", d.do("POST /devices/d/files", `{}`, "Authorization", ""), 401, "IotHubUnauthorizedAccess", "")

		const notes = "/messages/servicebound/filenotifications"
		for _, name := range []string{"d/x.txt", "d/y.txt"} {
			r := d.status("notification", d.do("GET "+notes, ""), 200)
			lock := strings.Trim(r.Header.Get("ETag"), `"`)
			if body := read(r); !strings.Contains(body, `"blobName":"`+name+`"`) || r.Header.Get("Content-Type") != "application/vnd.microsoft.iothub.filenotification.json" {
				t.Errorf("%s, want %s", body, name)
			}
			d.status("abandon", d.do("POST "+notes+"/"+lock+"/abandon", ""), 204)
			r = d.status("again", d.do("GET "+notes, ""), 200)
			d.status("complete", d.do("DELETE "+notes+"/"+strings.Trim(r.Header.Get("ETag"), `"`), ""), 204)
		}
		d.status("no more", d.do("GET "+notes, ""), 204)
	})
}
