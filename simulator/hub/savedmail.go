package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of what waits to be delivered. Locks are not kept: who held one has lost its connection with the hub's end.
const (
	messages  = "c2d"      // key: sequence number, space, id of the device or module
	feedbacks = "feedback" // key: sequence number; "open" for the records that are not in a batch yet
)

func (h *Hub) changedMail(n *identity, m *mail[C2D]) {
	h.changed(messages, strconv.FormatUint(m.sequence, 10)+" "+n.id.String())
}

// mailKey reads a key of changedMail.
func mailKey(key string) (uint64, ID, error) {
	number, who, ok := strings.Cut(key, " ")
	sequence, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return 0, ID{}, errors.New("the key is not a sequence number and an id")
	}
	return sequence, keyID(who), nil
}

type savedMail struct {
	Enqueued   time.Time         `json:"enqueued"`
	Expires    time.Time         `json:"expires"`
	Abandoned  int               `json:"abandoned,omitempty"`
	Body       []byte            `json:"body"`
	Properties map[string]string `json:"properties,omitempty"`
	System     map[string]string `json:"system,omitempty"`
	Expiry     *time.Time        `json:"expiry,omitempty"` // as the sender gave it
	Ack        string            `json:"ack,omitempty"`
}

func messagesKind() kind {
	return kind{
		name: messages,
		save: func(h *Hub, key string) any {
			sequence, id, err := mailKey(key)
			if err != nil {
				return nil
			}
			n, missing := h.find(id)
			if missing != nil {
				return nil
			}
			m := n.mail.numbered(sequence)
			if m == nil {
				return nil
			}
			return savedMail{m.enqueued.UTC(), m.expires.UTC(), m.abandoned, m.item.Body, m.item.Properties, m.item.System,
				savedTime(m.item.Expires), m.item.Ack}
		},
		keys: func(h *Hub) []string {
			var keys []string
			add := func(n *identity) {
				for _, m := range n.mail.all {
					keys = append(keys, strconv.FormatUint(m.sequence, 10)+" "+n.id.String())
				}
			}
			for _, d := range h.devices {
				add(&d.identity)
				for _, m := range d.modules {
					add(m)
				}
			}
			return keys
		},
		load: func(h *Hub, key string, data []byte) error {
			var s savedMail
			if err := decodeSaved(data, &s); err != nil {
				return err
			}
			sequence, id, err := mailKey(key)
			if err != nil {
				return err
			}
			n, missing := h.find(id)
			if missing != nil {
				return errors.New("its identity is not there")
			}
			if len(n.mail.all) >= maxPendingC2D {
				return fmt.Errorf("%s has more than %d messages", id, maxPendingC2D)
			}
			item := C2D{Message{s.Body, s.Properties, s.System}, loadedTime(s.Expiry), s.Ack}
			n.mail.restore(&mail[C2D]{item: item, sequence: sequence, enqueued: s.Enqueued, expires: s.Expires, abandoned: s.Abandoned})
			h.sequence = max(h.sequence, sequence)
			h.arm(n)
			return nil
		},
	}
}

type savedNotice struct {
	Enqueued  time.Time       `json:"enqueued"`
	Expires   time.Time       `json:"expires"`
	Abandoned int             `json:"abandoned,omitempty"`
	Body      json.RawMessage `json:"body"`
}

const openBatch = "open"

func feedbackKind() kind {
	return kind{
		name: feedbacks,
		save: func(h *Hub, key string) any {
			if key == openBatch {
				if len(h.feedback.open) == 0 {
					return nil
				}
				return h.feedback.open
			}
			return h.feedback.save(key)
		},
		keys: func(h *Hub) []string {
			keys := h.feedback.keys()
			if len(h.feedback.open) > 0 {
				keys = append(keys, openBatch)
			}
			return keys
		},
		load: func(h *Hub, key string, data []byte) error {
			if key != openBatch {
				return h.feedback.load(h, key, data)
			}
			var records []FeedbackRecord
			if err := decodeSaved(data, &records); err != nil {
				return err
			}
			if len(records) > batchRecords {
				return fmt.Errorf("more than %d records in a batch", batchRecords)
			}
			h.feedback.open = records
			h.closeBatchIn(batchTime)
			return nil
		},
	}
}

func (q *notices) save(key string) any {
	sequence, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		return nil
	}
	m := q.box.numbered(sequence)
	if m == nil {
		return nil
	}
	return savedNotice{m.enqueued.UTC(), m.expires.UTC(), m.abandoned, m.item}
}

func (q *notices) keys() []string {
	keys := make([]string, len(q.box.all))
	for i, m := range q.box.all {
		keys[i] = strconv.FormatUint(m.sequence, 10)
	}
	return keys
}

func (q *notices) load(h *Hub, key string, data []byte) error {
	var s savedNotice
	if err := decodeSaved(data, &s); err != nil {
		return err
	}
	sequence, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		return errors.New("the key is not a sequence number")
	}
	if s.Body == nil || len(q.box.all) >= maxNotices {
		return errors.New("the record is not whole, or one too many")
	}
	q.box.restore(&mail[json.RawMessage]{item: s.Body, sequence: sequence, enqueued: s.Enqueued, expires: s.Expires, abandoned: s.Abandoned})
	h.sequence = max(h.sequence, sequence)
	return nil
}

// numbered finds a message; nil means that it is gone.
func (b *mailbox[T]) numbered(sequence uint64) *mail[T] {
	i, ok := b.position(sequence)
	if !ok {
		return nil
	}
	return b.all[i]
}

// restore puts a message back into its place, in the place of one with its number.
func (b *mailbox[T]) restore(m *mail[T]) {
	i, ok := b.position(m.sequence)
	if ok {
		b.all[i] = m
		return
	}
	b.all = slices.Insert(b.all, i, m)
}

func (b *mailbox[T]) position(sequence uint64) (int, bool) {
	return slices.BinarySearchFunc(b.all, sequence, func(m *mail[T], n uint64) int {
		switch {
		case m.sequence < n:
			return -1
		case m.sequence > n:
			return 1
		}
		return 0
	})
}
