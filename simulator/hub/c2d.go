package hub

import (
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"
)

// Source: Microsoft Learn, "Understand cloud-to-device messaging from an IoT hub" (2026), unless said otherwise.
const (
	maxPendingC2D     = 50       // in one identity's queue
	maxC2D            = 64 << 10 // bytes, counted like telemetry: "IoT Hub quotas and throttling"
	maxMessageID      = 128      // characters: "Create and read IoT Hub messages"
	defaultTTL        = time.Hour
	minTTL, maxTTL    = time.Minute, 48 * time.Hour
	defaultDeliveries = 10
	maxUnderWay       = 256 << 10 // bytes to one link, more than one message; ours: what a door may have to keep in memory
)

// C2D is a cloud-to-device message as a service sends it. System properties count as far as a device is shown them:
// message-id, correlation-id, user-id, content-type, content-encoding, iothub-creation-time-utc and iothub-operation.
// The hub sets message-id if there is none, and to.
type C2D struct {
	Message
	Expires time.Time // zero means the hub's default time to live from now, and stays zero where the message is shown
	Ack     string    // none, positive, negative or full: what feedback the service wants; "" means none
}

// Delivery is a cloud-to-device message that has been handed out. It is locked for a minute: who has the token settles
// it, or it is handed out again.
type Delivery struct {
	C2D
	Token    string
	Sequence uint64 // rises from message to message
	Enqueued time.Time
	Count    int // how often it has been abandoned before
}

// Outcome is what becomes of a message that was handed out.
type Outcome int

const (
	Complete Outcome = iota // it has been taken
	Abandon                 // back into the queue, and one up in the delivery count
	Reject                  // nobody should try again
)

// What feedback says of a message's end.
const (
	statusSuccess    = "Success"
	statusExpired    = "Expired"
	statusDeliveries = "DeliveryCountExceeded"
	statusRejected   = "Rejected"
	statusPurged     = "Purged"
)

// SendC2D puts a message into the queue of a device or a module. Errors: DeviceNotFound, DeviceMaximumQueueDepthExceeded
// with 50 messages in the queue, MessageTooLarge above 64 KiB, InvalidMessageExpiryTime, ArgumentInvalid.
func (h *Hub) SendC2D(id ID, m C2D) error {
	now := time.Now()
	expires := m.Expires
	if expires.IsZero() {
		expires = now.Add(h.ttl)
	}
	if err := m.check(now, expires); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil {
		return err
	}
	if len(n.mail.all) >= maxPendingC2D {
		return &Error{Code: 403004, Name: "DeviceMaximumQueueDepthExceeded",
			Text: "50 cloud-to-device messages wait for " + id.String() + " already; purge them, or have it connect"}
	}
	if err := h.spend(id, m.size()); err != nil {
		return err
	}
	m = m.own(id)
	h.changedMail(n, n.mail.put(m, h.nextSequence(), now, expires))
	e := h.c2dEvent(n, &m, "queued")
	e.Properties = m.Properties
	e.setBody(m.Body)
	h.emit(e)
	h.deliver(n)
	return nil
}

func (m *C2D) check(now, expires time.Time) *Error {
	switch {
	case m.size() > maxC2D:
		return &Error{Code: 413001, Name: "MessageTooLarge", Text: "a cloud-to-device message is at most 65536 bytes with its properties"}
	case !slices.Contains([]string{"", "none", "positive", "negative", "full"}, m.Ack):
		return argument("iothub-ack %q: want none, positive, negative or full", m.Ack)
	case utf8.RuneCountInString(m.System["message-id"]) > maxMessageID:
		return argument("message-id is longer than %d characters", maxMessageID)
	case !expires.After(now) || expires.After(now.Add(maxTTL)):
		return &Error{Code: 403009, Name: "InvalidMessageExpiryTime", Text: "the message's expiry must be to come, and within two days"}
	}
	return nil
}

// own copies what the sender may change later, and sets what is the hub's to set.
func (m C2D) own(id ID) C2D {
	system := map[string]string{"to": "/devices/" + id.Device + "/messages/devicebound"}
	if id.Module != "" {
		system["to"] = "/devices/" + id.Device + "/modules/" + id.Module + "/messages/devicebound"
	}
	for _, name := range []string{"message-id", "correlation-id", "user-id", "content-type", "content-encoding",
		"iothub-creation-time-utc", "iothub-operation"} {
		if v := m.System[name]; v != "" {
			system[name] = v
		}
	}
	if system["message-id"] == "" {
		system["message-id"] = newToken()
	}
	properties := make(map[string]string, len(m.Properties))
	for k, v := range m.Properties {
		properties[k] = v
	}
	m.Message = Message{Body: slices.Clone(m.Body), Properties: properties, System: system}
	if m.Ack == "" {
		m.Ack = "none"
	}
	return m
}

// ReceiveC2D hands out the next message to somebody without a connection (HTTPS). ok is false when none is free.
func (h *Hub) ReceiveC2D(id ID) (d Delivery, ok bool, err error) {
	h.mu.Lock()
	defer h.unlock()
	n, bad := h.admissible(id)
	if bad != nil {
		return Delivery{}, false, bad
	}
	now := time.Now()
	n.activity = now
	h.expire(n, now)
	m := n.mail.first(now)
	if m == nil {
		return Delivery{}, false, nil
	}
	m.take(now, nil)
	h.arm(n)
	return delivery(m), true, nil
}

// SettleC2D ends or gives back a message that was handed out. Error: DeviceMessageLockLost, when the token locks nothing
// of this identity (any more).
func (h *Hub) SettleC2D(id ID, token string, how Outcome) error {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.admissible(id)
	if err != nil {
		return err
	}
	if err := h.settle(n, token, how); err != nil {
		return err
	}
	return nil
}

// PurgeC2D empties the queue of an identity, of what was handed out too, and answers how many messages there were.
func (h *Hub) PurgeC2D(id ID) (int, error) {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil {
		return 0, err
	}
	all := n.mail.all
	n.mail.all = nil
	for _, m := range all {
		h.conclude(n, m, statusPurged)
	}
	h.arm(n)
	return len(all), nil
}

// Window has up to n cloud-to-device messages, and 256 KiB if they are more than one, be under way to the device at once;
// 0, as a link begins, means none.
// Each is handed to Peer.CloudToDevice and stays under way until it is settled or its lock runs out.
func (l *Link) Window(n int) {
	l.hub.mu.Lock()
	defer l.hub.unlock()
	if l.over {
		return
	}
	l.window = n
	l.hub.deliver(l.n)
}

// Settle is SettleC2D for what this link was handed.
func (l *Link) Settle(token string, how Outcome) error {
	l.hub.mu.Lock()
	defer l.hub.unlock()
	if l.over {
		return l.gone()
	}
	if err := l.hub.settle(l.n, token, how); err != nil {
		return err
	}
	return nil
}

func (h *Hub) settle(n *identity, token string, how Outcome) *Error {
	now := time.Now()
	m := n.mail.locked(token, now)
	if m == nil {
		return &Error{Code: 412002, Name: "DeviceMessageLockLost", Text: "the lock token is not, or no longer, one of a message of " + n.id.String()}
	}
	n.activity = now
	switch {
	case how == Complete:
		n.mail.remove(m)
		h.conclude(n, m, statusSuccess)
	case how == Reject:
		n.mail.remove(m)
		h.conclude(n, m, statusRejected)
	default:
		h.giveBack(n, m, "abandoned")
	}
	h.deliver(n)
	return nil
}

// giveBack has a message wait for the next one to take it, unless that has been so too often.
func (h *Hub) giveBack(n *identity, m *mail[C2D], why string) {
	m.abandoned++
	m.free()
	if m.abandoned >= h.deliveries {
		n.mail.remove(m)
		h.conclude(n, m, statusDeliveries)
		return
	}
	h.changedMail(n, m)
	h.emit(h.c2dEvent(n, &m.item, why))
}

// deliver tells the link what its window has room for.
func (h *Hub) deliver(n *identity) {
	now := time.Now()
	h.expire(n, now)
	if l := n.link; l != nil {
		held, bytes := 0, 0
		for _, m := range n.mail.all {
			if m.holder == l {
				held, bytes = held+1, bytes+m.item.size()
			}
		}
		for held < l.window {
			m := n.mail.first(now)
			if m == nil || held > 0 && bytes+m.item.size() > maxUnderWay {
				break
			}
			m.take(now, l)
			held, bytes = held+1, bytes+m.item.size()
			d := delivery(m)
			h.tell(l, func(p Peer) { p.CloudToDevice(d) })
		}
	}
	h.arm(n)
}

func (h *Hub) expire(n *identity, now time.Time) {
	if h.Chose(C2DLockTimeout, "count") {
		for _, m := range n.mail.overdue(now) {
			h.giveBack(n, m, "lock timed out")
		}
	}
	for _, m := range n.mail.sweep(now) {
		h.conclude(n, m, statusExpired)
	}
}

// arm has the queue looked at when its next lock runs out or its next message expires.
func (h *Hub) arm(n *identity) {
	n.mail.arm(func() {
		h.mu.Lock()
		defer h.unlock()
		h.deliver(n)
	})
}

// conclude tells of the end of a message, and the service if it has asked for that.
func (h *Hub) conclude(n *identity, m *mail[C2D], status string) {
	h.changedMail(n, m)
	h.emit(h.c2dEvent(n, &m.item, status))
	wanted := m.item.Ack == "full" || m.item.Ack == "positive" && status == statusSuccess ||
		m.item.Ack == "negative" && status != statusSuccess
	if wanted {
		h.giveFeedback(n, m.item.System["message-id"], status)
	}
}

func (h *Hub) c2dEvent(n *identity, m *C2D, detail string) Event {
	return Event{Kind: "c2d", DeviceID: n.id.Device, ModuleID: n.id.Module, Detail: detail,
		System: map[string]string{"message-id": m.System["message-id"]}}
}

func delivery(m *mail[C2D]) Delivery {
	return Delivery{C2D: m.item, Token: m.lock, Sequence: m.sequence, Enqueued: m.enqueued, Count: m.abandoned}
}

// size is what the hub counts of a message: body, values of system properties, names and values of the others.
func (m *Message) size() int {
	size := len(m.Body)
	for _, v := range m.System {
		size += len(v)
	}
	for k, v := range m.Properties {
		size += len(k) + len(v)
	}
	return size
}

// setBody shows a body as JSON if it is some.
func (e *Event) setBody(body []byte) {
	if utf8.Valid(body) && json.Valid(body) {
		e.Body = append(e.Body, body...)
		return
	}
	e.Base64 = append(e.Base64, body...)
}
