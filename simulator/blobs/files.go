package blobs

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"github.com/twinbay/twinbay/simulator/hub"
)

// Files is the container of a storage account that devices upload files to. Make it with OpenFiles.
type Files struct {
	name       string
	host       string // with the account behind it where the account is part of the path, as with Azurite
	protocol   sas.Protocol
	client     *container.Client
	credential *container.SharedKeyCredential
}

// OpenFiles returns a container of the account that a connection string names, as the Azure portal shows it:
// DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net, or with BlobEndpoint. It
// does not connect. Source: Microsoft Learn, "Configure Azure Storage connection strings".
func OpenFiles(connectionString, name string) (*Files, error) {
	if name == "" {
		return nil, errors.New("the container's name is missing")
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(connectionString, ";") {
		if k, v, ok := strings.Cut(strings.TrimSpace(part), "="); ok {
			parts[strings.ToLower(k)] = v
		}
	}
	account, key := parts["accountname"], parts["accountkey"]
	if account == "" || key == "" {
		return nil, errors.New("the storage connection string lacks AccountName or AccountKey")
	}
	endpoint := parts["blobendpoint"]
	if endpoint == "" {
		protocol, suffix := parts["defaultendpointsprotocol"], parts["endpointsuffix"]
		if protocol == "" {
			protocol = "https"
		}
		if suffix == "" {
			suffix = "core.windows.net"
		}
		endpoint = protocol + "://" + account + ".blob." + suffix
	}
	u, err := url.Parse(strings.TrimSuffix(endpoint, "/"))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("BlobEndpoint of the storage connection string is no http or https URL")
	}
	credential, err := container.NewSharedKeyCredential(account, key)
	if err != nil {
		return nil, errors.New("AccountKey of the storage connection string is not base64")
	}
	client, err := container.NewClientWithSharedKeyCredential(u.String()+"/"+url.PathEscape(name), credential, &container.ClientOptions{
		ClientOptions: policy.ClientOptions{
			Retry:     policy.RetryOptions{MaxRetries: 2, RetryDelay: 200 * time.Millisecond, TryTimeout: tryTimeout},
			Telemetry: policy.TelemetryOptions{ApplicationID: "twinbay-sim"},
		},
	})
	if err != nil {
		return nil, errors.New("the storage connection string names no blob container")
	}
	f := &Files{name: name, host: u.Host + u.Path, protocol: sas.ProtocolHTTPS, client: client, credential: credential}
	if u.Scheme == "http" {
		f.protocol = sas.ProtocolHTTPSandHTTP
	}
	return f, nil
}

// Grant implements hub.Files: the right to read and write one blob.
func (f *Files) Grant(blob string, until time.Time) (hub.UploadPlace, error) {
	q, err := sas.BlobSignatureValues{
		Protocol:      f.protocol,
		ExpiryTime:    until.UTC(),
		Permissions:   (&sas.BlobPermissions{Read: true, Write: true}).String(),
		ContainerName: f.name,
		BlobName:      blob,
	}.SignWithSharedKey(f.credential)
	if err != nil {
		return hub.UploadPlace{}, errors.New("the SAS for the upload can't be made")
	}
	return hub.UploadPlace{HostName: f.host, ContainerName: f.name, SASToken: "?" + q.Encode()}, nil
}

// Describe implements hub.Files.
func (f *Files) Describe(ctx context.Context, blob string) (hub.UploadedBlob, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	client := f.client.NewBlobClient(blob)
	p, err := client.GetProperties(ctx, nil)
	if err != nil {
		return hub.UploadedBlob{}, explain("find the uploaded file in", err)
	}
	out := hub.UploadedBlob{URI: strings.ReplaceAll(client.URL(), "%2F", "/")} // as the device has written it
	if p.ContentLength != nil {
		out.Size = *p.ContentLength
	}
	if p.LastModified != nil {
		out.Modified = *p.LastModified
	}
	return out, nil
}
