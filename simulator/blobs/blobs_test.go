package blobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/blobs"
	"github.com/twinbay/twinbay/simulator/blobs/azuritetest"
	"github.com/twinbay/twinbay/simulator/hub"
)

// tomorrow is when a SAS of these tests ends that has not ended.
var tomorrow = time.Now().Add(12 * time.Hour)

func newHub(t *testing.T, devices ...string) *hub.Hub {
	t.Helper()
	h := hub.New(hub.Options{Storage: blobs.Storage{}})
	t.Cleanup(h.Close)
	for _, d := range devices {
		if _, err := h.PutDevice(hub.Device{DeviceID: d}, ""); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// do runs a job to its end.
func do(t *testing.T, h *hub.Hub, in hub.JobProperties) hub.JobProperties {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := h.Watch(ctx)
	j, err := h.CreateImportExport(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e.Kind == "job" && strings.HasPrefix(e.Detail, j.JobID) {
			if j, err = h.ImportExport(j.JobID); err != nil {
				t.Fatal(err)
			}
			if j.Status != "enqueued" && j.Status != "running" {
				return j
			}
		}
	}
	t.Fatalf("job %s does not end", j.JobID)
	return j
}

// What one hub exports, another imports: the second hub's export has the same lines.
func TestExportAndImport(t *testing.T) {
	store := azuritetest.Start(t)
	store.NewContainer("fleet")
	uri := store.SAS("fleet", "racwdl", tomorrow)

	old := newHub(t, "pi-01", "pi-02")
	if _, err := old.PutModule(hub.Module{DeviceID: "pi-01", ModuleID: "climate"}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := old.PatchTwin(hub.ID{Device: "pi-01", Module: "climate"},
		json.RawMessage(`{"tags":{"site":"lobby"},"properties":{"desired":{"interval_ms":2000.50,"o":{"a":[1,"<&>"]}}}}`), ""); err != nil {
		t.Fatal(err)
	}
	j := do(t, old, hub.JobProperties{Type: "export", OutputBlobContainerURI: uri})
	if j.Status != "completed" || j.Progress != 100 || j.FailureReason != nil {
		t.Fatalf("export: %+v", j)
	}
	first, _ := store.Get("fleet", "devices.txt")
	lines := strings.Split(strings.TrimSuffix(first, "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("devices.txt has %d lines:\n%s", len(lines), first)
	}
	var module hub.ExportImportDevice
	if err := json.Unmarshal([]byte(lines[1]), &module); err != nil {
		t.Fatal(err)
	}
	if module.Identity() != (hub.ID{Device: "pi-01", Module: "climate"}) || *module.Authentication.SymmetricKey.PrimaryKey == "" ||
		!strings.Contains(string(module.Properties.Desired), `"$lastUpdated"`) || !strings.Contains(lines[1], `"interval_ms":2000.50`) {
		t.Errorf("line of the module: %s", lines[1])
	}

	again := newHub(t)
	j = do(t, again, hub.JobProperties{Type: "import", InputBlobContainerURI: uri, OutputBlobContainerURI: uri})
	if log, there := store.Get("fleet", "importErrors.log"); j.Status != "completed" || there {
		t.Fatalf("import: %+v\n%s", j, log)
	}
	for _, id := range []hub.ID{{Device: "pi-01"}, {Device: "pi-01", Module: "climate"}, {Device: "pi-02"}} {
		was, err := old.ConnectionString(id)
		if err != nil {
			t.Fatal(err)
		}
		if is, err := again.ConnectionString(id); is != was {
			t.Errorf("%s has another key: %v", id, err)
		}
	}
	do(t, again, hub.JobProperties{Type: "export", OutputBlobContainerURI: uri, OutputBlobName: "copy.txt"})
	copied, _ := store.Get("fleet", "copy.txt")
	if a, b := withoutVersions(t, first), withoutVersions(t, copied); a != b {
		t.Errorf("export of the import:\n%s\nwant\n%s", b, a)
	}

	// Without keys a line of plain text comes first.
	do(t, again, hub.JobProperties{Type: "export", OutputBlobContainerURI: uri, ExcludeKeysInExport: true})
	bare, _ := store.Get("fleet", "devices.txt")
	head, rest, _ := strings.Cut(bare, "\n")
	if strings.HasPrefix(head, "{") || strings.Count(rest, "\n") != 3 || strings.Count(rest, `"primaryKey":null`) != 3 {
		t.Errorf("export without keys:\n%s", bare)
	}
	if names := store.Blobs("fleet"); !slices.Equal(names, []string{"copy.txt", "devices.txt"}) {
		t.Errorf("the container has %q", names)
	}
}

// withoutVersions leaves out what an import may give anew.
func withoutVersions(t *testing.T, export string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(export) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		delete(m, "eTag")
		delete(m, "twinETag")
		for _, section := range m["properties"].(map[string]any) {
			delete(section.(map[string]any), "$version")
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(string(text) + "\n")
	}
	return out.String()
}

func TestLinesThatFailAreInTheLog(t *testing.T) {
	store := azuritetest.Start(t)
	store.NewContainer("input")
	store.NewContainer("output")
	store.Put("input", "modes.txt", []byte(`{"id":"there","importMode":"create","status":"enabled"}
{"id":"new","importMode":"update","status":"enabled"}
{"id":"new","importMode":"CREATE","status":"disabled","statusReason":"spare"}
{"id":"there","importMode":"updateTwin","status":"enabled","tags":{"a":1}}
{"id":"there","importMode":"deleteIfMatchETag","eTag":"MA==","status":"enabled"}
{"id":"gone","importMode":"delete","status":"enabled"}
`))
	h := newHub(t, "there", "gone")
	j := do(t, h, hub.JobProperties{
		Type:                   "import",
		InputBlobContainerURI:  store.SAS("input", "r", tomorrow),
		InputBlobName:          "modes.txt",
		OutputBlobContainerURI: store.SAS("output", "rwd", tomorrow),
	})
	if j.Status != "completed" || j.FailureReason != nil {
		t.Fatalf("import: %+v", j)
	}
	log, _ := store.Get("output", "importErrors.log")
	var got []string
	for line := range strings.Lines(log) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil || len(e) != 3 {
			t.Errorf("line %q: %v", line, err)
		}
		got = append(got, fmt.Sprint(e["deviceId"], " ", int(e["errorCode"].(float64))))
	}
	if want := []string{"there 409001", "new 404001", "there 412001"}; !slices.Equal(got, want) {
		t.Errorf("importErrors.log tells of %q, want %q", got, want)
	}
	twin, err := h.Twin(hub.ID{Device: "there"})
	if err != nil || fmt.Sprint(twin.Tags) != "map[a:1]" {
		t.Errorf("tags %v, %v", twin.Tags, err)
	}
	if _, err := h.Device("gone"); err == nil {
		t.Error("gone is there")
	}
}

// A container that can't be used is told of at the creation of the job, and the answer does not hold its signature.
func TestContainersAreCheckedAtOnce(t *testing.T) {
	store := azuritetest.Start(t)
	store.NewContainer("box")
	store.Put("box", "devices.txt", []byte(`{"id":"d","status":"enabled"}`))
	good := store.SAS("box", "racwd", tomorrow)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	h := newHub(t, "d")
	for _, tt := range []struct {
		name          string
		input, output string
		want          string
	}{
		{"no delete", "", store.SAS("box", "rw", tomorrow), "Unauthorized to delete from output blob container"},
		{"no write", "", store.SAS("box", "rd", tomorrow), "Unauthorized to write to output blob container"},
		{"no read", store.SAS("box", "wd", tomorrow), good, "Unauthorized to read from input blob container"},
		{"expired", "", store.SAS("box", "racwd", time.Now().Add(-time.Hour)), "403"},
		{"a wrong signature", "", strings.Replace(good, "sig=", "sig=AAAA", 1), "403"},
		{"no such container", "", store.SAS("none", "racwd", tomorrow), "ContainerNotFound"},
		{"no such input", store.SAS("none", "r", tomorrow), good, "404"},
		{"nobody there", "", "http://" + nobody + "/account/box?sv=2024-01-01&sp=rwd&sig=AAAA", "refused"},
		{"no signature", "", "https://example.invalid/box", "signature"},
		{"no URI", "", "box", "URI"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := hub.JobProperties{Type: "export", OutputBlobContainerURI: tt.output}
			if tt.input != "" {
				in.Type, in.InputBlobContainerURI = "import", tt.input
			}
			_, err := h.CreateImportExport(t.Context(), in)
			e, ok := errors.AsType[*hub.Error](err)
			if !ok || e.Name != "BlobContainerValidationError" || e.Status() != 400 || !strings.Contains(e.Text, tt.want) {
				t.Errorf("error %v, want BlobContainerValidationError with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "sig=") {
				t.Errorf("the error holds the signature: %v", err)
			}
		})
	}
	if names := store.Blobs("box"); !slices.Equal(names, []string{"devices.txt"}) {
		t.Errorf("the checks left %q", names)
	}
	if j := do(t, h, hub.JobProperties{Type: "import", InputBlobName: "none.txt", InputBlobContainerURI: good, OutputBlobContainerURI: good}); j.Status != "failed" ||
		j.FailureReason == nil || !strings.Contains(*j.FailureReason, "BlobNotFound") && !strings.Contains(*j.FailureReason, "404") {
		t.Errorf("import of a blob that is not there: %+v", j)
	}
}

// A fleet passes through in pieces: more than one of the reader's and of the writer's.
func TestManyLines(t *testing.T) {
	store := azuritetest.Start(t)
	store.NewContainer("fleet")
	uri := store.SAS("fleet", "racwd", tomorrow)
	const devices = 10_000
	var in strings.Builder
	for i := range devices {
		fmt.Fprintf(&in, `{"id":"pi-%05d","status":"enabled","tags":{"site":"%s"}}`+"\n", i, strings.Repeat("x", 200))
	}
	store.Put("fleet", "devices.txt", []byte(in.String()))
	h := newHub(t)
	if j := do(t, h, hub.JobProperties{Type: "import", InputBlobContainerURI: uri, OutputBlobContainerURI: uri}); j.Status != "completed" {
		t.Fatalf("import: %+v", j)
	}
	if s, _ := h.Statistics(); s.TotalDeviceCount != devices {
		t.Errorf("%d devices, want %d", s.TotalDeviceCount, devices)
	}
	if j := do(t, h, hub.JobProperties{Type: "export", OutputBlobContainerURI: uri}); j.Status != "completed" {
		t.Fatalf("export: %+v", j)
	}
	out, _ := store.Get("fleet", "devices.txt")
	if n := strings.Count(out, "\n"); n != devices || len(out) < 2<<20 {
		t.Errorf("the export has %d lines in %d bytes", n, len(out))
	}
}
