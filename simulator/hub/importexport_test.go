package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// shelf is a container in memory, whose faults are data. What a storage service does is tested against one: package
// blobs.
type shelf struct {
	mu      sync.Mutex
	blobs   map[string]string
	refuses string // read, write or commit
	stuck   bool   // reads wait for the end of their context
}

func (s *shelf) Container(uri string) (Container, error) {
	if uri != "here" {
		return nil, errors.New("no URI")
	}
	return s, nil
}

func (s *shelf) fails(at string) error {
	if s.refuses == at {
		return errors.New("Unauthorized to " + at)
	}
	return nil
}

func (s *shelf) CheckRead(context.Context, string) error { return s.fails("read") }
func (s *shelf) CheckWrite(context.Context) error        { return s.fails("write") }

func (s *shelf) Open(ctx context.Context, blob string) (io.Reader, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck {
		return stuckReader{ctx}, 1, nil
	}
	text, ok := s.blobs[blob]
	if !ok {
		return nil, 0, errors.New("no blob " + blob)
	}
	return strings.NewReader(text), int64(len(text)), nil
}

type stuckReader struct{ ctx context.Context }

func (r stuckReader) Read([]byte) (int, error) {
	<-r.ctx.Done()
	return 0, r.ctx.Err()
}

func (s *shelf) Create(_ context.Context, blob string) Upload { return &leaf{on: s, name: blob} }

func (s *shelf) Remove(_ context.Context, blob string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, blob)
	return nil
}

type leaf struct {
	bytes.Buffer
	on   *shelf
	name string
}

func (l *leaf) Commit() error {
	l.on.mu.Lock()
	defer l.on.mu.Unlock()
	l.on.blobs[l.name] = l.String()
	return l.on.fails("commit")
}

func (l *leaf) Abort() {}

func withShelf(t *testing.T) (*Hub, *shelf) {
	s := &shelf{blobs: map[string]string{}}
	h := New(Options{Storage: s})
	t.Cleanup(h.Close)
	return h, s
}

// finish waits for a job, in a bubble.
func finish(t *testing.T, h *Hub, in JobProperties) JobProperties {
	t.Helper()
	j, err := h.CreateImportExport(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	if j, err = h.ImportExport(j.JobID); err != nil {
		t.Fatal(err)
	}
	return j
}

func TestImportTellsOfLinesThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := withShelf(t)
		s.blobs[importErrorsBlob] = "of an earlier import"
		s.blobs["devices.txt"] = "\xef\xbb\xbf" + `{"id":"a","status":"enabled"}` + "\r\n" +
			"\n" +
			`{"id":"b"}` + "\n" +
			`{"id":"a","moduleId":"m","status":"enabled"}` + "\n" +
			"plain text\n" +
			`{"id":"` + strings.Repeat("x", maxLine) + `"}` + "\n" +
			"\xff\n" +
			`{"id":"nobody","importMode":"delete","status":"enabled"}` + "\n" +
			`{"id":"c","status":"disabled","tags":{"t":1}}` // no line end
		j := finish(t, h, JobProperties{Type: "import", InputBlobContainerURI: "here", OutputBlobContainerURI: "here"})
		if j.Status != jobCompleted || j.Progress != 100 || j.FailureReason != nil || j.EndTimeUTC == nil {
			t.Errorf("the job ended as %+v", j)
		}
		var told []string
		for line := range strings.Lines(s.blobs[importErrorsBlob]) {
			var e struct {
				DeviceID    string
				ErrorCode   int
				ErrorStatus string
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.ErrorStatus == "" {
				t.Errorf("importErrors.log has %q: %v", line, err)
			}
			told = append(told, fmt.Sprint(e.DeviceID, " ", e.ErrorCode))
		}
		if got, want := strings.Join(told, ", "), "b 400004,  400006,  400006,  400006, nobody 404001"; got != want {
			t.Errorf("importErrors.log tells of %q, want %q", got, want)
		}
		if all := h.Devices(0); len(all) != 2 || all[1].DeviceID != "c" || all[1].Status != "disabled" {
			t.Errorf("devices %+v", all)
		}
		if _, err := h.Module(ID{"a", "m"}); err != nil {
			t.Error(err)
		}

		// An import without an error leaves no log.
		s.blobs["other.txt"] = `{"id":"d","status":"enabled"}`
		finish(t, h, JobProperties{Type: "Import", InputBlobContainerURI: "here", InputBlobName: "other.txt", OutputBlobContainerURI: "here"})
		if log, there := s.blobs[importErrorsBlob]; there {
			t.Errorf("importErrors.log is there: %q", log)
		}
		if all := h.ImportExports(); len(all) != 2 || all[1].JobID != j.JobID {
			t.Errorf("jobs %+v", all)
		}
	})
}

func TestExportRefusals(t *testing.T) {
	identity := "identityBased"
	for _, tt := range []struct {
		name    string
		in      JobProperties
		refuses string
		want    string
	}{
		{"no type", JobProperties{OutputBlobContainerURI: "here"}, "", "ArgumentInvalid"},
		{"another type", JobProperties{Type: "scheduleUpdateTwin", OutputBlobContainerURI: "here"}, "", "ArgumentInvalid"},
		{"identity", JobProperties{Type: "export", OutputBlobContainerURI: "here", StorageAuthenticationType: &identity}, "", "ManagedIdentityNotEnabled"},
		{"no container", JobProperties{Type: "export"}, "", "BlobContainerValidationError"},
		{"no input", JobProperties{Type: "import", OutputBlobContainerURI: "here"}, "", "BlobContainerValidationError"},
		{"no write", JobProperties{Type: "export", OutputBlobContainerURI: "here"}, "write", "BlobContainerValidationError"},
		{"no read", JobProperties{Type: "import", InputBlobContainerURI: "here", OutputBlobContainerURI: "here"}, "read", "BlobContainerValidationError"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, s := withShelf(t)
			s.refuses = tt.refuses
			_, err := h.CreateImportExport(t.Context(), tt.in)
			if e, ok := errors.AsType[*Error](err); !ok || e.Name != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if len(h.ImportExports()) != 0 || h.importExports.slot != nil {
				t.Error("a refused job is there")
			}
		})
	}
	_, err := New(Options{}).CreateImportExport(t.Context(), JobProperties{Type: "export"})
	if e, ok := errors.AsType[*Error](err); !ok || e.Name != "BlobContainerValidationError" {
		t.Errorf("a hub without storage says %v", err)
	}
}

func TestOneImportOrExportAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := withShelf(t)
		s.stuck = true
		in := JobProperties{Type: "import", InputBlobContainerURI: "here", OutputBlobContainerURI: "here"}
		j, err := h.CreateImportExport(t.Context(), in)
		if err != nil || j.Status != jobEnqueued {
			t.Fatal(j, err)
		}
		synctest.Wait()
		if j, _ = h.ImportExport(j.JobID); j.Status != jobRunning {
			t.Errorf("status %s", j.Status)
		}
		export := JobProperties{Type: "export", OutputBlobContainerURI: "here"}
		_, err = h.CreateImportExport(t.Context(), export)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != 403003 {
			t.Errorf("a second job: error %v", err)
		}
		if err := h.CancelImportExport(t.Context(), j.JobID); err != nil {
			t.Fatal(err)
		}
		if j, _ = h.ImportExport(j.JobID); j.Status != jobCancelled || j.FailureReason != nil {
			t.Errorf("the cancelled job: %+v", j)
		}
		if err := h.CancelImportExport(t.Context(), j.JobID); err != nil {
			t.Errorf("cancel a job that has ended: %v", err)
		}
		if j = finish(t, h, export); j.Status != jobCompleted {
			t.Errorf("the job after: %+v", j)
		}
		for _, err := range []error{h.CancelImportExport(t.Context(), "none"), func() error { _, err := h.ImportExport("none"); return err }()} {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != 404002 {
				t.Errorf("an unknown job: error %v", err)
			}
		}
	})
}

func TestImportExportThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := withShelf(t)
		j := finish(t, h, JobProperties{Type: "import", InputBlobContainerURI: "here", OutputBlobContainerURI: "here"})
		if j.Status != jobFailed || text(j.FailureReason) != "no blob devices.txt" {
			t.Errorf("without a blob: %+v", j)
		}
		s.refuses = "commit"
		j = finish(t, h, JobProperties{Type: "export", OutputBlobContainerURI: "here"})
		if j.Status != jobFailed || text(j.FailureReason) != "Unauthorized to commit" {
			t.Errorf("without a commit: %+v", j)
		}
		s.stuck = true
		j, err := h.CreateImportExport(t.Context(), JobProperties{Type: "import", InputBlobContainerURI: "here", OutputBlobContainerURI: "here"})
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		if j, _ = h.ImportExport(j.JobID); j.Status != jobFailed {
			t.Errorf("a job at the hub's end: %+v", j)
		}
		_, err = h.CreateImportExport(t.Context(), JobProperties{Type: "export", OutputBlobContainerURI: "here"})
		if err == nil {
			t.Error("a job begins at a hub that has ended")
		}
	})
}

// A hub remembers so many jobs, through its journal too; one that ran when the process ended has failed.
func TestImportExportsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, tp := &shelf{blobs: map[string]string{}}, &tape{}
		h, err := Open(Options{Storage: s}, tp, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		for range maxImportExports + 3 {
			finish(t, h, JobProperties{Type: "export", OutputBlobContainerURI: "here"})
		}
		s.stuck = true
		last, err := h.CreateImportExport(t.Context(), JobProperties{Type: "import", InputBlobContainerURI: "here", OutputBlobContainerURI: "here"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		again, err := Open(Options{}, &tape{}, tp.records())
		if err != nil {
			t.Fatal(err)
		}
		before, after := h.ImportExports(), again.ImportExports()
		if len(after) != maxImportExports || after[0].JobID != last.JobID || after[0].Status != jobFailed {
			t.Errorf("%d jobs, the last one %+v", len(after), after[0])
		}
		for i := range min(len(before), len(after)) {
			if before[i].JobID != after[i].JobID {
				t.Fatalf("job %d is %s, was %s", i, after[i].JobID, before[i].JobID)
			}
		}
		for _, r := range tp.records() {
			if strings.Contains(string(r.Data), "here") {
				t.Fatalf("a container's URI is in the journal: %s", r.Data)
			}
		}
	})
}

func FuzzImportLines(f *testing.F) {
	f.Add([]byte(`{"id":"a","status":"enabled","tags":{"a":1},"properties":{"desired":{"x":1,"$metadata":{"$lastUpdated":"2026-01-01T00:00:00Z"}}}}`))
	f.Add([]byte("\xef\xbb\xbf{}\r\n\r\nnull\n[]\n{\"id\":1}\n"))
	f.Add([]byte(`{"id":"a","moduleId":"m","importMode":"UpdateTwinIfMatchETag","twinETag":"AAAAAAAAAAE=","status":"enabled"}`))
	f.Add(bytes.Repeat([]byte("x"), maxLine+10))
	f.Fuzz(func(t *testing.T, blob []byte) {
		h := New(Options{})
		lines := newLineReader(bytes.NewReader(blob))
		n := 0
		for {
			batch, err := readImport(lines)
			h.importBatch(batch)
			n += len(batch)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if lines.read != int64(len(blob)) || n > bytes.Count(blob, []byte("\n"))+1 {
			t.Errorf("%d lines of %d bytes read, of %d bytes", n, lines.read, len(blob))
		}
		for line := range h.Export(false) {
			if !json.Valid(encode(line)) {
				t.Errorf("the export is no JSON: %s", encode(line))
			}
		}
	})
}

func TestConfigurationsAreExportedAndImported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := withShelf(t)
		made := configure(t, h, "", `{"id":"all","labels":{"team":"food"},"content":{"deviceContent":{"properties.desired.rate":1}},"targetCondition":"*","priority":3,
			"metrics":{"queries":{"fast":"SELECT deviceId FROM devices WHERE properties.reported.rate = 1"}}}`)
		in := JobProperties{Type: "export", OutputBlobContainerURI: "here", IncludeConfigurations: true}
		if j := finish(t, h, in); j.Status != jobCompleted || j.ConfigurationsBlobName != "configurations.txt" {
			t.Fatalf("export: %+v", j)
		}
		exported := s.blobs["configurations.txt"]
		var line map[string]any
		if err := json.Unmarshal([]byte(exported), &line); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Id", "SchemaVersion", "Labels", "Content", "TargetCondition", "CreatedTimeUtc", "LastUpdatedTimeUtc", "Priority", "SystemMetrics", "Metrics", "ETag", "ImportMode"} {
			if _, there := line[name]; !there {
				t.Errorf("the export has no %s: %s", name, exported)
			}
		}
		if !strings.Contains(exported, `"Content":{"DeviceContent":{"properties.desired.rate":1}}`) {
			t.Errorf("content: %s", exported)
		}

		// Another hub takes it. There it is with another etag, so the same line does not fit a second time.
		other, o := withShelf(t)
		o.blobs["devices.txt"] = ""
		o.blobs["configurations.txt"] = exported
		in = JobProperties{Type: "import", InputBlobContainerURI: "here", OutputBlobContainerURI: "here", IncludeConfigurations: true}
		if _, err := other.PutDevice(Device{DeviceID: "d"}, ""); err != nil { // etags are the hub's
			t.Fatal(err)
		}
		if j := finish(t, other, in); j.Status != jobCompleted || o.blobs[importErrorsBlob] != "" {
			t.Fatalf("import: %+v\n%s", j, o.blobs[importErrorsBlob])
		}
		taken, err := other.Configuration("all")
		if err != nil {
			t.Fatal(err)
		}
		if taken.Priority != 3 || taken.Labels["team"] != "food" || taken.Metrics.Queries["fast"] != made.Metrics.Queries["fast"] ||
			string(encode(taken.Content)) != string(encode(made.Content)) || taken.TargetCondition != "*" {
			t.Errorf("imported %+v", taken)
		}
		o.blobs["configurations.txt"] = exported + "plain text\n\n" + `{"Id":"x","Content":{},"ImportMode":"delete"}` + "\n" +
			`{"Id":"all","Content":{"DeviceContent":{"properties.desired.rate":1}}}` + "\n" +
			`{"Id":"all","Content":{"DeviceContent":{"properties.desired.rate":1}},"Priority":9,"ETag":"` + taken.ETag + `"}`
		finish(t, other, in)
		var codes []string
		for line := range strings.Lines(o.blobs[importErrorsBlob]) {
			var e struct{ ErrorCode int }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Error(err)
			}
			codes = append(codes, fmt.Sprint(e.ErrorCode))
		}
		if got, want := strings.Join(codes, " "), "412001 400006 400004 412001"; got != want {
			t.Errorf("importErrors.log has %s, want %s:\n%s", got, want, o.blobs[importErrorsBlob])
		}
		if taken, err = other.Configuration("all"); err != nil || taken.Priority != 9 {
			t.Errorf("after the change: %+v, %v", taken, err)
		}
		delete(o.blobs, "configurations.txt")
		if j := finish(t, other, in); j.Status != jobFailed || text(j.FailureReason) != "no blob configurations.txt" {
			t.Errorf("without configurations: %+v", j)
		}
	})
}

func FuzzImportConfiguration(f *testing.F) {
	f.Add([]byte(`{"Id":"all","Content":{"DeviceContent":{"properties.desired.rate":1}},"TargetCondition":"*","ETag":"MQ==","ImportMode":"createOrUpdateIfMatchETag"}`))
	f.Add([]byte(`{"id":"m","content":{"moduleContent":{"properties.desired.a.b":null}},"targetCondition":"FROM devices.modules WHERE moduleId = 'm'"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, line []byte) {
		h := New(Options{})
		defer h.Close()
		why := h.importConfiguration(line, 1)
		var out bytes.Buffer
		if err := h.writeConfigurations(&out); err != nil {
			t.Fatal(err)
		}
		if (out.Len() == 0) != (why != nil) {
			t.Errorf("error %v, and the export is %q", why, &out)
		}
	})
}
