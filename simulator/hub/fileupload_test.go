package hub

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fileBox is a container in which blobs are by their names.
type fileBox map[string]int64

func (s fileBox) Grant(blob string, until time.Time) (UploadPlace, error) {
	if strings.Contains(blob, "bad") {
		return UploadPlace{}, errors.New("no place")
	}
	return UploadPlace{"host", "box", "?until=" + until.UTC().Format(time.RFC3339)}, nil
}

func (s fileBox) Describe(_ context.Context, blob string) (UploadedBlob, error) {
	size, ok := s[blob]
	if !ok {
		return UploadedBlob{}, errors.New("not there")
	}
	return UploadedBlob{"https://host/box/" + blob, size, time.Date(2000, 1, 1, 0, 0, 5, 0, time.UTC)}, nil
}

func uploader(t *testing.T, files Files) (*Hub, Grant) {
	t.Helper()
	h := New(Options{HostName: "hub1.azure-devices.net", Files: files})
	must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, ""))
	must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a"}, ""))
	return h, Grant{ID: pi}
}

func TestFileUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := fileBox{}
		h, g := uploader(t, files)
		u, err := h.BeginUpload(g, "dir/x.txt")
		if err != nil || u.HostName != "host" || u.ContainerName != "box" || u.BlobName != "pi-01/dir/x.txt" ||
			u.SASToken != "?until=2000-01-01T01:00:00Z" || len(u.CorrelationID) != 36 {
			t.Errorf("%+v, %v", u, err)
		}
		wantError(t, "not there yet", h.EndUpload(t.Context(), g, u.CorrelationID, true), 400020)
		files["pi-01/dir/x.txt"] = 7
		if err := h.EndUpload(t.Context(), g, u.CorrelationID, true); err != nil {
			t.Fatal(err)
		}
		wantError(t, "twice", h.EndUpload(t.Context(), g, u.CorrelationID, true), 400015)
		n, ok := h.ReceiveFileNotice()
		want := `{"deviceId":"pi-01","blobUri":"https://host/box/pi-01/dir/x.txt","blobName":"pi-01/dir/x.txt",` +
			`"lastUpdatedTime":"2000-01-01T00:00:05.0000000Z","blobSizeInBytes":7,"enqueuedTimeUtc":"2000-01-01T00:00:00.0000000Z"}`
		if !ok || string(n.Body) != want {
			t.Errorf("%s\nwant %s", n.Body, want)
		}
		must(t)(nil, h.SettleFileNotice(n.Token, Complete))
		wantError(t, "settled", h.SettleFileNotice(n.Token, Complete), 412002)

		u, err = h.BeginUpload(g, "y")
		must(t)(u, err)
		must(t)(nil, h.EndUpload(t.Context(), g, u.CorrelationID, false)) // a failure is no news to services
		if _, ok := h.ReceiveFileNotice(); ok {
			t.Error("a failed upload is notified of")
		}
	})
}

func TestFileUploadLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, g := uploader(t, fileBox{})
		var first FileUpload
		for i := range 10 {
			u, err := h.BeginUpload(g, "x")
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = u
			}
		}
		_, err := h.BeginUpload(g, "x")
		wantError(t, "the eleventh", err, 403006)
		must(t)(nil, h.EndUpload(t.Context(), g, first.CorrelationID, false))
		u, err := h.BeginUpload(g, "x")
		must(t)(u, err)
		time.Sleep(time.Hour)
		wantError(t, "an hour later", h.EndUpload(t.Context(), g, u.CorrelationID, false), 400016)
		must(t)(h.BeginUpload(g, "x")) // the others have run out
		time.Sleep(time.Hour + 1)
		must(t)(h.BeginUpload(g, "x"))
		if n := len(h.devices["pi-01"].uploads); n != 2 {
			t.Errorf("%d uploads are remembered, want 2", n)
		}
	})
}

func TestFileUploadRefused(t *testing.T) {
	h, g := uploader(t, fileBox{})
	for _, name := range []string{"", strings.Repeat("x", 1025), `a\b`, "a\x00", "\xff"} {
		_, err := h.BeginUpload(g, name)
		wantError(t, name, err, 400004)
	}
	_, err := h.BeginUpload(g, "bad")
	wantError(t, "storage", err, 400017)
	_, err = h.BeginUpload(Grant{ID: mod}, "x")
	wantError(t, "a module", err, 400003)
	wantError(t, "a module's end", h.EndUpload(t.Context(), Grant{ID: mod}, "x", true), 400003)
	wantError(t, "unknown", h.EndUpload(t.Context(), g, strings.Repeat("x", 1000), true), 400015)

	h, g = uploader(t, nil)
	_, err = h.BeginUpload(g, "x")
	wantError(t, "no storage", err, 400014)
	wantError(t, "no storage, at the end", h.EndUpload(t.Context(), g, "x", true), 400014)
}

func TestFileNoticesAreKept(t *testing.T) {
	files := fileBox{"pi-01/x": 1}
	j := &tape{}
	h, err := Open(Options{Files: files}, j, nil)
	must(t)(nil, err)
	must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, ""))
	u, err := h.BeginUpload(Grant{ID: pi}, "x")
	must(t)(u, err)
	must(t)(nil, h.EndUpload(t.Context(), Grant{ID: pi}, u.CorrelationID, true))
	again, err := Open(Options{}, &tape{}, j.records())
	must(t)(nil, err)
	n, ok := again.ReceiveFileNotice()
	var notice FileNotice
	if !ok || json.Unmarshal(n.Body, &notice) != nil || notice.BlobName != "pi-01/x" {
		t.Errorf("%s", n.Body)
	}
}
