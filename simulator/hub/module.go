package hub

import (
	"maps"
	"slices"
	"time"
)

// parent finds the device of a module for the registry. When there is none, or it is disabled, the hub says to a SAS
// token that it is unauthorized, even to the owner's.
func (h *Hub) parent(id string) (*device, *Error) {
	d, ok := h.devices[id]
	switch {
	case !ok:
		return nil, unauthorized("device %s does not exist; a hub answers operations on its modules like a wrong token", id)
	case d.disabled:
		return nil, unauthorized("device %s is disabled; a hub answers operations on its modules like a wrong token", id)
	}
	return d, nil
}

// Module answers a module identity.
func (h *Hub) Module(id ID) (Module, error) {
	h.mu.Lock()
	defer h.unlock()
	d, err := h.parent(id.Device)
	if err != nil {
		return Module{}, err
	}
	m, ok := d.modules[id.Module]
	if !ok {
		return Module{}, moduleNotFound(id)
	}
	return m.showModule(), nil
}

// Modules lists a device's modules in the order of their ids.
func (h *Hub) Modules(device string) ([]Module, error) {
	h.mu.Lock()
	defer h.unlock()
	d, err := h.parent(device)
	if err != nil {
		return nil, err
	}
	all := make([]Module, 0, len(d.modules))
	for _, id := range slices.Sorted(maps.Keys(d.modules)) {
		all = append(all, d.modules[id].showModule())
	}
	return all, nil
}

// PutModule creates a module if ifMatch is "", and replaces one if it is an etag or "*", like PutDevice.
func (h *Hub) PutModule(in Module, ifMatch string) (Module, error) {
	return h.putModuleAs(in, ifMatch, false)
}

// PutModuleAsDevice is PutModule for the module's device itself, which gives the system's modules their keys too
// (Azure/iot-identity-service, aziot-cloud-client-async, hub/mod.rs).
func (h *Hub) PutModuleAsDevice(in Module, ifMatch string) (Module, error) {
	return h.putModuleAs(in, ifMatch, true)
}

func (h *Hub) putModuleAs(in Module, ifMatch string, asDevice bool) (Module, error) {
	h.mu.Lock()
	defer h.unlock()
	d, err := h.parent(in.DeviceID)
	if err != nil {
		return Module{}, err
	}
	if err := checkModule(d, in, asDevice); err != nil {
		return Module{}, err
	}
	m, err := h.putModule(d, in, ifMatch)
	if err != nil {
		return Module{}, err
	}
	return m.showModule(), nil
}

func checkModule(d *device, in Module, asDevice bool) *Error {
	id := ID{in.DeviceID, in.ModuleID}
	switch {
	case in.ModuleID == "":
		return argument("moduleId is missing")
	case !d.isSystems(in.ModuleID):
		return checkID(id)
	case !asDevice:
		return systemModule(id)
	}
	return nil
}

func (h *Hub) putModule(d *device, in Module, ifMatch string) (*identity, *Error) {
	id := ID{in.DeviceID, in.ModuleID}
	auth, err := newAuthentication(in.Authentication, true)
	if err != nil {
		return nil, err
	}
	attributes, err := checkAttributes(in.Attributes)
	if err != nil {
		return nil, err
	}
	m, exists := d.modules[id.Module]
	switch {
	case ifMatch == "" && exists:
		return nil, &Error{Code: 409301, Name: "ModuleAlreadyExistsOnDevice",
			Text: "A module with ID '" + id.Module + "' is already registered on device '" + id.Device + "'."}
	case ifMatch == "":
		if err := h.roomOn(d); err != nil {
			return nil, err
		}
		n := h.newIdentity(id, time.Now())
		m = &n
		d.modules[id.Module] = m
		h.modules++
	case !exists:
		return nil, moduleNotFound(id)
	default:
		if err := staleETag(ifMatch, identityETag(m.etag)); err != nil {
			return nil, err
		}
	}
	h.replace(m, auth)
	m.managedBy, m.attributes = text(in.ManagedBy), attributes
	if d.isSystems(id.Module) {
		m.managedBy = edgeManager
	}
	h.changedIdentity(id)
	h.emitChange(id, exists)
	return m, nil
}

// DeleteModule removes a module and its twin. ifMatch is an etag or "*".
func (h *Hub) DeleteModule(id ID, ifMatch string) error {
	h.mu.Lock()
	defer h.unlock()
	d, err := h.parent(id.Device)
	if err != nil {
		return err
	}
	if d.isSystems(id.Module) {
		return systemModule(id)
	}
	if err := h.deleteModule(d, id, ifMatch); err != nil {
		return err
	}
	return nil
}

func (h *Hub) deleteModule(d *device, id ID, ifMatch string) *Error {
	m, ok := d.modules[id.Module]
	if err := deletable(ok, ifMatch, moduleNotFound(id)); err != nil {
		return err
	}
	if err := staleETag(ifMatch, identityETag(m.etag)); err != nil {
		return err
	}
	delete(d.modules, id.Module)
	h.modules--
	h.remove(m)
	return nil
}
