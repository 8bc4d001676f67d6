package config

import (
	"fmt"
	"slices"
	"strings"
)

// suggest answers the nearest known name, or all of them.
func (d *decoder) suggest(got string, known []string) string {
	best, distance := "", len(got)/3+2
	for _, k := range slices.Sorted(slices.Values(known)) {
		if n := edits(strings.ToLower(got), k); n < distance {
			best, distance = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return d.list("", known)
}

func (d *decoder) list(lead string, known []string) string {
	if len(known) == 0 {
		return lead
	}
	names := "known are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
	if lead == "" {
		return names
	}
	return lead + "; " + names
}

// edits is the Levenshtein distance. Names that long are no slips of a key, so they are cut.
func edits(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
