package hub

import (
	"cmp"
	"slices"
)

// Attempt is something that a client asked for and this hub does not have, and how often.
type Attempt struct {
	What  string `json:"what"` // like "GET /digitaltwins/d" or "MQTT 3.1.1 PUBLISH on a/b"
	Count int    `json:"count"`
}

const (
	maxAttempts    = 1000 // kinds; more are counted together
	maxAttemptText = 200  // bytes
	otherAttempts  = "others"
)

// NoteUnsupported counts an attempt at something that a door has refused because this hub does not have it.
func (h *Hub) NoteUnsupported(what string) {
	if len(what) > maxAttemptText {
		what = what[:maxAttemptText] + "…"
	}
	h.mu.Lock()
	defer h.unlock()
	if _, known := h.attempts[what]; !known && len(h.attempts) >= maxAttempts {
		what = otherAttempts
	}
	h.attempts[what]++
}

// Unsupported are the attempts so far, the most frequent first.
func (h *Hub) Unsupported() []Attempt {
	h.mu.Lock()
	defer h.unlock()
	all := []Attempt{}
	for what, n := range h.attempts {
		all = append(all, Attempt{what, n})
	}
	slices.SortFunc(all, func(a, b Attempt) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.What, b.What)) })
	return all
}
