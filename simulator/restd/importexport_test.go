package restd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/twinbay/twinbay/simulator/hub"
)

// nowhere is a container in which everything can be written and nothing is. Package blobs tests with a storage service.
type nowhere struct{}

func (nowhere) Container(uri string) (hub.Container, error) {
	if uri != "https://store/box?sig=x" {
		return nil, errors.New("no container URI")
	}
	return nowhere{}, nil
}

func (nowhere) CheckRead(context.Context, string) error   { return nil }
func (nowhere) CheckWrite(context.Context) error          { return nil }
func (nowhere) Create(context.Context, string) hub.Upload { return nowhere{} }
func (nowhere) Remove(context.Context, string) error      { return nil }
func (nowhere) Write(p []byte) (int, error)               { return len(p), nil }
func (nowhere) Commit() error                             { return nil }
func (nowhere) Abort()                                    {}
func (nowhere) Open(context.Context, string) (io.Reader, int64, error) {
	return nil, 0, errors.New("no blob")
}

func TestImportExportJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t)
		d.refused("a hub without storage", d.do("POST /jobs/create", `{"type":"export","outputBlobContainerUri":"https://store/box?sig=x"}`),
			400, "BlobContainerValidationError", "without access")
		d.hub = hub.New(hub.Options{HostName: "hub1.azure-devices.net", Storage: nowhere{},
			Policies: []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}})
		d.srv = New(d.hub, nil)
		defer d.hub.Close()

		d.want("no jobs", d.do("GET /jobs", ""), 200, `[]`)
		d.refused("bad container", d.do("POST /jobs/create", `{"type":"export","outputBlobContainerUri":"x"}`), 400, "BlobContainerValidationError", "outputBlobContainerUri")
		d.refused("identity", d.do("POST /jobs/create", `{"type":"export","outputBlobContainerUri":"x","storageAuthenticationType":"IdentityBased"}`),
			400, "ManagedIdentityNotEnabled", "keyBased")

		var j hub.JobProperties
		made := read(d.do("POST /jobs/create", `{"Type":"Export","outputBlobContainerUri":"https://store/box?sig=x","excludeKeysInExport":true}`))
		if err := json.Unmarshal([]byte(made), &j); err != nil || !guid.MatchString(j.JobID) {
			t.Fatalf("create: %s: %v", made, err)
		}
		if want := `{"jobId":"` + j.JobID + `","type":"export","status":"enqueued","progress":0,"startTimeUtc":null,"endTimeUtc":null,` +
			`"failureReason":null,"outputBlobName":"devices.txt","excludeKeysInExport":true}`; made != want {
			t.Errorf("create:\n%s\nwant\n%s", made, want)
		}
		synctest.Wait()
		ended := `{"jobId":"` + j.JobID + `","type":"export","status":"completed","progress":100,"startTimeUtc":"2000-01-01T00:00:00.0000000Z",` +
			`"endTimeUtc":"2000-01-01T00:00:00.0000000Z","failureReason":null,"outputBlobName":"devices.txt","excludeKeysInExport":true}`
		d.want("show", d.do("GET /jobs/"+j.JobID, ""), 200, ended)
		d.want("list", d.do("GET /jobs", ""), 200, `[`+ended+`]`)
		d.want("cancel what has ended", d.do("DELETE /jobs/"+j.JobID, "", "If-Match", j.JobID), 204, ``)
		d.refused("unknown", d.do("GET /jobs/none", ""), 404, "JobNotFound", "none")
		d.refused("cancel unknown", d.do("DELETE /jobs/none", ""), 404, "JobNotFound", "none")
		d.refused("a reader creates", d.do("POST /jobs/create", "{}", "Authorization", sas("hub1.azure-devices.net", "registryRead")), 401, "IotHubUnauthorizedAccess", "Unauthorized")
	})
}
