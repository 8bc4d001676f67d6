package query

import (
	"slices"
	"strconv"
	"strings"
)

// or reads a OR b OR ….
func (p *parser) or() (node, error) {
	return p.chain("OR", p.and, func(all []node) node { return or(all) })
}

func (p *parser) and() (node, error) {
	return p.chain("AND", p.not, func(all []node) node { return and(all) })
}

// chain reads operands joined by one word into one flat node, however many there are.
func (p *parser) chain(w string, operand func() (node, error), join func([]node) node) (node, error) {
	var all []node
	for {
		n, err := operand()
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if p.accept(w) {
			continue
		}
		if len(all) == 1 {
			return all[0], nil
		}
		return join(all), nil
	}
}

func (p *parser) not() (node, error) {
	if !p.accept("NOT") {
		return p.comparison()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	n, err := p.not()
	return not{n}, err
}

func (p *parser) comparison() (node, error) {
	left, err := p.sum()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	switch {
	case t.is("IN"), t.is("NIN"):
		p.next()
		if !p.peek().isSign("[") {
			return nil, fail(p.peek(), "%s wants an array like ['a', 'b'], have %s", strings.ToUpper(t.text), p.peek())
		}
		p.next()
		list, err := p.array()
		return in{left, list, t.is("NIN")}, err
	case t.kind == sign && slices.Contains(comparisons, t.text):
		p.next()
		right, err := p.sum()
		if err == nil && p.peek().kind == sign && slices.Contains(comparisons, p.peek().text) {
			return nil, fail(p.peek(), "comparisons can't be chained")
		}
		return compare{left, right, t.text}, err
	}
	return left, nil
}

var comparisons = []string{"=", "!=", "<>", "<", "<=", ">", ">="}

func (p *parser) sum() (node, error) { return p.arithmetic("+-", p.product) }

func (p *parser) product() (node, error) { return p.arithmetic("*/%", p.primary) }

// arithmetic reads a chain of operators of one rank from left to right.
func (p *parser) arithmetic(signs string, operand func() (node, error)) (node, error) {
	first, err := operand()
	if err != nil {
		return nil, err
	}
	var rest []step
	for p.peek().kind == sign && strings.Contains(signs, p.peek().text) {
		op := p.next().text[0]
		n, err := operand()
		if err != nil {
			return nil, err
		}
		rest = append(rest, step{op, n})
	}
	if rest == nil {
		return first, nil
	}
	return arithmetic{first, rest}, nil
}

func (p *parser) primary() (node, error) {
	t := p.peek()
	switch {
	case t.isSign("("):
		if err := p.enter(); err != nil {
			return nil, err
		}
		defer p.leave()
		p.next()
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		return n, p.expectSign(")")
	case t.kind == word && len(p.all) > 1 && p.all[1].isSign("("):
		return p.call()
	case t.kind == quoted, t.kind == word && !isConstant(t):
		return p.path()
	}
	return p.constant()
}

func isConstant(t token) bool {
	return t.is("undefined") || t.is("null") || t.is("true") || t.is("false")
}

// constant reads a literal.
func (p *parser) constant() (constant, error) {
	t := p.next()
	switch {
	case t.is("undefined"):
		return constant{}, nil
	case t.is("null"):
		return constant{nil, true}, nil
	case t.is("true"), t.is("false"):
		return constant{t.is("true"), true}, nil
	case t.kind == text:
		return constant{t.text, true}, nil
	case t.kind == number:
		return constant{t.value, true}, nil
	case t.isSign("-") && p.peek().kind == number:
		return constant{-p.next().value, true}, nil
	case t.isSign("["):
		list, err := p.array()
		if err != nil {
			return constant{}, err
		}
		values := make([]any, 0, len(list))
		for _, c := range list {
			if c.defined {
				values = append(values, c.value)
			}
		}
		return constant{values, true}, nil
	}
	return constant{}, fail(t, "want a value, have %s", t)
}

// array reads an array of constants behind its bracket.
func (p *parser) array() ([]constant, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var all []constant
	for !p.acceptSign("]") {
		if len(all) > 0 {
			if err := p.expectSign(","); err != nil {
				return nil, err
			}
		}
		c, err := p.constant()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// functions are those of twin queries and how many arguments they take. IS_DEFINED, STARTSWITH and ENDSWITH are documented;
// ARRAY_CONTAINS is what the Azure CLI asks for parentScopes with.
var functions = map[string]int{"IS_DEFINED": 1, "STARTSWITH": 2, "ENDSWITH": 2, "ARRAY_CONTAINS": 2}

func (p *parser) call() (node, error) {
	at := p.next()
	p.next()
	name := strings.ToUpper(at.text)
	want, known := functions[name]
	if !known {
		return nil, fail(at, "queries of twins and jobs have no function %s: there are IS_DEFINED, STARTSWITH, ENDSWITH and ARRAY_CONTAINS", at.text)
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var args []node
	for {
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		args = append(args, n)
		if !p.acceptSign(",") {
			break
		}
	}
	if err := p.expectSign(")"); err != nil {
		return nil, err
	}
	if len(args) != want {
		return nil, fail(at, "%s takes %s, has %d", name, plural(want), len(args))
	}
	if _, isPath := args[0].(*path); !isPath && name == "IS_DEFINED" {
		return nil, fail(at, "IS_DEFINED takes a property")
	}
	return call{name, args}, nil
}

func plural(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return strconv.Itoa(n) + " arguments"
}
