package query

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

type kind int

const (
	end    kind = iota
	word        // a name, or a word of the grammar
	quoted      // a name in [[ ]]
	number
	text
	sign // an operator or a bracket
)

// token is one piece of a query. text is the name, the string's value, or the sign.
type token struct {
	kind  kind
	text  string
	value float64 // of a number
	at    int     // character, from 1
}

// reserved are the words of the grammar, which can't be names in a path.
var reserved = map[string]bool{
	"SELECT": true, "TOP": true, "AS": true, "FROM": true, "WHERE": true, "GROUP": true, "BY": true, "AND": true, "OR": true,
	"NOT": true, "IN": true, "NIN": true, "UNDEFINED": true, "NULL": true, "TRUE": true, "FALSE": true,
}

// is tells whether a token is a word of the grammar.
func (t token) is(w string) bool { return t.kind == word && strings.EqualFold(t.text, w) }

func (t token) isSign(s string) bool { return t.kind == sign && t.text == s }

// String names a token for an error.
func (t token) String() string {
	switch t.kind {
	case end:
		return "the end of the query"
	case text:
		return "a string"
	}
	return strconv.Quote(t.text)
}

type lexer struct {
	rest string
	at   int
}

// tokens cuts a query into pieces, with one of kind end at its end.
func tokens(query string) ([]token, error) {
	l := lexer{rest: query, at: 1}
	var all []token
	for {
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		all = append(all, t)
		if t.kind == end {
			return all, nil
		}
	}
}

// take cuts n bytes off.
func (l *lexer) take(n int) string {
	s := l.rest[:n]
	l.rest = l.rest[n:]
	l.at += utf8.RuneCountInString(s)
	return s
}

func (l *lexer) next() (token, error) {
	l.take(len(l.rest) - len(strings.TrimLeftFunc(l.rest, unicode.IsSpace)))
	at := l.at
	if l.rest == "" {
		return token{kind: end, at: at}, nil
	}
	r, _ := utf8.DecodeRuneInString(l.rest)
	switch {
	case r == '\'' || r == '"':
		return l.string(at, byte(r))
	case r >= '0' && r <= '9':
		return l.number(at)
	case isName(r):
		n := strings.IndexFunc(l.rest, func(r rune) bool { return !isName(r) })
		if n < 0 {
			n = len(l.rest)
		}
		return token{kind: word, text: l.take(n), at: at}, nil
	case strings.HasPrefix(l.rest, "[["):
		return l.bracketed(at)
	}
	for _, s := range []string{"!=", "<>", "<=", ">="} {
		if strings.HasPrefix(l.rest, s) {
			return token{kind: sign, text: l.take(2), at: at}, nil
		}
	}
	if strings.ContainsRune("=<>+-*/%(),.[]", r) {
		return token{kind: sign, text: l.take(1), at: at}, nil
	}
	return token{}, &Error{At: at, Text: "unknown character " + strconv.QuoteRune(r)}
}

func isName(r rune) bool { return r == '_' || r == '$' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// bracketed reads [[name]], for names that are words of the grammar or no names at all, like those of configurations. An
// array in an array, which is equal to nothing anyway, has to have a space between its brackets.
func (l *lexer) bracketed(at int) (token, error) {
	n := strings.Index(l.rest, "]]")
	if n < 0 {
		return token{}, &Error{At: at, Text: "[[ without ]]"}
	}
	name := l.take(n + 2)[2:n]
	if name == "" {
		return token{}, &Error{At: at, Text: "no name between [[ and ]]"}
	}
	return token{kind: quoted, text: name, at: at}, nil
}

// number reads decimals like 12, 0.5 and 1e3, and hexadecimals like 0x1F.
func (l *lexer) number(at int) (token, error) {
	n := 0
	for n < len(l.rest) {
		c := l.rest[n]
		exponent := n > 0 && (l.rest[n-1]|0x20 == 'e') && (c == '+' || c == '-') && !strings.HasPrefix(l.rest, "0x") && !strings.HasPrefix(l.rest, "0X")
		if c != '.' && !exponent && !isName(rune(c)) {
			break
		}
		n++
	}
	s := l.take(n)
	if hex := strings.ToLower(s); strings.HasPrefix(hex, "0x") {
		v, err := strconv.ParseUint(hex[2:], 16, 64)
		if err != nil || strings.ContainsAny(hex, "_") {
			return token{}, &Error{At: at, Text: strconv.Quote(s) + " is no hexadecimal number of at most 16 digits"}
		}
		return token{kind: number, text: s, value: float64(v), at: at}, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.ContainsAny(s, "_pPxXnN") {
		return token{}, &Error{At: at, Text: strconv.Quote(s) + " is no number"}
	}
	return token{kind: number, text: s, value: v, at: at}, nil
}

// string reads a string in either quotes.
func (l *lexer) string(at int, quote byte) (token, error) {
	l.take(1)
	var b strings.Builder
	for {
		n := strings.IndexAny(l.rest, string([]byte{quote, '\\'}))
		if n < 0 {
			return token{}, &Error{At: at, Text: "the string has no end"}
		}
		b.WriteString(l.take(n))
		if l.take(1)[0] == quote {
			return token{kind: text, text: b.String(), at: at}, nil
		}
		r, err := l.escape()
		if err != nil {
			return token{}, err
		}
		b.WriteRune(r)
	}
}

// escape reads what comes behind a backslash: a quote, a backslash, or u and four hexadecimal digits.
func (l *lexer) escape() (rune, error) {
	at := l.at - 1
	if l.rest != "" && strings.ContainsRune(`'"\`, rune(l.rest[0])) {
		return rune(l.take(1)[0]), nil
	}
	r, ok := l.hex4()
	if ok && utf16.IsSurrogate(r) {
		if ok = strings.HasPrefix(l.rest, `\`); ok {
			l.take(1)
			var low rune
			low, ok = l.hex4()
			r = utf16.DecodeRune(r, low)
			ok = ok && r != unicode.ReplacementChar
		}
	}
	if !ok {
		return 0, &Error{At: at, Text: `unknown escape: there are \' \" \\ and \uXXXX`}
	}
	return r, nil
}

func (l *lexer) hex4() (rune, bool) {
	if len(l.rest) < 5 || l.rest[0] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(l.rest[1:5], 16, 16)
	if err != nil {
		return 0, false
	}
	l.take(5)
	return rune(v), true
}
