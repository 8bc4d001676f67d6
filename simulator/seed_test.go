package simulator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/hub"
)

func TestSeedNamesWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no TOML", "[devices.d\n", "seed.toml:1:"},
		{"unknown key", "[devices.d]\nkeys = \"x\"\n", "unknown key"},
		{"wrong type", "[devices.d]\ntags = 3\n", "seed.toml:2:"},
		{"bad key", "[devices.d]\nkey = \"short\"\n", "device key"},
		{"bad id", "[devices.\"a b\"]\n", "a b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parseSeed("seed.toml", []byte(tt.text))
			if err == nil {
				err = s.create(hub.New(hub.Options{}))
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// Ids may be anything that the hub's charset allows; no two of them may share a file, and none may leave the folder.
func TestCredentialFilesOfOddIDs(t *testing.T) {
	dir := t.TempDir()
	var ids []hub.ID
	for _, odd := range []string{"..", ".", "%2E%2E", "a%b", "a.b", "A.B", "$x", "a:b"} {
		ids = append(ids, hub.ID{Device: odd}, hub.ID{Device: odd, Module: odd}, hub.ID{Device: odd, Module: "device"})
	}
	text := func(id hub.ID) (string, error) { return "of " + id.String(), nil }
	if err := writeCredentials(dir, ids, text); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		path := filepath.Join(dir, credentialPath(id))
		if rel, err := filepath.Rel(dir, path); err != nil || strings.HasPrefix(rel, "..") && !strings.HasPrefix(rel, "..%") {
			t.Errorf("%s is written to %s", id, path)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != "of "+id.String()+"\n" {
			t.Errorf("%s: %s holds %q, %v", id, path, got, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
}

func FuzzParseSeed(f *testing.F) {
	f.Add([]byte("[devices.d]\ntags = { a = 1 }\n[devices.d.modules.m]\nkey = \"x\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSeed("seed.toml", text)
		if err != nil {
			return
		}
		for _, id := range s.ids() {
			s.identity(id)
			if strings.Contains(credentialPath(id), "..") && !strings.Contains(id.String(), "..") {
				t.Errorf("%s is written to %s", id, credentialPath(id))
			}
		}
	})
}
