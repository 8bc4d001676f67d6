package hub

import (
	"slices"
	"strings"
	"time"
)

// What an IoT Edge device has that others don't. As measured: github.com/mwalser/terraform-provider-iothub, CONCEPT.md,
// section 6.1 and appendix D.
const (
	scopeScheme = "ms-azure-iot-edge://"
	edgeManager = "iotEdge" // managedBy of the system's modules
)

// systemModules are what the hub itself adds to an IoT Edge device. They don't count against the limit of modules.
var systemModules = []string{"$edgeAgent", "$edgeHub"}

// place is where a device stands among IoT Edge devices.
type place struct {
	edge    bool     // capabilities.iotEdge
	scope   string   // an edge device's own; a leaf's is its parent's
	parents []string // at most one
}

// placed decides where a device will stand. old is where it stands, nil for a new one. What an import says of parents is
// not looked up: lines come in any order, a child before its parent too.
func (h *Hub) placed(in Device, old *device, generation string, imported bool) (place, *Error) {
	edge := in.Capabilities != nil && in.Capabilities.IoTEdge
	was := place{}
	if old != nil {
		was = old.place
	}
	if len(in.ParentScopes) > 1 {
		return place{}, badScope("device %s: a device has one parent, not %d", in.DeviceID, len(in.ParentScopes))
	}
	switch {
	case edge:
		p := place{edge: true, parents: slices.Clone(in.ParentScopes)}
		var err *Error
		if p.scope, err = ownScope(in, old, generation, imported); err != nil {
			return place{}, err
		}
		for _, parent := range p.parents {
			if slices.Contains(was.parents, parent) {
				continue
			}
			if err := h.checkParent(in.DeviceID, parent, imported); err != nil {
				return place{}, err
			}
		}
		return p, nil
	case was.edge:
		return place{}, nil // a parent is lost in the same write
	case in.DeviceScope == "":
		return place{}, nil // parentScopes of a leaf alone are ignored
	case in.DeviceScope != was.scope:
		if err := h.checkParent(in.DeviceID, in.DeviceScope, imported); err != nil {
			return place{}, err
		}
	}
	return place{scope: in.DeviceScope, parents: []string{in.DeviceScope}}, nil
}

// ownScope is an edge device's own scope, which the hub makes once. An import may bring it, so that children find their
// parent again.
func ownScope(in Device, old *device, generation string, imported bool) (string, *Error) {
	prefix := scopeScheme + in.DeviceID + "-"
	switch {
	case old != nil && old.edge && in.DeviceScope != old.scope:
		return "", argument("Device scope is immutable: an update of an IoT Edge device repeats its deviceScope %q", old.scope)
	case old != nil && old.edge:
		return old.scope, nil
	case imported && strings.HasPrefix(in.DeviceScope, prefix):
		return in.DeviceScope, nil
	case old == nil:
		return prefix + generation, nil
	case in.DeviceScope != "" && !imported:
		return "", &Error{Code: 503001, Name: "ServiceUnavailable",
			Text: "a device becomes an IoT Edge device with deviceScope \"\", its parent in parentScopes; a hub answers this as if it were down"}
	}
	return prefix, nil
}

// checkParent holds a scope to being an IoT Edge device's, and one that is not below the child already.
func (h *Hub) checkParent(child, scope string, imported bool) *Error {
	parent := h.scopeOwner(scope)
	switch {
	case parent == nil && imported && strings.HasPrefix(scope, scopeScheme):
		return nil
	case parent == nil:
		return badScope("no IoT Edge device has the scope %q", scope)
	}
	for p, steps := parent, 0; p != nil && steps < len(h.devices); steps++ {
		if p.id.Device == child {
			return badScope("device %s can't be below itself", child)
		}
		if len(p.parents) == 0 {
			break
		}
		p = h.scopeOwner(p.parents[0])
	}
	return nil
}

// scopeOwner finds the edge device of a scope, whose id is in it.
func (h *Hub) scopeOwner(scope string) *device {
	rest, ok := strings.CutPrefix(scope, scopeScheme)
	dash := strings.LastIndexByte(rest, '-')
	if !ok || dash < 0 {
		return nil
	}
	d := h.devices[rest[:dash]]
	if d == nil || !d.edge || d.scope != scope {
		return nil
	}
	return d
}

func badScope(format string, args ...any) *Error {
	e := argument(format, args...)
	e.Code, e.Name = 400028, "InvalidDeviceScope"
	return e
}

// put puts a device where it will stand, and makes or removes the system's modules.
func (h *Hub) put(d *device, p place) {
	was := d.edge
	d.place = p
	for _, name := range systemModules {
		switch {
		case p.edge && !was:
			n := h.newIdentity(ID{d.id.Device, name}, time.Now())
			n.twin = newTwin(time.Time{}) // nobody has written it yet: Azure/azure-iot-cli-extension, recorded twins
			n.auth, n.etag, n.managedBy = authentication{kind: authNone}, h.nextETag(), edgeManager
			d.modules[name] = &n
			h.modules++
			h.changedIdentity(n.id)
			h.emitChange(n.id, false)
		case was && !p.edge && d.modules[name] != nil:
			n := d.modules[name]
			delete(d.modules, name)
			h.modules--
			h.remove(n)
		}
	}
}

// ownModules counts the modules that are not the system's.
func (d *device) ownModules() int {
	n := len(d.modules)
	for _, name := range systemModules {
		if d.modules[name] != nil {
			n--
		}
	}
	return n
}

// isSystems tells whether a module of a device is the system's, which no service may write.
func (d *device) isSystems(module string) bool {
	return d.edge && slices.Contains(systemModules, module)
}

func systemModule(id ID) *Error {
	return &Error{Code: 401100, Name: "SystemModuleModifyUnauthorizedAccess",
		Text: "module " + id.String() + " is the system's: a service can write its twin, not its identity"}
}
