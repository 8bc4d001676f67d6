package main

import (
	"os"
	"regexp"
	"testing"
)

// The page of figures says by which part of the bench each is printed, and leaves none out.
func TestPageOfFiguresNamesTheParts(t *testing.T) {
	page, err := os.ReadFile("../../docs/figures.md")
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, p := range parts {
		left[p.name] = true
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)`([a-z]+)` \\|$").FindAllSubmatch(page, -1) {
		name := string(m[1])
		if !left[name] && !named[name] {
			t.Errorf("docs/figures.md names a part %q, and there is none", name)
		}
		named[name] = true
		delete(left, name)
	}
	for name := range left {
		t.Errorf("docs/figures.md has no figure of the part %q", name)
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.456: "0.46", 1.19: "1.19", 18.04: "18.0", 99.99: "100.0", 249.4: "249", 20407.4: "20407"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}
