// Package outbox keeps what a module handed over until the hub has it: telemetry, and with each message the module's
// state. It knows nothing of MQTT.
//
// There are two kinds of [Box]. A [Memory] survives a module's death and any outage of the hub, but not the agent's own
// end. The boxes of a [Log] are on disk, all components' in one log of segments, so that one fsync makes the messages of
// many components durable.
package outbox

import (
	"errors"
	"time"
)

// Record is one message of one component, with the module's state as of that message.
type Record struct {
	ID         string // "<random epoch>-<seq>", set by the box; never repeats
	Body       []byte
	Properties map[string]string
	High       bool          // sent before, dropped after, the normal ones
	TTL        time.Duration // 0 means the box's default
	At         time.Time
	State      []byte // nil: unchanged
}

// Reasons for a drop, as counted by Stats.
const (
	DroppedFull    = "full"       // the outbox was full and this was the oldest of the lowest priority
	DroppedExpired = "expired"    // its time to live was over
	SetAside       = "set-aside"  // in flight at five closes, while others were taken
	DroppedRefused = "refused"    // the hub said that it will never take it
	DroppedDamaged = "unreadable" // the disk does not give it back
)

// Errors of a Put.
var (
	ErrTooLarge = errors.New("message too large")    // no hub would take it (256 KiB), or a state beyond 4 KiB
	ErrClosed   = errors.New("the outbox is closed") // after Close
	ErrFull     = errors.New("the outbox takes nothing more before the disk has taken what waits")
)

// Box is one component's outbox.
type Box interface {
	// Put takes the record over and never waits for a disk. It calls done once: with the record's id when the record will
	// not be lost by anything that the box promises to survive, or with an error when it never will be taken. That may be
	// at once or later, on any goroutine; done must not block. Records of one box are done in the order of their Puts,
	// but for those that the hub has acknowledged before.
	Put(r Record, done func(id string, err error))
	// Append is Put for those who can wait.
	Append(r Record) (id string, err error)
	// State is the module's state of the newest record that had one, done or not; nil if none. A module that is started
	// again with it repeats nothing: as long as the agent lives, nothing that was Put is forgotten.
	State() []byte
	// Next takes the next record to send, high priority first, and marks it in flight; false when there is none. Its State
	// is nil.
	Next() (Record, bool)
	// Acked removes a record that the hub has acknowledged. Acknowledgements may come out of order.
	Acked(id string)
	// Refused removes a record in flight that the hub will never take, and counts it.
	Refused(id string)
	// Returned puts all records in flight back, in their order: the connection has closed.
	Returned()
	// More is signalled (never closed, capacity one) when Next may have something new.
	More() <-chan struct{}
	Stats() Stats
	// Close ends the box's use. What is on disk is there for the next one who opens it.
	Close() error
}

// Stats is what status shows.
type Stats struct {
	Queued   int // waiting, in flight included
	InFlight int
	Bytes    int
	Oldest   time.Time // of the queued; zero when none
	Accepted uint64
	Acked    uint64
	Dropped  map[string]uint64 // by reason
	Held     int               // put and not done yet: the disk has not taken them
	Aside    []Aside           // the newest of those set aside
}

// Aside is a message that was in flight at five closes in a row: it seems that the hub closes the connection because of
// it. The newest [MaxAside] are kept for a person to look at.
type Aside struct {
	ID    string    `json:"id"`
	At    time.Time `json:"at"`
	Bytes int       `json:"bytes"`
}

// MaxAside is how many messages a box keeps set aside.
const MaxAside = 8

// appendTo is Append by Put.
func appendTo(b interface {
	Put(Record, func(string, error))
}, r Record) (string, error) {
	type result struct {
		id  string
		err error
	}
	got := make(chan result, 1)
	b.Put(r, func(id string, err error) { got <- result{id, err} })
	x := <-got
	return x.id, x.err
}
