package outbox

import (
	"container/heap"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Limits of one record: what a hub takes (Microsoft Learn, "IoT Hub quotas and throttling": 256 KB per device-to-cloud
// message, properties included) and what the module contract allows as state.
const (
	MaxMessage = 256 << 10
	MaxState   = 4 << 10
)

// maxCloses is how often in a row a connection may end with a record in flight before the record is set aside.
const maxCloses = 5

// overhead is what a record costs besides its bytes: its id, list and map entries.
const overhead = 200

// ErrClosed is an Append after Close.
var ErrClosed = errors.New("the outbox is closed")

// MemoryConfig bounds a Memory. The zero value works.
type MemoryConfig struct {
	MaxRecords int           // 0 means 10 000
	MaxBytes   int           // bodies, properties and 200 per record; 0 means 16 MiB
	MaxAge     time.Duration // of any record, whatever its TTL; 0 means no bound
	DefaultTTL time.Duration // of a record that names none; 0 means no bound
}

// Memory is a Box that survives a module's death and any outage of the hub, but not the agent's own end. It may be
// used by several goroutines.
//
// A time to live runs from Append, on the monotonic clock, so that a device whose clock is set after its start does
// not lose what it has gathered. Append keeps the record's Body and Properties; nobody may change them afterwards.
//
// Records that were in flight at two closes in a row are sent one at a time: Next then answers false until the one in
// flight is acknowledged. So a record that makes the hub close the connection is found alone, and its neighbours are
// not set aside with it.
type Memory struct {
	cfg   MemoryConfig
	epoch string
	more  chan struct{}

	mu       sync.Mutex
	closed   bool
	seq      uint64
	state    []byte
	waiting  [2]queue // by priority: normal, high
	flight   map[string]*item
	suspect  *item // the record that is sent alone; nil when none is in flight
	byID     map[string]*item
	expiring expiries // waiting records that can expire
	bytes    int
	accepted uint64
	acked    uint64
	dropped  map[string]uint64
}

// NewMemory makes an empty box with an epoch of its own.
func NewMemory(cfg MemoryConfig) *Memory {
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = 10_000
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 16 << 20
	}
	var epoch [4]byte
	rand.Read(epoch[:]) // never fails (package crypto/rand)
	return &Memory{
		cfg:     cfg,
		epoch:   hex.EncodeToString(epoch[:]),
		more:    make(chan struct{}, 1),
		flight:  map[string]*item{},
		byID:    map[string]*item{},
		dropped: map[string]uint64{},
	}
}

// Append implements [Box]. A box that is full makes room by the drop policy: what has expired, then the oldest of the
// lowest priority, which may be this very record. That is counted and no error. What is in flight is never dropped.
func (m *Memory) Append(r Record) (string, error) {
	size := len(r.Body)
	for k, v := range r.Properties {
		size += len(k) + len(v)
	}
	if size > MaxMessage || size+overhead > m.cfg.MaxBytes {
		return "", fmt.Errorf("outbox: message of %d bytes: %w", size, ErrTooLarge)
	}
	if len(r.State) > MaxState {
		return "", fmt.Errorf("outbox: state of %d bytes, the limit is %d: %w", len(r.State), MaxState, ErrTooLarge)
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return "", ErrClosed
	}
	if r.State != nil {
		m.state = slices.Clone(r.State)
		r.State = nil
	}
	if r.At.IsZero() {
		r.At = now
	}
	m.seq++
	m.accepted++
	r.ID = m.epoch + "-" + strconv.FormatUint(m.seq, 10)
	it := &item{Record: r, seq: m.seq, size: size + overhead, expires: m.expiry(r.TTL, now), heapAt: -1}
	m.byID[r.ID] = it
	m.bytes += it.size
	m.waiting[it.priority()].pushBack(it)
	m.expiring.add(it)
	m.makeRoom(now)
	m.signal()
	return r.ID, nil
}

func (m *Memory) expiry(ttl time.Duration, now time.Time) time.Time {
	if ttl <= 0 {
		ttl = m.cfg.DefaultTTL
	}
	if m.cfg.MaxAge > 0 && (ttl <= 0 || ttl > m.cfg.MaxAge) {
		ttl = m.cfg.MaxAge
	}
	if ttl <= 0 {
		return time.Time{}
	}
	return now.Add(ttl)
}

// State implements [Box].
func (m *Memory) State() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.state)
}

// Next implements [Box].
func (m *Memory) Next() (Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	if m.closed || m.suspect != nil {
		return Record{}, false
	}
	for p := len(m.waiting) - 1; p >= 0; p-- {
		it := m.waiting[p].first
		if it == nil {
			continue
		}
		if it.closes >= 2 {
			if len(m.flight) > 0 {
				return Record{}, false
			}
			m.suspect = it
		}
		m.waiting[p].remove(it)
		m.expiring.remove(it)
		m.flight[it.ID] = it
		return it.Record, true
	}
	return Record{}, false
}

// Acked implements [Box]. An id that the box does not hold is ignored.
func (m *Memory) Acked(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	it, ok := m.byID[id]
	if !ok {
		return
	}
	m.acked++
	m.forget(it)
	m.signal() // the next one may have waited for this
}

// Returned implements [Box].
func (m *Memory) Returned() {
	m.mu.Lock()
	defer m.mu.Unlock()
	back := slices.SortedFunc(maps.Values(m.flight), func(a, b *item) int {
		if a.seq > b.seq {
			return -1 // newest first, because each goes to the front
		}
		return 1
	})
	for _, it := range back {
		if it.closes++; it.closes >= maxCloses {
			m.drop(it, SetAside)
			continue
		}
		delete(m.flight, it.ID)
		m.waiting[it.priority()].pushFront(it)
		m.expiring.add(it)
	}
	m.suspect = nil
	m.makeRoom(time.Now())
	m.signal()
}

// More implements [Box].
func (m *Memory) More() <-chan struct{} { return m.more }

// Stats implements [Box].
func (m *Memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	s := Stats{
		Queued: len(m.byID), InFlight: len(m.flight), Bytes: m.bytes,
		Accepted: m.accepted, Acked: m.acked, Dropped: maps.Clone(m.dropped),
	}
	older := func(it *item) {
		if it != nil && (s.Oldest.IsZero() || it.At.Before(s.Oldest)) {
			s.Oldest = it.At
		}
	}
	for _, q := range m.waiting {
		older(q.first)
	}
	for _, it := range m.flight {
		older(it)
	}
	return s
}

// Close implements [Box]. What is left is lost.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// signal says that Next may have something, without blocking.
func (m *Memory) signal() {
	select {
	case m.more <- struct{}{}:
	default:
	}
}

// expire drops the waiting records whose time is over.
func (m *Memory) expire(now time.Time) {
	for len(m.expiring) > 0 && !m.expiring[0].expires.After(now) {
		m.drop(m.expiring[0], DroppedExpired)
	}
}

// makeRoom drops until the bounds hold, or until everything left is in flight.
func (m *Memory) makeRoom(now time.Time) {
	if !m.over() {
		return
	}
	m.expire(now)
	for m.over() {
		victim := m.waiting[0].first
		if victim == nil {
			victim = m.waiting[1].first
		}
		if victim == nil {
			return
		}
		m.drop(victim, DroppedFull)
	}
}

func (m *Memory) over() bool {
	return len(m.byID) > m.cfg.MaxRecords || m.bytes > m.cfg.MaxBytes
}

func (m *Memory) drop(it *item, reason string) {
	m.dropped[reason]++
	m.forget(it)
}

// forget removes a record from wherever it stands.
func (m *Memory) forget(it *item) {
	if _, ok := m.flight[it.ID]; ok {
		delete(m.flight, it.ID)
		if m.suspect == it {
			m.suspect = nil
		}
	} else {
		m.waiting[it.priority()].remove(it)
		m.expiring.remove(it)
	}
	delete(m.byID, it.ID)
	m.bytes -= it.size
}

// item is a record in the box: linked into a queue while it waits, in flight otherwise.
type item struct {
	Record
	seq     uint64
	size    int
	expires time.Time // zero: never
	closes  int       // connections that ended in a row while it was in flight

	prev, next *item
	heapAt     int // in expiries; -1 when not there
}

func (it *item) priority() int {
	if it.High {
		return 1
	}
	return 0
}

// queue is a doubly linked list, oldest first: a record leaves from anywhere when it expires.
type queue struct{ first, last *item }

func (q *queue) pushBack(it *item) {
	it.prev, it.next = q.last, nil
	if q.last != nil {
		q.last.next = it
	} else {
		q.first = it
	}
	q.last = it
}

func (q *queue) pushFront(it *item) {
	it.prev, it.next = nil, q.first
	if q.first != nil {
		q.first.prev = it
	} else {
		q.last = it
	}
	q.first = it
}

func (q *queue) remove(it *item) {
	if it.prev != nil {
		it.prev.next = it.next
	} else {
		q.first = it.next
	}
	if it.next != nil {
		it.next.prev = it.prev
	} else {
		q.last = it.prev
	}
	it.prev, it.next = nil, nil
}

// expiries is a heap of waiting records, the first to expire on top.
type expiries []*item

func (e *expiries) add(it *item) {
	if !it.expires.IsZero() {
		heap.Push(e, it)
	}
}

func (e *expiries) remove(it *item) {
	if it.heapAt >= 0 {
		heap.Remove(e, it.heapAt)
	}
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].expires.Before(e[j].expires) }
func (e expiries) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].heapAt, e[j].heapAt = i, j
}

func (e *expiries) Push(x any) {
	it := x.(*item)
	it.heapAt = len(*e)
	*e = append(*e, it)
}

func (e *expiries) Pop() any {
	old := *e
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	it.heapAt = -1
	return it
}
