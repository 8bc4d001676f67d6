package cctalk

import "fmt"

// depth is how many events the acceptor keeps: ccTalk part 2, header 229.
const depth = 5

// event is one pair of the buffer. A coin has its position and the sorter path it took (0: no sorter); a position
// of 0 makes code an error.
type event struct {
	position byte
	code     byte
}

func (e event) none() bool { return e == event{} }

// reading is what header 229 answers.
type reading struct {
	counter byte         // 0 only after a reset; 255 is followed by 1
	events  [depth]event // newest first
}

func parseReading(p []byte) (reading, error) {
	if len(p) != 1+2*depth {
		return reading{}, fmt.Errorf("%d bytes of buffered credit, expected %d: %w", len(p), 1+2*depth, errForeign)
	}
	r := reading{counter: p[0]}
	for i := range depth {
		r.events[i] = event{position: p[1+2*i], code: p[2+2*i]}
	}
	return r, nil
}

// filled is how many events the buffer holds.
func (r reading) filled() int {
	n := 0
	for n < depth && !r.events[n].none() {
		n++
	}
	return n
}

// fresh is one event that was not seen before, with the counter as of it.
type fresh struct {
	event
	counter byte
}

// change is what happened between two readings.
type change struct {
	fresh []fresh // oldest first
	lost  int     // events that fell out of the buffer unseen
	gap   string  // why nobody can tell what else happened; "" when it is certain
}

// Reasons of a gap.
const (
	gapReset   = "the acceptor was reset"
	gapOther   = "another acceptor"
	gapFar     = "more events than the acceptor keeps"
	gapState   = "the state record is unreadable"
	gapNonsens = "the counter and the buffer contradict each other"
)

// since compares the reading with the counter seen last. It never guesses: what the buffer does not show is lost or
// a gap, and is reported as that.
func (r reading) since(last byte) change {
	if r.counter == last {
		return change{}
	}
	if r.counter == 0 {
		return change{gap: gapReset}
	}
	n := distance(last, r.counter)
	filled := r.filled()
	switch {
	case filled >= min(n, depth):
		return change{fresh: r.newest(min(n, depth)), lost: max(0, n-depth)}
	case filled == int(r.counter):
		// Fewer events than the distance says, and exactly as many as the counter: it began again from 0.
		return change{fresh: r.newest(filled), gap: gapReset}
	}
	return change{gap: gapNonsens}
}

// distance is how many events lie between two counters: 255 is followed by 1, and 0 is only a beginning.
func distance(last, now byte) int {
	if now >= last {
		return int(now) - int(last)
	}
	return 255 - int(last) + int(now)
}

// newest is the n newest events, oldest first.
func (r reading) newest(n int) []fresh {
	all := make([]fresh, n)
	counter := r.counter
	for i := range n {
		all[n-1-i] = fresh{r.events[i], counter}
		counter--
		if counter == 0 {
			counter = 255 // only reached by a wrap: the first event after a reset has counter 1
		}
	}
	return all
}

// record is the module's state: with it a restart credits what it missed, and nothing twice.
type record struct {
	Serial  int    `json:"serial"` // of the acceptor; -1 when it has none
	Counter byte   `json:"counter"`
	Credits uint64 `json:"credits"` // counted since the first start ever: the seq of the last credit
}

// resume compares the reading with the record of an earlier run, or of the time before a disconnection. While nobody
// polled, the acceptor stopped taking coins within a second: a distance beyond the buffer is no continuity.
func (r reading) resume(last record, serial int) change {
	if serial != last.Serial {
		return change{gap: gapOther}
	}
	c := r.since(last.Counter)
	if c.lost > 0 {
		return change{gap: gapFar}
	}
	return c
}
