// Package identity holds what proves who the device and its modules are: connection strings, key files and the SAS
// tokens made from them.
//
// Source: Microsoft Learn, "Control access to IoT Hub by using shared access signatures" (connection strings, security
// token structure); for MQTT 5 "IoT Hub MQTT 5 support", section "SAS".
package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// ID names a device identity, or one of its module identities. Both ids are case-sensitive.
type ID struct {
	Device string
	Module string // "" for the device itself
}

// String is "device" or "device/module": also the MQTT client id (Microsoft Learn, "Use MQTT to communicate with IoT
// Hub", username and client id).
func (id ID) String() string {
	if id.Module == "" {
		return id.Device
	}
	return id.Device + "/" + id.Module
}

// Credential is one identity's way to prove itself. It never prints its key.
type Credential struct {
	Host string // the hub's host name as in the connection string
	ID   ID

	key []byte
}

// ErrNoKey is a credential without a key where one is needed.
var ErrNoKey = errors.New("no shared access key")

// String names the host and the identity, and says whether there is a key. The key itself is shown by no formatting
// verb, log handler or encoder.
func (c Credential) String() string {
	s := c.ID.String() + " at " + c.Host
	if len(c.key) == 0 {
		s += " (no key)"
	}
	return s
}

// Format writes String whatever the verb: %d and %#v would walk into the key.
func (c Credential) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// LogValue is String.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText is String. It is there for encoders of every kind; a credential is read by [Load] and
// [ParseConnectionString] alone.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalJSON is String as a JSON string.
func (c Credential) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// Token is a SAS token and the time it runs out.
type Token struct {
	Text    string
	Expires time.Time
}

// String says when the token runs out: its text is a secret as long as it is valid.
func (t Token) String() string { return "SAS token until " + t.Expires.UTC().Format(time.RFC3339) }

// Format writes String whatever the verb.
func (t Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.String()) }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText is String, for encoders.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
