package cctalk

import (
	"fmt"
	"strings"
	"testing"
)

// at is a reading whose buffer holds coins, newest first: position by position.
func at(counter byte, positions ...byte) reading {
	r := reading{counter: counter}
	for i, p := range positions {
		r.events[i] = event{position: p, code: 1}
	}
	return r
}

func (c change) String() string {
	var parts []string
	if c.gap != "" {
		parts = append(parts, "gap: "+c.gap)
	}
	if c.lost > 0 {
		parts = append(parts, fmt.Sprintf("lost %d", c.lost))
	}
	for _, f := range c.fresh {
		parts = append(parts, fmt.Sprintf("%d@%d", f.position, f.counter))
	}
	return strings.Join(parts, ", ")
}

func TestSince(t *testing.T) {
	for _, row := range []struct {
		name string
		last byte
		now  reading
		want string
	}{
		{"nothing new", 7, at(7, 1, 2, 3, 4, 5), ""},
		{"nothing since power-up", 0, at(0), ""},
		{"first coin", 0, at(1, 3), "3@1"},
		{"one", 7, at(8, 1, 2, 3, 4, 5), "1@8"},
		{"three in one poll, oldest first", 7, at(10, 1, 2, 3, 4, 5), "3@8, 2@9, 1@10"},
		{"five", 7, at(12, 1, 2, 3, 4, 5), "5@8, 4@9, 3@10, 2@11, 1@12"},
		{"six: one is lost", 7, at(13, 1, 2, 3, 4, 5), "lost 1, 5@9, 4@10, 3@11, 2@12, 1@13"},
		{"255 is followed by 1", 255, at(1, 9, 8, 7, 6, 5), "9@1"},
		{"over the wrap", 253, at(2, 1, 2, 3, 4, 5), "4@254, 3@255, 2@1, 1@2"},
		{"lost over the wrap", 250, at(3, 1, 2, 3, 4, 5), "lost 3, 5@254, 4@255, 3@1, 2@2, 1@3"},
		{"reset", 7, at(0), "gap: the acceptor was reset"},
		{"reset, and coins since: the buffer shows it", 200, at(2, 4, 5), "gap: the acceptor was reset, 5@1, 4@2"},
		{"reset, and the counter looks near", 253, at(2, 4, 5), "gap: the acceptor was reset, 5@1, 4@2"},
		{"half a buffer that fits nothing", 10, at(14, 1, 2), "gap: the counter and the buffer contradict each other"},
		{"no buffer at all", 10, at(11), "gap: the counter and the buffer contradict each other"},
	} {
		if got := row.now.since(row.last).String(); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestResume(t *testing.T) {
	last := record{Serial: 77, Counter: 7, Credits: 3}
	for _, row := range []struct {
		name   string
		serial int
		now    reading
		want   string
	}{
		{"as it was", 77, at(7, 1), ""},
		{"two coins while away", 77, at(9, 1, 2, 3, 4, 5), "2@8, 1@9"},
		{"too far to be sure", 77, at(13, 1, 2, 3, 4, 5), "gap: more events than the acceptor keeps"},
		{"switched off meanwhile", 77, at(0), "gap: the acceptor was reset"},
		{"exchanged", 78, at(9, 1, 2, 3, 4, 5), "gap: another acceptor"},
		{"exchanged, same counter", 78, at(7, 1, 2, 3, 4, 5), "gap: another acceptor"},
	} {
		if got := row.now.resume(last, row.serial).String(); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
