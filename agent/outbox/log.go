package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

// Profile says when a message is done: what is promised, and what it costs.
type Profile string

const (
	// Durable is the default: a message is done when an fsync has put it on the disk, or the hub has it. A power cut costs
	// nothing that was done.
	Durable Profile = "durable"
	// SDCard spares flash: a message is done at once and stays in memory while the hub takes it; what is older than a
	// second is written, all components' in one batch. A power cut, or a kill -9 of the agent, costs what was done within
	// the last second or so.
	SDCard Profile = "sd-card"
)

// Promise is what the profile promises, for people.
func (p Profile) Promise() string {
	if p == SDCard {
		return "a power cut costs at most the messages of about the last second that the hub does not have"
	}
	return "a power cut costs no accepted message"
}

// FillPercent is how much of its segments the messages may take; the rest is room to move them.
const FillPercent = 60

// Figures of a Log.
const (
	defaultSegment = 2 << 20
	minSegment     = 16 << 10 // for tests; below, no message has room beside a checkpoint
	defaultMax     = 32 << 20
	defaultDelay   = 2 * time.Millisecond
	spillAfter     = time.Second            // of the sd-card profile
	spillBytes     = 256 << 10              // likewise: more than this does not wait for the second
	goneAfter      = 250 * time.Millisecond // acknowledgements that no message takes along are written after this
	cacheBytes     = 2 << 20                // messages on disk that are kept in memory too, so that they are sent without reading
	maxPending     = 8 << 20                // of one box: messages that wait for the disk
	firstRetry     = time.Second
	longestRetry   = 30 * time.Second
	ahead          = 1 << 20 // seqs left out after damage, since what is damaged may have used them
)

// LogConfig says where a Log is and how much it holds. Only Dir is needed.
type LogConfig struct {
	Dir string
	FS  disk.FS      // nil means the real one
	Log *slog.Logger // nil discards

	Profile      Profile       // "" means Durable
	MaxBytes     int64         // of messages, all components together; on disk they take up to 10/6 of it and a segment more; 0 means 32 MiB
	MaxRecords   int           // of one component; 0 means no bound
	MaxAge       time.Duration // of any message, whatever its TTL; 0 means no bound
	DefaultTTL   time.Duration // of a message that names none; 0 means no bound
	MinFree      uint64        // bytes that stay free on the disk
	SegmentBytes int           // 0 means 2 MiB
	Delay        time.Duration // between two fsyncs of the durable profile at least; 0 means 2 ms
}

// Log is the outbox of a device: a [Box] per component, all in one log on disk. One goroutine writes; see format.go for
// what it writes. When the disk does not take messages, a message is done when the hub has it; until then it is held in
// memory, and the module is not told that it is accepted. The disk is tried again as long as something waits for it.
//
// When the log is full, the component that holds most gives: the oldest of its lowest priority. So a component that floods
// takes nothing from the others.
//
// # Time to live
//
// Ages are counted on a clock of the log's own, which is saved with the messages: it goes on while the agent runs, by the
// monotonic clock, whatever becomes of the wall clock. The time in which the device was off counts once Confirm has told
// that the wall clock is right, so that a device that starts in 1970, or a year ahead, drops nothing for it.
type Log struct {
	cfg   LogConfig
	fs    disk.FS
	log   *slog.Logger
	epoch uint64
	began time.Time

	wake chan struct{} // there is something to write
	beat chan struct{} // somebody wants to know whether the writer gets on
	quit chan struct{} // closed by Close
	done chan struct{} // closed by the writer

	mu      sync.Mutex
	closed  bool
	base    time.Duration // of the log's clock, at began
	clock   clockMark
	marked  bool // clock is to be written
	boxes   map[string]*box
	pending []*entry
	gone    []departed
	since   time.Time // of the oldest in gone
	cached  int       // bytes
	waits   int       // bytes in pending
	calls   []func()  // to be made without the lock
	skip    uint64    // seqs that new boxes leave out

	segments []*segment // by number
	anchor   *segment   // has the newest checkpoint on disk
	full     error      // why there can be no further segment now
	broken   error      // why nothing can be written
	stats    figures

	// The writer's own.
	active   *segment
	batch    uint64
	index    int
	lazy     []departed // written and not synced
	unproven *proof     // nil: the last batch of the earlier starts is on the disk
	last     time.Time  // end of the last fsync: those who waited for it come again, and share the next one
	retry    time.Duration
	retryAt  time.Time
}

// entry is a message that waits for the disk.
type entry struct {
	box     *box
	item    *item
	payload []byte
	state   []byte // nil: none
	put     time.Time
}

// departed is an item that has left its box, or was set aside.
type departed struct {
	box    *box
	item   *item
	reason string
}

// figures are counted since the start.
type figures struct {
	written, damaged  uint64
	took              Latency
	lastSync, slowest time.Duration
	brokenAt          time.Time
}

// OpenLog reads what is in the folder, and makes it when there is none. It never fails: what cannot be read is moved
// aside, counted and logged, and a disk that does not work is tried again.
func OpenLog(cfg LogConfig) *Log {
	if cfg.FS == nil {
		cfg.FS = disk.OS{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Profile == "" {
		cfg.Profile = Durable
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMax
	}
	if cfg.SegmentBytes <= 0 {
		cfg.SegmentBytes = defaultSegment
	}
	cfg.SegmentBytes = max(cfg.SegmentBytes, minSegment)
	if cfg.Delay <= 0 {
		cfg.Delay = defaultDelay
	}
	l := &Log{
		cfg: cfg, fs: cfg.FS, log: cfg.Log, epoch: newEpoch(), began: time.Now(),
		wake: make(chan struct{}, 1), beat: make(chan struct{}), quit: make(chan struct{}), done: make(chan struct{}),
		boxes: map[string]*box{},
	}
	l.recover()
	if err := l.prove(); err != nil {
		l.failed(nil, err) // the first commit tries again
	}
	go l.run()
	return l
}

// now is the log's clock. It never stands at 0.
func (l *Log) now() time.Duration { return l.base + time.Since(l.began) + 1 }

// Box is a component's box, with what is left in it from before.
func (l *Log) Box(component string) Box {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.box(component)
	b.open = !l.closed
	return b
}

// box finds or makes a box.
func (l *Log) box(name string) *box {
	b := l.boxes[name]
	if b == nil {
		b = &box{log: l, name: name, next: 1 + l.skip}
		b.shelf = newShelf(b.left)
		l.boxes[name] = b
	}
	return b
}

// Confirm tells that the wall clock is right, and what it shows: the time that the device was off counts from now on. The
// agent calls it when a hub has taken a token of that time.
func (l *Log) Confirm(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	age := l.now()
	if l.clock.wall != 0 {
		passed := time.Duration(now.UnixNano() - l.clock.wall)
		if off := passed - (age - l.clock.age); off > 0 {
			l.base += off
			age += off
		}
	}
	l.clock, l.marked = clockMark{wall: now.UnixNano(), age: age}, true
}

// Close writes what is left to write and ends the log. What is on disk is there for the next OpenLog.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		for _, b := range l.boxes {
			b.open = false
		}
		close(l.quit)
	}
	l.mu.Unlock()
	<-l.done
	l.mu.Lock()
	defer l.unlock()
	for _, e := range l.pending {
		if done := e.item.done; done != nil {
			e.item.done = nil
			l.calls = append(l.calls, func() { done("", ErrClosed) })
		}
	}
	l.pending = nil
	for _, s := range l.segments {
		s.close()
	}
	if l.broken != nil {
		return fmt.Errorf("the outbox in %s: %w", l.cfg.Dir, l.broken)
	}
	return nil
}

// Status is what a person wants to know of a Log.
type Status struct {
	Profile   Profile
	Dir       string
	Err       error     // why nothing can be written now; nil when it can
	Since     time.Time // of Err
	Full      error     // why the log cannot grow now; messages are dropped earlier then
	Bytes     int       // of the messages that wait
	MaxBytes  int64     // for them
	DiskBytes int64     // of the segments
	Written   uint64    // bytes, since the start
	Syncs     uint64    // since the start
	Took      Latency   // the syncs
	LastSync  time.Duration
	Slowest   time.Duration  // of the syncs
	Damaged   uint64         // places that could not be read, at the start
	Left      map[string]int // messages of components that nobody has opened: they are not in the device file any more
}

// Status may be called at any time.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		Profile: l.cfg.Profile, Dir: l.cfg.Dir, Err: l.broken, Full: l.full, MaxBytes: l.cfg.MaxBytes,
		Written: l.stats.written, Syncs: l.stats.took.Count, Took: l.stats.took, LastSync: l.stats.lastSync, Slowest: l.stats.slowest,
		Damaged: l.stats.damaged,
	}
	if l.broken != nil {
		s.Since = l.stats.brokenAt
	}
	for _, seg := range l.segments {
		s.DiskBytes += int64(seg.size)
	}
	for name, b := range l.boxes {
		s.Bytes += b.shelf.bytes
		if n := len(b.shelf.items); n > 0 && !b.open && !l.closed {
			if s.Left == nil {
				s.Left = map[string]int{}
			}
			s.Left[name] = n
		}
	}
	return s
}

// Beat waits until the log's writer is between two writes, or ctx ends: then it answers false. A writer that has ended as
// asked gets on too.
func (l *Log) Beat(ctx context.Context) bool {
	select {
	case l.beat <- struct{}{}:
	case <-l.done:
	case <-ctx.Done():
		return false
	}
	return true
}

// unlock releases the lock and then tells those whose records are done.
func (l *Log) unlock() {
	calls := l.calls
	l.calls = nil
	l.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// poke wakes the writer.
func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// capacity is what messages may take in the segments that there are: so much that the one with the least in it can be
// emptied into another.
func (l *Log) capacity() int64 {
	return min(l.cfg.MaxBytes, int64(l.cfg.SegmentBytes)*int64(max(1, len(l.segments)-1))*FillPercent/100)
}

// maxSegments is how many segments the messages may take.
func (l *Log) maxSegments() int {
	usable := int64(l.cfg.SegmentBytes) * FillPercent / 100
	return int((l.cfg.MaxBytes+usable-1)/usable) + 1
}

// makeRoom drops until the bounds hold, or until everything left is in flight.
func (l *Log) makeRoom(limit int64) {
	for _, b := range l.boxes {
		for l.cfg.MaxRecords > 0 && len(b.shelf.items) > l.cfg.MaxRecords {
			if !b.dropOne(l.now()) {
				break
			}
		}
	}
	total := int64(0)
	for _, b := range l.boxes {
		total += int64(b.shelf.bytes)
	}
	for total > limit {
		var most *box
		for _, name := range slices.Sorted(maps.Keys(l.boxes)) {
			if b := l.boxes[name]; b.shelf.victim() != nil && (most == nil || b.shelf.bytes > most.shelf.bytes) {
				most = b
			}
		}
		if most == nil {
			return
		}
		before := most.shelf.bytes
		most.dropOne(l.now())
		total -= int64(before - most.shelf.bytes)
	}
}
