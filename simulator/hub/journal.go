package hub

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Record is the whole of one thing that a hub knows, as it is after a change, or the end of it. A hub is a set of
// records, one for each kind and key; the newest of a key counts.
type Record struct {
	Kind string          `json:"kind"`           // device, module, counters, …
	Key  string          `json:"key"`            // within the kind
	Data json.RawMessage `json:"data,omitempty"` // nil when there is no such thing any more
}

// Journal keeps what a hub knows beyond its process.
type Journal interface {
	// Append takes the records of one change, which belong together: all of them are kept, or none. It is called under
	// the hub's lock, in the order of the changes, and does not wait for a disk.
	Append(change []Record)
	// Sync waits until everything appended so far is safe. It is called without the lock, before whoever made the change
	// is answered and before a peer is told of it.
	Sync()
}

// kind is one sort of thing that outlives the process. A new one joins in four steps:
//
//  1. Write a struct for its record, with JSON names, and the two functions below, beside the thing itself.
//  2. Add a line to kinds, behind the kinds that load needs.
//  3. Call Hub.changed(name, key), under the lock, wherever the thing is made, changed or removed. The section has to end
//     with Hub.unlock, which asks save for the record: once for each key, however often it was changed.
//  4. Name the field of Hub that holds it in TestEveryFieldIsSavedOrVolatile.
type kind struct {
	name string
	// save answers what is to be kept of a key, for json.Marshal; nil means that it is gone.
	save func(h *Hub, key string) any
	// keys lists what there is.
	keys func(h *Hub) []string
	// load puts a record back. Text from a file is outside text: an error, never a panic.
	load func(h *Hub, key string, data []byte) error
}

// kinds are all kinds, in the order in which they are loaded. A function, because a table would refer to itself.
func kinds() []kind {
	return []kind{
		countersKind,
		policiesKind,
		deviceKind,
		moduleKind,
		sessionKind(),
		messagesKind(),
		feedbackKind(),
		fileNoticeKind(),
		importExportKind,
		jobKind(),
		configurationKind(),
	}
}

// changedKey is what a section under the lock has changed.
type changedKey struct{ kind, key string }

// changed notes that a thing was made, changed or removed, for the journal, if there is one. Called under the lock.
func (h *Hub) changed(kind, key string) {
	if h.journal == nil {
		return
	}
	if k := (changedKey{kind, key}); !slices.Contains(h.dirty, k) {
		h.dirty = append(h.dirty, k)
	}
}

// record hands what a section has changed to the journal, and tells whether that was anything.
func (h *Hub) record() bool {
	if len(h.dirty) == 0 {
		return false
	}
	change := make([]Record, len(h.dirty))
	for i, k := range h.dirty {
		change[i] = h.recordOf(k)
	}
	h.dirty = h.dirty[:0]
	h.journal.Append(change)
	return true
}

func (h *Hub) recordOf(k changedKey) Record {
	all := kinds()
	i := slices.IndexFunc(all, func(of kind) bool { return of.name == k.kind })
	if i < 0 {
		panic("hub: a change of a kind that is not in kinds: " + k.kind)
	}
	r := Record{Kind: k.kind, Key: k.key}
	if v := all[i].save(h, k.key); v != nil {
		r.Data = encode(v)
	}
	return r
}

// Open returns a hub that knows what saved says, and tells j of every change from then on. Of saved, the last record of
// a key counts, as in a log. Given policies take the place of saved ones. The error says which record makes no sense.
func Open(o Options, j Journal, saved []Record) (*Hub, error) {
	byKind := map[string]map[string]json.RawMessage{}
	for _, r := range saved {
		if byKind[r.Kind] == nil {
			byKind[r.Kind] = map[string]json.RawMessage{}
		}
		byKind[r.Kind][r.Key] = r.Data
	}
	if o.Policies != nil {
		delete(byKind, policies)
	}
	newPolicies := byKind[policies] == nil
	h := New(o)
	h.mu.Lock()
	defer h.unlock()
	for _, k := range kinds() {
		for key, data := range byKind[k.name] {
			if data == nil {
				continue
			}
			if err := k.load(h, key, data); err != nil {
				return nil, fmt.Errorf("hub: load %s %q: %w", k.name, key, err)
			}
		}
		delete(byKind, k.name)
	}
	for name := range byKind {
		return nil, fmt.Errorf("hub: load: records of kind %q, which this version does not know; use the version that wrote them", name)
	}
	h.journal = j
	if newPolicies {
		h.changed(policies, "")
	}
	return h, nil
}

// Records answers everything that the hub knows, for a journal that begins anew. It lets others in between pieces:
// changes meanwhile are in the journal, in records that are newer than those answered here or the same.
func (h *Hub) Records(each func(Record) error) error {
	const piece = 256
	for _, k := range kinds() {
		h.mu.Lock()
		keys := k.keys(h)
		h.mu.Unlock()
		for keys := range slices.Chunk(keys, piece) {
			records := make([]Record, 0, len(keys))
			h.mu.Lock()
			for _, key := range keys {
				if v := k.save(h, key); v != nil {
					records = append(records, Record{Kind: k.name, Key: key, Data: encode(v)})
				}
			}
			h.mu.Unlock()
			for _, r := range records {
				if err := each(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
