package hub

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"
)

// Source: Microsoft Learn, "Upload files with IoT Hub" and "Understand file upload notifications", unless said otherwise.
const (
	maxUploads  = 10        // of a device at once
	uploadTTL   = time.Hour // of a SAS: the hub's default, fileUpload.sasTtlAsIso8601
	maxBlobName = 1024      // characters: "Naming and referencing containers, blobs, and metadata"
	fileNotices = "filenotification"
)

// Files is the blob container that devices upload files to: simulator/blobs. Its errors are for people and hold no
// credential.
type Files interface {
	// Grant answers where a device may write one blob until then. It does not connect.
	Grant(blob string, until time.Time) (UploadPlace, error)
	// Describe tells of a blob that is there.
	Describe(ctx context.Context, blob string) (UploadedBlob, error)
}

// UploadPlace is where a blob goes: https://{HostName}/{ContainerName}/{blob}{SASToken}.
type UploadPlace struct {
	HostName, ContainerName string
	SASToken                string // from its question mark on
}

// UploadedBlob is a blob that has been uploaded.
type UploadedBlob struct {
	URI      string // without a SAS
	Size     int64  // bytes
	Modified time.Time
}

// FileUpload is what a device is told at the beginning of an upload.
type FileUpload struct {
	CorrelationID string `json:"correlationId"`
	HostName      string `json:"hostName"`
	ContainerName string `json:"containerName"`
	BlobName      string `json:"blobName"` // with the device id and a slash in front
	SASToken      string `json:"sasToken"`
}

// FileNotice is the body of a file upload notification.
type FileNotice struct {
	DeviceID        string `json:"deviceId"`
	BlobURI         string `json:"blobUri"`
	BlobName        string `json:"blobName"`
	LastUpdatedTime string `json:"lastUpdatedTime"`
	BlobSizeInBytes int64  `json:"blobSizeInBytes"`
	EnqueuedTimeUTC string `json:"enqueuedTimeUtc"`
}

// fileUpload is an upload under way. It ends with its process: the device begins anew.
type fileUpload struct {
	blob    string
	expires time.Time
}

// BeginUpload gives a device a place for a file. Errors: DefaultStorageEndpointNotConfigured, ArgumentInvalid,
// DeviceMaximumActiveFileUploadLimitExceeded when ten uploads are under way.
func (h *Hub) BeginUpload(g Grant, blob string) (FileUpload, error) {
	if err := h.uploadable(g.ID); err != nil {
		return FileUpload{}, err
	}
	if n := utf8.RuneCountInString(blob); blob == "" || n > maxBlobName || !utf8.ValidString(blob) || strings.ContainsAny(blob, "\x00\\") {
		return FileUpload{}, argument("blobName: 1 to %d characters, no backslash", maxBlobName)
	}
	blob = g.ID.Device + "/" + blob
	now := time.Now()
	place, err := h.files.Grant(blob, now.Add(uploadTTL))
	if err != nil {
		return FileUpload{}, &Error{Code: 400017, Name: "InvalidStorageEndpoint", Text: err.Error()}
	}
	h.mu.Lock()
	defer h.unlock()
	n, bad := h.admissible(g.ID)
	if bad != nil {
		return FileUpload{}, bad
	}
	active := 0
	for id, u := range n.uploads {
		switch {
		case now.Before(u.expires):
			active++
		case now.After(u.expires.Add(uploadTTL)): // long enough to have said so
			delete(n.uploads, id)
		}
	}
	if active >= maxUploads {
		return FileUpload{}, &Error{Code: 403006, Name: "DeviceMaximumActiveFileUploadLimitExceeded",
			Text: "ten file uploads of " + g.ID.String() + " are under way; end them by a notification, or wait an hour"}
	}
	if n.uploads == nil {
		n.uploads = map[string]fileUpload{}
	}
	id := newToken()
	n.uploads[id] = fileUpload{blob, now.Add(uploadTTL)}
	h.changedIdentity(n.id)
	n.activity = now
	return FileUpload{id, place.HostName, place.ContainerName, blob, place.SASToken}, nil
}

// EndUpload takes a device's word that an upload has succeeded or failed. Services are notified of a success. Errors:
// InvalidFileUploadCorrelationId, ExpiredFileUploadCorrelationId, InvalidStorageEndpointOrBlob if the blob is not there.
func (h *Hub) EndUpload(ctx context.Context, g Grant, correlationID string, success bool) error {
	if err := h.uploadable(g.ID); err != nil {
		return err
	}
	u, err := h.upload(g.ID, correlationID)
	if err != nil {
		return err
	}
	var blob UploadedBlob
	if success {
		var why error
		if blob, why = h.files.Describe(ctx, u.blob); why != nil { // the upload stays: the device may say so again
			return &Error{Code: 400020, Name: "InvalidStorageEndpointOrBlob", Text: why.Error()}
		}
	}
	h.mu.Lock()
	defer h.unlock()
	n, err := h.admissible(g.ID)
	if err != nil {
		return err
	}
	if _, there := n.uploads[correlationID]; !there {
		return noUpload(correlationID)
	}
	delete(n.uploads, correlationID)
	h.changedIdentity(n.id)
	now := time.Now()
	n.activity = now
	e := Event{Kind: "file", DeviceID: g.ID.Device, Detail: u.blob + ": failed"}
	if success {
		e.Detail = u.blob
		e.Body = encode(FileNotice{g.ID.Device, blob.URI, u.blob, twinTime(blob.Modified), blob.Size, twinTime(now)})
		h.post(&h.uploaded, fileNotices, e.Body, now)
	}
	h.emit(e)
	return nil
}

// uploadable says whether an identity may upload files at all.
func (h *Hub) uploadable(id ID) *Error {
	switch {
	case id.Module != "":
		return &Error{Code: 400003, Name: "InvalidOperation", Text: "modules don't upload files; their device does"}
	case h.files == nil:
		return &Error{Code: 400014, Name: "DefaultStorageEndpointNotConfigured",
			Text: "no storage is configured; start twinbay-sim serve with --storage CONNECTION_STRING --storage-container NAME"}
	}
	return nil
}

func (h *Hub) upload(id ID, correlationID string) (fileUpload, *Error) {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.admissible(id)
	if err != nil {
		return fileUpload{}, err
	}
	u, ok := n.uploads[correlationID]
	switch {
	case !ok:
		return fileUpload{}, noUpload(correlationID)
	case !time.Now().Before(u.expires):
		return fileUpload{}, &Error{Code: 400016, Name: "ExpiredFileUploadCorrelationId", Text: "the upload began more than an hour ago"}
	}
	return u, nil
}

func noUpload(correlationID string) *Error {
	return &Error{Code: 400015, Name: "InvalidFileUploadCorrelationId", Text: "no upload of this device has the correlation id " + quoteShort(correlationID)}
}

// quoteShort shows a text from outside, which may be long.
func quoteShort(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return `"` + s + `"`
}

// ReceiveFileNotice hands out the next file upload notification; ok is false when none is free.
func (h *Hub) ReceiveFileNotice() (n Notice, ok bool) {
	h.mu.Lock()
	defer h.unlock()
	return h.receive(&h.uploaded, fileNotices, time.Now())
}

// SettleFileNotice ends a notification that was handed out, or gives it back. Error: DeviceMessageLockLost.
func (h *Hub) SettleFileNotice(token string, how Outcome) error {
	h.mu.Lock()
	defer h.unlock()
	if err := h.settleNotice(&h.uploaded, fileNotices, token, how, time.Now()); err != nil {
		return err
	}
	return nil
}

func fileNoticeKind() kind {
	return kind{
		name: fileNotices,
		save: func(h *Hub, key string) any { return h.uploaded.save(key) },
		keys: func(h *Hub) []string { return h.uploaded.keys() },
		load: func(h *Hub, key string, data []byte) error {
			return h.uploaded.load(h, key, data)
		},
	}
}
