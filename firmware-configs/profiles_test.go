// Package firmwareconfigs_test holds the profiles to their promise: each loads, names real modules, and asks of them
// nothing that they refuse.
package firmwareconfigs_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/twinbay/twinbay/agent"
	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/modules/all"
)

// deviceFiles are all TOML files but the simulator's seeds.
func deviceFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*/*.toml")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if !strings.HasSuffix(f, "seed.toml") {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		t.Fatal("no profile here")
	}
	return out
}

func TestProfilesLoadAndNameRealModules(t *testing.T) {
	for _, file := range deviceFiles(t) {
		t.Run(file, func(t *testing.T) {
			c, err := config.Load(file, all.Names())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range c.Modules {
				module, ok := all.New(m.Use)
				if !ok {
					t.Errorf("%s uses %s, which is no module", m.Name, m.Use)
					continue
				}
				d := module.Describe()
				valid(t, m.Name+".wiring", d.Wiring, m.Wiring)
				valid(t, m.Name+".settings", d.Settings, m.Settings)
			}
		})
	}
}

// valid holds a table of the device file against a module's schema.
func valid(t *testing.T, where string, schema json.RawMessage, table map[string]any) {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(schema, &s); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	text, err := json.Marshal(table)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	var plain any // the schema library knows JSON's own types
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if err := resolved.Validate(plain); err != nil {
		t.Errorf("%s: %v", where, err)
	}
}

func TestNoSecretInProfiles(t *testing.T) {
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("SharedAccessKey=")) || bytes.Contains(text, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a key", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The unit starts the agent with the folders that the profile for a real machine names.
func TestUnitFitsTheProfile(t *testing.T) {
	unit, err := os.ReadFile(filepath.Join("vending-machine", "twinbay.service"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(filepath.Join("vending-machine", "raspberry-pi-4.toml"), all.Names())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Agent.Socket, "/run/twinbay/") || !strings.HasPrefix(c.Agent.RunDir, "/run/twinbay/") {
		t.Errorf("socket %s and run_dir %s are not in the unit's RuntimeDirectory", c.Agent.Socket, c.Agent.RunDir)
	}
	for _, want := range []string{"RuntimeDirectory=twinbay\n", "--config /etc/twinbay/device.toml\n", "User=twinbay\n"} {
		if !bytes.Contains(unit, []byte(want)) {
			t.Errorf("the unit has no %q", want)
		}
	}
}

// The unit never gives up, feeds on what the agent tells, waits for as long as the agent may take to end, and lets it make
// control groups for its modules.
func TestUnitSupervises(t *testing.T) {
	unit, err := os.ReadFile(filepath.Join("vending-machine", "twinbay.service"))
	if err != nil {
		t.Fatal(err)
	}
	section, got := "", map[string]string{}
	for line := range strings.Lines(string(unit)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			got[section+key] = value
		}
	}
	for key, want := range map[string]string{
		"[Unit]StartLimitIntervalSec": "0", "[Service]Restart": "always", "[Service]Type": "notify", "[Service]NotifyAccess": "main",
		"[Service]Delegate": "yes", "[Service]ProtectControlGroups": "", "[Service]KillMode": "mixed",
		"[Service]ExecReload": "/usr/bin/twinbay reload",
	} {
		if got[key] != want {
			t.Errorf("%s=%s, want %q", key, got[key], want)
		}
	}
	seconds := func(key string) time.Duration {
		n, err := strconv.Atoi(got["[Service]"+key])
		if err != nil || n <= 0 {
			t.Errorf("%s=%s, want seconds", key, got["[Service]"+key])
		}
		return time.Duration(n) * time.Second
	}
	if stop := seconds("TimeoutStopSec"); stop < 2*agent.StopBudget {
		t.Errorf("TimeoutStopSec is %v, and the agent may take %v", stop, agent.StopBudget)
	}
	if every := seconds("WatchdogSec"); every < 30*time.Second {
		t.Errorf("WatchdogSec is %v: a busy board may take that long without being stuck", every)
	}
	if wait := seconds("RestartSec"); wait > 10*time.Second {
		t.Errorf("a machine is without its agent for %v", wait)
	}
}
