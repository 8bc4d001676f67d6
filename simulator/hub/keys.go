package hub

import "strings"

// What RegenerateKeys and its answers look like: Azure/azure-iot-cli-extension, azext_iot/sdk/iothub/service/models, for
// POST /devices/keys/regenerate, api-version 2024-03-31.

// KeyOwner is an identity whose keys are to be made anew.
type KeyOwner struct {
	ID       string `json:"id"`
	ModuleID string `json:"moduleId,omitempty"`
}

// RotatedKeys are an identity's keys as they are now.
type RotatedKeys struct {
	KeyOwner
	PrimaryKey   string `json:"primaryKey"`
	SecondaryKey string `json:"secondaryKey"`
}

// KeyError is why an identity keeps the keys it has. Its code is the error's name.
type KeyError struct {
	KeyOwner
	ErrorCode   string `json:"errorCode"`
	ErrorStatus string `json:"errorStatus"`
}

// RegeneratedKeys says what became of each identity.
type RegeneratedKeys struct {
	PolicyKey   string        `json:"policyKey"`
	RotatedKeys []RotatedKeys `json:"rotatedKeys"`
	Errors      []KeyError    `json:"errors"`
}

// RegenerateKeys makes new keys for up to 100 identities: which is primaryKey, secondaryKey or both. A connection whose
// key is gone is cut.
func (h *Hub) RegenerateKeys(which string, owners []KeyOwner) (RegeneratedKeys, error) {
	out := RegeneratedKeys{PolicyKey: which, RotatedKeys: []RotatedKeys{}, Errors: []KeyError{}}
	first, second := strings.EqualFold(which, "primaryKey"), strings.EqualFold(which, "secondaryKey")
	if strings.EqualFold(which, "both") {
		first, second = true, true
	}
	switch {
	case !first && !second:
		return out, &Error{Code: 400035, Name: "InvalidPolicyKey", Text: "policyKey is primaryKey, secondaryKey or both"}
	case len(owners) == 0:
		return out, argument("no identity is named")
	case len(owners) > maxBulk:
		return out, tooManyInBulk()
	}
	h.mu.Lock()
	defer h.unlock()
	for _, o := range owners {
		n, err := h.regenerate(ID{o.ID, o.ModuleID}, first, second)
		if err != nil {
			out.Errors = append(out.Errors, KeyError{o, err.Name, err.Text})
			continue
		}
		out.RotatedKeys = append(out.RotatedKeys, RotatedKeys{o, n.auth.primary, n.auth.secondary})
	}
	return out, nil
}

func (h *Hub) regenerate(id ID, first, second bool) (*identity, *Error) {
	d, ok := h.devices[id.Device]
	if !ok {
		return nil, deviceNotFound(id)
	}
	n := &d.identity
	if id.Module != "" {
		if n, ok = d.modules[id.Module]; !ok {
			return nil, moduleNotFound(id)
		}
	}
	if n.auth.kind != authSAS {
		return nil, &Error{Code: 400003, Name: "InvalidOperation", Text: id.String() + " has no keys (" + n.auth.kind + ")"}
	}
	auth := n.auth
	if first {
		auth.primary = newKey()
	}
	if second {
		auth.secondary = newKey()
	}
	h.replace(n, auth)
	h.changedIdentity(id)
	h.emitChange(id, true)
	return n, nil
}

func tooManyInBulk() *Error {
	return &Error{Code: 413002, Name: "TooManyDevices", Text: "one bulk operation takes at most 100 identities"}
}
