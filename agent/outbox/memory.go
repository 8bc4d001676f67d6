package outbox

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// overhead is what a record costs besides its bytes: its id, list and map entries.
const overhead = 200

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
// A time to live runs from Put, on the monotonic clock, so that a device whose clock is set after its start does not lose
// what it has gathered. The box keeps the record's Body and Properties; nobody may change them afterwards.
type Memory struct {
	cfg   MemoryConfig
	epoch uint64
	began time.Time

	mu     sync.Mutex
	closed bool
	seq    uint64
	state  []byte
	shelf  *shelf
}

// NewMemory makes an empty box with an epoch of its own.
func NewMemory(cfg MemoryConfig) *Memory {
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = 10_000
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 16 << 20
	}
	return &Memory{cfg: cfg, epoch: newEpoch(), began: time.Now(), shelf: newShelf(func(*item, string) {})}
}

// now is the clock of records: it never stands at 0.
func (m *Memory) now() time.Duration { return time.Since(m.began) + 1 }

// Put implements [Box]; it is done before it returns. A box that is full makes room by the drop policy: what has
// expired, then the oldest of the lowest priority, which may be this very record. That is counted and no error. What is
// in flight is never dropped.
func (m *Memory) Put(r Record, done func(string, error)) { done(m.Append(r)) }

// Append implements [Box].
func (m *Memory) Append(r Record) (string, error) {
	size, err := check(r)
	if err == nil && size+overhead > m.cfg.MaxBytes {
		err = fmt.Errorf("outbox: message of %d bytes: %w", size, ErrTooLarge)
	}
	if err != nil {
		return "", err
	}
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
		r.At = time.Now()
	}
	m.seq++
	m.shelf.accepted++
	r.ID = idOf(m.epoch, m.seq)
	m.shelf.show(&item{rec: &r, epoch: m.epoch, seq: m.seq, at: r.At.UnixNano(), size: size + overhead, high: r.High,
		expires: lifetime(m.now(), r.TTL, m.cfg.DefaultTTL, m.cfg.MaxAge)})
	m.makeRoom()
	return r.ID, nil
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
	if m.closed {
		return Record{}, false
	}
	if it := m.shelf.next(m.now()); it != nil {
		return *it.rec, true
	}
	return Record{}, false
}

// Acked implements [Box]. An id that the box does not hold is ignored.
func (m *Memory) Acked(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if it := m.shelf.find(id); it != nil {
		m.shelf.ack(it)
	}
}

// Refused implements [Box].
func (m *Memory) Refused(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if it := m.shelf.find(id); it != nil {
		m.shelf.refuse(it)
	}
}

// Returned implements [Box].
func (m *Memory) Returned() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shelf.returned()
	m.makeRoom()
}

// More implements [Box].
func (m *Memory) More() <-chan struct{} { return m.shelf.more }

// Stats implements [Box].
func (m *Memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shelf.stats(m.now())
}

// Close implements [Box]. What is left is lost.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// makeRoom drops until the bounds hold, or until everything left is in flight.
func (m *Memory) makeRoom() {
	if !m.over() {
		return
	}
	m.shelf.expire(m.now())
	for m.over() {
		victim := m.shelf.victim()
		if victim == nil {
			return
		}
		m.shelf.drop(victim, DroppedFull)
	}
}

func (m *Memory) over() bool {
	return len(m.shelf.items) > m.cfg.MaxRecords || m.shelf.bytes > m.cfg.MaxBytes
}
