package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Error is one thing wrong with a device file.
type Error struct {
	File   string // as the caller named it
	Line   int    // from 1; 0 when there is no place to point to
	Column int
	Key    string // "modules.climate.use"; "" for a syntax error
	Text   string // what is wrong
	Hint   string // what to do; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Text)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Errors is everything that is wrong with a device file, by line.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, each := range e {
		lines[i] = each.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each of them.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, each := range e {
		out[i] = each
	}
	return out
}

// Sorted answers the errors by line.
func (e Errors) Sorted() Errors {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}

type position struct{ line, column int }

// positions knows where each key of a file stands.
type positions struct {
	file string
	keys map[string]position // by joinKey
}

// joinKey keeps apart the parts of a key that contain dots themselves.
func joinKey(key []string) string { return strings.Join(key, "\x00") }

// find is the place of key, or of the nearest table around it.
func (p positions) find(key []string) position {
	for n := len(key); n > 0; n-- {
		if at, ok := p.keys[joinKey(key[:n])]; ok {
			return at
		}
	}
	return position{}
}

func (p positions) err(key []string, text, hint string) *Error {
	at := p.find(key)
	return &Error{File: p.file, Line: at.line, Column: at.column, Key: strings.Join(key, "."), Text: text, Hint: hint}
}

// parseTOML reads the text into a tree and notes where its keys stand.
func parseTOML(file string, text []byte) (map[string]any, positions, error) {
	at := positions{file: file, keys: map[string]position{}}
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		e := &Error{File: file, Text: strings.TrimPrefix(err.Error(), "toml: "), Hint: "see https://toml.io"}
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			e.Line, e.Column = d.Position()
			e.Key = strings.Join(d.Key(), ".")
		}
		return nil, at, Errors{e}
	}
	w := walker{text: text, at: at, arrays: map[string]int{}}
	w.p.Reset(text)
	for w.p.NextExpression() {
		w.expression(w.p.Expression())
	}
	if err := w.p.Error(); err != nil { // Unmarshal has parsed the same text
		return nil, at, Errors{{File: file, Text: err.Error()}}
	}
	return tree, at, nil
}

// walker notes the first place of each key. An array of tables is noted by itself, and each of its tables by its number,
// from 0, at its own header.
type walker struct {
	p      unstable.Parser
	text   []byte
	at     positions
	prefix []string
	arrays map[string]int // how many tables of each array there were
	offset int            // the last place
	last   position
}

func (w *walker) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table:
		w.prefix = w.key(n, nil)
	case unstable.ArrayTable:
		w.prefix = w.element(n)
	case unstable.KeyValue:
		w.keyValue(n, w.prefix)
	}
}

func (w *walker) keyValue(n *unstable.Node, prefix []string) {
	key := w.key(n, prefix)
	w.value(n.Value(), key)
}

func (w *walker) value(v *unstable.Node, key []string) {
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			w.keyValue(it.Node(), key)
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			w.value(it.Node(), append(slices.Clip(key), strconv.Itoa(i)))
			i++
		}
	}
}

// element is the key of one table of an array of tables.
func (w *walker) element(n *unstable.Node) []string {
	key := w.key(n, nil)
	id := joinKey(key)
	i := w.arrays[id]
	w.arrays[id]++
	var at position
	for it := n.Key(); it.Next(); {
		at = w.place(int(it.Node().Raw.Offset))
	}
	key = append(key, strconv.Itoa(i))
	w.at.keys[joinKey(key)] = at
	return key
}

// key notes each part of a dotted key and answers the whole of it.
func (w *walker) key(n *unstable.Node, prefix []string) []string {
	key := slices.Clone(prefix)
	for it := n.Key(); it.Next(); {
		if n := w.arrays[joinKey(key)]; n > 0 && len(key) > 0 { // more of the newest table of an array
			key = append(key, strconv.Itoa(n-1))
		}
		key = append(key, string(it.Node().Data))
		id := joinKey(key)
		if _, ok := w.at.keys[id]; !ok {
			w.at.keys[id] = w.place(int(it.Node().Raw.Offset))
		}
	}
	return key
}

// place counts on from the last place, since keys come in their order.
func (w *walker) place(offset int) position {
	offset = min(offset, len(w.text))
	if offset < w.offset || w.last.line == 0 {
		w.offset, w.last = 0, position{1, 1}
	}
	for _, b := range w.text[w.offset:offset] {
		w.last.column++
		if b == '\n' {
			w.last = position{w.last.line + 1, 1}
		}
	}
	w.offset = offset
	return w.last
}
