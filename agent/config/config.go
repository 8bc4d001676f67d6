// Package config reads the device file: the TOML file that says which hub a device talks to and which modules it has.
//
//	[hub]
//	host = "vending.azure-devices.net"    # the hub's name: also SNI, user name and token audience
//	address = "127.0.0.1:8883"            # optional: where to connect instead
//	ca_file = "ca.pem"                    # optional: instead of the system's roots
//	mqtt = "3.1.1"                        # or "5"; 3.1.1 when absent
//	time_url = "https://vending.azure-devices.net/"  # optional: whose Date is asked for when the clock seems wrong; the host's
//
//	[agent]                               # optional, like each of its keys
//	socket = "/run/twinbay/twinbay.sock"  # the technician's API
//	run_dir = "/run/twinbay"              # sockets of the module processes
//	state_dir = "/var/lib/twinbay"        # what has to survive a power cut: the outbox, the twins
//	modules = "twinbay-modules"           # the multi-call program; absent: beside the agent's own
//	cgroup = "/sys/fs/cgroup/twinbay"     # a control group (version 2) for the modules; the agent's own when absent; or "none"
//	log_level = "info"                    # debug, info, warn, error
//	metrics = "127.0.0.1:9464"            # Prometheus asks here; absent: only on the socket
//
//	[outbox]                              # optional, like each of its keys
//	profile = "durable"                   # or "sd-card": fewer writes, and a power cut costs about a second
//	max_bytes = "64MiB"                   # on the disk, for all components together
//	max_age = "30d"                       # of a message that the hub has not had; "0" for no limit
//	min_free = "32MiB"                    # that the outbox leaves free on its disk
//
//	[device]
//	credential = "file:keys/device.cs"
//
//	[modules.climate]                     # the component's name on this device
//	use = "bme280"
//	credential = "file:keys/climate.cs"
//	path = "/opt/acme/bme280"             # optional: a program of its own, instead of agent.modules
//	wiring = { bus = "i2c:/dev/i2c-1" }
//	settings = { period_ms = 5000 }
//	restart = "always"                    # or "limited", or { ends = 10, within = "10m" }: left alone after so many ends
//	limits = { memory = "128MiB", tasks = 64, cpu = "80%", files = 256 }  # the defaults; "none" for none
//
//	[[link]]                              # one component's output becomes another's input; as many as there are
//	from    = "door.open"
//	to      = "cooling.door"
//	max_age = "30s"                       # optional: older than this it is unknown; absent: as the output's module says
//
// Relative paths are relative to the device file's folder. In wiring it is the agent that resolves them, since the module
// says which members are wires. Reading is strict: what is not known here is an error, and all errors of a file come at
// once, each with its line and what to do.
//
// TOML: https://toml.io/en/v1.0.0.
package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Defaults of the device file.
const (
	DefaultMQTT   = "3.1.1" // what IoT Hub speaks
	DefaultSocket = "/run/twinbay/twinbay.sock"
	DefaultRunDir = "/run/twinbay"
	DefaultState  = "/var/lib/twinbay"
	modulesName   = "twinbay-modules"

	DefaultMaxBytes = 64 << 20
	DefaultMaxAge   = 30 * 24 * time.Hour
	DefaultMinFree  = 32 << 20
)

// maxFile bounds the device file: one that is larger is something else.
const maxFile = 1 << 20

// Config is a device file. All paths in it are absolute.
type Config struct {
	File    string // the device file itself
	Hub     Hub
	Agent   Agent
	Outbox  Outbox
	Device  Device
	Modules []Module // sorted by name

	at    positions
	links map[End][]string // the key of each link, by its input
}

// Hub says where the hub is.
type Hub struct {
	Host    string // the hub's host name
	Address string // "host:port" to connect to; "" means Host:8883
	CAFile  string // PEM; "" means the system's roots
	MQTT    string // "3.1.1" or "5"
	TimeURL string // https; whose Date header is asked for when the clock seems wrong
}

// Agent is what the agent needs for itself.
type Agent struct {
	Socket   string     // of the technician's API
	Modules  string     // the multi-call program with the bundled modules
	RunDir   string     // for the sockets of module processes
	StateDir string     // for what has to survive a power cut
	LogLevel slog.Level // info when absent
	Metrics  string     // "address:port" at which Prometheus may ask; "" means the socket alone
	Cgroup   string     // a folder; "" is the group in which the agent was started; "none"
}

// Outbox is where messages wait for the hub.
type Outbox struct {
	Profile  string // "durable" or "sd-card"
	MaxBytes int64  // on the disk
	MaxAge   time.Duration
	MinFree  int64 // bytes
}

// Device is the device's own identity.
type Device struct {
	Credential string // a reference for identity.Load: "file:" and an absolute path
}

// Module is one component of the device.
type Module struct {
	Name       string         // the component's name: "climate"
	Use        string         // the module: "bme280"
	Path       string         // the module's own program; "" means the multi-call program
	Credential string         // a reference for identity.Load: "file:" and an absolute path
	Wiring     map[string]any // as JSON would read it: numbers are json.Number; never nil
	Settings   map[string]any // likewise
	Links      []Link         // to its inputs, sorted by them
	Restart    Restart
	Limits     Limits

	Problems Errors `json:"-"` // what is wrong with this component alone; it cannot run until that is mended
}

// Restart says when a module that keeps ending is left alone. The zero value is never.
type Restart struct {
	Ends   int           // after so many ends
	Within time.Duration // within this time
}

// Load reads the device file at path. known are the names of the bundled modules; with nil, any name passes. The error
// is an [Errors] unless the file cannot be read at all.
//
// Where all that is wrong is wrong with single components, the Config comes together with the error: the other
// components can run. Each Module then says in Problems what is wrong with it.
func Load(path string, known []string) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("device file %s: %w", path, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("device file: %w; name one with --config", err)
	}
	if info.IsDir() || info.Size() > maxFile {
		return nil, fmt.Errorf("device file %s: not a file of less than 1 MiB; name one with --config", path)
	}
	text, err := os.ReadFile(abs)
	if err != nil {
		return nil, fmt.Errorf("device file: %w", err)
	}
	return Parse(path, text, known)
}

// Parse reads text as the device file at path, which need not exist: it is what errors show, and relative paths are
// relative to its folder. It answers as Load does.
func Parse(path string, text []byte, known []string) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("device file %s: %w", path, err)
	}
	tree, at, err := parseTOML(path, text)
	if err != nil {
		return nil, err
	}
	d := &decoder{dir: filepath.Dir(abs), at: at, known: known}
	c := &Config{File: abs, at: at}
	d.file(tree, c)
	if len(d.errs) == 0 {
		return c, nil
	}
	single := 0
	for _, m := range c.Modules {
		single += len(m.Problems)
	}
	if single < len(d.errs) {
		c = nil
	}
	return c, d.errs.Sorted()
}

// Line is the line of a key such as "modules.climate.wiring.bus", or of the nearest table around it; 0 when there is
// not even that. Each part of key may also be given on its own, for names with a dot.
func (c *Config) Line(key ...string) int { return c.at.find(split(key)).line }

// Error makes an error that points to a key of the file, as Load's own errors do: for checks that need more than the
// file, such as a module's schema. hint is the next step, or "".
func (c *Config) Error(key []string, text, hint string) *Error {
	return c.at.err(key, text, hint)
}

// split takes "a.b.c", or the parts as they are.
func split(key []string) []string {
	if len(key) == 1 {
		return strings.Split(key[0], ".")
	}
	return key
}
