package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// maxAnswer bounds an answer: 50 components with a full reading each stay below it.
const maxAnswer = 32 << 20

// Client asks an agent over its socket. It may be used by several goroutines.
type Client struct {
	path string
	http http.Client
}

// Dial returns a client of the socket at path. It connects with the first call.
func Dial(path string) *Client {
	c := &Client{path: path}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
	}
	return c
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the whole device.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Twin asks for a component's twin.
func (c *Client) Twin(ctx context.Context, component string) (TwinView, error) {
	var t TwinView
	return t, c.call(ctx, http.MethodGet, "/v1/components/"+url.PathEscape(component)+"/twin", nil, &t)
}

// Invoke calls a direct method of a component. payload is JSON or empty.
func (c *Client) Invoke(ctx context.Context, component, method string, payload json.RawMessage) (MethodResult, error) {
	var m MethodResult
	path := "/v1/components/" + url.PathEscape(component) + "/methods/" + url.PathEscape(method)
	return m, c.call(ctx, http.MethodPost, path, payload, &m)
}

// Restart has a component's module started again.
func (c *Client) Restart(ctx context.Context, component string) (Restarted, error) {
	var r Restarted
	return r, c.call(ctx, http.MethodPost, "/v1/components/"+url.PathEscape(component)+"/restart", nil, &r)
}

// Reload has the agent read its device file again.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var r Reloaded
	return r, c.call(ctx, http.MethodPost, "/v1/reload", nil, &r)
}

// Metrics asks for the Prometheus text.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	res, err := c.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("answer of the agent at %s: %w", c.path, err)
	}
	return text, nil
}

// Resume has the agent leave safe mode.
func (c *Client) Resume(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/resume", nil, &struct{}{})
}

// Messages asks for the device's cloud-to-device messages.
func (c *Client) Messages(ctx context.Context) ([]CloudMessage, error) {
	var m []CloudMessage
	return m, c.call(ctx, http.MethodGet, "/v1/messages", nil, &m)
}

// Dismiss removes one, by its number or its message id.
func (c *Client) Dismiss(ctx context.Context, which string) error {
	return c.call(ctx, http.MethodDelete, "/v1/messages/"+url.PathEscape(which), nil, &struct{}{})
}

// Logs calls each for every line until the log ends, ctx ends (which is no error) or each fails.
func (c *Client) Logs(ctx context.Context, q LogQuery, each func(LogLine) error) error {
	v := url.Values{}
	if q.Component != "" {
		v.Set("component", q.Component)
	}
	if q.Lines != 0 {
		v.Set("lines", strconv.Itoa(q.Lines))
	}
	if q.Follow {
		v.Set("follow", "1")
	}
	res, err := c.do(ctx, http.MethodGet, "/v1/logs?"+v.Encode(), nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	for {
		var line LogLine
		switch err := dec.Decode(&line); {
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("log from %s ended: %w; is the agent still running?", c.path, err)
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

func (c *Client) call(ctx context.Context, method, path string, body []byte, out any) error {
	res, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("answer of the agent at %s: %w; do agent and command line have the same version?", c.path, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://twinbay"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	return nil, failed(res)
}

// remote is an error that the agent answered; it is the sentinel of its code.
type remote struct {
	text string
	is   error
}

func (r *remote) Error() string { return r.text }
func (r *remote) Unwrap() error { return r.is }

func failed(res *http.Response) error {
	var f failure
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&f); err != nil || f.Error == "" {
		return fmt.Errorf("the agent answered %s; do agent and command line have the same version?", strings.ToLower(res.Status))
	}
	for _, c := range codes {
		if c.code == f.Code {
			return &remote{f.Error, c.err}
		}
	}
	return &remote{f.Error, nil}
}

// explain says what to do when there is nobody to ask.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("no agent at %s: is twinbay running? start it with: twinbay run --config FILE, or name its socket with --socket", c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no agent behind %s any more: it was killed; start it with: twinbay run --config FILE", c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission to open %s: the agent belongs to another user; try again as that user or with sudo", c.path)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the URL, which nobody typed
	}
	return fmt.Errorf("ask the agent at %s: %w", c.path, err)
}
