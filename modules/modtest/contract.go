package modtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/pelletier/go-toml/v2"

	"github.com/twinbay/twinbay/modules/modkit"
)

var (
	moduleName  = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	settingName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	methodName  = regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)
	semver      = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)
)

// maxDeadline is IoT Hub's limit of a direct method's response timeout.
const maxDeadline = 300 * time.Second

// Contract is what every module has to do. sample is the module's sample.toml. factory makes a fresh module, without
// touching hardware.
func Contract(t *testing.T, factory func() modkit.Module, sample string) {
	d := factory().Describe()
	t.Run("names", func(t *testing.T) { names(t, d) })
	t.Run("settings schema", func(t *testing.T) { schema(t, d.Settings, true) })
	t.Run("wiring schema", func(t *testing.T) { wiring(t, d) })
	t.Run("sample", func(t *testing.T) { sampleBlock(t, d, sample) })
	t.Run("defaults", func(t *testing.T) { defaultsApply(t, factory()) })
	t.Run("unknown method", func(t *testing.T) { unknownMethod(t, factory()) })
	t.Run("over gRPC", func(t *testing.T) { overRPC(t, factory()) })
}

func names(t *testing.T, d modkit.Description) {
	if !moduleName.MatchString(d.Name) {
		t.Errorf("module name %q: want lower case, digits and dashes", d.Name)
	}
	if !semver.MatchString(d.Version) {
		t.Errorf("version %q is no semantic version", d.Version)
	}
	for _, m := range d.Methods {
		if !methodName.MatchString(m.Name) {
			t.Errorf("method %q: want lowerCamel", m.Name)
		}
		if m.Summary == "" {
			t.Errorf("method %s has no summary", m.Name)
		}
		if m.Deadline < 0 || m.Deadline > maxDeadline {
			t.Errorf("method %s: deadline %s, the hub's limit is %s", m.Name, m.Deadline, maxDeadline)
		}
	}
	for _, i := range d.Inputs {
		port(t, "input", i.Name, i.Summary, i.Type)
	}
	for _, o := range d.Outputs {
		port(t, "output", o.Name, o.Summary, o.Type)
	}
}

func port(t *testing.T, what, name, summary string, kind modkit.ValueType) {
	t.Helper()
	if !settingName.MatchString(name) || summary == "" {
		t.Errorf("%s %q: want a snake_case name and a summary", what, name)
	}
	switch kind {
	case modkit.Boolean, modkit.Number, modkit.Text:
	default:
		t.Errorf("%s %s has the unknown type %q", what, name, kind)
	}
}

// schema checks that raw is a JSON Schema of an object that refuses what it does not name, and that its defaults are
// valid by it. With all, every property has one.
func schema(t *testing.T, raw json.RawMessage, all bool) *jsonschema.Schema {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatalf("no JSON Schema: %v", err)
	}
	resolved, err := s.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	if err != nil {
		t.Fatalf("the schema does not resolve: %v", err)
	}
	if s.Type != "object" {
		t.Errorf("type is %q, want object", s.Type)
	}
	if err := resolved.Validate(map[string]any{"no_such_name_": 1}); err == nil {
		t.Error("an unknown name is valid: set additionalProperties to false")
	}
	for name, p := range s.Properties {
		if !settingName.MatchString(name) {
			t.Errorf("%q: want snake_case", name)
		}
		if p.Description == "" {
			t.Errorf("%s has no description", name)
		}
		if all && p.Default == nil {
			t.Errorf("%s has no default", name)
		}
	}
	return &s
}

func wiring(t *testing.T, d modkit.Description) {
	s := schema(t, d.Wiring, false)
	required := make(map[string]bool)
	for _, name := range s.Required {
		required[name] = true
	}
	for _, w := range d.Wires {
		p, ok := s.Properties[w.Name]
		if !ok {
			t.Errorf("wire %s is not in the wiring schema", w.Name)
			continue
		}
		if p.Type != "string" {
			t.Errorf("wire %s has type %q in the wiring schema, want string: it is a URI", w.Name, p.Type)
		}
		if required[w.Name] == w.Optional {
			t.Errorf("wire %s: optional is %v, and in the schema's required list: %v", w.Name, w.Optional, required[w.Name])
		}
		switch w.Kind {
		case modkit.I2C, modkit.Serial, modkit.DigitalIn, modkit.DigitalOut:
		default:
			t.Errorf("wire %s has the unknown kind %q", w.Name, w.Kind)
		}
	}
}

// sampleBlock checks that the sample is a [modules.<name>] block as it stands in a device file.
func sampleBlock(t *testing.T, d modkit.Description, sample string) {
	var file struct {
		Modules map[string]struct {
			Use        string         `toml:"use"`
			Credential string         `toml:"credential"`
			Wiring     map[string]any `toml:"wiring"`
			Settings   map[string]any `toml:"settings"`
		} `toml:"modules"`
	}
	if err := toml.Unmarshal([]byte(sample), &file); err != nil {
		t.Fatalf("sample.toml: %v", err)
	}
	if len(file.Modules) == 0 {
		t.Fatal("sample.toml has no [modules.<name>] block")
	}
	for name, m := range file.Modules {
		if m.Use != d.Name {
			t.Errorf("[modules.%s]: use = %q, want %q", name, m.Use, d.Name)
		}
		if m.Credential == "" {
			t.Errorf("[modules.%s] has no credential", name)
		}
		if err := valid(d.Wiring, m.Wiring); err != nil {
			t.Errorf("[modules.%s] wiring: %v", name, err)
		}
		if err := valid(d.Settings, m.Settings); err != nil {
			t.Errorf("[modules.%s] settings: %v", name, err)
		}
	}
}

// valid checks v, which comes from TOML, as the JSON that the module would get.
func valid(raw json.RawMessage, v map[string]any) error {
	if v == nil {
		v = map[string]any{}
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		return err
	}
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var asJSON any
	if err := json.Unmarshal(doc, &asJSON); err != nil {
		return err
	}
	return resolved.Validate(asJSON)
}

func defaultsApply(t *testing.T, m modkit.Module) {
	applied, err := m.Apply(t.Context(), modkit.Settings{Doc: document(t, "settings", m.Describe().Settings, nil)})
	if err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
	for name, s := range applied {
		if s.Refused {
			t.Errorf("the default of %s is refused: %s", name, s.Reason)
		}
	}
	if _, err := m.Apply(t.Context(), modkit.Settings{Doc: json.RawMessage(`{"no_such_name_":1}`)}); err == nil {
		t.Error("a setting that the module does not have passes in silence")
	}
}

func unknownMethod(t *testing.T, m modkit.Module) {
	if _, err := m.Invoke(t.Context(), "noSuchMethod_", nil); !errors.Is(err, modkit.ErrNoMethod) {
		t.Errorf("Invoke of an unknown method: %v, want ErrNoMethod", err)
	}
	for _, method := range m.Describe().Methods {
		_, err := m.Invoke(t.Context(), method.Name, nil)
		if errors.Is(err, modkit.ErrNoMethod) {
			t.Errorf("%s is described, and Invoke does not know it", method.Name)
		}
	}
}

// overRPC checks that what the agent gets is what the module says.
func overRPC(t *testing.T, m modkit.Module) {
	b := Dial(t, m, Config{})
	got, err := b.Remote.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", m.Describe()); g != w {
		t.Errorf("described over gRPC as %s\nwant %s", g, w)
	}
	if a := b.Invoke("noSuchMethod_", ""); a.Status != 404 {
		t.Errorf("an unknown method answers %d over gRPC, want 404", a.Status)
	}
}
