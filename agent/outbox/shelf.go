package outbox

import (
	"container/heap"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of one record: what a hub takes (Microsoft Learn, "IoT Hub quotas and throttling": 256 KB per device-to-cloud
// message, properties included) and what the module contract allows as state.
const (
	MaxMessage = 256 << 10
	MaxState   = 4 << 10
)

// maxCloses is how often a connection may end with a record in flight, others being acknowledged in between, before the
// record is set aside.
const maxCloses = 5

// check refuses what no box takes, and answers the bytes that the hub would count.
func check(r Record) (int, error) {
	size := len(r.Body)
	for k, v := range r.Properties {
		size += len(k) + len(v)
	}
	if size > MaxMessage {
		return 0, fmt.Errorf("outbox: message of %d bytes: %w", size, ErrTooLarge)
	}
	if len(r.State) > MaxState {
		return 0, fmt.Errorf("outbox: state of %d bytes, the limit is %d: %w", len(r.State), MaxState, ErrTooLarge)
	}
	return size, nil
}

// newEpoch is the first part of ids: 48 random bits, new at each start, so that no id repeats when sequence numbers do.
func newEpoch() uint64 {
	var b [8]byte
	rand.Read(b[2:]) // never fails (package crypto/rand)
	return binary.BigEndian.Uint64(b[:])
}

func idOf(epoch, seq uint64) string { return fmt.Sprintf("%012x-%d", epoch, seq) }

func parseID(id string) (epoch, seq uint64, ok bool) {
	e, s, ok := strings.Cut(id, "-")
	if !ok {
		return 0, 0, false
	}
	epoch, err := strconv.ParseUint(e, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	seq, err = strconv.ParseUint(s, 10, 64)
	return epoch, seq, err == nil
}

// Where an item stands.
const (
	pending  = iota // put, and not to be sent yet
	waiting         // in a queue
	inFlight        // sent, not acknowledged
	aside           // set aside
	gone            // nowhere
)

// item is a record in a box.
type item struct {
	rec     *Record // nil: only on disk
	epoch   uint64
	seq     uint64
	at      int64         // Record.At, ns since 1970
	expires time.Duration // on the owner's clock; 0: never
	size    int           // what counts towards the bounds
	closes  uint8         // connections that ended while it was in flight, as shelf.returned counts them
	high    bool
	place   uint8
	heapAt  int    // in expiries; -1 when not there
	acked   uint64 // shelf.acked at the last of closes
	round   uint64 // shelf.round at the last of closes

	prev, next *item

	// Of a Log's box alone.
	seg         *segment // nil: not on disk
	off, length int
	writing     bool
	done        func(id string, err error) // nil: called
}

func (it *item) id() string { return idOf(it.epoch, it.seq) }

func (it *item) queue() int {
	if it.high {
		return 1
	}
	return 0
}

// shelf is the order, the bounds and the counts of one component's records. Its owner holds a lock around each call, and
// has one clock for all times: one that only goes forward, and never stands at 0.
//
// Records that were in flight at two closes are sent one at a time: next then answers nil until the one in flight is
// acknowledged. So a record that makes the hub close the connection is found alone, and its neighbours are not set aside
// with it.
//
// A hub that throttles, or whose quota is used up, closes on every record, and over MQTT 3.1.1 nothing tells the one from
// the other. So from the second close on, a close counts against a record only if another one was acknowledged since the
// close before, and while nothing is acknowledged another record is tried each time.
type shelf struct {
	more chan struct{}
	left func(it *item, reason string) // told of each item that leaves or is set aside; "" is acknowledged

	queues   [2]queue // waiting, by priority: normal, high
	items    map[uint64]*item
	flight   int
	suspect  *item    // the record that is sent alone; nil when none is in flight
	round    uint64   // a new one begins with each acknowledgement, and when all that waits was tried
	expiring expiries // waiting items that can expire
	aside    []*item
	bytes    int
	accepted uint64
	acked    uint64
	dropped  map[string]uint64
}

func newShelf(left func(*item, string)) *shelf {
	return &shelf{more: make(chan struct{}, 1), left: left, round: 1, items: map[uint64]*item{}, dropped: map[string]uint64{}}
}

// lifetime is when a record that is put now expires.
func lifetime(now, ttl, standard, longest time.Duration) time.Duration {
	if ttl <= 0 {
		ttl = standard
	}
	if longest > 0 && (ttl <= 0 || ttl > longest) {
		ttl = longest
	}
	if ttl <= 0 {
		return 0
	}
	return now + ttl
}

// show puts an item where it is sent from. It is younger than all that is there.
func (s *shelf) show(it *item) {
	s.items[it.seq] = it
	s.bytes += it.size
	it.place = waiting
	s.queues[it.queue()].pushBack(it)
	s.expiring.add(it)
	s.signal()
}

func (s *shelf) next(now time.Duration) *item {
	s.expire(now)
	if s.suspect != nil {
		return nil
	}
	it := s.first()
	if it == nil {
		return nil
	}
	if it.closes >= 2 {
		if s.flight > 0 {
			return nil
		}
		it = s.untried()
		s.suspect = it
	}
	s.queues[it.queue()].remove(it)
	s.expiring.remove(it)
	it.place = inFlight
	s.flight++
	return it
}

// first is the oldest waiting record of the highest priority.
func (s *shelf) first() *item {
	if it := s.queues[1].first; it != nil {
		return it
	}
	return s.queues[0].first
}

// untried is the first waiting record that no connection has ended with in this round. Those that it passes over are as
// many as connections have ended since the last acknowledgement, and a burst. Something waits.
func (s *shelf) untried() *item {
	for _, first := range []*item{s.queues[1].first, s.queues[0].first} {
		for it := first; it != nil; it = it.next {
			if it.round != s.round {
				return it
			}
		}
	}
	s.round++
	return s.first()
}

func (s *shelf) find(id string) *item {
	epoch, seq, ok := parseID(id)
	if it := s.items[seq]; ok && it != nil && it.epoch == epoch {
		return it
	}
	return nil
}

func (s *shelf) ack(it *item) {
	s.acked++
	s.round++
	s.forget(it)
	s.left(it, "")
	s.signal() // the next one may have waited for this
}

// refuse takes the hub's word that it will never have an item. It is an answer like an acknowledgement: the hub is there.
func (s *shelf) refuse(it *item) {
	s.round++
	s.drop(it, DroppedRefused)
	s.signal()
}

func (s *shelf) returned() {
	var back []*item
	if s.flight > 0 {
		for _, it := range s.items {
			if it.place == inFlight {
				back = append(back, it)
			}
		}
	}
	slices.SortFunc(back, func(a, b *item) int {
		if a.seq > b.seq {
			return -1 // newest first, because each goes to the front
		}
		return 1
	})
	for _, it := range back {
		if it.closes < 2 || it.acked != s.acked {
			it.closes++
		}
		it.acked, it.round = s.acked, s.round
		if it.closes >= maxCloses {
			s.setAside(it)
			continue
		}
		s.flight--
		it.place = waiting
		s.queues[it.queue()].pushFront(it)
		s.expiring.add(it)
	}
	s.suspect = nil
	s.signal()
}

func (s *shelf) setAside(it *item) {
	s.forget(it)
	s.dropped[SetAside]++
	s.left(it, SetAside)
	s.keepAside(it)
}

// keepAside keeps an item for people, and forgets the oldest beyond MaxAside.
func (s *shelf) keepAside(it *item) {
	it.place = aside
	s.aside = append(s.aside, it)
	if len(s.aside) > MaxAside {
		old := s.aside[0]
		s.aside = slices.Clone(s.aside[1:])
		old.place = gone
		s.left(old, "")
	}
}

// expire drops the waiting records whose time is over.
func (s *shelf) expire(now time.Duration) {
	for len(s.expiring) > 0 && s.expiring[0].expires <= now {
		s.drop(s.expiring[0], DroppedExpired)
	}
}

// victim is the oldest waiting record of the lowest priority.
func (s *shelf) victim() *item {
	if it := s.queues[0].first; it != nil {
		return it
	}
	return s.queues[1].first
}

// drop counts and removes; a record whose Put is not done yet is no loss, but refused.
func (s *shelf) drop(it *item, reason string) {
	if it.done == nil {
		s.dropped[reason]++
	}
	s.forget(it)
	s.left(it, reason)
}

// forget removes an item from wherever it stands.
func (s *shelf) forget(it *item) {
	switch it.place {
	case inFlight:
		s.flight--
		if s.suspect == it {
			s.suspect = nil
		}
	case waiting:
		s.queues[it.queue()].remove(it)
		s.expiring.remove(it)
	}
	it.place = gone
	delete(s.items, it.seq)
	s.bytes -= it.size
}

// signal says that next may have something, without blocking.
func (s *shelf) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *shelf) stats(now time.Duration) Stats {
	s.expire(now)
	st := Stats{
		Queued: len(s.items), InFlight: s.flight, Bytes: s.bytes,
		Accepted: s.accepted, Acked: s.acked, Dropped: maps.Clone(s.dropped),
	}
	older := func(it *item) {
		if at := time.Unix(0, it.at); st.Oldest.IsZero() || at.Before(st.Oldest) {
			st.Oldest = at
		}
	}
	for _, q := range s.queues {
		if q.first != nil {
			older(q.first)
		}
	}
	if s.flight > 0 {
		for _, it := range s.items {
			if it.place == inFlight {
				older(it)
			}
		}
	}
	for _, it := range s.aside {
		st.Aside = append(st.Aside, Aside{ID: it.id(), At: time.Unix(0, it.at), Bytes: it.size})
	}
	return st
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
	it.heapAt = -1
	if it.expires != 0 {
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
func (e expiries) Less(i, j int) bool { return e[i].expires < e[j].expires }
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
