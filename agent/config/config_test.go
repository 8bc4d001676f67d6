package config

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var known = []string{"bme280", "cctalk", "door"}

const complete = `
[hub]
host    = "vending.azure-devices.net"
address = "127.0.0.1:8883"
ca_file = "ca.pem"
mqtt    = "5"

[agent]
socket    = "run/twinbay.sock"
run_dir   = "/var/run/twinbay"
modules   = "../bin/twinbay-modules"
log_level = "debug"
state_dir = "state"

[outbox]
profile   = "sd-card"
max_bytes = "16MiB"
max_age   = "7d"
min_free  = 1024

[device]
credential = "file:keys/device.cs"

[modules.door]
use        = "door"
credential = "file:/etc/twinbay/door.cs"
wiring     = { switch = "sim:rig.sock#door", beam = "gpio:pinctrl-bcm2711/27" }

[modules.climate]
use        = "bme280"
credential = "file:keys/climate.cs"
restart    = { ends = 5, within = "2m" }
limits     = { memory = "64MiB", tasks = "none", cpu = "150%", files = 32 }
[modules.climate.wiring]
bus     = "i2c:/dev/i2c-1"
address = 0x76
[modules.climate.settings]
interval_ms = 5_000
offset_c    = -0.50
limits      = { low = 1, names = ["a", "b"] }

[modules.custom]
use        = "acme"
path       = "acme-module"
credential = "file:keys/custom.cs"
restart    = "limited"
wiring     = { port = "serial:ttyCOIN", other = "serial:/dev/ttyS0" }
`

func TestParse(t *testing.T) {
	c, err := Parse("/etc/twinbay/device.toml", []byte(complete), known)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Hub{"vending.azure-devices.net", "127.0.0.1:8883", "/etc/twinbay/ca.pem", "5", "https://vending.azure-devices.net/"}); c.Hub != want {
		t.Errorf("hub %+v, want %+v", c.Hub, want)
	}
	if want := (Agent{"/etc/twinbay/run/twinbay.sock", "/etc/bin/twinbay-modules", "/var/run/twinbay", "/etc/twinbay/state", slog.LevelDebug, "", ""}); c.Agent != want {
		t.Errorf("agent %+v, want %+v", c.Agent, want)
	}
	if want := (Outbox{"sd-card", 16 << 20, 7 * 24 * time.Hour, 1024}); c.Outbox != want {
		t.Errorf("outbox %+v, want %+v", c.Outbox, want)
	}
	if c.Device.Credential != "file:/etc/twinbay/keys/device.cs" {
		t.Errorf("device credential %q", c.Device.Credential)
	}
	want := []Module{
		{"climate", "bme280", "", "file:/etc/twinbay/keys/climate.cs",
			map[string]any{"bus": "i2c:/dev/i2c-1", "address": json.Number("118")},
			map[string]any{"interval_ms": json.Number("5000"), "offset_c": json.Number("-0.5"),
				"limits": map[string]any{"low": json.Number("1"), "names": []any{"a", "b"}}},
			nil, Restart{5, 2 * time.Minute}, Limits{64 << 20, 0, 150, 32}, nil},
		{"custom", "acme", "/etc/twinbay/acme-module", "file:/etc/twinbay/keys/custom.cs",
			map[string]any{"port": "serial:ttyCOIN", "other": "serial:/dev/ttyS0"}, map[string]any{}, nil, Restart{DefaultEnds, DefaultWithin}, DefaultLimits, nil},
		{"door", "door", "", "file:/etc/twinbay/door.cs",
			map[string]any{"switch": "sim:rig.sock#door", "beam": "gpio:pinctrl-bcm2711/27"}, map[string]any{}, nil, Restart{}, DefaultLimits, nil},
	}
	if !reflect.DeepEqual(c.Modules, want) {
		t.Errorf("modules\n%+v\nwant\n%+v", c.Modules, want)
	}
}

func TestMetricsAddress(t *testing.T) {
	for _, address := range []string{"127.0.0.1:9464", "[::1]:9464", "localhost:9464", "0.0.0.0:9464", "[::]:9464"} {
		c, err := Parse("d.toml", []byte("[hub]\nhost='h'\n[agent]\nmetrics='"+address+"'\n[device]\ncredential='file:d'"), nil)
		if err != nil || c.Agent.Metrics != address {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{":9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:http", "*:9464"} {
		if c, err := Parse("d.toml", []byte("[hub]\nhost='h'\n[agent]\nmetrics='"+address+"'\n[device]\ncredential='file:d'"), nil); err == nil {
			t.Errorf("%s is taken as %q", address, c.Agent.Metrics)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := Parse("d.toml", []byte("[hub]\nhost='h'\n[device]\ncredential='file:d'"), nil)
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	if want := (Agent{DefaultSocket, filepath.Join(filepath.Dir(self), "twinbay-modules"), DefaultRunDir, DefaultState, slog.LevelInfo, "", ""}); c.Agent != want {
		t.Errorf("agent %+v, want %+v", c.Agent, want)
	}
	if want := (Outbox{"durable", DefaultMaxBytes, DefaultMaxAge, DefaultMinFree}); c.Outbox != want {
		t.Errorf("outbox %+v, want %+v", c.Outbox, want)
	}
	if c.Hub.TimeURL != "https://h/" || c.Hub.MQTT != "3.1.1" || c.Hub.Address != "" || c.Hub.CAFile != "" || len(c.Modules) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestTimeURL(t *testing.T) {
	c, err := Parse("d.toml", []byte("[hub]\nhost='h'\ntime_url='https://time.example:8443/'\n[device]\ncredential='file:d'"), nil)
	if err != nil || c.Hub.TimeURL != "https://time.example:8443/" {
		t.Errorf("%+v, %v", c, err)
	}
}

// Each row is a whole file, or the complete one with a line changed, and its first error.
func TestErrors(t *testing.T) {
	change := func(old, with string) string {
		if !strings.Contains(complete, old) {
			t.Fatalf("the complete file has no %q", old)
		}
		return strings.Replace(complete, old, with, 1)
	}
	for _, c := range []struct{ name, file, want string }{
		{"empty file", ``, `device.toml: hub.host: the hub's host name is missing; write host = "NAME.azure-devices.net" under [hub]`},
		{"syntax", "[hub]\nhost = ", "device.toml:2:"},
		{"key twice", "[hub]\nhost='a'\nhost='b'", "device.toml:3:"},
		{"not UTF-8", "[hub]\nhost='\xff'", "device.toml:2:"},
		{"unknown table", change("[device]", "[devise]"), `device.toml:21:2: devise: unknown key; did you mean "device"?`},
		{"unknown key", change("credential = \"file:keys/climate.cs\"", "credentail = \"file:keys/climate.cs\""),
			`modules.climate.credentail: unknown key; did you mean "credential"?`},
		{"unknown key of hub", change("mqtt ", "zzzzzz = 1\nmqtt "), `device.toml:6:1: hub.zzzzzz: unknown key; known are address, ca_file, host, mqtt`},
		{"no credential", change("credential = \"file:keys/climate.cs\"\n", ""),
			`device.toml:29:10: modules.climate: the credential is missing; write credential = "file:PATH"`},
		{"credential of the device", change("credential = \"file:keys/device.cs\"", ""), "device.toml:21:2: device: the credential is missing"},
		{"credential in the file", change("file:keys/device.cs", "HostName=h;SharedAccessKey=c2VjcmV0"), "a key stands in the device file"},
		{"credential by name", change("file:keys/device.cs", "keys/device.cs"), `"keys/device.cs" does not name a file`},
		{"one identity for two", change("file:keys/custom.cs", "file:./keys/../keys/climate.cs"),
			"modules.custom.credential: the same identity as modules.climate; give each component a module identity of its own"},
		{"the device's identity", change("file:keys/custom.cs", "file:keys/device.cs"), "the same identity as device"},
		{"unknown module", change(`"bme280"`, `"bme820"`), `device.toml:30:1: modules.climate.use: there is no module "bme820"; did you mean "bme280"?`},
		{"unknown profile", change(`"sd-card"`, `"sdcard"`), `outbox.profile: "sdcard" is no profile; write "durable", or "sd-card" to spare the flash`},
		{"small outbox", change(`"16MiB"`, `"1 MiB"`), `outbox.max_bytes: 1048576 bytes, an outbox needs at least 8 MiB; write "8MiB" or more`},
		{"no size", change(`"16MiB"`, `"16MB"`), `outbox.max_bytes: 16MB is no number of bytes; write it like "64MiB", or as a number of bytes`},
		{"negative size", change(`= 1024`, `= -1`), `outbox.min_free: -1 is no number of bytes`},
		{"huge size", change(`"16MiB"`, `"999999999999GiB"`), `is no number of bytes`},
		{"no duration", change(`"7d"`, `"a week"`), `outbox.max_age: a week is no duration; write it like "7d", "12h" or "30m"`},
		{"a bare number", change(`"7d"`, `7`), `outbox.max_age: 7 is no duration`},
		{"very unknown module", change(`"bme280"`, `"x"`), `there is no module "x"; known are bme280, cctalk, door`},
		{"no use", change("use        = \"bme280\"\n", ""), `modules.climate: use is missing: which module is it?; write use = "NAME"; known are bme280, cctalk, door`},
		{"host with scheme", change("vending.azure-devices.net", "https://vending"), `hub.host: "https://vending" is not a host name`},
		{"host with port", change("vending.azure-devices.net", "vending:8883"), `an address to connect to goes into hub.address`},
		{"time without TLS", change(`"5"`, "\"5\"\ntime_url = \"http://time.example/\""), `hub.time_url: "http://time.example/" is not an https address; write it like`},
		{"address without port", change("127.0.0.1:8883", "127.0.0.1"), `device.toml:4:1: hub.address: "127.0.0.1" is not an address with a port; write it like "127.0.0.1:8883"`},
		{"port too large", change(":8883", ":88830"), "is not an address with a port"},
		{"MQTT as a number", change(`"5"`, `5`), `device.toml:6:1: hub.mqtt: 5 is no MQTT version that is spoken here; write mqtt = "3.1.1" or mqtt = "5", in quotes`},
		{"MQTT 4", change(`"5"`, `"4"`), "hub.mqtt: 4 is no MQTT version"},
		{"host as a number", change(`"vending.azure-devices.net"`, `1`), "hub.host: an integer, want a string"},
		{"table as a string", change("[modules.climate.wiring]\nbus     = \"i2c:/dev/i2c-1\"\naddress = 0x76", "wiring = 'x'"),
			"modules.climate.wiring: a string, want a table; begin it with [modules.climate.wiring] on a line of its own"},
		{"table of tables", change("[modules.door]", "[[modules.door]]"), "modules.door: an array, want a table"},
		{"metrics", change(`log_level = "debug"`, `metrics = "9464"`), `agent.metrics: "9464" is not an address of this device with a port; write it like "127.0.0.1:9464"; "0.0.0.0:9464" lets the whole network ask`},
		{"metrics by name", change(`log_level = "debug"`, `metrics = "device.example:9464"`), `agent.metrics: "device.example:9464" is not an address of this device with a port`},
		{"log level", change(`"debug"`, `"loud"`), `agent.log_level: "loud" is not a log level; write debug, info, warn or error`},
		{"socket too long", change("run/twinbay.sock", strings.Repeat("x", 120)), "a unix socket's path has at most 107"},
		{"component's name", change("[modules.door]", "[modules.'the door']"), `modules.the door: "the door" is not a component's name`},
		{"another restart", change(`{ ends = 5, within = "2m" }`, `"never"`), `modules.climate.restart: never is no way to restart a module; write restart = "always"`},
		{"restart of a kind", change(`{ ends = 5, within = "2m" }`, `3`), "modules.climate.restart: 3 is no way to restart a module"},
		{"no number of ends", change(`ends = 5`, `ends = 0`), "modules.climate.restart.ends: 0 is no number of ends; write a number from 1 to 1000"},
		{"no time", change(`within = "2m"`, `within = "0"`), `modules.climate.restart.within: a time of no length; write it like "10m"`},
		{"misspelt restart", change(`ends = 5`, `end = 5`), `modules.climate.restart.end: unknown key; did you mean "ends"?`},
		{"little memory", change(`"64MiB"`, `"1MiB"`), `modules.climate.limits.memory: 1048576 bytes, a module needs at least 16 MiB; write "16MiB" or more, or "none"`},
		{"memory of a kind", change(`"64MiB"`, `true`), `modules.climate.limits.memory: true is no number of bytes`},
		{"few tasks", change(`tasks = "none"`, `tasks = 1`), `modules.climate.limits.tasks: 1 is no limit of tasks; write a number from 16 on, or "none"`},
		{"many files", change(`files = 32`, `files = 99999999999`), `modules.climate.limits.files: 99999999999 is no limit of files`},
		{"files as text", change(`files = 32`, `files = "32"`), `modules.climate.limits.files: 32 is no limit of files`},
		{"processor as a number", change(`"150%"`, `1.5`), `modules.climate.limits.cpu: 1.5 is no share of a processor; write it like "80%", of one processor, or "none"`},
		{"no processor", change(`"150%"`, `"0%"`), `modules.climate.limits.cpu: 0% is no share of a processor`},
		{"misspelt limit", change(`files = 32`, `file = 32`), `modules.climate.limits.file: unknown key; did you mean "files"?`},
		{"a date", change("5_000", "2026-01-01"), "modules.climate.settings.interval_ms: a date or time cannot be held by JSON; write it as a string"},
		{"not a number", change("5_000", "nan"), "modules.climate.settings.interval_ms: NaN cannot be held by JSON"},
		{"deep inside", change(`["a", "b"]`, `["a", inf]`), "modules.climate.settings.limits.names.1: +Inf cannot be held by JSON"},
	} {
		_, err := Parse("device.toml", []byte(c.file), known)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n%v\nwant in it\n%s", c.name, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: the error shows a key: %v", c.name, err)
		}
	}
}

// All that is wrong comes at once, by line.
func TestAllErrorsAtOnce(t *testing.T) {
	_, err := Parse("d.toml", []byte(`
[hub]
hots = "x"
mqtt = 3

[modules.a]
use = "bme280"
setings = {}
`), known)
	all, ok := errors.AsType[Errors](err)
	if !ok {
		t.Fatalf("%T %v, want Errors", err, err)
	}
	var lines []int
	for _, e := range all {
		lines = append(lines, e.Line)
	}
	// The missing device stands nowhere; the missing host points to [hub], the missing credential to [modules.a].
	if want := []int{0, 2, 3, 4, 6, 8}; !reflect.DeepEqual(lines, want) {
		t.Errorf("lines %v, want %v\n%v", lines, want, err)
	}
	if _, ok := errors.AsType[*Error](err); !ok {
		t.Error("errors.As finds none of them")
	}
}

// What is wrong with one component keeps that one from running, and no other.
func TestProblemsOfOneComponent(t *testing.T) {
	bad := strings.Replace(complete, `"bme280"`, `"bme820"`, 1)
	bad = strings.Replace(bad, `wiring     = { switch`, `wirring    = { switch`, 1)
	bad = strings.Replace(bad, "file:keys/custom.cs", "file:keys/climate.cs", 1)
	c, err := Parse("device.toml", []byte(bad), known)
	all, ok := errors.AsType[Errors](err)
	if !ok || len(all) != 3 || c == nil {
		t.Fatalf("config %v, %T %v; want a config and three errors", c, err, err)
	}
	for i, want := range []string{`no module "bme820"`, "the same identity as modules.climate", "wirring: unknown key"} {
		m := c.Modules[i]
		if len(m.Problems) != 1 || !strings.Contains(m.Problems.Error(), want) {
			t.Errorf("%s: %v, want %s", m.Name, m.Problems, want)
		}
	}
	if c, err := Parse("device.toml", []byte(strings.Replace(bad, `"5"`, `"6"`, 1)), known); c != nil || err == nil {
		t.Errorf("a file with an error of the hub's too: %v, %v", c, err)
	}
}

func TestLine(t *testing.T) {
	c, err := Parse("device.toml", []byte(complete), nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{
		"hub": 2, "hub.mqtt": 6, "modules.climate.wiring.bus": 35, "modules.climate.wiring.none": 34,
		"modules.climate.settings.limits.low": 40, "modules.climate.settings.limits.names.1": 40,
		"modules.door.wiring.beam": 27, "modules.nobody": 24, "nothing": 0,
	} {
		if got := c.Line(key); got != want {
			t.Errorf("Line(%s) = %d, want %d", key, got, want)
		}
	}
	e := c.Error([]string{"modules", "climate", "wiring", "address"}, "300 was asked", "look at the sensor's SDO pin")
	if want := "device.toml:36:1: modules.climate.wiring.address: 300 was asked; look at the sensor's SDO pin"; e.Error() != want {
		t.Errorf("%q, want %q", e.Error(), want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "device.toml")
	if err := os.WriteFile(path, []byte(complete), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, known)
	if err != nil || c.File != path || c.Hub.CAFile != filepath.Join(dir, "ca.pem") {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{filepath.Join(dir, "none.toml"), dir} {
		if _, err := Load(bad, known); err == nil || !strings.Contains(err.Error(), "--config") {
			t.Errorf("Load(%s): %v, want the next step", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(complete)
	f.Add(complete + "[[link]]\nfrom='door.open'\nto='climate.door'\nmax_age='3s'\n[[link]]\nto=5\n")
	f.Add("link=[{from='a.b'},{to=1}]\n[[\"\"]]\n[[\"\".a]]\n[a]")
	f.Add("[[modules.a]]\nx=[{y=1},{y=2}]")
	f.Add("modules = 5\nhub.host = 1\na.'b.c'.\"\\u0000\" = {}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("d.toml", []byte(text), known)
		if err != nil {
			all, ok := errors.AsType[Errors](err)
			if !ok || len(all) == 0 {
				t.Fatalf("%T %v, want Errors", err, err)
			}
			lines := strings.Count(text, "\n") + 1
			if c != nil && !slices.ContainsFunc(c.Modules, func(m Module) bool { return len(m.Problems) > 0 }) {
				t.Fatalf("a config without problems, and %v", err)
			}
			for _, e := range all {
				if e.Line < 0 || e.Line > lines || e.Text == "" {
					t.Fatalf("line %d of %d: %v", e.Line, lines, e)
				}
			}
			return
		}
		for _, m := range c.Modules {
			if _, err := json.Marshal(m); err != nil {
				t.Fatalf("module %s is no JSON: %v", m.Name, err)
			}
			if c.Line("modules", m.Name) == 0 {
				t.Fatalf("module %s has no line", m.Name)
			}
		}
	})
}
