package hub

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const maxReason = 128 // characters of statusReason: Microsoft Learn, "Understand the identity registry"

// find looks up an identity. As for twins, whose hub answers a missing module with DeviceNotFound too.
func (h *Hub) find(id ID) (*identity, *Error) {
	d, ok := h.devices[id.Device]
	if !ok {
		return nil, deviceNotFound(id)
	}
	if id.Module == "" {
		return &d.identity, nil
	}
	m, ok := d.modules[id.Module]
	if !ok {
		return nil, deviceNotFound(id)
	}
	return m, nil
}

// Generation changes when an identity is made anew; "" means that there is none. It keys an MQTT session.
func (h *Hub) Generation(id ID) string {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil {
		return ""
	}
	return n.generation
}

// Device answers a device identity.
func (h *Hub) Device(id string) (Device, error) {
	h.mu.Lock()
	defer h.unlock()
	d, ok := h.devices[id]
	if !ok {
		return Device{}, deviceNotFound(ID{Device: id})
	}
	return d.show(), nil
}

// Devices lists up to top devices in the order of their ids; a top outside 1 to 1000 means 1000.
func (h *Hub) Devices(top int) []Device {
	if top < 1 || top > 1000 {
		top = 1000
	}
	h.mu.Lock()
	defer h.unlock()
	ids := h.deviceIDs()
	all := make([]Device, 0, min(top, len(ids)))
	for _, id := range ids[:min(top, len(ids))] {
		all = append(all, h.devices[id].show())
	}
	return all
}

// PutDevice creates a device if ifMatch is "", and replaces one if it is an etag or "*". Replacing means that what in
// leaves out is set anew: the keys, too.
func (h *Hub) PutDevice(in Device, ifMatch string) (Device, error) {
	h.mu.Lock()
	defer h.unlock()
	d, err := h.putDevice(in, ifMatch, false)
	if err != nil {
		return Device{}, err
	}
	return d.show(), nil
}

func (h *Hub) putDevice(in Device, ifMatch string, imported bool) (*device, *Error) {
	id := ID{Device: in.DeviceID}
	if err := checkDevice(in); err != nil {
		return nil, err
	}
	auth, err := newAuthentication(in.Authentication, false)
	if err != nil {
		return nil, err
	}
	attributes, err := checkAttributes(in.Attributes)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	d, exists := h.devices[id.Device]
	var where place
	switch {
	case ifMatch == "" && exists:
		return nil, &Error{Code: 409001, Name: "DeviceAlreadyExists", Text: "A device with ID '" + id.Device + "' is already registered."}
	case ifMatch == "":
		if err := h.room(); err != nil {
			return nil, err
		}
		n := h.newIdentity(id, now)
		if where, err = h.placed(in, nil, n.generation, imported); err != nil {
			return nil, err
		}
		d = &device{identity: n, modules: map[string]*identity{}}
		h.devices[id.Device] = d
		h.order.add(id.Device)
	case !exists:
		return nil, deviceNotFound(id)
	default:
		if err := staleETag(ifMatch, identityETag(d.etag)); err != nil {
			return nil, err
		}
		if where, err = h.placed(in, d, d.generation, imported); err != nil {
			return nil, err
		}
	}
	h.replace(&d.identity, auth)
	d.attributes = attributes
	h.setStatus(d, in, now)
	h.changedIdentity(id)
	h.emitChange(id, exists)
	h.put(d, where)
	return d, nil
}

func checkDevice(in Device) *Error {
	if err := checkID(ID{Device: in.DeviceID}); err != nil {
		return err
	}
	switch {
	case in.Status != "" && !strings.EqualFold(in.Status, "enabled") && !strings.EqualFold(in.Status, "disabled"):
		return argument("status %q: want enabled or disabled", in.Status)
	case utf8.RuneCountInString(text(in.StatusReason)) > maxReason:
		return argument("statusReason is longer than %d characters", maxReason)
	}
	return nil
}

// setStatus enables or disables a device. A disabled one is cut off, and so are its modules, which have no status of their
// own, unless DisabledDevice says otherwise.
func (h *Hub) setStatus(d *device, in Device, now time.Time) {
	disabled := strings.EqualFold(in.Status, "disabled")
	d.statusReason = in.StatusReason
	if disabled == d.disabled {
		return
	}
	d.disabled, d.statusTime = disabled, now
	if !disabled {
		return
	}
	why := &Error{Code: 403012, Name: "DeviceDisabled", Text: "device " + d.id.Device + " has been disabled"}
	h.cut(&d.identity, why)
	if h.Chose(DisabledDevice, "keep-modules") {
		return
	}
	for _, m := range d.modules {
		h.cut(m, why)
	}
}

// DeleteDevice removes a device, its modules and its twins. ifMatch is an etag or "*".
func (h *Hub) DeleteDevice(id string, ifMatch string) error {
	h.mu.Lock()
	defer h.unlock()
	if err := h.deleteDevice(id, ifMatch); err != nil {
		return err
	}
	return nil
}

func (h *Hub) deleteDevice(id string, ifMatch string) *Error {
	d, ok := h.devices[id]
	if err := deletable(ok, ifMatch, deviceNotFound(ID{Device: id})); err != nil {
		return err
	}
	if err := staleETag(ifMatch, identityETag(d.etag)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.modules)) {
		h.remove(d.modules[name])
	}
	h.modules -= len(d.modules)
	delete(h.devices, id)
	h.order.remove()
	h.remove(&d.identity)
	return nil
}

func deletable(exists bool, ifMatch string, missing *Error) *Error {
	switch {
	case ifMatch == "":
		return preconditionFailed("the etag is missing: send If-Match with the identity's etag, or *")
	case !exists:
		return missing
	}
	return nil
}

// room says whether the hub has room for one more identity.
func (h *Hub) room() *Error {
	if len(h.devices)+h.modules >= maxIdentities {
		return &Error{Code: 413002, Name: "TooManyDevices", Text: "the hub is full: 1,000,000 devices and modules"}
	}
	return nil
}

func (h *Hub) roomOn(d *device) *Error {
	if n := d.ownModules(); n >= h.moduleLimit {
		return tooManyModules(d.id.Device, n, h.moduleLimit)
	}
	return h.room()
}

func (h *Hub) newIdentity(id ID, now time.Time) identity {
	return identity{id: id, generation: h.nextGeneration(now), twin: newTwin(now)}
}

// replace puts new credentials in force. A connection whose key or certificate is gone is cut.
func (h *Hub) replace(n *identity, auth authentication) {
	n.auth = auth
	n.etag = h.nextETag()
	h.cutUnproven(n)
	if d := h.devices[n.id.Device]; n.id.Module == "" && d != nil {
		for _, m := range d.modules {
			h.cutUnproven(m)
		}
	}
}

func (h *Hub) cutUnproven(n *identity) {
	if n.link == nil {
		return
	}
	auth := &n.auth
	if n.link.proof.devices {
		auth = &h.devices[n.id.Device].auth
	}
	if !auth.accepts(n.link.proof) {
		h.cut(n, badToken("what %s has proved itself with is no longer its credential", n.id))
	}
}

// remove tells the links and the events that an identity is gone.
func (h *Hub) remove(n *identity) {
	h.changedIdentity(n.id)
	h.cut(n, deviceNotFound(n.id))
	if n.session != nil {
		h.changed(sessions, n.id.String())
	}
	n.mail.disarm()
	for _, m := range n.mail.all {
		h.changedMail(n, m)
	}
	n.mail.all = nil
	h.dropFeedback(n)
	n.wake() // callers that wait for it find it missing
	h.emit(Event{Kind: "deleted", DeviceID: n.id.Device, ModuleID: n.id.Module})
}

func (h *Hub) emitChange(id ID, existed bool) {
	kind := "created"
	if existed {
		kind = "updated"
	}
	h.emit(Event{Kind: kind, DeviceID: id.Device, ModuleID: id.Module})
}

// Statistics counts devices, without their modules.
type Statistics struct {
	TotalDeviceCount    int `json:"totalDeviceCount"`
	EnabledDeviceCount  int `json:"enabledDeviceCount"`
	DisabledDeviceCount int `json:"disabledDeviceCount"`
}

// Statistics counts the devices in the registry, and how many of them are connected.
func (h *Hub) Statistics() (s Statistics, connected int) {
	h.mu.Lock()
	defer h.unlock()
	for _, d := range h.devices {
		if d.disabled {
			s.DisabledDeviceCount++
		}
		if d.link != nil {
			connected++
		}
	}
	s.TotalDeviceCount = len(h.devices)
	s.EnabledDeviceCount = s.TotalDeviceCount - s.DisabledDeviceCount
	return s, connected
}
