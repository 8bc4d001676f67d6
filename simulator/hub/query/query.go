// Package query is IoT Hub's query language for twins and jobs: a parser and an evaluator over documents in memory. It
// knows nothing of a hub: documents are looked into by [Object].
//
// Sources: Microsoft Learn, "IoT Hub query language for device and module twins, jobs, and message routing", "Queries for
// IoT Hub device and module twins" and "Queries for IoT Hub jobs"; Azure/azure-iot-explorer and
// Azure/azure-iot-cli-extension for the functions that real clients call (STARTSWITH, ARRAY_CONTAINS);
// github.com/MicrosoftDocs/azure-docs issues 105649 and 110329 for those that a hub refuses (CONTAINS, STARTS_WITH).
//
// Where these are silent this package has chosen, and refuses what it is not sure of, so that a query that works here works in
// the cloud:
//
//   - An aggregate needs an alias: nobody says what its column is called without one. See [Language].
//   - Every word of the grammar is reserved in a path, not only group: write tags.[[top]].
//   - A comparison of two types, or with a property that is not there, is undefined; AND, OR and NOT take everything but
//     true for false, as the documentation has it, so that NOT tags.absent = 1 holds.
//   - What the hub names (deviceId, properties.reported, capabilities.iotEdge) is found in any case and is shown in the hub's;
//     keys of tags and properties are found as they are written.
package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	maxText  = 8192 // characters: "Queries for IoT Hub device and module twins", Twin query limitations
	maxDepth = 64   // parentheses, brackets, NOTs and calls within each other; the hub's own bound is not published
	maxTop   = 1<<31 - 1
)

// Source is the collection that a query looks through.
type Source int

const (
	Devices Source = iota // device twins
	Modules               // module twins
	Jobs                  // what jobs did, a document for each device or module
)

func (s Source) String() string { return [...]string{"devices", "devices.modules", "devices.jobs"}[s] }

// Query is a whole query. It does not change, and may be used from any goroutine.
type Query struct {
	Source Source
	Top    int // 0: all

	where   node // nil: everything
	columns []column
	group   *path // nil: no GROUP BY
}

// Condition is what comes behind WHERE, with the collection that it looks through. The zero value is met by every device.
type Condition struct {
	Source Source

	where node
	paths []string
}

// Object is a JSON object that is looked into, rather than built. Values are nil, bool, string, json.Number, int, int64,
// float64, []any, map[string]any, and Objects; those that a query can select must be JSON by encoding/json.
type Object interface {
	Member(name string) (value any, ok bool)
}

// Error is a query that can't be run.
type Error struct {
	At   int // which character of the text, from 1
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("at character %d: %s", e.At, e.Text) }

// Language is what of the language is open to choice.
type Language struct {
	DeviceAggregates bool // aggregates are of device twins alone
	NumberAggregates bool // an aggregate without an alias is called $1, the next one in the query $2, rather than refused
}

// Parse reads a whole query in the language that the zero Language is. The error is an *Error.
func Parse(text string) (*Query, error) { return Language{}.Parse(text) }

// Parse reads a whole query. The error is an *Error.
func (l Language) Parse(text string) (*Query, error) {
	p, err := newParser(text)
	if err != nil {
		return nil, err
	}
	p.language = l
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	return q, nil
}

// ParseCondition reads the condition of a job or a configuration: what stands behind WHERE in a query of device twins, "*"
// for all devices, or "FROM devices.modules WHERE …" for modules. The error is an *Error.
func ParseCondition(text string) (*Condition, error) {
	if strings.TrimSpace(text) == "*" {
		return &Condition{}, nil
	}
	p, err := newParser(text)
	if err != nil {
		return nil, err
	}
	c, err := p.condition()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Paths are the properties that the condition reads, like "tags.site", each once.
func (c *Condition) Paths() []string { return c.paths }

// Meets tells whether a document meets the condition.
func (c *Condition) Meets(doc Object) bool { return c.where == nil || holds(c.where, doc) }

// Meets tells whether a document meets the query's condition.
func (q *Query) Meets(doc Object) bool { return q.where == nil || holds(q.where, doc) }

// All tells whether the query wants whole documents: SELECT *.
func (q *Query) All() bool { return len(q.columns) == 0 }

// Aggregates tells whether the query wants groups rather than documents: see [Query.NewGroups].
func (q *Query) Aggregates() bool {
	return q.group != nil || len(q.columns) > 0 && q.columns[0].aggregate != ""
}

// Record is a row of selected columns, in the order in which the query names them. It is a JSON object.
type Record []Field

// Field is a column of a row; what a document does not have is in none.
type Field struct {
	Name  string
	Value any
}

// MarshalJSON keeps the order, which a map would lose.
func (r Record) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, f := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := e.Encode(f.Name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := e.Encode(f.Value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Project answers the columns that a query that does not aggregate wants of a document. What the document does not have is
// left out.
func (q *Query) Project(doc Object) Record {
	row := make(Record, 0, len(q.columns))
	for _, c := range q.columns {
		if v, ok := c.path.of(doc); ok {
			row = append(row, Field{c.name, v})
		}
	}
	return row
}

// column is one of the values that are selected: a path, or an aggregate of one.
type column struct {
	name      string
	path      *path  // nil for COUNT()
	aggregate string // COUNT, AVG, SUM, MIN, MAX; "" for a path
}

// path leads to a property.
type path struct{ names []string }

func (p *path) String() string { return strings.Join(p.names, ".") }

// of looks the property up; false means that it is not defined.
func (p *path) of(doc Object) (any, bool) {
	v, ok := doc.Member(p.names[0])
	for _, name := range p.names[1:] {
		if !ok {
			return nil, false
		}
		switch o := v.(type) {
		case map[string]any:
			v, ok = o[name]
		case Object:
			v, ok = o.Member(name)
		default:
			return nil, false
		}
	}
	return v, ok
}

// checkText applies what can be said of a text before its grammar.
func checkText(text string) error {
	switch {
	case !utf8.ValidString(text):
		return &Error{At: 1, Text: "the query is not UTF-8"}
	case utf8.RuneCountInString(text) > maxText:
		return &Error{At: maxText + 1, Text: fmt.Sprintf("a query is at most %d characters", maxText)}
	}
	return nil
}
