package cctalk

import (
	"strconv"
	"strings"
)

// positions is how many coins a ccTalk acceptor has: part 2, header 184.
const positions = 16

// coin is one entry of the acceptor's table.
type coin struct {
	Position int    `json:"position"`
	ID       string `json:"coin"` // "EU100A": country, value, issue; "" for an unused position
	Cents    *int   `json:"value_cents"`
}

// cleanID is a coin's name as text: printable ASCII alone, and nothing for the "......" of an unused position.
func cleanID(p []byte) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(p))
	if strings.Trim(s, ". ") == "" {
		return ""
	}
	return strings.TrimSpace(s)
}

// cents reads the value out of a coin's name: ccTalk part 3, appendix 3. Three characters in the currency's smallest
// unit, "100", or with a K for thousands in the place of the point, "1K5". What it cannot read has no value.
func cents(id string) (int, bool) {
	if len(id) != 6 {
		return 0, false
	}
	whole, part, thousands := strings.Cut(id[2:5], "K")
	if !digits(whole) || thousands && part != "" && !digits(part) {
		return 0, false
	}
	n, err := strconv.Atoi(whole)
	if err != nil {
		return 0, false
	}
	if !thousands {
		return n, true
	}
	scale := 1000
	for _, d := range part {
		scale /= 10
		n = n*10 + int(d-'0')
	}
	return n * scale, true
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// value is a coin's value: the owner's word first, then what its name says; nil when neither knows.
func value(id string, owner map[string]int) *int {
	if v, ok := owner[id]; ok {
		return &v
	}
	if v, ok := cents(id); ok {
		return &v
	}
	return nil
}
