package hub

import "slices"

// idOrder is the ids of all devices, sorted. Sorting is put off until somebody asks for the ids, and costs a merge of what has
// changed by then, so that making a hundred thousand devices sorts nothing, and listing them again and again sorts them once.
type idOrder struct {
	ids     []string // sorted, each once; never changed once it is made, so that it may be read without the lock
	added   []string // since ids was made
	removed bool     // since then, some
}

func (o *idOrder) add(id string) { o.added = append(o.added, id) }

func (o *idOrder) remove() { o.removed = true }

// all answers the ids in order. exists tells which of them are still there.
func (o *idOrder) all(exists func(string) bool) []string {
	if len(o.added) == 0 && !o.removed {
		return o.ids
	}
	slices.Sort(o.added)
	next := make([]string, 0, len(o.ids)+len(o.added))
	old, added := o.ids, o.added
	for len(old)+len(added) > 0 {
		var id string
		if len(added) == 0 || len(old) > 0 && old[0] < added[0] {
			id, old = old[0], old[1:]
		} else {
			id, added = added[0], added[1:]
		}
		again := len(next) > 0 && next[len(next)-1] == id // removed and made anew since
		if !again && (!o.removed || exists(id)) {
			next = append(next, id)
		}
	}
	o.ids, o.added, o.removed = next, nil, false
	return o.ids
}

// deviceIDs are the ids of all devices in order, for reading only.
func (h *Hub) deviceIDs() []string {
	return h.order.all(func(id string) bool { return h.devices[id] != nil })
}
