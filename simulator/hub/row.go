package hub

import (
	"encoding/json"
	"slices"
	"sort"
	"strings"
)

// row is what queries, jobs and configurations look at of an identity: a copy of its own values and its device's, while the
// trees of its twin, which never change, are shared. So it is made under the lock at little cost and looked at without it.
type row struct {
	n     identity
	d     device // without a copy of its modules, which are not for looking at
	shown *Twin  // by Member, for what is seldom asked
}

func (r *row) show() Twin { return showTwin(&r.n, &r.d) }

// Member implements query.Object: what show shows, without showing it where that can be avoided.
func (r *row) Member(name string) (any, bool) {
	switch name {
	case "deviceId":
		return r.n.id.Device, true
	case "moduleId":
		return r.n.id.Module, r.n.id.Module != ""
	case "tags":
		return r.n.twin.tags, len(r.n.twin.tags) > 0
	case "x509Thumbprint":
		return thumbprintObject(r.n.auth), true
	case "properties":
		return propertiesObject{r.n.twin.desired, r.n.twin.reported}, true
	case "status":
		return r.d.status(), true
	case "connectionState":
		return r.n.connectionState(), true
	case "version":
		return r.n.twin.version(), true
	case "lastActivityTime":
		return twinTime(r.n.activity), true
	}
	if name == "configurations" && len(r.n.applied) == 0 {
		return nil, false
	}
	return r.seldom(name)
}

// seldom reads a member off the whole twin, so that none is forgotten here.
func (r *row) seldom(name string) (any, bool) {
	if r.shown == nil {
		shown := r.show()
		shown.Tags, shown.Properties = nil, Properties{}
		r.shown = &shown
	}
	tree, err := parseTree("a twin", encode(r.shown))
	if err != nil {
		return nil, false
	}
	v, ok := tree[name]
	return v, ok
}

// thumbprintObject are an identity's thumbprints, which the twin spells in two ways and a query in one.
type thumbprintObject authentication

func (o thumbprintObject) Member(name string) (any, bool) {
	of := map[string]*string{"primaryThumbprint": o.thumbprint1, "secondaryThumbprint": o.thumbprint2}[name]
	if of == nil {
		return nil, name == "primaryThumbprint" || name == "secondaryThumbprint"
	}
	return *of, true
}

// MarshalJSON is for queries that select all of it.
func (o thumbprintObject) MarshalJSON() ([]byte, error) {
	return json.Marshal(TwinThumbprint{o.thumbprint1, o.thumbprint2})
}

// propertiesObject are a twin's properties, looked into by queries.
type propertiesObject struct{ desired, reported section }

func (p propertiesObject) Member(name string) (any, bool) {
	switch name {
	case "desired":
		return sectionObject{p.desired}, true
	case "reported":
		return sectionObject{p.reported}, true
	}
	return nil, false
}

// MarshalJSON is for queries that select all of it.
func (p propertiesObject) MarshalJSON() ([]byte, error) {
	return encode(Properties{Desired: p.desired.show(), Reported: p.reported.show()}), nil
}

type sectionObject struct{ s section }

func (o sectionObject) Member(name string) (any, bool) {
	switch name {
	case "$version":
		return o.s.version, true
	case "$metadata":
		return metaObject{o.s.meta}, true
	}
	v, ok := o.s.tree[name]
	return v, ok
}

func (o sectionObject) MarshalJSON() ([]byte, error) { return encode(o.s.show()), nil }

type metaObject struct{ m *meta }

func (o metaObject) Member(name string) (any, bool) {
	switch name {
	case "$lastUpdated":
		return twinTime(o.m.at), true
	case "$lastUpdatedVersion":
		return o.m.version, o.m.version > 0
	}
	below, ok := o.m.below[name]
	return metaObject{below}, ok
}

func (o metaObject) MarshalJSON() ([]byte, error) { return encode(o.m.show()), nil }

// rows walks over the device twins or the module twins behind after, in the order of their ids, until each answers false. It
// holds the lock for one piece of the walk at a time and calls each without it: rows of one piece are of one moment. A row is
// each's only until it returns.
func (h *Hub) rows(modules bool, after ID, each func(*row) bool) {
	const piece = 128 // devices
	h.mu.Lock()
	devices := h.deviceIDs()
	h.mu.Unlock()
	devices = devices[sort.SearchStrings(devices, after.Device):]
	if !modules && len(devices) > 0 && devices[0] == after.Device {
		devices = devices[1:]
	}
	var rows []row
	for ids := range slices.Chunk(devices, piece) {
		rows = rows[:0]
		h.mu.Lock()
		for _, id := range ids {
			rows = h.rowsOf(rows, id, modules, after)
		}
		h.mu.Unlock()
		for i := range rows {
			if !each(&rows[i]) {
				return
			}
		}
	}
}

// rowsOf adds the rows of a device, none if it has gone.
func (h *Hub) rowsOf(rows []row, device string, modules bool, after ID) []row {
	d, ok := h.devices[device]
	switch {
	case !ok:
		return rows
	case !modules:
		return append(rows, row{n: d.identity, d: *d})
	}
	begin := len(rows)
	for name, m := range d.modules {
		if device != after.Device || name > after.Module {
			rows = append(rows, row{n: *m, d: *d})
		}
	}
	slices.SortFunc(rows[begin:], func(a, b row) int { return strings.Compare(a.n.id.Module, b.n.id.Module) })
	return rows
}
