package hub

import (
	"context"
	"io"
)

// Storage reaches blob containers for import and export: simulator/blobs, which the simulator gives its hub. A hub
// itself opens no socket.
type Storage interface {
	// Container answers the container of a SAS URI. It does not connect.
	Container(sasURI string) (Container, error)
}

// Container is one blob container. Its errors are for people: they say what the storage service has against the call,
// and never hold the URI, whose signature is a credential.
type Container interface {
	// CheckRead tells whether blobs can be read, which need not be there.
	CheckRead(ctx context.Context, blob string) error
	// CheckWrite tells whether blobs can be written and deleted.
	CheckWrite(ctx context.Context) error
	// Open reads a blob of so many bytes, in pieces.
	Open(ctx context.Context, blob string) (r io.Reader, size int64, err error)
	// Create writes a blob, in pieces; it is there, in the place of one of that name, once Commit has returned nil.
	Create(ctx context.Context, blob string) Upload
	// Remove deletes a blob if there is one.
	Remove(ctx context.Context, blob string) error
}

// Upload is a blob that is being written. One of Commit and Abort ends it.
type Upload interface {
	io.Writer
	Commit() error
	Abort()
}
