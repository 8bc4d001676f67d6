package outbox

import (
	"fmt"
	"slices"
	"time"
)

// box is one component's part of a Log. The log's lock guards it.
type box struct {
	log   *Log
	name  string
	open  bool
	next  uint64 // seq
	shelf *shelf

	waits    int    // bytes that wait for the disk
	held     int    // put and not done
	state    []byte // of the newest Put
	stateSeq uint64
	saved    []byte // of the newest on disk
	savedSeq uint64
}

var _ Box = (*box)(nil)

// Put implements [Box].
func (b *box) Put(r Record, done func(string, error)) {
	l := b.log
	if _, err := check(r); err != nil {
		done("", err)
		return
	}
	if len(b.name) > maxNameBytes {
		done("", fmt.Errorf("outbox: a component's name of %d bytes, %d are allowed", len(b.name), maxNameBytes))
		return
	}
	l.mu.Lock()
	defer l.unlock()
	fail := func(err error) { l.calls = append(l.calls, func() { done("", err) }) }
	if !b.open || l.closed {
		fail(ErrClosed)
		return
	}
	now := time.Now()
	if r.At.IsZero() {
		r.At = now
	}
	age := l.now()
	payload, body := encodeMessage(message{name: b.name, epoch: l.epoch, seq: b.next, age: age, Record: r})
	size := recordSize(len(payload))
	if size > l.cfg.SegmentBytes/4 || int64(size) > l.cfg.MaxBytes {
		fail(fmt.Errorf("outbox: message of %d bytes: %w", size, ErrTooLarge))
		return
	}
	if b.waits+size > maxPending {
		fail(fmt.Errorf("%w: %d bytes of %s wait", ErrFull, b.waits, b.name))
		return
	}
	rec := &Record{ID: idOf(l.epoch, b.next), Body: payload[body:len(payload):len(payload)], Properties: r.Properties, High: r.High, TTL: r.TTL, At: r.At}
	it := &item{
		rec: rec, epoch: l.epoch, seq: b.next, at: r.At.UnixNano(), size: size, high: r.High, heapAt: -1,
		expires: lifetime(age, r.TTL, l.cfg.DefaultTTL, l.cfg.MaxAge), done: done,
	}
	e := &entry{box: b, item: it, payload: payload, put: now}
	if r.State != nil {
		e.state = slices.Clone(r.State)
		b.state, b.stateSeq = e.state, b.next
	}
	b.next++
	b.held++
	b.waits += size
	l.waits += size
	l.cached += size
	l.pending = append(l.pending, e)
	if l.cfg.Profile == SDCard && l.broken == nil {
		b.accept(it)
	}
	if l.cfg.Profile == SDCard || l.broken != nil {
		b.shelf.show(it)
		l.makeRoom(l.cfg.MaxBytes)
	}
	l.poke()
}

// Append implements [Box].
func (b *box) Append(r Record) (string, error) { return appendTo(b, r) }

// accept tells the one who Put an item that it is done.
func (b *box) accept(it *item) {
	if it.done == nil {
		return
	}
	done, id := it.done, it.id()
	it.done = nil
	b.held--
	b.shelf.accepted++
	b.log.calls = append(b.log.calls, func() { done(id, nil) })
}

// left is told of each item that leaves the shelf.
func (b *box) left(it *item, reason string) {
	l := b.log
	switch {
	case it.done == nil:
	case reason == "":
		b.accept(it) // the hub has it
	case reason != SetAside:
		done := it.done
		it.done = nil
		b.held--
		err := fmt.Errorf("%w: it was given up meanwhile (%s)", ErrFull, reason)
		l.calls = append(l.calls, func() { done("", err) })
	}
	if it.seg != nil || it.writing || reason != "" {
		if len(l.gone) == 0 {
			l.since = time.Now()
		}
		l.gone = append(l.gone, departed{b, it, reason})
		if len(l.gone) == 1 {
			l.poke()
		}
	}
	if reason == SetAside {
		return
	}
	if it.seg != nil {
		it.seg.live -= it.length
	}
	b.uncache(it)
}

// uncache forgets an item's copy in memory.
func (b *box) uncache(it *item) {
	if it.rec != nil {
		it.rec = nil
		b.log.cached -= it.size
	}
}

// dropOne makes room: what has expired, or else the oldest of the lowest priority.
func (b *box) dropOne(now time.Duration) bool {
	before := len(b.shelf.items)
	b.shelf.expire(now)
	if len(b.shelf.items) < before {
		return true
	}
	it := b.shelf.victim()
	if it == nil {
		return false
	}
	b.shelf.drop(it, DroppedFull)
	return true
}

// State implements [Box].
func (b *box) State() []byte {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	return slices.Clone(b.state)
}

// Next implements [Box]. What is not in memory is read from the disk; what the disk does not give back is dropped and
// counted.
func (b *box) Next() (Record, bool) {
	l := b.log
	for {
		l.mu.Lock()
		if !b.open {
			l.unlock()
			return Record{}, false
		}
		it := b.shelf.next(l.now())
		if it == nil {
			l.unlock()
			return Record{}, false
		}
		if it.rec != nil {
			r := *it.rec
			l.unlock()
			return r, true
		}
		l.unlock()
		r, err := b.read(it)
		if err == nil {
			return r, true
		}
		l.log.Error("a message cannot be read from the outbox; it is lost", "component", b.name, "id", it.id(), "error", err)
		l.mu.Lock()
		if it.place == inFlight {
			b.shelf.drop(it, DroppedDamaged)
		}
		l.unlock()
	}
}

// read reads an item from where it is. It may be moved meanwhile, and its segment used for something else: then it is
// read from where it is now.
func (b *box) read(it *item) (Record, error) {
	for {
		b.log.mu.Lock()
		seg, off, length := it.seg, it.off, it.length
		file := seg.file
		b.log.mu.Unlock()
		m, err := readMessage(file, off, length)
		if err == nil && m.name == b.name && m.epoch == it.epoch && m.seq == it.seq {
			r := m.Record
			r.State = nil
			return r, nil
		}
		b.log.mu.Lock()
		moved := it.seg != seg || it.off != off
		b.log.mu.Unlock()
		if !moved {
			if err == nil {
				err = errPayload
			}
			return Record{}, err
		}
	}
}

// Acked implements [Box].
func (b *box) Acked(id string) {
	b.log.mu.Lock()
	defer b.log.unlock()
	if it := b.shelf.find(id); it != nil {
		b.shelf.ack(it)
	}
}

// Refused implements [Box].
func (b *box) Refused(id string) {
	b.log.mu.Lock()
	defer b.log.unlock()
	if it := b.shelf.find(id); it != nil {
		b.shelf.refuse(it)
	}
}

// Returned implements [Box].
func (b *box) Returned() {
	b.log.mu.Lock()
	defer b.log.unlock()
	b.shelf.returned()
	b.log.makeRoom(b.log.cfg.MaxBytes)
}

// More implements [Box].
func (b *box) More() <-chan struct{} { return b.shelf.more }

// Stats implements [Box].
func (b *box) Stats() Stats {
	b.log.mu.Lock()
	defer b.log.unlock()
	st := b.shelf.stats(b.log.now())
	st.Held = b.held
	return st
}

// Close implements [Box]. The log's Close writes what is left.
func (b *box) Close() error {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	b.open = false
	return nil
}
