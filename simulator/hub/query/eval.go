package query

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
)

// node is a part of an expression. eval answers its value in doc; false means undefined.
type node interface {
	eval(doc Object) (any, bool)
}

// holds is an expression as a condition: everything but true is false.
func holds(n node, doc Object) bool {
	v, _ := n.eval(doc)
	b, _ := v.(bool)
	return b
}

func (p *path) eval(doc Object) (any, bool) { return p.of(doc) }

// constant is a literal; not defined means the literal undefined.
type constant struct {
	value   any
	defined bool
}

func (c constant) eval(Object) (any, bool) { return c.value, c.defined }

type or []node

func (o or) eval(doc Object) (any, bool) {
	return slices.ContainsFunc(o, func(n node) bool { return holds(n, doc) }), true
}

type and []node

func (a and) eval(doc Object) (any, bool) {
	return !slices.ContainsFunc(a, func(n node) bool { return !holds(n, doc) }), true
}

type not struct{ n node }

func (n not) eval(doc Object) (any, bool) { return !holds(n.n, doc), true }

type compare struct {
	left, right node
	op          string
}

func (c compare) eval(doc Object) (any, bool) {
	a, ok1 := c.left.eval(doc)
	b, ok2 := c.right.eval(doc)
	if !ok1 || !ok2 {
		return nil, false
	}
	order, comparable := compareValues(a, b)
	if !comparable {
		return nil, false
	}
	switch c.op {
	case "=":
		return order == 0, true
	case "!=", "<>":
		return order != 0, true
	}
	if _, isBool := a.(bool); isBool || a == nil {
		return nil, false // neither has an order
	}
	switch c.op {
	case "<":
		return order < 0, true
	case "<=":
		return order <= 0, true
	case ">":
		return order > 0, true
	}
	return order >= 0, true
}

// compareValues orders two primitives of one type; others can't be compared.
func compareValues(a, b any) (order int, comparable bool) {
	switch a := a.(type) {
	case nil:
		return 0, b == nil
	case bool:
		b, ok := b.(bool)
		if a != b {
			order = 1
		}
		return order, ok
	case string:
		b, ok := b.(string)
		return strings.Compare(a, b), ok
	}
	x, ok1 := asNumber(a)
	y, ok2 := asNumber(b)
	switch {
	case !ok1 || !ok2:
		return 0, false
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	}
	return 0, x == y
}

func asNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	}
	return 0, false
}

type in struct {
	n    node
	list []constant
	not  bool
}

func (i in) eval(doc Object) (any, bool) {
	v, ok := i.n.eval(doc)
	if !ok {
		return nil, false
	}
	found := slices.ContainsFunc(i.list, func(c constant) bool {
		return c.defined && equal(v, c.value)
	})
	return found != i.not, true
}

func equal(a, b any) bool {
	order, comparable := compareValues(a, b)
	return comparable && order == 0
}

// arithmetic is a chain of operators of one rank.
type arithmetic struct {
	first node
	rest  []step
}

type step struct {
	op byte
	n  node
}

func (a arithmetic) eval(doc Object) (any, bool) {
	v, ok := a.first.eval(doc)
	if !ok {
		return nil, false
	}
	x, ok := asNumber(v)
	for _, s := range a.rest {
		if !ok {
			return nil, false
		}
		var y float64
		if v, ok = s.n.eval(doc); ok {
			y, ok = asNumber(v)
		}
		switch s.op {
		case '+':
			x += y
		case '-':
			x -= y
		case '*':
			x *= y
		case '/':
			x /= y
		case '%':
			x = math.Mod(x, y)
		}
	}
	// A division by zero has no value that JSON could show.
	if !ok || math.IsNaN(x) || math.IsInf(x, 0) {
		return nil, false
	}
	return x, true
}

type call struct {
	name string
	args []node
}

func (c call) eval(doc Object) (any, bool) {
	a, ok := c.args[0].eval(doc)
	if c.name == "IS_DEFINED" {
		return ok, true
	}
	b, ok2 := c.args[1].eval(doc)
	if !ok || !ok2 {
		return nil, false
	}
	if c.name == "ARRAY_CONTAINS" {
		list, ok := a.([]any)
		return slices.ContainsFunc(list, func(v any) bool { return equal(v, b) }), ok
	}
	x, ok := a.(string)
	y, ok2 := b.(string)
	if !ok || !ok2 {
		return nil, false
	}
	if c.name == "STARTSWITH" {
		return strings.HasPrefix(x, y), true
	}
	return strings.HasSuffix(x, y), true
}
