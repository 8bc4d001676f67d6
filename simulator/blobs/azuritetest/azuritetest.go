//go:build unix

// Package azuritetest starts Azurite, Microsoft's emulator of Azure storage, for a test of import and export.
//
// Azurite is a program for Node.js. The environment variable TWINBAY_AZURITE holds the path of its azurite-blob, which
// `make conformance` installs; without it the tests are skipped.
package azuritetest

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// The account that every Azurite has. Source: Microsoft Learn, "Use the Azurite emulator for local Azure Storage
// development", Well-known storage account and key.
const (
	account    = "devstoreaccount1"
	accountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// Account is a storage account, empty at first.
type Account struct {
	t   testing.TB
	url string
}

// Start starts an Azurite of the test's own, which ends with it.
func Start(t testing.TB) *Account {
	t.Helper()
	program := os.Getenv("TWINBAY_AZURITE")
	if program == "" {
		t.Skip("TWINBAY_AZURITE is not set: the path of Azurite's program azurite-blob; `make conformance` installs it and sets this")
	}
	c := exec.Command(program, "--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0",
		"--skipApiVersionCheck", "--disableTelemetry", "--silent") // the SDK is newer than Azurite
	c.Dir = t.TempDir()
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var diag bytes.Buffer
	c.Stderr = &diag
	if err := c.Start(); err != nil {
		t.Fatalf("azuritetest: start %s: %v", program, err)
	}
	listens := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, at, ok := strings.Cut(lines.Text(), "successfully listens on "); ok {
				listens <- strings.TrimSpace(at)
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // the group: npm's program may be a script that starts another
		<-ended
		_ = c.Wait()
	})
	select {
	case at := <-listens:
		return &Account{t, at + "/" + account}
	case <-ended:
		_ = c.Wait()
		t.Fatalf("azuritetest: Azurite ended before it listened: %s", &diag)
	case <-time.After(time.Minute):
		t.Fatal("azuritetest: Azurite does not listen after a minute")
	}
	return nil
}

// ConnectionString is the account's, with its key.
func (a *Account) ConnectionString() string {
	return "AccountName=" + account + ";AccountKey=" + accountKey + ";BlobEndpoint=" + a.url
}

// NewContainer makes a container.
func (a *Account) NewContainer(name string) {
	a.t.Helper()
	if _, err := a.client(name).Create(context.Background(), nil); err != nil {
		a.t.Fatalf("azuritetest: make container %s: %v", name, err)
	}
}

// SAS is a URI of a container with permissions, in the letters of the storage service: r read, w write, d delete, …
func (a *Account) SAS(name, permissions string, expires time.Time) string {
	a.t.Helper()
	query, err := sas.BlobSignatureValues{
		Protocol:      sas.ProtocolHTTPSandHTTP,
		StartTime:     expires.Add(-24 * time.Hour).UTC(),
		ExpiryTime:    expires.UTC(),
		ContainerName: name,
		Permissions:   permissions,
	}.SignWithSharedKey(a.credential())
	if err != nil {
		a.t.Fatalf("azuritetest: sign: %v", err)
	}
	return a.url + "/" + name + "?" + query.Encode()
}

// Put writes a blob.
func (a *Account) Put(name, blob string, content []byte) {
	a.t.Helper()
	if _, err := a.client(name).NewBlockBlobClient(blob).UploadBuffer(context.Background(), content, nil); err != nil {
		a.t.Fatalf("azuritetest: write %s/%s: %v", name, blob, err)
	}
}

// Get reads a blob.
func (a *Account) Get(name, blob string) (content string, exists bool) {
	a.t.Helper()
	ctx := context.Background()
	r, err := a.client(name).NewBlobClient(blob).DownloadStream(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return "", false
	}
	if err != nil {
		a.t.Fatalf("azuritetest: read %s/%s: %v", name, blob, err)
	}
	defer r.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r.Body); err != nil {
		a.t.Fatalf("azuritetest: read %s/%s: %v", name, blob, err)
	}
	return b.String(), true
}

// Blobs lists a container.
func (a *Account) Blobs(name string) []string {
	a.t.Helper()
	var names []string
	for pages := a.client(name).NewListBlobsFlatPager(nil); pages.More(); {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			a.t.Fatalf("azuritetest: list %s: %v", name, err)
		}
		for _, b := range page.Segment.BlobItems {
			names = append(names, *b.Name)
		}
	}
	return names
}

func (a *Account) credential() *container.SharedKeyCredential {
	c, err := container.NewSharedKeyCredential(account, accountKey)
	if err != nil {
		a.t.Fatalf("azuritetest: %v", err)
	}
	return c
}

func (a *Account) client(name string) *container.Client {
	c, err := container.NewClientWithSharedKeyCredential(a.url+"/"+name, a.credential(), nil)
	if err != nil {
		a.t.Fatalf("azuritetest: container %s: %v", name, err)
	}
	return c
}
