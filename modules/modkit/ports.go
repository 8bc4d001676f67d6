package modkit

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// ValueType is the JSON type of a port's values. A link joins an output and an input of one type.
type ValueType string

const (
	Boolean ValueType = "boolean"
	Number  ValueType = "number"
	Text    ValueType = "string"
)

// Holds says whether value is JSON of the type, and of a size that may go over a link.
func (t ValueType) Holds(value json.RawMessage) bool {
	if len(value) > MaxValue || !utf8.Valid(value) || !json.Valid(value) {
		return false
	}
	value = bytes.TrimSpace(value)
	switch c := value[0]; t {
	case Boolean:
		return c == 't' || c == 'f'
	case Number:
		return c == '-' || c >= '0' && c <= '9'
	case Text:
		return c == '"'
	}
	return false
}

// InputPort is a value that a module takes from another component, by a link in the device file. Its README says what it
// does while the value is unknown.
type InputPort struct {
	Name    string    `json:"name"`
	Summary string    `json:"summary"`
	Type    ValueType `json:"type"`
}

// OutputPort is a value that a module has for others.
type OutputPort struct {
	Name    string    `json:"name"`
	Summary string    `json:"summary"`
	Type    ValueType `json:"type"`
}

// Quality says whether a value may be believed.
type Quality int

const (
	Unknown Quality = iota // the source is dead or does not know it, or it is older than its limit
	Good
)

// Input is one value that came over a link.
type Input struct {
	Name    string
	Value   json.RawMessage // nil while unknown
	At      time.Time       // when the source saw it; when it became unknown
	Quality Quality
	Reason  string // why it is unknown, for a person
}

// Output is what a module says of one of its output ports.
type Output struct {
	Name     string
	Value    json.RawMessage // of the port's type; nothing while Quality is Unknown
	At       time.Time       // when it was seen; zero means now
	Quality  Quality
	ValidFor time.Duration // unless it is said again; 0 means until something else is said
	Reason   string        // why it is unknown, for a person
}

func (Output) up() {}
