package hub

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// reconcileDelay is how long the hub collects changes before it looks which configurations hold for whom. The cloud's takes
// five minutes.
const reconcileDelay = 200 * time.Millisecond

// The states of a configuration at a device or module. Source: Azure/azure-iot-sdk-csharp, ConfigurationStatus.cs.
const (
	stateTargeted = "Targeted" // all that it sets, another of a higher priority sets
	stateApplied  = "Applied"
)

// applied is a configuration that holds for an identity, as it was when its settings were written.
type applied struct {
	id    string
	etag  uint64
	state string
}

// ConfigurationState is what a twin says of a configuration.
type ConfigurationState struct {
	Status string `json:"status"` // Targeted or Applied
}

// showApplied is the member configurations of a twin.
func showApplied(all []applied) map[string]ConfigurationState {
	if len(all) == 0 {
		return nil
	}
	out := make(map[string]ConfigurationState, len(all))
	for _, a := range all {
		out[a.id] = ConfigurationState{a.state}
	}
	return out
}

// touched notes that an identity or its twin has changed: other configurations may hold for it now. Called under the lock.
func (h *Hub) touched(id ID) {
	h.revision++
	if h.configuring || len(h.configurations) == 0 {
		return
	}
	if h.stale == nil {
		h.stale = map[ID]struct{}{}
	}
	h.stale[id] = struct{}{}
	h.reconcileSoon()
}

// reevaluate notes that the configurations have changed. Called under the lock.
func (h *Hub) reevaluate() {
	h.revision++
	h.staleAll = true
	h.reconcileSoon()
}

// reconcileSoon sets the one timer there is. Called under the lock.
func (h *Hub) reconcileSoon() {
	if h.reconciler == nil && h.ctx.Err() == nil {
		h.reconciler = time.AfterFunc(reconcileDelay, h.reconcile)
	}
}

// reconcile looks at everybody who has changed, some at a time.
func (h *Hub) reconcile() {
	const piece = 64
	h.mu.Lock()
	h.reconciler = nil
	if h.ctx.Err() != nil {
		h.unlock()
		return
	}
	h.work.Add(1)
	defer h.work.Done()
	ids := h.staleIDs()
	var seen []*configuration
	for _, c := range h.configurations {
		seen = append(seen, c)
	}
	h.unlock()
	for some := range slices.Chunk(ids, piece) {
		if h.ctx.Err() != nil {
			return
		}
		h.mu.Lock()
		h.configuring = true
		for _, id := range some {
			h.configure(id)
			h.deploy(id)
		}
		h.configuring = false
		h.unlock()
	}
	h.mu.Lock()
	defer h.unlock()
	for _, c := range seen {
		c.evaluated = true
	}
}

// staleIDs takes the ids of those who have changed. A device comes before its modules, and brings them if there are
// deployments to IoT Edge, whose conditions are on the device.
func (h *Hub) staleIDs() []ID {
	var ids []ID
	add := func(d *device, all bool) {
		ids = append(ids, d.id)
		for name := range d.modules {
			if all {
				ids = append(ids, ID{d.id.Device, name})
			}
		}
	}
	if h.staleAll {
		for _, d := range h.devices {
			add(d, true)
		}
	}
	for id := range h.stale {
		d, ok := h.devices[id.Device]
		switch {
		case !ok || h.staleAll:
		case id.Module == "":
			add(d, d.edge)
		default:
			ids = append(ids, id)
		}
	}
	h.stale, h.staleAll = nil, false
	slices.SortFunc(ids, func(a, b ID) int {
		return cmp.Or(strings.Compare(a.Device, b.Device), strings.Compare(a.Module, b.Module))
	})
	return slices.Compact(ids)
}

// configure writes what the configurations that hold for an identity say, if others hold for it than before, or if one of
// them was updated. So a person may change what a configuration has set, until it is updated: measured, for IoT Edge.
func (h *Hub) configure(id ID) {
	n, err := h.find(id)
	if err != nil {
		return // gone
	}
	now := h.holding(n)
	if slices.EqualFunc(now, n.applied, func(c *configuration, a applied) bool { return c.id == a.id && c.etag == a.etag }) {
		return
	}
	part := id.Module
	tree := n.twin.desired.tree
	for _, a := range n.applied {
		c := h.configurations[a.id]
		if c == nil || c.content.kind == modulesContent || slices.Contains(now, c) {
			continue // what was deleted, or an IoT Edge deployment, leaves what it has set
		}
		for _, s := range c.content.settings[""] {
			tree = s.remove(tree)
		}
	}
	all := make([]applied, len(now))
	for i, c := range now {
		settings := c.settingsOf(part)
		for _, s := range settings {
			tree = s.set(tree)
		}
		all[i] = applied{c.id, c.etag, stateTargeted}
		if c.leavesATrace(settings, now[i+1:], part) {
			all[i].state = stateApplied
		}
	}
	if checkSize("properties.desired", tree, maxSection) != nil {
		for i := range all { // nothing is written where not all has room
			all[i].state = stateTargeted
		}
		tree = n.twin.desired.tree
	}
	n.applied = all
	h.changedIdentity(id)
	h.writeTree(n, tree)
}

// deploy makes the modules that a device's IoT Edge deployments name and that are not there, and configures them.
func (h *Hub) deploy(id ID) {
	d, ok := h.devices[id.Device]
	if !ok || id.Module != "" {
		return
	}
	for _, c := range h.deployments(d) {
		for _, name := range slices.Sorted(maps.Keys(c.content.settings)) {
			if d.modules[name] == nil && h.edgeModule(d, name) != nil {
				h.configure(ID{id.Device, name})
			}
		}
	}
}

// edgeModule answers a module of an IoT Edge device, and makes it if it is not there; nil if there is no room.
func (h *Hub) edgeModule(d *device, name string) *identity {
	if n := d.modules[name]; n != nil {
		return n
	}
	manager := edgeManager
	n, err := h.putModule(d, Module{DeviceID: d.id.Device, ModuleID: name, ManagedBy: &manager}, "")
	if err != nil {
		return nil
	}
	return n
}

// ApplyContent writes modulesContent to the modules of one IoT Edge device. Deployments that hold for it come back when
// they are updated, and not before: measured.
func (h *Hub) ApplyContent(device string, raw json.RawMessage) error {
	c, err := parseContent(raw)
	if err != nil {
		return err
	}
	if c.kind != modulesContent {
		return invalidContent("want modulesContent, have %s", c.kind)
	}
	h.mu.Lock()
	defer h.unlock()
	d, ok := h.devices[device]
	switch {
	case !ok:
		return deviceNotFound(ID{Device: device})
	case !d.edge:
		return argument("device %s is not an Azure IoT Edge device", device)
	}
	for _, name := range slices.Sorted(maps.Keys(c.settings)) {
		n := h.edgeModule(d, name)
		if n == nil {
			return tooManyModules(device, d.ownModules(), h.moduleLimit)
		}
		tree := n.twin.desired.tree
		for _, s := range c.settings[name] {
			tree = s.set(tree)
		}
		if err := checkSize("properties.desired of "+name, tree, maxSection); err != nil {
			return err
		}
		h.writeTree(n, tree)
	}
	return nil
}

// writeTree makes desired properties what they are to be, and tells the device what that changes.
func (h *Hub) writeTree(n *identity, tree map[string]any) {
	if patch := difference(n.twin.desired.tree, tree); len(patch) > 0 {
		n.twin.writes++
		h.changedIdentity(n.id)
		h.writeDesired(n, tree, patch, patch)
	}
}

// settingsOf are what the configuration sets at a part: of an IoT Edge deployment at the module, else at the one that is
// targeted.
func (c *configuration) settingsOf(module string) []setting {
	if c.content.kind == modulesContent {
		return c.content.settings[module]
	}
	return c.content.settings[""]
}

// leavesATrace tells whether one of the settings is not overwritten by those above.
func (c *configuration) leavesATrace(settings []setting, above []*configuration, module string) bool {
	return len(settings) == 0 || slices.ContainsFunc(settings, func(s setting) bool {
		return !slices.ContainsFunc(above, func(o *configuration) bool {
			return slices.ContainsFunc(o.settingsOf(module), func(over setting) bool { return over.covers(s) })
		})
	})
}

// holding answers the configurations that hold for an identity, the strongest last: of two of one priority it is the one that
// was made later.
func (h *Hub) holding(n *identity) []*configuration {
	d := h.devices[n.id.Device]
	self := row{n: *n, d: *d}
	kind := deviceContent
	var all []*configuration
	if n.id.Module != "" {
		kind = moduleContent
		for _, c := range h.deployments(d) {
			if _, named := c.content.settings[n.id.Module]; named {
				all = append(all, c)
			}
		}
	}
	for _, c := range h.configurations {
		if c.content.kind == kind && c.condition != nil && c.condition.Meets(&self) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, weaker)
	return all
}

func weaker(a, b *configuration) int {
	return cmp.Or(cmp.Compare(a.priority, b.priority), a.created.Compare(b.created), strings.Compare(a.id, b.id))
}

// deployments answers the IoT Edge deployments that hold for a device: the strongest whole one, and the layered ones above
// it, the strongest last. Without a whole one there is nothing to lay them on.
func (h *Hub) deployments(d *device) []*configuration {
	if !d.edge {
		return nil
	}
	var all []*configuration
	doc := row{n: d.identity, d: *d}
	for _, c := range h.configurations {
		if c.content.kind == modulesContent && c.condition != nil && c.condition.Meets(&doc) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, weaker)
	for i, c := range slices.Backward(all) {
		if !c.content.layered {
			return all[i:]
		}
	}
	return nil
}
