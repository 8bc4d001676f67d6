package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// maxLine is how long an event may be: 256 KiB of properties, of which each byte may be escaped by six.
const maxLine = 2 << 20 // bytes

// Event is something that happened at a simulated hub.
type Event struct {
	At         time.Time         `json:"at"`
	Kind       string            `json:"kind"` // connected, disconnected, telemetry, reported, desired, tags, method, …
	DeviceID   string            `json:"deviceId"`
	ModuleID   string            `json:"moduleId,omitempty"`
	Body       json.RawMessage   `json:"body,omitempty"`
	Base64     []byte            `json:"base64,omitempty"` // telemetry that is not JSON
	Properties map[string]string `json:"properties,omitempty"`
	System     map[string]string `json:"system,omitempty"`
	Detail     string            `json:"detail,omitempty"`
}

// Events calls each for every event of a simulated hub, until ctx ends or each fails. ready, if not nil, is called once
// events are being received. A hub in the cloud has no such stream: it is an error that says where its events are read.
func (c *Client) Events(ctx context.Context, ready func(), each func(Event) error) error {
	response, err := c.send(ctx, request{method: http.MethodGet, path: "/_sim/events"})
	if _, ok := errors.AsType[*Error](err); ok {
		return fmt.Errorf("admin: read events: %w; only a simulated hub has them here, for the policy iothubowner. "+
			"A cloud hub's are read from its Event Hubs-compatible endpoint (az iot hub monitor-events)", err)
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if ready != nil {
		ready()
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("admin: read an event: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("admin: the event stream broke off: %w", err)
	}
	return errors.New("admin: the hub has ended the event stream")
}
