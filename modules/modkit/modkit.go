// Package modkit is the contract between Twinbay's agent and a module, and the kit to write a module with.
//
// A module is one hardware component in a process of its own. It implements [Module] and calls [Serve]; the agent
// starts it over go-plugin and holds a [Remote]. Other languages read internal/modpb/module.proto.
//
// The contract itself is in this file, what a running module sees in bay.go, the agent's end in remote.go.
package modkit

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Limits of the contract.
const (
	MaxState        = 4 << 10          // bytes of a module's state
	MaxBody         = 256 << 10        // bytes of a message's body, IoT Hub's limit for a whole message
	DefaultDeadline = 25 * time.Second // of a direct method that names none
	MaxReport       = 256 << 10        // bytes of Bay.Report's document; what a twin takes is far less
	MaxDetail       = 4 << 10          // bytes of Health's detail; the rest is cut
	MaxSaid         = 4 << 20          // bytes of one message on the wire; an agent ends a module that says more at once
	MaxOutstanding  = 64               // messages handed over and not yet accepted; then Bay.Send answers ErrFull
	MaxValue        = 4 << 10          // bytes of an output's value
)

// Description says what a module is.
type Description struct {
	Name     string
	Version  string
	Settings json.RawMessage // JSON Schema (draft 2020-12) of an object; each property with its default
	Wiring   json.RawMessage // JSON Schema of the wiring table
	Methods  []Method
	Wires    []Wire
	Inputs   []InputPort
	Outputs  []OutputPort
}

// Method is one direct method.
type Method struct {
	Name     string
	Summary  string
	Deadline time.Duration // 0 means DefaultDeadline
}

// Wire names the member of the wiring table that holds a wire's URI.
type Wire struct {
	Name     string   `json:"name"`
	Kind     WireKind `json:"kind"`
	Optional bool     `json:"optional"`
}

// AddressMember is the member of the wiring table that holds a part's address on its I²C bus, where a module has one
// part: by it the agent keeps two components from using the same part.
const AddressMember = "address"

// WireKind is one of hal's four kinds of wire.
type WireKind string

const (
	I2C        WireKind = "i2c"
	Serial     WireKind = "serial"
	DigitalIn  WireKind = "digital-in"
	DigitalOut WireKind = "digital-out"
)

// Settings is a whole settings document: every setting of the schema, defaults filled in.
type Settings struct {
	Doc     json.RawMessage
	Version int64 // the desired $version it comes from; 0 when the hub was never reached
}

// Setting is what became of one setting.
type Setting struct {
	Value   json.RawMessage // in force
	Refused bool            // the asked value was refused, Value stays
	Reason  string          // why, for a person
}

// Applied says what is in force, by setting. A setting that a module does not mention is in force as asked.
type Applied map[string]Setting

// Answer is a direct method's result. Status is free; Twinbay's modules use HTTP's numbers.
type Answer struct {
	Status  int
	Payload json.RawMessage
}

// Module is one hardware component. Describe may be called at any time and touches no hardware. Apply comes before
// Run once, and then, like Invoke, while Run runs, each call on a goroutine of its own: a module whose Run owns its
// state hands them over to it. Run blocks until ctx ends; nil then means "as asked"; an error ends the process and
// the agent starts it again.
type Module interface {
	Describe() Description
	Apply(ctx context.Context, s Settings) (Applied, error)
	Invoke(ctx context.Context, method string, payload json.RawMessage) (Answer, error)
	Run(ctx context.Context, bay *Bay) error
}

// Errors of the contract.
var (
	// ErrNoMethod is what Invoke answers for a method that the module does not have; it becomes status 404.
	ErrNoMethod = errors.New("no such direct method")
	// ErrFull is Bay.Send's answer while MaxOutstanding messages wait to be accepted: keep the newest and try again.
	ErrFull = errors.New("too many messages wait to be accepted")
	// ErrTooLarge is Bay.Send's answer to a message beyond MaxBody or a state beyond MaxState, and Remote's to an answer
	// beyond MaxSaid.
	ErrTooLarge = errors.New("message too large")
	// ErrEnded is the end of a Run: nothing can be sent any more, and whether a message that waited was accepted
	// will be seen from the state that the next Run starts with.
	ErrEnded = errors.New("the run has ended")
)

// Priority decides what is sent first and dropped last.
type Priority int

const (
	Normal Priority = iota
	High            // money, alarms
)

// Message is one telemetry message.
type Message struct {
	Body       json.RawMessage
	Properties map[string]string
	Priority   Priority
	TTL        time.Duration // 0 means the agent's default
	State      []byte        // nil: unchanged. Recorded with the message or not at all
	At         time.Time     // zero means now
}

// HealthState is a component's condition.
type HealthState int

const (
	OK       HealthState = iota
	Degraded             // works, with something that a technician should look at
	Faulted              // does not work
)

// Health is a component's condition, and what to do about it.
type Health struct {
	State  HealthState
	Detail string // who, what, where, next step
}

// Overdue is the oldest wire call beyond its deadline.
type Overdue struct {
	Call string // "" when there is none
	By   time.Duration
}
