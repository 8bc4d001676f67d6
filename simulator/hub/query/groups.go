package query

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
)

// Groups collects documents for a query that aggregates.
type Groups struct {
	q   *Query
	all map[string]*group
}

// Row is one row of a query that aggregates. Rows have the order of their keys, which stay the same when documents come and go.
type Row struct {
	Key   string
	Value Record
}

type group struct {
	value   any // what is grouped by
	defined bool
	columns []total
}

// total is one aggregate of one group. Values that are no numbers count for COUNT alone, strings for MIN and MAX, too.
type total struct {
	count    int // of documents
	numbers  int
	sum      float64
	min, max any
}

// NewGroups begins to aggregate.
func (q *Query) NewGroups() *Groups {
	g := &Groups{q: q, all: map[string]*group{}}
	if q.group == nil {
		g.all[""] = &group{columns: make([]total, len(q.columns))} // also when no document comes
	}
	return g
}

// Add counts a document that meets the query's condition.
func (g *Groups) Add(doc Object) {
	var value any
	defined, key := false, ""
	if g.q.group != nil {
		if value, defined = g.q.group.of(doc); defined {
			key = keyOf(value)
		}
	}
	into, ok := g.all[key]
	if !ok {
		into = &group{value: value, defined: defined, columns: make([]total, len(g.q.columns))}
		g.all[key] = into
	}
	for i, c := range g.q.columns {
		t := &into.columns[i]
		t.count++
		if c.aggregate == "" || c.path == nil {
			continue
		}
		if v, ok := c.path.of(doc); ok {
			t.add(v)
		}
	}
}

func (t *total) add(v any) {
	x, isNumber := asNumber(v)
	_, isText := v.(string)
	if !isNumber && !isText {
		return
	}
	if isNumber {
		t.numbers++
		t.sum += x
	}
	// Numbers come before strings: so MIN and MAX have an answer whatever is mixed.
	if t.min == nil || before(v, t.min) {
		t.min = v
	}
	if t.max == nil || before(t.max, v) {
		t.max = v
	}
}

func before(a, b any) bool {
	if order, comparable := compareValues(a, b); comparable {
		return order < 0
	}
	_, isNumber := asNumber(a)
	return isNumber
}

// Rows answers a row for each group.
func (g *Groups) Rows() []Row {
	rows := make([]Row, 0, len(g.all))
	for _, key := range slices.Sorted(maps.Keys(g.all)) {
		of := g.all[key]
		row := make(Record, 0, len(g.q.columns))
		for i, c := range g.q.columns {
			if v, ok := of.show(c, i); ok {
				row = append(row, Field{c.name, v})
			}
		}
		rows = append(rows, Row{key, row})
	}
	return rows
}

func (g *group) show(c column, i int) (any, bool) {
	t := &g.columns[i]
	switch c.aggregate {
	case "COUNT":
		return t.count, true
	case "SUM":
		return number64(t.sum)
	case "AVG":
		return number64(t.sum / float64(t.numbers)) // none: 0/0, which is left out
	case "MIN":
		return t.min, t.min != nil
	case "MAX":
		return t.max, t.max != nil
	}
	return g.value, g.defined
}

// number64 shows a number without an exponent where it has none; one that is out of range is left out.
func number64(x float64) (any, bool) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil, false
	}
	if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
		return json.Number(strconv.FormatInt(int64(x), 10)), true
	}
	return x, true
}

// keyOf is a value as the key of its group: 1 and 1.0 are the same.
func keyOf(v any) string {
	if x, ok := asNumber(v); ok {
		return "n" + strconv.FormatFloat(x, 'g', -1, 64)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return "v" + string(text)
}
