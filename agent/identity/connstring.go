package identity

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// ParseConnectionString reads "HostName=…;DeviceId=…;ModuleId=…;SharedAccessKey=…", where ModuleId may be missing and
// the order is free. Names are taken in any case, values as they stand. Its errors name the field and never show a
// value of SharedAccessKey.
func ParseConnectionString(text string) (Credential, error) {
	c, key, err := parseFields(text)
	if err != nil {
		return Credential{}, fmt.Errorf("connection string: %w", err)
	}
	if c.key, err = decodeKey(key); err != nil {
		return Credential{}, fmt.Errorf("connection string of %s: %w", c.ID, err)
	}
	return c, nil
}

func parseFields(text string) (c Credential, key string, err error) {
	fields := []struct {
		name   string
		value  *string
		needed bool
	}{
		{"HostName", &c.Host, true},
		{"DeviceId", &c.ID.Device, true},
		{"ModuleId", &c.ID.Module, false},
		{"SharedAccessKey", &key, true},
	}
	seen := map[string]bool{}
	for i, part := range strings.Split(strings.TrimSpace(text), ";") {
		if part == "" {
			continue // a trailing semicolon
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return c, "", fmt.Errorf("part %d has no \"=\": it must be Name=value", i+1)
		}
		found := false
		for _, f := range fields {
			if !strings.EqualFold(name, f.name) {
				continue
			}
			if seen[f.name] {
				return c, "", fmt.Errorf("%s is given twice", f.name)
			}
			if value == "" {
				return c, "", fmt.Errorf("%s is empty", f.name)
			}
			seen[f.name], found, *f.value = true, true, value
		}
		if !found {
			return c, "", unknownField(name, i)
		}
	}
	for _, f := range fields {
		if f.needed && !seen[f.name] {
			return c, "", fmt.Errorf("%s is missing: take the string of a device or module identity, HostName=…;DeviceId=…;ModuleId=…;SharedAccessKey=…", f.name)
		}
	}
	if err := checkID("DeviceId", c.ID.Device); err != nil {
		return c, "", err
	}
	if c.ID.Module != "" {
		err = checkID("ModuleId", c.ID.Module)
	}
	if err == nil {
		err = checkHost(c.Host)
	}
	return c, key, err
}

// unknownField is the error for a name that no identity's connection string has. Only names that look like one are
// repeated: a key that lost its name in copying must not land in a log.
func unknownField(name string, i int) error {
	switch strings.ToLower(name) {
	case "sharedaccesskeyname":
		return fmt.Errorf("SharedAccessKeyName belongs to a hub policy: an agent connects as a device or module identity, with DeviceId")
	case "x509", "gatewayhostname", "sharedaccesssignature":
		return fmt.Errorf("%s is not supported: use HostName, DeviceId, ModuleId and SharedAccessKey", name)
	}
	return fmt.Errorf("part %d has an unknown name: the names are HostName, DeviceId, ModuleId and SharedAccessKey", i+1)
}

// idPunctuation, with letters and digits, is what an id may hold (Microsoft Learn, "Understand the identity registry",
// device identity properties).
const idPunctuation = "-.+%_#*?!(),:=@$'"

func checkID(field, id string) error {
	if len(id) > 128 {
		return fmt.Errorf("%s has %d characters: 128 are allowed", field, len(id))
	}
	for _, r := range id {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(idPunctuation, r):
		default:
			return fmt.Errorf("%s has the character %q: letters, digits and %s are allowed", field, r, idPunctuation)
		}
	}
	return nil
}

func checkHost(host string) error {
	for _, r := range host {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-':
		default:
			return fmt.Errorf("HostName has the character %q: it is a bare host name, without scheme or port", r)
		}
	}
	return nil
}

// decodeKey decodes a shared access key: 16 to 64 bytes in base64 (same page).
func decodeKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil { // the decoder's own text would repeat a piece of the key
		return nil, fmt.Errorf("SharedAccessKey is not base64: copy it again, with the = signs at its end")
	}
	if len(key) < 16 || len(key) > 64 {
		return nil, fmt.Errorf("SharedAccessKey has %d bytes: 16 to 64 are allowed", len(key))
	}
	return key, nil
}
