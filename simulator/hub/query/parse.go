package query

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// parser reads tokens by recursive descent, never deeper than maxDepth.
type parser struct {
	all    []token
	depth  int
	source Source
	paths  []string // what has been read so far, each once

	language Language
	unnamed  int // aggregates so far
}

func newParser(text string) (*parser, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	all, err := tokens(text)
	if err != nil {
		return nil, err
	}
	return &parser{all: all}, nil
}

func (p *parser) peek() token { return p.all[0] }

// next takes a token; the last one, of the end, stays.
func (p *parser) next() token {
	t := p.all[0]
	if t.kind != end {
		p.all = p.all[1:]
	}
	return t
}

// accept takes a word of the grammar if it is next.
func (p *parser) accept(w string) bool {
	if !p.peek().is(w) {
		return false
	}
	p.next()
	return true
}

func (p *parser) acceptSign(s string) bool {
	if !p.peek().isSign(s) {
		return false
	}
	p.next()
	return true
}

func fail(t token, format string, args ...any) error {
	return &Error{At: t.at, Text: fmt.Sprintf(format, args...)}
}

func (p *parser) expect(w string) error {
	if !p.accept(w) {
		return fail(p.peek(), "want %s, have %s", w, p.peek())
	}
	return nil
}

func (p *parser) expectSign(s string) error {
	if !p.acceptSign(s) {
		return fail(p.peek(), "want %q, have %s", s, p.peek())
	}
	return nil
}

// enter counts what stands within each other.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return fail(p.peek(), "more than %d levels within each other", maxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) query() (*Query, error) {
	q := &Query{}
	if err := p.expect("SELECT"); err != nil {
		return nil, err
	}
	if p.accept("TOP") {
		t := p.next()
		if t.kind != number || t.value != float64(int64(t.value)) || t.value < 1 || t.value > maxTop {
			return nil, fail(t, "TOP wants a whole number from 1 to %d, have %s", maxTop, t)
		}
		q.Top = int(t.value)
	}
	// What is selected can be read once it is known of what: the paths may begin with the collection's name.
	selected := p.all
	if !p.skipTo("FROM") {
		p.all = selected
		if _, err := p.columns(); err != nil {
			return nil, err
		}
		return nil, fail(p.peek(), "want FROM, have %s", p.peek())
	}
	if err := p.from(); err != nil {
		return nil, err
	}
	q.Source = p.source
	rest := p.all
	p.all = selected
	var err error
	if q.columns, err = p.columns(); err != nil {
		return nil, err
	}
	if !p.peek().is("FROM") {
		return nil, fail(p.peek(), "want FROM, have %s", p.peek())
	}
	p.all = rest
	if p.accept("WHERE") {
		if q.where, err = p.or(); err != nil {
			return nil, err
		}
	}
	if err := p.groupBy(q); err != nil {
		return nil, err
	}
	return q, p.done()
}

// skipTo goes on to a word of the grammar, and tells whether it is there.
func (p *parser) skipTo(w string) bool {
	for !p.peek().is(w) {
		if p.next().kind == end {
			return false
		}
	}
	return true
}

// from reads the collection.
func (p *parser) from() error {
	if err := p.expect("FROM"); err != nil {
		return err
	}
	t := p.next()
	if !t.is("devices") {
		return fail(t, "unknown collection %s: there are devices, devices.modules and devices.jobs", t)
	}
	p.source = Devices
	if !p.acceptSign(".") {
		return nil
	}
	switch t := p.next(); {
	case t.is("modules"):
		p.source = Modules
	case t.is("jobs"):
		p.source = Jobs
	default:
		return fail(t, "unknown collection devices.%s: there are devices, devices.modules and devices.jobs", t.text)
	}
	return nil
}

func (p *parser) done() error {
	t := p.peek()
	switch {
	case t.kind == end:
		return nil
	case t.is("ORDER"), t.is("HAVING"), t.is("JOIN"), t.is("OFFSET"):
		return fail(t, "the language has no %s", strings.ToUpper(t.text))
	}
	return fail(t, "unexpected %s", t)
}

// columns reads what is selected; nothing for *.
func (p *parser) columns() ([]column, error) {
	if p.acceptSign("*") {
		return nil, nil
	}
	if p.source == Jobs {
		return nil, fail(p.peek(), "devices.jobs has SELECT * only")
	}
	var all []column
	for {
		at := p.peek()
		c, err := p.column()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(o column) bool { return o.name == c.name }) {
			return nil, fail(at, "two columns are called %q", c.name)
		}
		all = append(all, c)
		if !p.acceptSign(",") {
			return all, nil
		}
	}
}

var aggregates = []string{"COUNT", "AVG", "SUM", "MIN", "MAX"}

func (p *parser) column() (column, error) {
	var c column
	at := p.peek()
	if at.kind == word && len(p.all) > 1 && p.all[1].isSign("(") {
		c.aggregate = strings.ToUpper(at.text)
		if !slices.Contains(aggregates, c.aggregate) {
			return c, fail(at, "unknown aggregate %s: there are COUNT, AVG, SUM, MIN and MAX", at.text)
		}
		if p.language.DeviceAggregates && p.source != Devices {
			return c, fail(at, "%s is for device twins only", c.aggregate)
		}
		p.next()
		p.next()
	}
	if c.aggregate != "COUNT" {
		var err error
		if c.path, err = p.path(); err != nil {
			return c, err
		}
		c.name = c.path.names[len(c.path.names)-1]
	}
	if c.aggregate != "" {
		if err := p.expectSign(")"); err != nil {
			return c, err
		}
	}
	switch {
	case p.accept("AS"):
		t := p.next()
		if t.kind != quoted && (t.kind != word || reserved[strings.ToUpper(t.text)]) {
			return c, fail(t, "want a name for the column, have %s", t)
		}
		c.name = t.text
	case c.aggregate != "" && p.language.NumberAggregates:
		p.unnamed++
		c.name = "$" + strconv.Itoa(p.unnamed)
	case c.aggregate != "":
		return c, fail(p.peek(), "%s needs a name: write %s(…) AS name", c.aggregate, c.aggregate)
	}
	return c, nil
}

// groupBy reads GROUP BY and holds the columns to it.
func (p *parser) groupBy(q *Query) error {
	at := p.peek()
	if p.accept("GROUP") {
		if err := p.expect("BY"); err != nil {
			return err
		}
		g, err := p.path()
		if err != nil {
			return err
		}
		q.group = g
		if p.peek().isSign(",") {
			return fail(p.peek(), "GROUP BY takes one property")
		}
	}
	if q.group != nil && q.Source != Devices {
		return fail(at, "GROUP BY is for device twins only")
	}
	if q.group != nil && q.All() {
		return fail(at, "SELECT * can't be grouped")
	}
	grouped := slices.ContainsFunc(q.columns, func(c column) bool { return c.aggregate != "" }) || q.group != nil
	for _, c := range q.columns {
		if grouped && c.aggregate == "" && (q.group == nil || c.path.String() != q.group.String()) {
			return fail(at, "column %s is neither an aggregate nor what is grouped by", c.path)
		}
	}
	return nil
}

// condition reads a condition with or without its collection.
func (p *parser) condition() (*Condition, error) {
	c := &Condition{}
	if p.peek().is("FROM") {
		if err := p.from(); err != nil {
			return nil, err
		}
		if p.source == Jobs {
			return nil, fail(p.peek(), "a condition is on devices or devices.modules")
		}
		c.Source = p.source
		if p.peek().kind == end {
			return c, nil
		}
		if err := p.expect("WHERE"); err != nil {
			return nil, err
		}
	}
	var err error
	if c.where, err = p.or(); err != nil {
		return nil, err
	}
	c.paths = p.paths
	return c, p.done()
}

// path reads name.name.[[any name]], and takes the collection's name off it.
func (p *parser) path() (*path, error) {
	at := p.peek()
	var segments []string
	for {
		t := p.next()
		switch {
		case t.kind == quoted:
		case t.kind != word:
			return nil, fail(t, "want the name of a property, have %s", t)
		case reserved[strings.ToUpper(t.text)]:
			return nil, fail(t, "%s is a word of the language; write [[%s]] for a property of that name", t, t.text)
		}
		segments = append(segments, t.text)
		if !p.acceptSign(".") {
			break
		}
	}
	if segments = collection(p.source, segments); len(segments) == 0 {
		return nil, fail(at, "not a property of %s; there are no joins", p.source)
	}
	normalize(segments)
	found := &path{segments}
	if name := found.String(); !slices.Contains(p.paths, name) {
		p.paths = append(p.paths, name)
	}
	return found, nil
}
