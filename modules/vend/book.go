package vend

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
)

const (
	maxRecent = 8   // transactions whose results are kept
	maxOld    = 240 // transactions before those, of which it is known that they were
	maxTX     = 40  // characters of a transaction id
)

var txForm = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,40}$`)

// record is one transaction.
type record struct {
	TX       string  `json:"txId"`
	Slot     int     `json:"slot"`
	Result   string  `json:"result,omitempty"` // "" while it runs
	Fault    string  `json:"fault,omitempty"`
	Duration int64   `json:"durationMs"`
	Turns    float64 `json:"turns"`
	Drop     *int64  `json:"dropMs,omitempty"` // from the motor's start to the product in the beam
	Drops    int     `json:"drops,omitempty"`  // more than one: a double drop
}

func (r record) done() bool { return r.Result != "" }

// book is the module's state: which transactions there were, and which slots must not be used. It travels with each message,
// so that whatever the agent has of a transaction, the next run knows, too.
type book struct {
	Recent  []record         `json:"recent,omitempty"` // newest last
	Old     []byte           `json:"old,omitempty"`    // FNV-1a of 64 bits of each id, newest last
	Blocked [maxSlots]string `json:"blocked"`          // the fault; "" for a slot that works
	TurnMS  [maxSlots]int    `json:"turnMs"`           // a turn of each spiral as it was last; 0: not known
}

func parseBook(p []byte) (book, error) {
	var b book
	if err := json.Unmarshal(p, &b); err != nil {
		return book{}, fmt.Errorf("vend: state: %w", err)
	}
	if len(b.Recent) > maxRecent || len(b.Old)%8 != 0 || len(b.Old) > 8*maxOld {
		return book{}, fmt.Errorf("vend: state: %d transactions and %d bytes of old ones are more than there can be", len(b.Recent), len(b.Old))
	}
	for i, r := range b.Recent {
		if !txForm.MatchString(r.TX) || r.Slot < 0 || r.Slot >= maxSlots || !r.done() && i < len(b.Recent)-1 {
			return book{}, fmt.Errorf("vend: state: no transaction: %+v", r)
		}
	}
	for _, ms := range b.TurnMS {
		if ms < 0 || ms > maxTurnMS {
			return book{}, fmt.Errorf("vend: state: a turn of %d ms", ms)
		}
	}
	return b, nil
}

// clone is a copy that shares nothing.
func (b book) clone() book {
	b.Recent, b.Old = slices.Clone(b.Recent), slices.Clone(b.Old)
	return b
}

// find looks a transaction up. forgotten is one that there was, with a result that is not kept any more.
func (b book) find(tx string) (r record, known, forgotten bool) {
	for _, r := range b.Recent {
		if r.TX == tx {
			return r, true, false
		}
	}
	h := hashOf(tx)
	for i := 0; i+8 <= len(b.Old); i += 8 {
		if binary.BigEndian.Uint64(b.Old[i:]) == h {
			return record{}, false, true
		}
	}
	return record{}, false, false
}

func hashOf(tx string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(tx))
	return h.Sum64()
}

// open writes a new transaction down.
func (b *book) open(tx string, slot int) {
	if len(b.Recent) == maxRecent {
		b.Old = binary.BigEndian.AppendUint64(b.Old, hashOf(b.Recent[0].TX))
		b.Recent = slices.Delete(b.Recent, 0, 1)
	}
	if over := len(b.Old) - 8*maxOld; over > 0 {
		b.Old = slices.Delete(b.Old, 0, over)
	}
	b.Recent = append(b.Recent, record{TX: tx, Slot: slot})
}

// pending is the transaction that runs; nil when none does.
func (b *book) pending() *record {
	if n := len(b.Recent); n > 0 && !b.Recent[n-1].done() {
		return &b.Recent[n-1]
	}
	return nil
}

// close writes down how the pending transaction ended. A slot that has a fault is not used again until a technician has
// looked at it.
func (b *book) close(c cycle) record {
	r := b.pending()
	if r == nil {
		return record{}
	}
	r.Result, r.Fault, r.Turns, r.Drops = c.result, c.fault, c.turns(), c.drops
	r.Duration = c.over.Sub(c.began).Milliseconds()
	if c.drops > 0 {
		ms := c.dropAt.Sub(c.began).Milliseconds()
		r.Drop = &ms
	}
	switch {
	case c.fault != "":
		b.Blocked[r.Slot] = c.fault
	case c.result != resultOK:
		b.Blocked[r.Slot] = c.result
	}
	b.learn(r.Slot, c)
	return *r
}

// learn keeps how long a turn takes.
func (b *book) learn(slot int, c cycle) {
	if ms := c.took.Milliseconds(); c.result == resultOK && ms > 0 && ms <= maxTurnMS {
		b.TurnMS[slot] = int(ms)
	}
}

// interrupted closes a transaction that an earlier run had begun and not ended.
func (b *book) interrupted() record {
	r := b.pending()
	if r == nil {
		return record{}
	}
	r.Result, r.Fault = resultUnknown, faultEnded
	b.Blocked[r.Slot] = faultEnded
	return *r
}
