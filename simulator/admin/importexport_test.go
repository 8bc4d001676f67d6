package admin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/twinbay/twinbay/simulator/admin"
)

const someHub = "HostName=example.com;SharedAccessKeyName=iothubowner;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// What the client asks for is held to what a hub takes, and a job is asked for until it has ended.
func TestAJobIsWaitedFor(t *testing.T) {
	var asked []string
	left := []string{"running", "failed"}
	c := client(t, httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.Path+" "+string(body))
		status, reason := "enqueued", "null"
		if r.Method == http.MethodGet {
			status, left = left[0], left[1:]
			reason = `"no blob"`
		}
		fmt.Fprintf(w, `{"jobId":"j/1","type":"import","status":"%s","progress":0,"failureReason":%s}`, status, reason)
	})), someHub)
	ctx := t.Context()
	j, err := c.Import(ctx, admin.Import{Container: "in", Blob: "b", Output: "out"})
	if err != nil || j.Ended() {
		t.Fatal(j, err)
	}
	j, err = c.Wait(ctx, j)
	if err != nil || j.Status != "failed" || j.FailureReason != "no blob" || len(left) != 0 {
		t.Errorf("waited for %+v, %v", j, err)
	}
	if _, err := c.Export(ctx, admin.Export{Container: "out", ExcludeKeys: true}); err != nil {
		t.Error(err)
	}
	want := []string{
		`POST /jobs/create {"type":"import","inputBlobContainerUri":"in","inputBlobName":"b","outputBlobContainerUri":"out","storageAuthenticationType":"keyBased"}`,
		"GET /jobs/j/1 ",
		"GET /jobs/j/1 ",
		`POST /jobs/create {"type":"export","outputBlobContainerUri":"out","excludeKeysInExport":true,"storageAuthenticationType":"keyBased"}`,
	}
	for i := range max(len(want), len(asked)) {
		if i >= len(want) || i >= len(asked) || asked[i] != want[i] {
			t.Fatalf("asked for\n%q\nwant\n%q", asked, want)
		}
	}
}

func TestAJobOfAHub(t *testing.T) {
	_, c := serve(t)
	_, err := c.Export(t.Context(), admin.Export{Container: "https://store.invalid/box"})
	refused(t, "export without a signature", err, 400, "BlobContainerValidationError")
	_, err = c.Job(t.Context(), "none")
	refused(t, "an unknown job", err, 404, "JobNotFound")
}
