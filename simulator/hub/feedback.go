package hub

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// Source: Microsoft Learn, "Understand cloud-to-device messaging from an IoT hub", Message feedback, unless said
// otherwise.
const (
	batchRecords = 64
	batchTime    = 15 * time.Second
	noticeTTL    = time.Hour
	maxNotices   = 1000 // ours: what nobody reads for an hour shall not fill the memory; the oldest go first
)

// FeedbackRecord says what has become of one cloud-to-device message.
type FeedbackRecord struct {
	OriginalMessageID  string `json:"originalMessageId"`
	EnqueuedTimeUTC    string `json:"enqueuedTimeUtc"` // of the message's end
	StatusCode         string `json:"statusCode"`      // Success, Expired, DeliveryCountExceeded, Rejected, Purged
	Description        string `json:"description"`
	DeviceID           string `json:"deviceId"`
	DeviceGenerationID string `json:"deviceGenerationId"`
}

// Notice is a message of the hub to services: a batch of feedback, or a file notification. It is locked for a minute
// like a Delivery.
type Notice struct {
	Token    string
	Sequence uint64
	Enqueued time.Time
	Count    int             // how often it has been abandoned before
	Body     json.RawMessage // feedback: an array of FeedbackRecord
}

// feedback collects records into batches: one is sent when 64 records are there, or when the last was sent 15 s ago.
type feedback struct {
	notices
	open  []FeedbackRecord
	sent  time.Time
	timer *time.Timer
}

func (h *Hub) giveFeedback(n *identity, message, status string) {
	f := &h.feedback
	now := time.Now()
	f.open = append(f.open, FeedbackRecord{
		OriginalMessageID:  message,
		EnqueuedTimeUTC:    twinTime(now),
		StatusCode:         status,
		Description:        status,
		DeviceID:           n.id.Device,
		DeviceGenerationID: n.generation,
	})
	h.changed(feedbacks, openBatch)
	wait := batchTime - now.Sub(f.sent)
	switch {
	case len(f.open) >= batchRecords || wait <= 0:
		h.sendFeedback(now)
	case f.timer == nil:
		h.closeBatchIn(wait)
	}
}

func (h *Hub) closeBatchIn(wait time.Duration) {
	h.feedback.timer = time.AfterFunc(wait, func() {
		h.mu.Lock()
		defer h.unlock()
		h.sendFeedback(time.Now())
	})
}

func (h *Hub) sendFeedback(now time.Time) {
	f := &h.feedback
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if len(f.open) == 0 {
		return
	}
	h.post(&f.notices, feedbacks, encode(f.open), now)
	f.open, f.sent = nil, now
	h.changed(feedbacks, openBatch)
}

// dropFeedback forgets what is not sent yet of an identity that is deleted, as the hub does.
func (h *Hub) dropFeedback(n *identity) {
	before := len(h.feedback.open)
	h.feedback.open = slices.DeleteFunc(h.feedback.open, func(r FeedbackRecord) bool {
		return r.DeviceGenerationID == n.generation
	})
	if len(h.feedback.open) != before {
		h.changed(feedbacks, openBatch)
	}
}

// ReceiveFeedback hands out the next batch of feedback; ok is false when none is free.
func (h *Hub) ReceiveFeedback() (n Notice, ok bool) {
	h.mu.Lock()
	defer h.unlock()
	return h.receive(&h.feedback.notices, feedbacks, time.Now())
}

// SettleFeedback ends a batch that was handed out, or gives it back. Error: DeviceMessageLockLost.
func (h *Hub) SettleFeedback(token string, how Outcome) error {
	h.mu.Lock()
	defer h.unlock()
	if err := h.settleNotice(&h.feedback.notices, feedbacks, token, how, time.Now()); err != nil {
		return err
	}
	return nil
}

// notices are messages to services. They need no timer: what has expired is swept whenever somebody looks.
type notices struct {
	box mailbox[json.RawMessage]
}

// sweep removes what has expired.
func (h *Hub) sweep(q *notices, kind string, now time.Time) {
	for _, m := range q.box.sweep(now) {
		h.changedNotice(kind, m)
	}
}

func (h *Hub) changedNotice(kind string, m *mail[json.RawMessage]) {
	h.changed(kind, strconv.FormatUint(m.sequence, 10))
}

func (h *Hub) post(q *notices, kind string, body json.RawMessage, now time.Time) {
	h.sweep(q, kind, now)
	if len(q.box.all) >= maxNotices {
		h.changedNotice(kind, q.box.all[0])
		q.box.remove(q.box.all[0])
	}
	h.changedNotice(kind, q.box.put(body, h.nextSequence(), now, now.Add(noticeTTL)))
}

func (h *Hub) receive(q *notices, kind string, now time.Time) (Notice, bool) {
	h.sweep(q, kind, now)
	m := q.box.first(now)
	if m == nil {
		return Notice{}, false
	}
	m.take(now, nil)
	return Notice{Token: m.lock, Sequence: m.sequence, Enqueued: m.enqueued, Count: m.abandoned, Body: m.item}, true
}

func (h *Hub) settleNotice(q *notices, kind, token string, how Outcome, now time.Time) *Error {
	m := q.box.locked(token, now)
	if m == nil {
		return &Error{Code: 412002, Name: "DeviceMessageLockLost", Text: "the lock token is not, or no longer, one of a notification"}
	}
	h.changedNotice(kind, m)
	if how == Abandon && m.abandoned+1 < defaultDeliveries {
		m.abandoned++
		m.free()
		return nil
	}
	q.box.remove(m)
	return nil
}
