package hub

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"
)

// lockTime is how long a message that somebody has taken is hidden from others. It can't be changed: Microsoft Learn,
// "Understand cloud-to-device messaging from an IoT hub".
const lockTime = time.Minute

// mail is one message in a mailbox. While it is locked, whoever holds the lock's token has it to settle.
type mail[T any] struct {
	item              T
	sequence          uint64
	enqueued, expires time.Time
	abandoned         int // the delivery count: it counts what was given back, and locks that ran out if C2DLockTimeout says so

	lock   string // token; "" while the message is free
	until  time.Time
	holder *Link // nil when the message was taken without a connection
}

func (m *mail[T]) take(now time.Time, holder *Link) {
	m.lock, m.until, m.holder = newToken(), now.Add(lockTime), holder
}

func (m *mail[T]) free() { m.lock, m.until, m.holder = "", time.Time{}, nil }

// mailbox holds messages in the order in which they came, until they are settled or expire. Whoever has it calls sweep
// when its timer says so: see arm.
type mailbox[T any] struct {
	all   []*mail[T] // by sequence number
	timer *time.Timer
}

// put takes a message in, whose sequence number is above those before it.
func (b *mailbox[T]) put(item T, sequence uint64, now, expires time.Time) *mail[T] {
	m := &mail[T]{item: item, sequence: sequence, enqueued: now, expires: expires}
	b.all = append(b.all, m)
	return m
}

// first is the first message that is free; nil means that there is none.
func (b *mailbox[T]) first(now time.Time) *mail[T] {
	for _, m := range b.all {
		if m.lock == "" && now.Before(m.expires) {
			return m
		}
	}
	return nil
}

// locked finds the message that a token locks; nil means that the lock is lost.
func (b *mailbox[T]) locked(token string, now time.Time) *mail[T] {
	for _, m := range b.all {
		if token != "" && m.lock == token && now.Before(m.until) {
			return m
		}
	}
	return nil
}

// release frees what a link holds.
func (b *mailbox[T]) release(l *Link) {
	for _, m := range b.all {
		if m.holder == l {
			m.free()
		}
	}
}

func (b *mailbox[T]) remove(m *mail[T]) {
	if i := slices.Index(b.all, m); i >= 0 {
		b.all = slices.Delete(b.all, i, i+1)
	}
}

// overdue are the messages whose locks have run out.
func (b *mailbox[T]) overdue(now time.Time) (all []*mail[T]) {
	for _, m := range b.all {
		if m.lock != "" && !now.Before(m.until) {
			all = append(all, m)
		}
	}
	return all
}

// sweep frees the messages whose locks have run out, and removes and answers the free ones that have expired. A locked
// message can still be completed after it has expired.
func (b *mailbox[T]) sweep(now time.Time) (expired []*mail[T]) {
	b.all = slices.DeleteFunc(b.all, func(m *mail[T]) bool {
		if m.lock != "" && !now.Before(m.until) {
			m.free()
		}
		gone := m.lock == "" && !now.Before(m.expires)
		if gone {
			expired = append(expired, m)
		}
		return gone
	})
	return expired
}

// arm has do called at the next moment at which sweep has something to do. do may be called when there is nothing.
func (b *mailbox[T]) arm(do func()) {
	var next time.Time
	for _, m := range b.all {
		at := m.expires
		if m.lock != "" {
			at = m.until
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	switch {
	case next.IsZero():
		b.disarm()
	case b.timer == nil:
		b.timer = time.AfterFunc(time.Until(next), do)
	default:
		b.timer.Reset(time.Until(next))
	}
}

func (b *mailbox[T]) disarm() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
}

// newToken is a random UUID (RFC 9562, version 4), which is what lock tokens and message ids of the hub look like.
func newToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: package crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
