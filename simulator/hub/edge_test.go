package hub

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

var edgeCapable = &Capabilities{IoTEdge: true}

// names are the ids of a device's modules.
func names(t *testing.T, h *Hub, device string) []string {
	t.Helper()
	all, err := h.Modules(device)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range all {
		ids = append(ids, m.ModuleID)
	}
	return ids
}

func TestEdgeDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{ModuleLimit: 1})
		d, err := h.PutDevice(Device{DeviceID: "gw-1", Capabilities: edgeCapable, DeviceScope: "mine"}, "")
		must(t)(d, err)
		if want := "ms-azure-iot-edge://gw-1-630822816000000000"; d.DeviceScope != want || d.ParentScopes != nil || !d.Capabilities.IoTEdge {
			t.Errorf("scope %q, parents %v, %+v; want %q", d.DeviceScope, d.ParentScopes, d.Capabilities, want)
		}
		if got := names(t, h, "gw-1"); !slices.Equal(got, systemModules) {
			t.Fatalf("modules %v", got)
		}
		for _, name := range systemModules {
			id := ID{"gw-1", name}
			m, err := h.Module(id)
			must(t)(m, err)
			if text(m.ManagedBy) != "iotEdge" || m.Authentication.Type != "none" || m.ETag == "" {
				t.Errorf("%s: %+v %+v", name, m, m.Authentication)
			}
			twin, err := h.Twin(id)
			must(t)(twin, err)
			if twin.AuthenticationType != "none" || twin.Properties.Desired["$metadata"].(map[string]any)["$lastUpdated"] != "0001-01-01T00:00:00Z" {
				t.Errorf("twin of %s: %+v", name, twin)
			}
			must(t)(h.PatchTwin(id, json.RawMessage(`{"properties":{"desired":{"a":1}}}`), ""))
			_, err = h.PutModule(Module{DeviceID: "gw-1", ModuleID: name}, "*")
			wantError(t, "a service writes "+name, err, 401100)
			wantError(t, "a service deletes "+name, h.DeleteModule(id, "*"), 401100)
			_, err = h.AuthSAS(id, "SharedAccessSignature sr=x&sig=eA==&se=99999999999")
			wantError(t, "connect without a credential", err, 401003)
			// The device itself gives it keys; it stays the system's.
			m, err = h.PutModuleAsDevice(Module{DeviceID: "gw-1", ModuleID: name}, "*")
			must(t)(m, err)
			if m.Authentication.Type != "sas" || text(m.ManagedBy) != "iotEdge" {
				t.Errorf("%s after its device's write: %+v", name, m)
			}
			wantError(t, "token of its own", onlyError(h.AuthSAS(id, token(t, h, id, 1e12))), 0)
		}
		must(t)(h.PutModule(Module{DeviceID: "gw-1", ModuleID: "mine"}, "")) // the system's don't count
		_, err = h.PutModule(Module{DeviceID: "gw-1", ModuleID: "more"}, "")
		wantError(t, "one too many", err, 413003)
		_, err = h.PutModule(Module{DeviceID: "gw-1", ModuleID: "$other"}, "")
		wantError(t, "another id of the system's kind", err, 400004)
	})
}

func onlyError(_ any, err error) error { return err }

// TestScopes walks through CONCEPT.md, section 6.1: what each write does to scopes.
func TestScopes(t *testing.T) {
	type step struct {
		in      Device
		ifMatch string
		code    int
		scope   string // of a device id, as "<id>" or "<id>-" for one without ticks; "" none
		parents string
	}
	scopes := map[string]string{}
	fill := func(s string) string {
		if known := scopes[s]; known != "" {
			return known
		}
		return s
	}
	h := New(Options{})
	for i, s := range []step{
		{in: Device{DeviceID: "top", Capabilities: edgeCapable}, scope: "top"},
		{in: Device{DeviceID: "low-1", Capabilities: edgeCapable, ParentScopes: []string{"top"}}, scope: "low-1", parents: "top"},
		{in: Device{DeviceID: "leaf", DeviceScope: "low-1"}, scope: "low-1", parents: "low-1"},
		{in: Device{DeviceID: "alone", ParentScopes: []string{"top"}}},
		{in: Device{DeviceID: "bad", DeviceScope: "ms-azure-iot-edge://top-1"}, code: 400028},
		{in: Device{DeviceID: "bad", DeviceScope: "top-"}, code: 400028},
		{in: Device{DeviceID: "bad", Capabilities: edgeCapable, ParentScopes: []string{"top", "low-1"}}, code: 400028},
		// An edge device repeats its scope; what it leaves out of its parents is gone.
		{in: Device{DeviceID: "low-1", Capabilities: edgeCapable, ParentScopes: []string{"top"}}, ifMatch: "*", code: 400004},
		{in: Device{DeviceID: "low-1", Capabilities: edgeCapable, DeviceScope: "low-1", ParentScopes: []string{"top"}}, ifMatch: "*", scope: "low-1", parents: "top"},
		{in: Device{DeviceID: "top", Capabilities: edgeCapable, DeviceScope: "top", ParentScopes: []string{"low-1"}}, ifMatch: "*", code: 400028}, // a ring
		{in: Device{DeviceID: "low-1", Capabilities: edgeCapable, DeviceScope: "low-1"}, ifMatch: "*", scope: "low-1"},
		{in: Device{DeviceID: "low-1", Capabilities: edgeCapable, DeviceScope: "low-1", ParentScopes: []string{"low-1"}}, ifMatch: "*", code: 400028},
		// Leaf to edge device, and back.
		{in: Device{DeviceID: "leaf", Capabilities: edgeCapable, DeviceScope: "low-1"}, ifMatch: "*", code: 503001},
		{in: Device{DeviceID: "leaf", Capabilities: edgeCapable, ParentScopes: []string{"top"}}, ifMatch: "*", scope: "leaf-", parents: "top"},
		{in: Device{DeviceID: "leaf", DeviceScope: "leaf-", ParentScopes: []string{"top"}}, ifMatch: "*"},
		{in: Device{DeviceID: "leaf", DeviceScope: "top"}, ifMatch: "*", scope: "top", parents: "top"},
		{in: Device{DeviceID: "leaf"}, ifMatch: "*"},
	} {
		in := s.in
		in.DeviceScope = fill(in.DeviceScope)
		in.ParentScopes = nil
		for _, p := range s.in.ParentScopes {
			in.ParentScopes = append(in.ParentScopes, fill(p))
		}
		what := fmt.Sprintf("step %d, %s", i, in.DeviceID)
		d, err := h.PutDevice(in, s.ifMatch)
		wantError(t, what, err, s.code)
		if err != nil {
			continue
		}
		if edge := d.Capabilities.IoTEdge; edge && scopes[s.scope] == "" {
			scopes[s.scope] = d.DeviceScope
		}
		if d.DeviceScope != fill(s.scope) || strings.Join(d.ParentScopes, " ") != fill(s.parents) {
			t.Errorf("%s: scope %q, parents %v; want %q, %q", what, d.DeviceScope, d.ParentScopes, fill(s.scope), fill(s.parents))
		}
		wantModules := 0
		if d.Capabilities.IoTEdge {
			wantModules = 2
		}
		if got := names(t, h, in.DeviceID); len(got) != wantModules {
			t.Errorf("%s: modules %v", what, got)
		}
		twin, err := h.Twin(ID{Device: in.DeviceID})
		if err != nil || twin.DeviceScope != d.DeviceScope || !slices.Equal(twin.ParentScopes, d.ParentScopes) || *twin.Capabilities != *d.Capabilities {
			t.Errorf("%s: the twin says %q %v %v, %v", what, twin.DeviceScope, twin.ParentScopes, twin.Capabilities, err)
		}
	}
	if scopes["leaf-"] != "ms-azure-iot-edge://leaf-" {
		t.Errorf("a leaf that became an edge device has the scope %q", scopes["leaf-"])
	}
}

// TestEdgeExport: gateways, their modules and their children are the same after an import, in whatever order.
func TestEdgeExport(t *testing.T) {
	h := New(Options{})
	gw, err := h.PutDevice(Device{DeviceID: "z-gw", Capabilities: edgeCapable}, "")
	must(t)(gw, err)
	must(t)(h.PutDevice(Device{DeviceID: "a-leaf", DeviceScope: gw.DeviceScope}, ""))
	must(t)(h.PatchTwin(ID{"z-gw", "$edgeAgent"}, json.RawMessage(`{"properties":{"desired":{"modules":{}}}}`), ""))
	again := New(Options{})
	for l := range h.Export(false) {
		if err := again.Import(l); err != nil {
			t.Errorf("%s: %v", l.Identity(), err)
		}
	}
	leaf, err := again.Device("a-leaf")
	must(t)(leaf, err)
	if leaf.DeviceScope != gw.DeviceScope {
		t.Errorf("scope %q, want %q", leaf.DeviceScope, gw.DeviceScope)
	}
	twin, err := again.Twin(ID{"z-gw", "$edgeAgent"})
	must(t)(twin, err)
	if _, there := twin.Properties.Desired["modules"]; !there {
		t.Errorf("twin of $edgeAgent: %v", twin.Properties.Desired)
	}
	wantError(t, "create a system module", again.Import(line("z-gw", "$edgeHub", "create")), 401100)
	wantError(t, "delete a system module", again.Import(line("z-gw", "$edgeHub", "delete")), 401100)
	wantError(t, "a scope that is none", again.Import(func() ExportImportDevice {
		l := line("b-leaf", "", "create")
		l.DeviceScope = "somewhere"
		return l
	}()), 400028)
}
