package hub

import (
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"time"
)

// AuthSAS checks the SAS token of a connection that wants to be id. A key of another identity never does, the device's
// own for its module neither, unless DeviceKeyForModules says otherwise; a hub policy's with DeviceConnect does, for what
// the token's sr covers.
func (h *Hub) AuthSAS(id ID, token string) (Grant, error) {
	h.mu.Lock()
	defer h.unlock()
	g, err := h.authSAS(id, token, h.Now())
	if err != nil {
		return Grant{}, h.refuse(id, err)
	}
	return g, nil
}

func (h *Hub) authSAS(id ID, token string, now time.Time) (Grant, *Error) {
	n, err := h.admissible(id)
	if err != nil {
		return Grant{}, err
	}
	s, err := parseSAS(token)
	if err != nil {
		return Grant{}, err
	}
	if s.expired(now) {
		return Grant{}, badToken("the token ran out at %s, more than %s ago; look at the device's clock",
			s.expires.UTC().Format(time.RFC3339), clockSkew)
	}
	keys, scope, err := h.keysFor(n, s.policy)
	if err != nil {
		return Grant{}, err
	}
	signer := s.signer(keys...)
	switch {
	case signer == keyPrint{}:
		return Grant{}, badToken("the token is not signed by a key of %s", owner(n, s.policy))
	case !s.covers(h.host, id.resourcePath()):
		return Grant{}, badToken("the token is for %q, not for %s of hub %s", s.resource, id, h.host)
	}
	return grant(n, s.expires, now, scope, s.policy, signer), nil
}

// AuthMQTT5 checks the authentication of an MQTT 5 connection that wants to be id. data is the HMAC-SHA256 over
// "{host}\n{client id}\n{policy}\n{at}\n{expiry}\n", empty where a field is left out; times are in milliseconds since
// 1970 and at may be "". Source: Microsoft Learn, "IoT Hub MQTT 5 support", Authentication, api-version
// 2020-10-01-preview. A module's client id is "device/module", as in MQTT 3.1.1.
func (h *Hub) AuthMQTT5(id ID, host, policy string, at, expiry string, data []byte) (Grant, error) {
	h.mu.Lock()
	defer h.unlock()
	g, err := h.authMQTT5(id, host, policy, at, expiry, data, h.Now())
	if err != nil {
		return Grant{}, h.refuse(id, err)
	}
	return g, nil
}

func (h *Hub) authMQTT5(id ID, host, policy, at, expiry string, data []byte, now time.Time) (Grant, *Error) {
	n, err := h.admissible(id)
	if err != nil {
		return Grant{}, err
	}
	if !sameHost(host, h.host) {
		return Grant{}, badToken("the host is %q; this hub is %s", host, h.host)
	}
	expires, ok := parseMillis(expiry)
	if !ok {
		return Grant{}, badToken("sas-expiry %q is not a number of milliseconds", expiry)
	}
	if now.After(expires.Add(clockSkew)) {
		return Grant{}, badToken("the signature ran out at %s, more than %s ago; look at the device's clock",
			expires.UTC().Format(time.RFC3339), clockSkew)
	}
	if at != "" {
		made, ok := parseMillis(at)
		if !ok {
			return Grant{}, badToken("sas-at %q is not a number of milliseconds", at)
		}
		if made.After(now.Add(clockSkew)) {
			return Grant{}, badToken("the signature was made at %s, which is to come; look at the device's clock",
				made.UTC().Format(time.RFC3339))
		}
	}
	keys, scope, err := h.keysFor(n, policy)
	if err != nil {
		return Grant{}, err
	}
	text := host + "\n" + id.String() + "\n" + policy + "\n" + at + "\n" + expiry + "\n"
	for _, key := range keys {
		raw, err := base64.StdEncoding.DecodeString(key)
		if err == nil && len(raw) > 0 && signs(raw, text, data) {
			return grant(n, expires, now, scope, policy, printKey(raw)), nil
		}
	}
	return Grant{}, badToken("the signature is not made with a key of %s", owner(n, policy))
}

// parseMillis reads a time in milliseconds since 1970, at most the year 9999.
func parseMillis(text string) (time.Time, bool) {
	const last = 253_402_300_799_999
	n, err := strconv.ParseUint(text, 10, 64)
	return time.UnixMilli(int64(min(n, last))), err == nil
}

// admissible finds an identity that may connect.
func (h *Hub) admissible(id ID) (*identity, *Error) {
	d, ok := h.devices[id.Device]
	if !ok {
		return nil, deviceNotFound(id)
	}
	if d.disabled {
		return nil, &Error{Code: 403012, Name: "DeviceDisabled", Text: "device " + id.Device + " is disabled"}
	}
	if id.Module == "" {
		return &d.identity, nil
	}
	m, ok := d.modules[id.Module]
	if !ok {
		return nil, moduleNotFound(id)
	}
	return m, nil
}

// keysFor answers the keys that may sign for an identity, and the scope that iothub-connection-auth-method names.
func (h *Hub) keysFor(n *identity, policy string) ([]string, string, *Error) {
	if policy != "" {
		p, ok := h.policy(policy)
		if !ok {
			return nil, "", badToken("the hub has no policy %q", policy)
		}
		if p.Permissions&DeviceConnect == 0 {
			return nil, "", badToken("policy %s lacks DeviceConnect", p.Name)
		}
		return []string{p.PrimaryKey, p.SecondaryKey}, "hub", nil
	}
	if n.auth.kind == authNone {
		return nil, "", badToken("%s has no credential yet: its device gives it one", n.id)
	}
	if n.auth.kind != authSAS {
		return nil, "", badToken("%s proves itself by a certificate (%s), not by a key", n.id, n.auth.kind)
	}
	scope := "device"
	if n.id.Module != "" {
		scope = "module"
	}
	keys := []string{n.auth.primary, n.auth.secondary}
	if d := h.devices[n.id.Device]; n.id.Module != "" && d.auth.kind == authSAS && h.Chose(DeviceKeyForModules, "accept") {
		keys = append(keys, d.auth.primary, d.auth.secondary)
	}
	return keys, scope, nil
}

func owner(n *identity, policy string) string {
	if policy != "" {
		return "policy " + policy
	}
	return n.id.String()
}

// grant ends with the token, or with the clock skew's allowance if the token has run out already.
func grant(n *identity, expires, now time.Time, scope, policy string, signer keyPrint) Grant {
	if !expires.After(now) {
		expires = expires.Add(clockSkew)
	}
	g := Grant{
		ID:      n.id,
		Expires: expires,
		Method:  authMethod(scope, "sas", "iothub"),
	}
	if policy == "" {
		g.proof = proof{kind: authSAS, key: signer, devices: !n.auth.holds(signer)}
	}
	return g
}

// holds tells whether a key that signed is still one of the identity's. Time is no secret here: both are hashes.
func (a *authentication) holds(signer keyPrint) bool {
	for _, key := range []string{a.primary, a.secondary} {
		raw, err := base64.StdEncoding.DecodeString(key)
		p := printKey(raw)
		if err == nil && len(raw) > 0 && subtle.ConstantTimeCompare(p[:], signer[:]) == 1 {
			return true
		}
	}
	return false
}

// refuse shows a refused connection in the events.
func (h *Hub) refuse(id ID, err *Error) *Error {
	h.emit(Event{Kind: "refused", DeviceID: id.Device, ModuleID: id.Module, Detail: err.reason()})
	return err
}
