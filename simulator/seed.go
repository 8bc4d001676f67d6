package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/twinbay/twinbay/simulator/hub"
)

// A seed file names the identities that the hub starts with.
//
//	[devices.vending-1]
//	tags = { site = "lobby" }
//
//	[devices.vending-1.modules.climate]
//	key     = "…"                      # both keys, base64 of 16 to 64 bytes; left out: the hub makes them
//	tags    = { department = "food safety" }
//	desired = { interval_ms = 2000 }
type seed struct {
	Devices map[string]seedDevice `toml:"devices"`
}

type seedDevice struct {
	seedIdentity
	Modules map[string]seedIdentity `toml:"modules"`
}

type seedIdentity struct {
	Key     string         `toml:"key"`
	Tags    map[string]any `toml:"tags"`
	Desired map[string]any `toml:"desired"`
}

// parseSeed reads a seed file's text. Its errors carry line and column.
func parseSeed(name string, text []byte) (seed, error) {
	var s seed
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&s)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		return seed{}, fmt.Errorf("simulator: seed %s: unknown key (a device has key, tags, desired and modules):\n%s", name, strict)
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, col := decode.Position()
		return seed{}, fmt.Errorf("simulator: seed %s:%d:%d: %w", name, row, col, err)
	}
	if err != nil {
		return seed{}, fmt.Errorf("simulator: seed %s: %w", name, err)
	}
	return s, nil
}

// ids lists the identities of a seed, devices before their modules, in the order of their names.
func (s seed) ids() []hub.ID {
	var ids []hub.ID
	for _, device := range slices.Sorted(maps.Keys(s.Devices)) {
		ids = append(ids, hub.ID{Device: device})
		for _, module := range slices.Sorted(maps.Keys(s.Devices[device].Modules)) {
			ids = append(ids, hub.ID{Device: device, Module: module})
		}
	}
	return ids
}

func (s seed) identity(id hub.ID) seedIdentity {
	if id.Module == "" {
		return s.Devices[id.Device].seedIdentity
	}
	return s.Devices[id.Device].Modules[id.Module]
}

// credentialPath is where an identity's connection string is written below the keys folder. Ids may hold characters
// that mean something in a path ("..", "%"), so they are escaped.
func credentialPath(id hub.ID) string {
	if id.Module == "" {
		return filepath.Join(fileName(id.Device), "device.cred")
	}
	return filepath.Join(fileName(id.Device), "modules", fileName(id.Module)+".cred")
}

func fileName(id string) string {
	escaped := url.PathEscape(id)
	if strings.Trim(escaped, ".") == "" { // "." and ".." are legal ids
		return strings.ReplaceAll(escaped, ".", "%2E")
	}
	return escaped
}

// writeCredentials writes one file for each identity, readable by the owner alone.
func writeCredentials(dir string, ids []hub.ID, connectionString func(hub.ID) (string, error)) error {
	for _, id := range ids {
		text, err := connectionString(id)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, credentialPath(id))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("simulator: keys folder: %w", err)
		}
		if err := writeFile(path, 0o600, []byte(text+"\n")); err != nil {
			return fmt.Errorf("simulator: write the credential of %s: %w", id, err)
		}
	}
	return nil
}

// create makes a seed's identities in a hub. Those that a state file has brought are left as they are.
func (s seed) create(h *hub.Hub) error {
	for _, id := range s.ids() {
		if h.Generation(id) != "" {
			continue
		}
		if err := s.identity(id).create(h, id); err != nil {
			return fmt.Errorf("simulator: seed %s: %w", id, err)
		}
	}
	return nil
}

func (s seedIdentity) create(h *hub.Hub, id hub.ID) error {
	var auth *hub.Authentication
	if s.Key != "" {
		auth = &hub.Authentication{Type: "sas", SymmetricKey: hub.SymmetricKey{PrimaryKey: &s.Key, SecondaryKey: &s.Key}}
	}
	var err error
	if id.Module == "" {
		_, err = h.PutDevice(hub.Device{DeviceID: id.Device, Authentication: auth}, "")
	} else {
		_, err = h.PutModule(hub.Module{DeviceID: id.Device, ModuleID: id.Module, Authentication: auth}, "")
	}
	if err != nil || s.Tags == nil && s.Desired == nil {
		return err
	}
	patch := map[string]any{}
	if s.Tags != nil {
		patch["tags"] = s.Tags
	}
	if s.Desired != nil {
		patch["properties"] = map[string]any{"desired": s.Desired}
	}
	text, err := json.Marshal(patch) // TOML's dates become text, as a twin wants them
	if err != nil {
		return err
	}
	_, err = h.PatchTwin(id, text, "")
	return err
}
