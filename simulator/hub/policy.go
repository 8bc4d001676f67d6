package hub

import (
	"strings"
	"time"
)

// Permission is a set of what a shared access policy allows.
type Permission uint8

// Source: Microsoft Learn, "Control access to IoT Hub by using shared access signatures", Permissions.
const (
	RegistryRead   Permission = 1 << iota // read identities
	RegistryWrite                         // write identities
	ServiceConnect                        // twins, direct methods, messages, from the service's side
	DeviceConnect                         // the endpoints of devices

	// AnyOf, in what an operation wants, says that one of the other permissions is enough. No policy has it.
	AnyOf Permission = 1 << 7

	Owner = RegistryRead | RegistryWrite | ServiceConnect | DeviceConnect
)

const ownerPolicy = "iothubowner"

// Policy is a shared access policy of the hub. Keys are base64 of 16 to 64 bytes.
type Policy struct {
	Name         string
	Permissions  Permission
	PrimaryKey   string
	SecondaryKey string
}

// defaultPolicies are those that every hub starts with.
func defaultPolicies() []Policy {
	p := []Policy{
		{Name: ownerPolicy, Permissions: Owner},
		{Name: "service", Permissions: ServiceConnect},
		{Name: "device", Permissions: DeviceConnect},
		{Name: "registryRead", Permissions: RegistryRead},
		{Name: "registryReadWrite", Permissions: RegistryRead | RegistryWrite},
	}
	for i := range p {
		p[i].PrimaryKey, p[i].SecondaryKey = newKey(), newKey()
	}
	return p
}

// policy finds a policy. Policies never change, so this needs no lock.
func (h *Hub) policy(name string) (Policy, bool) {
	for _, p := range h.policies {
		if strings.EqualFold(p.Name, name) {
			return p, true
		}
	}
	return Policy{}, false
}

// AuthService checks the token of a request to the service API, as in the Authorization header: whether it is signed by
// a policy that has the permission, and covers path, which is decoded and begins with a slash. It covers path if its sr is
// the hub, or the hub and the first segments of path, so that a token may be for one twin and its direct methods alone:
// Microsoft Learn, "Control access to IoT Hub by using shared access signatures", Security tokens. The same page has the
// resource in lower case: ids that differ in case only are one to a token. The error says no more than the hub's; the
// event of the refusal says why.
func (h *Hub) AuthService(token string, want Permission, path string) error {
	err := h.checkService(token, want, path)
	if err == nil {
		return nil
	}
	h.mu.Lock()
	defer h.unlock()
	h.emit(Event{Kind: "refused", Detail: path + ": " + err.reason()})
	return err
}

// AuthModules checks the credential of a request about a device's modules: a policy's token, as AuthService does, or the
// device's own token or certificate, for it may manage its modules (Azure/iot-identity-service,
// aziot-cloud-client-async, hub/mod.rs). asDevice tells which of the two it was. Whether a device has to be an IoT Edge
// device for that is written nowhere; here, any may, as Identity Service takes it for granted, unless OwnModules says
// otherwise.
func (h *Hub) AuthModules(device string, c Credential, want Permission, path string) (asDevice bool, err error) {
	if s, bad := parseSAS(c.Token); (bad != nil || s.policy != "") && (c.Token != "" || len(c.Certificates) == 0) {
		return false, h.AuthService(c.Token, want, path)
	}
	h.mu.Lock()
	defer h.unlock()
	if _, bad := h.auth(ID{Device: device}, c, h.Now()); bad != nil {
		return false, h.refuse(ID{Device: device}, unauthorized("%s: %s", path, bad.reason()))
	}
	if h.Chose(OwnModules, "edge") && !h.devices[device].edge {
		return false, h.refuse(ID{Device: device}, unauthorized("%s: device %s is no IoT Edge device", path, device))
	}
	return true, nil
}

// allow tells whether permissions are enough for what is wanted.
func (p Permission) allow(want Permission) bool {
	if want&AnyOf != 0 {
		return p&want != 0
	}
	return p&want == want
}

func (h *Hub) checkService(token string, want Permission, path string) *Error {
	if token == "" {
		return unauthorized("no Authorization header")
	}
	s, err := parseSAS(token)
	if err != nil {
		return unauthorized("%s", err.Text)
	}
	if s.expired(h.Now()) {
		return unauthorized("the token ran out at %s", s.expires.UTC().Format(time.RFC3339))
	}
	if s.policy == "" {
		return unauthorized("the token is a device's: it names no policy (skn)")
	}
	p, ok := h.policy(s.policy)
	switch {
	case !ok:
		return unauthorized("the hub has no policy %q", s.policy)
	case s.signer(p.PrimaryKey, p.SecondaryKey) == keyPrint{}:
		return unauthorized("the token is not signed by a key of policy %s", p.Name)
	case !p.Permissions.allow(want):
		return unauthorized("policy %s lacks a permission for this", p.Name)
	case !s.covers(h.host, strings.Split(strings.Trim(path, "/"), "/")):
		return unauthorized("the token is for %q", s.resource)
	}
	return nil
}
