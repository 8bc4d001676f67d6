// Package lives counts how often in a row the agent has ended early, so that one that cannot live starts in safe mode at last.
//
// A life that lasts, or that ends as asked, breaks the row. So does a power cut: what was counted belongs to one start of the
// system, which Linux names by an id of its own (random(4), /proc/sys/kernel/random/boot_id).
package lives

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// Limit is how many lives in a row may end early.
const Limit = 5

// maxEnds is how many ends are kept for people, and maxReason the length of each.
const (
	maxEnds   = 5
	maxReason = 300
)

// Record is what is kept of lives. Its methods answer the next one and change nothing.
type Record struct {
	Boot  string `json:"boot"`
	Early int    `json:"early"`           // lives that ended early, in a row
	Open  bool   `json:"open"`            // a life has begun, and neither lasted nor ended as asked
	Error string `json:"error,omitempty"` // what the agent said when that life ended
	Ends  []End  `json:"ends,omitempty"`  // of the lives that ended early, the newest last
}

// End is how a life ended.
type End struct {
	Found  time.Time `json:"found"` // when the next one began
	Reason string    `json:"reason"`
}

// Unknown is an end that left no word.
const Unknown = "it ended without a word: killed, or out of memory"

// Begin is a new life, at the time now of the system's start boot. words is what the last one left behind, "" for nothing. safe
// says that too many have ended early.
func (r Record) Begin(boot, words string, now time.Time) (next Record, safe bool) {
	next = Record{Boot: boot, Open: true}
	if r.Boot != boot {
		return next, false
	}
	next.Early, next.Ends = min(max(r.Early, 0), 1<<20), r.Ends
	if r.Open {
		reason := Unknown
		switch {
		case words != "":
			reason = words
		case r.Error != "":
			reason = r.Error
		}
		next.Early++
		next.Ends = append(next.Ends[:len(next.Ends):len(next.Ends)], End{Found: now.UTC().Truncate(time.Second), Reason: clip(reason)})
	}
	if n := len(next.Ends); n > maxEnds {
		next.Ends = next.Ends[n-maxEnds:]
	}
	return next, next.Early >= Limit
}

// Lasted is a life that has lasted, or ended as asked.
func (r Record) Lasted() Record { return Record{Boot: r.Boot} }

// Failed is a life that ended with an error of the agent's own.
func (r Record) Failed(err error) Record {
	if r.Open {
		r.Error = clip(err.Error())
	}
	return r
}

// Resumed is a life that leaves safe mode: as somebody asked, and then it counts like a first one; or by itself, and then one
// early end leads back.
func (r Record) Resumed(asked bool) Record {
	r.Early = Limit - 1
	if asked {
		r.Early, r.Ends = 0, nil
	}
	return r
}

func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// Decode reads what Encode has made.
func Decode(text []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, fmt.Errorf("it is not a record of lives: %w", err)
	}
	return r, nil
}

// Encode is a record as text.
func (r Record) Encode() ([]byte, error) { return json.Marshal(r) }

// Boot is the id of the system's start; "" when the system does not tell.
func Boot() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
