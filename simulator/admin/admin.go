// Package admin is the operator's side of an IoT Hub: the registry of devices and module identities, twins, direct
// methods and cloud-to-device messages, by the public service REST API. It works against the simulator and against Azure alike.
//
// Source: Microsoft Learn, "IoT Hub service REST API", api-version 2021-04-12.
package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	apiVersion = "2021-04-12"
	tokenTTL   = time.Hour
	maxAnswer  = 8 << 20 // bytes: a list of 1000 identities is about 1 MiB
)

// Config says which hub, and as whom.
type Config struct {
	ConnectionString string // HostName=…;SharedAccessKeyName=…;SharedAccessKey=…, or HostName=…;SharedAccessSignature=…
	Address          string // "ip:port" to dial; "" means the connection string's host, port 443
	CA               []byte // PEM; nil means the system's roots

	// ClockOffset is how far the hub's clock is ahead of this machine's, as far as that is known. A client that is refused
	// because of another difference learns it from the refusal, and asks again.
	ClockOffset time.Duration
}

// Client calls one hub's service API. It is safe for concurrent use.
type Client struct {
	conn  connectionString
	http  *http.Client
	ahead atomic.Int64 // the hub's clock, of this machine's, in nanoseconds
}

// New returns a client. It does not connect.
func New(c Config) (*Client, error) {
	conn, err := parseConnectionString(c.ConnectionString, time.Now().Add(c.ClockOffset))
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: conn.host}
	if c.CA != nil {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("admin: the CA file holds no PEM certificate")
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	if c.Address != "" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, c.Address)
		}
	}
	client := &Client{conn: conn, http: &http.Client{Transport: transport}}
	client.ahead.Store(int64(c.ClockOffset))
	return client, nil
}

// Close closes the connections that wait for a next call.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Host is the hub's host name.
func (c *Client) Host() string { return c.conn.host }

// Error is an answer of the hub that is no success.
type Error struct {
	Status int    // HTTP
	Code   string // as in the iothub-errorcode header: DeviceNotFound
	Text   string // the hub's own words
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("the hub answers %d %s: %s", e.Status, http.StatusText(e.Status), e.Text)
	}
	return fmt.Sprintf("the hub answers %d %s: %s", e.Status, e.Code, e.Text)
}

// ID names a device identity ("device"), or one of its module identities ("device/module").
type ID struct{ Device, Module string }

// ParseID reads "device" or "device/module". Ids hold no slash, so this is never ambiguous.
func ParseID(s string) (ID, error) {
	device, module, slash := strings.Cut(s, "/")
	if device == "" || slash && module == "" || strings.Contains(module, "/") {
		return ID{}, fmt.Errorf("%q: want DEVICE or DEVICE/MODULE", s)
	}
	return ID{device, module}, nil
}

func (id ID) String() string {
	if id.Module == "" {
		return id.Device
	}
	return id.Device + "/" + id.Module
}

// path is the identity below a collection: "devices" or "twins".
func (id ID) path(collection string) string {
	p := "/" + collection + "/" + url.PathEscape(id.Device)
	if id.Module != "" {
		p += "/modules/" + url.PathEscape(id.Module)
	}
	return p
}

// Create makes an identity. body may be nil: the hub makes the keys.
func (c *Client) Create(ctx context.Context, id ID, body map[string]any) (json.RawMessage, error) {
	return c.put(ctx, id, body, "")
}

// Update replaces an identity that exists: what body leaves out, keys too, the hub sets anew. etag "" means whichever
// version is there.
func (c *Client) Update(ctx context.Context, id ID, body map[string]any, etag string) (json.RawMessage, error) {
	return c.put(ctx, id, body, quoted(etag))
}

func (c *Client) put(ctx context.Context, id ID, body map[string]any, ifMatch string) (json.RawMessage, error) {
	doc := map[string]any{"deviceId": id.Device}
	if id.Module != "" {
		doc["moduleId"] = id.Module
	}
	for k, v := range body {
		doc[k] = v
	}
	return c.call(ctx, request{method: http.MethodPut, path: id.path("devices"), ifMatch: ifMatch, body: doc})
}

// Show answers an identity, keys included.
func (c *Client) Show(ctx context.Context, id ID) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodGet, path: id.path("devices")})
}

// Delete removes an identity; a device's modules go with it.
func (c *Client) Delete(ctx context.Context, id ID) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: id.path("devices"), ifMatch: `"*"`})
	return err
}

// Devices lists up to 1000 devices.
func (c *Client) Devices(ctx context.Context) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodGet, path: "/devices", query: url.Values{"top": {"1000"}}})
}

// Modules lists the module identities of a device.
func (c *Client) Modules(ctx context.Context, device string) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodGet, path: ID{Device: device}.path("devices") + "/modules"})
}

// Twin answers an identity's twin.
func (c *Client) Twin(ctx context.Context, id ID) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodGet, path: id.path("twins")})
}

// PatchTwin merges patch, an object with "tags" and "properties", into a twin; null removes.
func (c *Client) PatchTwin(ctx context.Context, id ID, patch map[string]any) (json.RawMessage, error) {
	return c.call(ctx, request{method: http.MethodPatch, path: id.path("twins"), body: patch})
}

// MethodResult is what a device answered. Status is the device's own number.
type MethodResult struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload"`
}

// Invoke calls a direct method and waits at most timeout (5 to 300 s, whole seconds) for the device's answer.
func (c *Client) Invoke(ctx context.Context, id ID, method string, payload json.RawMessage, timeout time.Duration) (MethodResult, error) {
	body := map[string]any{"methodName": method, "responseTimeoutInSeconds": int(timeout / time.Second)}
	if len(payload) > 0 {
		body["payload"] = payload
	}
	answer, err := c.call(ctx, request{method: http.MethodPost, path: id.path("twins") + "/methods", body: body})
	if err != nil {
		return MethodResult{}, err
	}
	var r MethodResult
	if err := json.Unmarshal(answer, &r); err != nil {
		return MethodResult{}, fmt.Errorf("admin: read the answer of method %s: %w", method, err)
	}
	return r, nil
}

type request struct {
	method, path string
	query        url.Values
	ifMatch      string
	headers      map[string]string
	body         any    // sent as JSON
	raw          []byte // or as it is
}

func (c *Client) call(ctx context.Context, r request) (json.RawMessage, error) {
	response, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	return readAnswer(response, r.method+" "+r.path)
}

func readAnswer(response *http.Response, what string) (json.RawMessage, error) {
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("admin: %s: read the answer: %w", what, err)
	}
	return text, nil
}

// send makes the call; an answer that is no success is an *Error.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("admin: %s %s: %w", r.method, r.path, err)
		}
		r.raw = text
	}
	response, err := c.try(ctx, r)
	if err == nil && response.StatusCode == http.StatusUnauthorized && c.learnTime(response.Header.Get("Date")) {
		response.Body.Close()
		response, err = c.try(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		defer response.Body.Close()
		return nil, readError(response)
	}
	return response, nil
}

// learnTime takes the hub's time from a refusal and tells whether a token made by it is another one. What the hub allows for the
// difference of two clocks is no reason (see the sources of package hub: five minutes).
func (c *Client) learnTime(date string) bool {
	const allowed = 5 * time.Minute
	at, err := http.ParseTime(date)
	if err != nil || c.conn.signature != "" {
		return false
	}
	ahead := time.Until(at)
	if (ahead - time.Duration(c.ahead.Load())).Abs() < allowed {
		return false
	}
	c.ahead.Store(int64(ahead))
	return true
}

// try makes the call once.
func (c *Client) try(ctx context.Context, r request) (*http.Response, error) {
	query := url.Values{"api-version": {apiVersion}}
	for k, v := range r.query {
		query[k] = v
	}
	var body io.Reader
	if r.raw != nil {
		body = bytes.NewReader(r.raw)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "https://"+c.conn.host+r.path+"?"+query.Encode(), body)
	if err != nil {
		return nil, fmt.Errorf("admin: %s %s: %w", r.method, r.path, err)
	}
	expires := time.Now().Add(time.Duration(c.ahead.Load())).Add(tokenTTL)
	req.Header.Set("Authorization", c.conn.token("", expires))
	if r.raw == nil || r.body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	for name, value := range r.headers {
		req.Header[name] = []string{value} // as it is written
	}
	if r.ifMatch != "" {
		req.Header.Set("If-Match", r.ifMatch)
	}
	response, err := c.http.Do(req)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without the URL, which the path says better
		}
		return nil, fmt.Errorf("admin: %s %s: reach hub %s: %w", r.method, r.path, c.conn.host, err)
	}
	return response, nil
}

// readError reads the hub's error in each of the shapes it comes in.
func readError(response *http.Response) *Error {
	e := &Error{Status: response.StatusCode, Code: response.Header.Get("iothub-errorcode")}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10)) // what came is all there is to say
	var body struct{ Message string }
	if json.Unmarshal(text, &body) == nil && body.Message != "" {
		text = []byte(body.Message)
		if json.Unmarshal(text, &body) == nil && body.Message != "" { // direct methods: an error within the message
			text = []byte(body.Message)
		}
	}
	e.Text = strings.TrimPrefix(string(text), "ErrorCode:"+e.Code+";")
	return e
}

func quoted(etag string) string {
	if etag == "" {
		etag = "*"
	}
	return `"` + strings.Trim(etag, `"`) + `"`
}
