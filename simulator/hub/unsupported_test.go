package hub

import (
	"fmt"
	"strings"
	"testing"
)

func TestUnsupported(t *testing.T) {
	h := New(Options{})
	for n := range maxAttempts + 10 {
		h.NoteUnsupported(fmt.Sprintf("GET /x/%d", n))
	}
	h.NoteUnsupported("GET /x/7")
	h.NoteUnsupported(strings.Repeat("y", 1000))
	all := h.Unsupported()
	if len(all) != maxAttempts+1 || all[0] != (Attempt{otherAttempts, 11}) || all[1] != (Attempt{"GET /x/7", 2}) {
		t.Errorf("%d kinds, first %v", len(all), all[:2])
	}
}
