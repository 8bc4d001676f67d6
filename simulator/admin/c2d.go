package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// C2D is a cloud-to-device message. Everything but the body may be left out.
type C2D struct {
	Body       []byte
	Properties map[string]string
	MessageID  string
	Ack        string    // none, positive, negative or full
	Expires    time.Time // the hub's default time to live from now
}

// SendC2D sends a message to a device or a module.
func (c *Client) SendC2D(ctx context.Context, id ID, m C2D) error {
	headers := map[string]string{}
	for name, value := range m.Properties {
		headers["iothub-app-"+name] = value
	}
	if m.MessageID != "" {
		headers["iothub-messageid"] = m.MessageID
	}
	if m.Ack != "" {
		headers["iothub-ack"] = m.Ack
	}
	if !m.Expires.IsZero() {
		headers["iothub-expiry"] = m.Expires.UTC().Format(time.RFC3339Nano)
	}
	_, err := c.call(ctx, request{method: http.MethodPost, path: id.path("devices") + "/messages/deviceBound", headers: headers, raw: m.Body})
	return err
}

// PurgeC2D empties the queue of an identity and answers how many messages there were.
func (c *Client) PurgeC2D(ctx context.Context, id ID) (int, error) {
	answer, err := c.call(ctx, request{method: http.MethodDelete, path: id.path("devices") + "/commands"})
	if err != nil {
		return 0, err
	}
	var purged struct{ TotalMessagesPurged int }
	if err := json.Unmarshal(answer, &purged); err != nil {
		return 0, fmt.Errorf("admin: read how many messages of %s were purged: %w", id, err)
	}
	return purged.TotalMessagesPurged, nil
}

// Feedback is one batch of feedback on messages, an array of records. It is locked for a minute: complete it, or it
// comes again.
type Feedback struct {
	Records json.RawMessage
	lock    string
}

const feedbackPath = "/messages/serviceBound/feedback"

// Feedback answers the next batch. Its Records are nil when there is none.
func (c *Client) Feedback(ctx context.Context) (Feedback, error) {
	response, err := c.send(ctx, request{method: http.MethodGet, path: feedbackPath})
	if err != nil {
		return Feedback{}, err
	}
	records, err := readAnswer(response, feedbackPath)
	if err != nil || response.StatusCode == http.StatusNoContent {
		return Feedback{}, err
	}
	return Feedback{Records: records, lock: strings.Trim(response.Header.Get("ETag"), `"`)}, nil
}

// CompleteFeedback says that a batch has been read.
func (c *Client) CompleteFeedback(ctx context.Context, f Feedback) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: feedbackPath + "/" + url.PathEscape(f.lock)})
	return err
}
