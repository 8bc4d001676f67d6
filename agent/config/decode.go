package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder turns the TOML tree into a Config and gathers everything that is wrong.
type decoder struct {
	dir   string
	at    positions
	known []string
	errs  Errors
}

func (d *decoder) fail(key []string, hint, format string, args ...any) {
	d.errs = append(d.errs, d.at.err(key, fmt.Sprintf(format, args...), hint))
}

func (d *decoder) file(tree map[string]any, c *Config) {
	d.keys(tree, nil, "hub", "agent", "outbox", "device", "modules", "link")
	d.hub(d.table(tree, nil, "hub"), &c.Hub)
	d.agent(d.table(tree, nil, "agent"), &c.Agent)
	d.outbox(d.table(tree, nil, "outbox"), &c.Outbox)
	device := d.table(tree, nil, "device")
	d.keys(device, []string{"device"}, "credential")
	c.Device.Credential = d.credential(device, []string{"device"})
	modules := d.table(tree, nil, "modules")
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		before := len(d.errs)
		m := d.module(modules, name)
		m.Problems = slices.Clone(d.errs[before:]).Sorted()
		c.Modules = append(c.Modules, m)
	}
	d.twice(c)
	d.linkTable(tree, c)
}

// hostName is a DNS name or an address: letters, digits, dots and hyphens (RFC 1123, 2.1), and colons of IPv6.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

func (d *decoder) hub(t map[string]any, h *Hub) {
	at := []string{"hub"}
	d.keys(t, at, "host", "address", "ca_file", "mqtt", "time_url")
	h.Host = d.str(t, at, "host")
	switch {
	case t["host"] == nil:
		d.fail(append(at, "host"), `write host = "NAME.azure-devices.net" under [hub]`, "the hub's host name is missing")
	case !hostName.MatchString(h.Host) && h.Host != "":
		d.fail(append(at, "host"), "write the bare host name; an address to connect to goes into hub.address",
			"%q is not a host name", h.Host)
	}
	if h.Address = d.str(t, at, "address"); h.Address != "" && !IsAddress(h.Address) {
		d.fail(append(at, "address"), `write it like "127.0.0.1:8883"`, "%q is not an address with a port", h.Address)
	}
	h.CAFile = d.path(t, at, "ca_file")
	h.TimeURL = d.timeURL(t, at, h.Host)
	h.MQTT = DefaultMQTT
	if v, ok := t["mqtt"]; ok {
		h.MQTT, _ = v.(string)
		if h.MQTT != "3.1.1" && h.MQTT != "5" {
			d.fail(append(at, "mqtt"), `write mqtt = "3.1.1" or mqtt = "5", in quotes`, "%v is no MQTT version that is spoken here", v)
		}
	}
}

// timeURL is the server whose Date is a hint. Without TLS anybody on the way could set the device's time.
func (d *decoder) timeURL(t map[string]any, at []string, host string) string {
	text := d.str(t, at, "time_url")
	if text == "" {
		return (&url.URL{Scheme: "https", Host: host, Path: "/"}).String()
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		d.fail(append(at, "time_url"), `write it like "https://NAME.azure-devices.net/", or leave it out`, "%q is not an https address", text)
	}
	return text
}

// IsAddress says whether s is "host:port", with an address or a name as host.
func IsAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && (net.ParseIP(host) != nil || hostName.MatchString(host))
}

// isListen says whether s is "address:port", with an IP address or localhost as address.
func isListen(s string) bool {
	host, _, err := net.SplitHostPort(s)
	return err == nil && IsAddress(s) && (host == "localhost" || net.ParseIP(host) != nil)
}

func (d *decoder) agent(t map[string]any, a *Agent) {
	at := []string{"agent"}
	d.keys(t, at, "socket", "modules", "run_dir", "state_dir", "log_level", "metrics", "cgroup")
	*a = Agent{Socket: DefaultSocket, RunDir: DefaultRunDir, StateDir: DefaultState, Modules: besideSelf()}
	for key, field := range map[string]*string{"socket": &a.Socket, "run_dir": &a.RunDir, "state_dir": &a.StateDir, "modules": &a.Modules} {
		if p := d.path(t, at, key); p != "" {
			*field = p
		}
	}
	if a.Cgroup = noLimit; t["cgroup"] != noLimit {
		a.Cgroup = d.path(t, at, "cgroup")
	}
	// A unix socket's path has to fit into sockaddr_un (unix(7): 108 bytes with the final NUL).
	if len(a.Socket) > 107 {
		d.fail(append(at, "socket"), "choose a shorter path", "%d bytes, a unix socket's path has at most 107", len(a.Socket))
	}
	if a.Metrics = d.str(t, at, "metrics"); a.Metrics != "" && !isListen(a.Metrics) {
		d.fail(append(at, "metrics"), `write it like "127.0.0.1:9464"; "0.0.0.0:9464" lets the whole network ask`, "%q is not an address of this device with a port", a.Metrics)
	}
	if level := d.str(t, at, "log_level"); level != "" {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, level) {
			d.fail(append(at, "log_level"), "write debug, info, warn or error", "%q is not a log level", level)
		} else if err := a.LogLevel.UnmarshalText([]byte(level)); err != nil {
			a.LogLevel = slog.LevelInfo
		}
	}
}

// besideSelf is the multi-call program in the folder of the agent's own executable.
func besideSelf() string {
	self, err := os.Executable()
	if err != nil {
		return modulesName
	}
	return filepath.Join(filepath.Dir(self), modulesName)
}

// componentName is what the name of a component may be: it becomes a word of the command line and of a socket's name.
var componentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)

func (d *decoder) module(modules map[string]any, name string) Module {
	at := []string{"modules", name}
	t := d.table(modules, []string{"modules"}, name)
	m := Module{Name: name}
	if !componentName.MatchString(name) {
		d.fail(at, "use 1 to 32 letters, digits, '-' and '_', with a letter or digit first", "%q is not a component's name", name)
	}
	d.keys(t, at, "use", "credential", "path", "wiring", "settings", "restart", "limits")
	m.Path = d.path(t, at, "path")
	m.Use = d.str(t, at, "use")
	switch {
	case t["use"] == nil:
		d.fail(at, d.list(`write use = "NAME"`, d.known), "use is missing: which module is it?")
	case m.Path == "" && d.known != nil && m.Use != "" && !slices.Contains(d.known, m.Use):
		d.fail(append(at, "use"), d.suggest(m.Use, d.known), "there is no module %q", m.Use)
	}
	m.Credential = d.credential(t, at)
	m.Wiring = d.json(t, at, "wiring")
	m.Settings = d.json(t, at, "settings")
	m.Restart = d.restart(t, at)
	m.Limits = d.limits(t, at)
	return m
}

// credential reads "file:PATH".
func (d *decoder) credential(t map[string]any, at []string) string {
	const hint = `write credential = "file:PATH", the file with the identity's connection string`
	v, ok := t["credential"]
	if !ok {
		d.fail(at, hint, "the credential is missing")
		return ""
	}
	at = append(slices.Clip(at), "credential")
	s, ok := v.(string)
	path, isFile := strings.CutPrefix(s, "file:")
	switch {
	case !ok:
		d.fail(at, hint, "%s, want a string", kind(v))
	case strings.Contains(s, "SharedAccessKey"):
		d.fail(at, hint, "a key stands in the device file")
	case !isFile || path == "":
		d.fail(at, hint, "%q does not name a file", s)
	default:
		return "file:" + d.abs(path)
	}
	return ""
}

// twice refuses two identities with one credential: the hub would close the connection of one whenever the other
// connects.
func (d *decoder) twice(c *Config) {
	owner := map[string]string{}
	if c.Device.Credential != "" {
		owner[c.Device.Credential] = "device"
	}
	for i := range c.Modules {
		m := &c.Modules[i]
		if m.Credential == "" {
			continue
		}
		who := "modules." + m.Name
		if other, ok := owner[m.Credential]; ok {
			d.fail([]string{"modules", m.Name, "credential"}, "give each component a module identity of its own",
				"the same identity as %s", other)
			m.Problems = append(m.Problems, d.errs[len(d.errs)-1])
			continue
		}
		owner[m.Credential] = who
	}
}

// table is a sub-table; empty when it is absent or something else.
func (d *decoder) table(t map[string]any, at []string, key string) map[string]any {
	v, ok := t[key]
	if !ok {
		return nil
	}
	sub, ok := v.(map[string]any)
	if !ok {
		path := append(slices.Clip(at), key)
		d.fail(path, fmt.Sprintf("begin it with [%s] on a line of its own", strings.Join(path, ".")), "%s, want a table", kind(v))
	}
	return sub
}

// keys refuses what is not among known.
func (d *decoder) keys(t map[string]any, at []string, known ...string) {
	for key := range t {
		if !slices.Contains(known, key) {
			d.fail(append(slices.Clip(at), key), d.suggest(key, known), "unknown key")
		}
	}
}

func (d *decoder) str(t map[string]any, at []string, key string) string {
	v, ok := t[key]
	if !ok {
		return ""
	}
	s, ok := v.(string)
	at = append(slices.Clip(at), key)
	if !ok {
		d.fail(at, "write it in quotes", "%s, want a string", kind(v))
	} else if s == "" {
		d.fail(at, "write a value, or leave the key out", "an empty string")
	}
	return s
}

func (d *decoder) path(t map[string]any, at []string, key string) string {
	if s := d.str(t, at, key); s != "" {
		return d.abs(s)
	}
	return ""
}

func (d *decoder) abs(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(d.dir, p)
}

// json reads a table as JSON would: it is judged by the module's JSON Schema later.
func (d *decoder) json(t map[string]any, at []string, key string) map[string]any {
	out := map[string]any{}
	at = append(slices.Clip(at), key)
	for k, v := range d.table(t, at[:len(at)-1], key) {
		if j, ok := d.jsonValue(v, append(slices.Clip(at), k)); ok {
			out[k] = j
		}
	}
	return out
}

func (d *decoder) jsonValue(v any, at []string) (any, bool) {
	switch v := v.(type) {
	case string, bool:
		return v, true
	case int64:
		return json.Number(strconv.FormatInt(v, 10)), true
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			d.fail(at, "write a number", "%v cannot be held by JSON", v)
			return nil, false
		}
		b, _ := json.Marshal(v) // cannot fail for a finite number
		return json.Number(b), true
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			j, ok := d.jsonValue(e, append(slices.Clip(at), k))
			if !ok {
				return nil, false
			}
			out[k] = j
		}
		return out, true
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			j, ok := d.jsonValue(e, append(slices.Clip(at), strconv.Itoa(i)))
			if !ok {
				return nil, false
			}
			out[i] = j
		}
		return out, true
	}
	d.fail(at, "write it as a string", "%s cannot be held by JSON", kind(v))
	return nil, false
}

// kind names a TOML value's type for a person.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case map[string]any:
		return "a table"
	case []any:
		return "an array"
	case time.Time:
		return "a date and time"
	}
	return "a date or time"
}
