// Package blobs reaches Azure blob storage, or Azurite, for the simulated hub's import and export of identities.
//
// Sources: Microsoft Learn, "Blob service REST API" and "Create a service SAS"; the client is Microsoft's own,
// github.com/Azure/azure-sdk-for-go, sdk/storage/azblob.
package blobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/twinbay/twinbay/simulator/hub"
)

const (
	checkTimeout = 10 * time.Second // of a container at the creation of a job: somebody waits for the answer
	pieceTimeout = time.Minute      // of one piece of a blob, retries included
	tryTimeout   = 30 * time.Second // of one request
	pieceSize    = 1 << 20          // bytes read or written by one request
)

// Storage implements hub.Storage. Its zero value is ready.
type Storage struct{}

// Container implements hub.Storage.
func (Storage) Container(sasURI string) (hub.Container, error) {
	u, err := url.Parse(sasURI)
	switch {
	case err != nil:
		return nil, errors.New("the container URI is no URI")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, errors.New("the container URI is not an absolute http or https URI")
	case u.Query().Get("sig") == "":
		return nil, errors.New("the container URI has no shared access signature (sig)")
	}
	options := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: 2, RetryDelay: 200 * time.Millisecond, TryTimeout: tryTimeout},
		Telemetry: policy.TelemetryOptions{ApplicationID: "twinbay-sim"},
	}}
	c, err := container.NewClientWithNoCredential(sasURI, options)
	if err != nil {
		return nil, errors.New("the container URI is no URI of a blob container")
	}
	return &box{c}, nil
}

// box is one container.
type box struct{ client *container.Client }

func (b *box) CheckRead(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	_, err := b.client.NewBlobClient(name).GetProperties(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return nil
	}
	return explain("read from input", err)
}

// CheckWrite deletes a blob that is not there, writes it and deletes it again: a SAS tells nobody but the storage service
// what it allows. In this order nothing stays behind when something is not allowed.
func (b *box) CheckWrite(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	probe := b.client.NewBlockBlobClient("twinbay-check-" + rand.Text())
	if _, err := probe.Delete(ctx, nil); !bloberror.HasCode(err, bloberror.BlobNotFound) {
		return explain("delete from output", err)
	}
	if _, err := probe.CommitBlockList(ctx, nil, nil); err != nil { // an empty blob
		return explain("write to output", err)
	}
	_, err := probe.Delete(ctx, nil)
	return explain("delete from output", err)
}

func (b *box) Remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, pieceTimeout)
	defer cancel()
	_, err := b.client.NewBlobClient(name).Delete(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return nil
	}
	return explain("delete "+name+" from", err)
}

func (b *box) Open(ctx context.Context, name string) (io.Reader, int64, error) {
	client := b.client.NewBlobClient(name)
	head, cancel := context.WithTimeout(ctx, pieceTimeout)
	defer cancel()
	p, err := client.GetProperties(head, nil)
	if err != nil {
		return nil, 0, explain("read "+name+" from", err)
	}
	r := &reader{ctx: ctx, client: client, name: name, etag: p.ETag}
	if p.ContentLength != nil {
		r.size = *p.ContentLength
	}
	return r, r.size, nil
}

// reader reads one version of a blob, piece by piece, each in a bounded time.
type reader struct {
	ctx    context.Context
	client *blob.Client
	name   string
	etag   *azcore.ETag
	size   int64
	at     int64  // of the next piece
	piece  []byte // the last one
	rest   []byte // of it
}

func (r *reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.at >= r.size {
			return 0, io.EOF
		}
		if r.piece == nil {
			r.piece = make([]byte, min(pieceSize, r.size))
		}
		piece := r.piece[:min(pieceSize, r.size-r.at)]
		ctx, cancel := context.WithTimeout(r.ctx, pieceTimeout)
		_, err := r.client.DownloadBuffer(ctx, piece, &blob.DownloadBufferOptions{
			Range:            blob.HTTPRange{Offset: r.at, Count: int64(len(piece))},
			AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: r.etag}},
		})
		cancel()
		if err != nil {
			return 0, explain("read "+r.name+" from", err)
		}
		r.at += int64(len(piece))
		r.rest = piece
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (b *box) Create(ctx context.Context, name string) hub.Upload {
	pr, pw := io.Pipe()
	u := &upload{w: pw, done: make(chan struct{})}
	client := b.client.NewBlockBlobClient(name)
	text := "text/plain; charset=utf-8"
	go func() {
		defer close(u.done)
		_, err := client.UploadStream(ctx, pr, &blockblob.UploadStreamOptions{
			BlockSize:   pieceSize,
			Concurrency: 1,
			HTTPHeaders: &blob.HTTPHeaders{BlobContentType: &text},
		})
		u.err = explain("write "+name+" to", err)
		pr.CloseWithError(u.err)
	}()
	return u
}

// upload is a blob on its way. The goroutine of Create sets err before it closes done.
type upload struct {
	w    *io.PipeWriter
	done chan struct{}
	err  error
}

func (u *upload) Write(p []byte) (int, error) { return u.w.Write(p) }

func (u *upload) Commit() error {
	u.w.Close()
	<-u.done
	return u.err
}

// errAborted ends the stream before its end, so that the blob is not committed.
var errAborted = errors.New("blobs: given up")

func (u *upload) Abort() {
	u.w.CloseWithError(errAborted)
	<-u.done
}

// explain says what the storage service has against a call. The client's own texts hold the URI with its signature.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*azcore.ResponseError](err); ok {
		code := r.ErrorCode
		if code == "" {
			code = http.StatusText(r.StatusCode)
		}
		if r.StatusCode == http.StatusForbidden {
			return fmt.Errorf("Unauthorized to %s blob container: the storage service answers %d %s; look at the SAS's permissions and times",
				doing, r.StatusCode, code)
		}
		return fmt.Errorf("can't %s blob container: the storage service answers %d %s", doing, r.StatusCode, code)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("can't %s blob container: the storage service does not answer in time", doing)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("can't %s blob container: %w", doing, err)
}
