// Package outbox keeps what a module handed over until the hub has it: telemetry, and with each message the module's
// state. It knows nothing of MQTT.
package outbox

import (
	"errors"
	"time"
)

// Record is one message of one component, with the module's state as of that message.
type Record struct {
	ID         string // "<random epoch>-<seq>", set by Append; never repeats
	Body       []byte
	Properties map[string]string
	High       bool          // sent before, dropped after, the normal ones
	TTL        time.Duration // 0 means the box's default
	At         time.Time
	State      []byte // nil: unchanged
}

// Reasons for a drop, as counted by Stats.
const (
	DroppedFull    = "full"      // the box was full and this was the oldest of the lowest priority
	DroppedExpired = "expired"   // its time to live was over
	SetAside       = "set-aside" // in flight at five closes in a row
)

// ErrTooLarge is a record that no hub would take (256 KiB) or a state beyond 4 KiB.
var ErrTooLarge = errors.New("message too large")

// Box is one component's outbox. It is the interface that a durable box has too: Append returns when the record will
// not be lost by anything the box promises to survive.
type Box interface {
	// Append takes the record and answers its id.
	Append(r Record) (id string, err error)
	// State is the module's state of the newest accepted record that had one; nil if none.
	State() []byte
	// Next takes the next record to send, high priority first, and marks it in flight; false when there is none.
	Next() (Record, bool)
	// Acked removes a record that the hub has acknowledged. Acknowledgements may come out of order.
	Acked(id string)
	// Returned puts all records in flight back, in their order: the connection has closed.
	Returned()
	// More is signalled (never closed, capacity one) when Next may have something new.
	More() <-chan struct{}
	Stats() Stats
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
}
