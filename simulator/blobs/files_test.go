package blobs

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/blobs/azuritetest"
)

const accountKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func TestOpenFiles(t *testing.T) {
	for text, host := range map[string]string{
		"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=" + accountKey + ";EndpointSuffix=core.windows.net": "acc.blob.core.windows.net",
		"accountname=acc;accountkey=" + accountKey: "acc.blob.core.windows.net",
		"AccountName=devstoreaccount1;AccountKey=" + accountKey + ";BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1/;": "127.0.0.1:10000/devstoreaccount1",
	} {
		f, err := OpenFiles(text, "box")
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		p, err := f.Grant("d/x.txt", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		if err != nil || p.HostName != host || p.ContainerName != "box" || !strings.HasPrefix(p.SASToken, "?") ||
			!strings.Contains(p.SASToken, "se=2026-01-01T00%3A00%3A00Z") || !strings.Contains(p.SASToken, "sp=rw") || !strings.Contains(p.SASToken, "sr=b") {
			t.Errorf("%+v, %v", p, err)
		}
	}
	for _, text := range []string{"", "AccountName=acc", "AccountName=acc;AccountKey=!", "AccountName=acc;AccountKey=" + accountKey + ";BlobEndpoint=ftp://x"} {
		if _, err := OpenFiles(text, "box"); err == nil || strings.Contains(err.Error(), accountKey) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := OpenFiles("AccountName=acc;AccountKey="+accountKey, ""); err == nil {
		t.Error("a container without a name is taken")
	}
}

// TestUpload puts a file where Grant says, as a device does.
func TestUpload(t *testing.T) {
	store := azuritetest.Start(t)
	store.NewContainer("box")
	f, err := OpenFiles(store.ConnectionString(), "box")
	if err != nil {
		t.Fatal(err)
	}
	const blob = "d/dir/file name.txt"
	if _, err := f.Describe(t.Context(), blob); err == nil {
		t.Error("a file that is not there is described")
	}
	place, err := f.Grant(blob, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+place.HostName+"/"+place.ContainerName+"/"+name+place.SASToken,
			bytes.NewReader([]byte("hello")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("x-ms-blob-type", "BlockBlob")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode
	}
	if status := put("d/dir/file%20name.txt"); status != 201 {
		t.Fatalf("PUT answers %d", status)
	}
	if status := put("d/other.txt"); status != 403 {
		t.Errorf("PUT of another file answers %d, want 403", status)
	}
	if text, _ := store.Get("box", blob); text != "hello" {
		t.Errorf("the blob holds %q", text)
	}
	d, err := f.Describe(t.Context(), blob)
	if err != nil || d.Size != 5 || time.Since(d.Modified) > time.Hour || !strings.HasSuffix(d.URI, "/box/d/dir/file%20name.txt") {
		t.Errorf("%+v, %v", d, err)
	}
}
