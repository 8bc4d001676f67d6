package hub

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// How an identity proves itself: the `type` of its authentication.
const (
	authSAS        = "sas"
	authSelfSigned = "selfSigned"
	authCA         = "certificateAuthority"
	authNone       = "none"
)

// identity is what a device and a module have in common.
type identity struct {
	id         ID
	generation string
	etag       uint64
	auth       authentication
	managedBy  string // modules
	modelID    string // of the last connection
	twin       twin
	applied    []applied // configurations that hold; the slice is not changed once it is made
	mail       mailbox[C2D]
	uploads    map[string]fileUpload // by correlation id
	attributes json.RawMessage       // an object of the service's; nil: none
	session    *Session              // nil: none

	link      *Link
	linkTime  time.Time // of the last connect or disconnect
	activity  time.Time
	reachable chan struct{} // closed when a link wants methods; nil while nobody waits
}

// device is a device identity and its modules.
type device struct {
	identity
	place
	disabled     bool
	statusReason *string
	statusTime   time.Time
	modules      map[string]*identity
}

// authentication is an identity's credentials. Keys are base64.
type authentication struct {
	kind                     string
	primary, secondary       string
	thumbprint1, thumbprint2 *string
}

// Device is a device identity as the service API shows it. Taken in, only status, statusReason, authentication,
// capabilities, scopes and attributes count. Source: Azure/azure-iot-hub-node, src/service.json.
type Device struct {
	DeviceID                   string          `json:"deviceId"`
	GenerationID               string          `json:"generationId"`
	ETag                       string          `json:"etag"`
	ConnectionState            string          `json:"connectionState"` // Connected or Disconnected
	Status                     string          `json:"status"`          // enabled or disabled
	StatusReason               *string         `json:"statusReason"`
	ConnectionStateUpdatedTime string          `json:"connectionStateUpdatedTime"`
	StatusUpdatedTime          string          `json:"statusUpdatedTime"`
	LastActivityTime           string          `json:"lastActivityTime"`
	CloudToDeviceMessageCount  int             `json:"cloudToDeviceMessageCount"`
	Authentication             *Authentication `json:"authentication"`
	Capabilities               *Capabilities   `json:"capabilities"`
	DeviceScope                string          `json:"deviceScope,omitempty"`
	ParentScopes               []string        `json:"parentScopes,omitempty"`
	Attributes                 json.RawMessage `json:"attributes,omitempty"` // an object of the service's: api-version 2024-03-31
}

// Module is a module identity as the service API shows it. Taken in, only managedBy, authentication and attributes count.
type Module struct {
	ModuleID                   string          `json:"moduleId"`
	ManagedBy                  *string         `json:"managedBy"`
	DeviceID                   string          `json:"deviceId"`
	GenerationID               string          `json:"generationId"`
	ETag                       string          `json:"etag"`
	ConnectionState            string          `json:"connectionState"`
	ConnectionStateUpdatedTime string          `json:"connectionStateUpdatedTime"`
	LastActivityTime           string          `json:"lastActivityTime"`
	CloudToDeviceMessageCount  int             `json:"cloudToDeviceMessageCount"`
	Authentication             *Authentication `json:"authentication"`
	Attributes                 json.RawMessage `json:"attributes,omitempty"` // as a device's
}

// Authentication is how an identity proves itself.
type Authentication struct {
	SymmetricKey   SymmetricKey   `json:"symmetricKey"`
	X509Thumbprint X509Thumbprint `json:"x509Thumbprint"`
	Type           string         `json:"type"` // sas, selfSigned, certificateAuthority or none
}

// SymmetricKey holds two keys, base64 of 16 to 64 bytes.
type SymmetricKey struct {
	PrimaryKey   *string `json:"primaryKey"`
	SecondaryKey *string `json:"secondaryKey"`
}

// X509Thumbprint holds SHA-1 or SHA-256 thumbprints of certificates in hexadecimal.
type X509Thumbprint struct {
	PrimaryThumbprint   *string `json:"primaryThumbprint"`
	SecondaryThumbprint *string `json:"secondaryThumbprint"`
}

// Capabilities of a device.
type Capabilities struct {
	IoTEdge bool `json:"iotEdge"`
}

const maxID = 128 // characters: Azure/azure-iot-hub-node, src/service.json, and azure-iot-sdk-csharp

// isID tells whether text may be an id: 1 to 128 of the characters that the same sources name.
func isID(text string) bool {
	if len(text) == 0 || len(text) > maxID {
		return false
	}
	for _, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("-:.+%_#*?!(),=@;$'", c) < 0:
			return false
		}
	}
	return true
}

// checkID applies the rules of ids that callers give to new identities.
func checkID(id ID) *Error {
	if err := checkAnyID(id); err != nil {
		return err
	}
	if id.Module != "" && id.Module[0] == '$' {
		return argument("module id %q: ids that begin with $ are the system's", id.Module)
	}
	return nil
}

func checkAnyID(id ID) *Error {
	switch {
	case !isID(id.Device):
		return argument("device id %q: 1 to 128 of A-Z a-z 0-9 - : . + %% _ # * ? ! ( ) , = @ ; $ '", id.Device)
	case id.Module != "" && !isID(id.Module):
		return argument("module id %q: 1 to 128 of A-Z a-z 0-9 - : . + %% _ # * ? ! ( ) , = @ ; $ '", id.Module)
	}
	return nil
}

// newAuthentication applies the rules of a full replace: what is left out is made anew.
func newAuthentication(in *Authentication, module bool) (authentication, *Error) {
	if in == nil {
		in = &Authentication{}
	}
	t1, t2 := text(in.X509Thumbprint.PrimaryThumbprint), text(in.X509Thumbprint.SecondaryThumbprint)
	a := authentication{kind: in.Type}
	switch {
	case in.Type == "" && t1+t2 != "":
		a.kind = authSelfSigned
	case in.Type == "", strings.EqualFold(in.Type, authSAS):
		a.kind = authSAS
	case strings.EqualFold(in.Type, authNone) && module:
		a.kind = authSAS
	case strings.EqualFold(in.Type, authNone):
		return a, argument("DeviceAuthenticationTypeIsMissing: a device proves itself by sas, selfSigned or certificateAuthority")
	case strings.EqualFold(in.Type, authSelfSigned):
		a.kind = authSelfSigned
	case strings.EqualFold(in.Type, authCA):
		a.kind = authCA
	default:
		return a, argument("authentication type %q: want sas, selfSigned or certificateAuthority", in.Type)
	}
	if a.kind == authSAS {
		return a, a.setKeys(text(in.SymmetricKey.PrimaryKey), text(in.SymmetricKey.SecondaryKey))
	}
	for _, t := range []string{t1, t2} {
		if t != "" && !isThumbprint(t) {
			return a, argument("StringIsNotThumbprint: %q: want 40 or 64 hexadecimal digits without separators", t)
		}
	}
	a.thumbprint1, a.thumbprint2 = nullable(t1), nullable(t2)
	return a, nil
}

func (a *authentication) setKeys(primary, secondary string) *Error {
	switch {
	case primary == "" && secondary == "":
		a.primary, a.secondary = newKey(), newKey()
		return nil
	case primary == "" || secondary == "":
		return argument("Either no keys or both keys can be set")
	}
	for _, key := range []string{primary, secondary} {
		raw, err := base64.StdEncoding.DecodeString(key)
		if err != nil || len(raw) < 16 || len(raw) > 64 {
			return argument("Invalid device key length: a key is base64 of 16 to 64 bytes")
		}
	}
	a.primary, a.secondary = primary, secondary
	return nil
}

func isThumbprint(t string) bool {
	return (len(t) == 40 || len(t) == 64) && strings.Trim(t, "0123456789abcdefABCDEF") == ""
}

func (a *authentication) show() *Authentication {
	return &Authentication{
		SymmetricKey:   SymmetricKey{PrimaryKey: nullable(a.primary), SecondaryKey: nullable(a.secondary)},
		X509Thumbprint: X509Thumbprint{PrimaryThumbprint: a.thumbprint1, SecondaryThumbprint: a.thumbprint2},
		Type:           a.kind,
	}
}

// show copies a device into what the service API shows.
func (d *device) show() Device {
	return Device{
		DeviceID:                   d.id.Device,
		GenerationID:               d.generation,
		ETag:                       identityETag(d.etag),
		ConnectionState:            d.connectionState(),
		Status:                     d.status(),
		StatusReason:               d.statusReason,
		ConnectionStateUpdatedTime: hubTime(d.linkTime),
		StatusUpdatedTime:          hubTime(d.statusTime),
		LastActivityTime:           hubTime(d.activity),
		CloudToDeviceMessageCount:  len(d.mail.all),
		Authentication:             d.auth.show(),
		Capabilities:               &Capabilities{IoTEdge: d.edge},
		DeviceScope:                d.scope,
		ParentScopes:               d.parents,
		Attributes:                 d.attributes,
	}
}

// showModule copies a module into what the service API shows.
func (n *identity) showModule() Module {
	return Module{
		ModuleID:                   n.id.Module,
		ManagedBy:                  nullable(n.managedBy),
		DeviceID:                   n.id.Device,
		GenerationID:               n.generation,
		ETag:                       identityETag(n.etag),
		ConnectionState:            n.connectionState(),
		ConnectionStateUpdatedTime: hubTime(n.linkTime),
		LastActivityTime:           hubTime(n.activity),
		CloudToDeviceMessageCount:  len(n.mail.all),
		Authentication:             n.auth.show(),
		Attributes:                 n.attributes,
	}
}

// checkAttributes answers a copy of an identity's attributes in one line, nil for none. How much they may be is not published;
// here it is as much as tags.
func checkAttributes(in json.RawMessage) (json.RawMessage, *Error) {
	var b bytes.Buffer
	if len(in) == 0 || json.Compact(&b, in) != nil || b.String() == "null" || b.String() == "{}" {
		return nil, nil
	}
	switch {
	case b.Bytes()[0] != '{':
		return nil, argument("attributes: want an object")
	case b.Len() > maxTags:
		return nil, argument("attributes are longer than %d bytes", maxTags)
	}
	return b.Bytes(), nil
}

func (n *identity) connectionState() string {
	if n.link != nil {
		return "Connected"
	}
	return "Disconnected"
}

func (d *device) status() string {
	if d.disabled {
		return "disabled"
	}
	return "enabled"
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
