package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write puts files into a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if strings.HasPrefix(text, "#!") {
			mode = 0o700
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const deviceFile = `[hub]
host = "hub.example"
[agent]
modules = "modules"
[device]
credential = "file:device"
[modules.a]
use = "bme280"
credential = "file:a"
[modules.b]
use = "door"
credential = "file:b"
`

// modulesProgram lists two modules and describes one.
const modulesProgram = `#!/bin/sh
[ "$1" = list ] && printf 'bme280  a sensor\ndoor\n'
[ "$1 $2" = 'describe bme280' ] && echo '{"name":"bme280","wires":[{"name":"bus","kind":"i2c"}],
	"settings":{"type":"object","properties":{"interval_ms":{"type":"integer","minimum":200,"default":5000}}},
	"wiring":{"type":"object","properties":{"bus":{"type":"string","default":"i2c:/dev/i2c-1"},"address":{"type":"integer","default":118}}}}'
exit 0
`

func credential(device, module string) string {
	text := "HostName=hub.example;DeviceId=" + device
	if module != "" {
		text += ";ModuleId=" + module
	}
	return text + ";SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0"
}

func TestCheck(t *testing.T) {
	good := func() map[string]string {
		return map[string]string{"device.toml": deviceFile, "modules": modulesProgram, "device": credential("d", ""),
			"a": credential("d", "a"), "b": credential("d", "A")}
	}
	for _, c := range []struct {
		name   string
		change func(map[string]string)
		want   []string // in the errors, a line each; none means ok
	}{
		{"good", func(map[string]string) {}, nil},
		{"unknown module", func(f map[string]string) { f["device.toml"] = strings.Replace(deviceFile, "bme280", "bmp280", 1) },
			[]string{`device.toml:8:1: modules.a.use: there is no module "bmp280"; did you mean "bme280"?`}},
		{"no modules program", func(f map[string]string) { delete(f, "modules") },
			[]string{"device.toml:4:1: agent.modules: "}},
		{"a modules program that cannot say", func(f map[string]string) { f["modules"] = "#!/bin/sh\nexit 3\n" }, nil},
		{"no key file", func(f map[string]string) { delete(f, "a") }, []string{"device.toml:9:1: modules.a.credential: "}},
		{"one identity in two files", func(f map[string]string) { f["b"] = credential("d", "a") },
			[]string{"device.toml:12:1: modules.b.credential: d/a is the identity of a already; give each component"}},
		{"the device's identity for a module", func(f map[string]string) { f["b"] = credential("d", "") },
			[]string{"modules.b.credential: the credential of device d, not of a module"}},
		{"a module's identity for the device", func(f map[string]string) { f["device"] = credential("d", "x") },
			[]string{"device.toml:6:1: device.credential: the credential of module d/x, not of the device"}},
		{"another device", func(f map[string]string) { f["b"] = credential("e", "b") },
			[]string{"modules.b.credential: a module of device e, not of d"}},
		{"another hub", func(f map[string]string) { f["a"] = strings.Replace(f["a"], "hub.example", "other", 1) },
			[]string{"modules.a.credential: the credential is for hub other, hub.host is hub.example"}},
		{"wiring and settings that the module does not take", func(f map[string]string) {
			f["device.toml"] = strings.Replace(deviceFile, `use = "bme280"`, "use = \"bme280\"\nwiring = { bus = \"nonsense\", adress = 3 }\nsettings = { interval_ms = 1 }", 1)
		}, []string{`device.toml:9:12: modules.a.wiring.bus: not the URI of a wire: "nonsense" has no scheme; write one of i2c:`,
			"device.toml:9:30: modules.a.wiring.adress: adress: no such setting; known are address, bus",
			"device.toml:10:14: modules.a.settings.interval_ms: interval_ms: 1 was asked"}},
		{"one part for two components", func(f map[string]string) {
			f["device.toml"] = strings.Replace(deviceFile, `use = "door"`, `use = "bme280"`, 1)
		}, []string{"device.toml:10:10: modules.b.wiring.bus: i2c:/dev/i2c-1, address 0x76 belongs to component a already; give each component its own"}},
		{"all kinds at once", func(f map[string]string) {
			f["device.toml"] = strings.Replace(deviceFile, `use = "bme280"`, "use = \"bme280\"\nsettings = { interval = 1 }", 1)
			f["device.toml"] = strings.Replace(f["device.toml"], `use = "door"`, `use = "dor"`, 1)
			delete(f, "a")
		}, []string{"modules.a.settings.interval: interval: no such setting; known are interval_ms", "modules.a.credential: ", `there is no module "dor"`}},
		{"no CA", func(f map[string]string) {
			f["device.toml"] = strings.Replace(deviceFile, "[agent]", "ca_file = \"device\"\n[agent]", 1)
			delete(f, "b")
		}, []string{"device.toml:3:1: hub.ca_file: ", "device.toml:13:1: modules.b.credential"}},
		{"own program", func(f map[string]string) {
			f["device.toml"] = strings.Replace(deviceFile, `use = "door"`, "use = \"acme\"\npath = \"none\"", 1)
		}, []string{"device.toml:12:1: modules.b.path: "}},
	} {
		files := good()
		c.change(files)
		path := filepath.Join(write(t, files), "device.toml")
		code, stdout, stderr := call(t.Context(), "", "check", "--config", path)
		if strings.Contains(stderr, "c2VjcmV0") {
			t.Errorf("%s: the error shows a key", c.name)
		}
		if c.want == nil {
			if code != 0 || !strings.HasSuffix(stdout, "device.toml: ok, 2 components\n") || stderr != "" {
				t.Errorf("%s: code %d, %q, %q", c.name, code, stdout, stderr)
			}
			continue
		}
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if code != 1 || len(lines) != len(c.want) {
			t.Errorf("%s: code %d\n%s\nwant %d lines", c.name, code, stderr, len(c.want))
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(lines[i], want) || !strings.HasPrefix(lines[i], "twinbay: ") {
				t.Errorf("%s: %s\nwant %s", c.name, lines[i], want)
			}
		}
		code, stdout, _ = call(t.Context(), "", "check", "--config", path, "--json")
		var answer struct {
			OK       bool
			Problems []problem
		}
		if err := json.Unmarshal([]byte(stdout), &answer); err != nil || code != 1 || answer.OK || len(answer.Problems) != len(c.want) || answer.Problems[0].Line == 0 {
			t.Errorf("%s as JSON: code %d, %v\n%s", c.name, code, err, stdout)
		}
	}
}

func TestRunRefusesABadAddress(t *testing.T) {
	path := filepath.Join(write(t, map[string]string{"device.toml": deviceFile}), "device.toml")
	code, _, stderr := call(t.Context(), "", "run", "--config", path, "--hub-address", "localhost")
	if code != 2 || !strings.Contains(stderr, `--hub-address: "localhost" is not an address with a port`) {
		t.Errorf("code %d, %s", code, stderr)
	}
}
