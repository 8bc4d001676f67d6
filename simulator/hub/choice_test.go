package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// eachChoice runs f with a hub that was told nothing, and with one for each value of the choice.
func eachChoice(t *testing.T, name string, f func(t *testing.T, h *Hub, value string)) {
	t.Helper()
	i := slices.IndexFunc(choices, func(c Choice) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no choice %q", name)
	}
	for _, told := range append([]string{""}, choices[i].Values...) {
		value := told
		o := Options{HostName: "hub1.azure-devices.net"}
		if told == "" {
			value = choices[i].Values[0]
		} else {
			o.Choices = map[string]string{name: told}
		}
		t.Run(name+"="+told, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := New(o)
				defer h.Close()
				must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, ""))
				must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a"}, ""))
				f(t, h, value)
			})
		})
	}
}

func TestParseChoices(t *testing.T) {
	got, err := ParseChoices([]string{"twin-arrays=refuse", "method-timeout=3600", "twin-arrays=refuse"})
	if err != nil || len(got) != 2 || got[TwinArrays] != "refuse" || got[MethodTimeout] != "3600" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]string{{"twin-arrays"}, {"twin-arrays="}, {"twin-arrays=no"}, {"Twin-Arrays=refuse"}, {"=refuse"},
		{"twin-arrays=refuse", "twin-arrays=accept"}} {
		if got, err := ParseChoices(bad); err == nil {
			t.Errorf("%q: %v, want an error", bad, got)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a hub with a choice that there is not")
		}
	}()
	New(Options{Choices: map[string]string{"colour": "red"}})
}

// FuzzParseChoices: what is taken makes a hub.
func FuzzParseChoices(f *testing.F) {
	for _, seed := range []string{"twin-arrays=refuse", "twin-arrays=refuse\nmethod-timeout=3600", "=", "a=b=c", "delivery-qos=0\ndelivery-qos=granted"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseChoices(strings.Split(text, "\n"))
		if err != nil {
			return
		}
		h := New(Options{Choices: all})
		defer h.Close()
		for name, value := range all {
			if !h.Chose(name, value) {
				t.Errorf("%q: %s is not %s", text, name, value)
			}
		}
	})
}

// TestChoicesAreDocumented holds the table of docs/choices.md to the list.
func TestChoicesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/choices.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.SplitSeq(string(page), "\n") {
		if strings.HasPrefix(line, "| `") && strings.Count(line, "|") == 5 {
			rows++
		}
	}
	for _, c := range Choices() {
		values := make([]string, 0, len(c.Values))
		for _, v := range c.Values {
			values = append(values, "`"+v+"`")
		}
		row := fmt.Sprintf("| `%s` | %s | %s | %s |", c.Name, strings.Join(values, ", "), c.About, c.Source)
		if !strings.Contains(string(page), "\n"+row+"\n") {
			t.Errorf("docs/choices.md lacks the row\n%s", row)
		}
	}
	if rows != len(Choices()) {
		t.Errorf("docs/choices.md has %d rows, and there are %d choices", rows, len(Choices()))
	}
}

func TestChoiceC2DLockTimeout(t *testing.T) {
	eachChoice(t, C2DLockTimeout, func(t *testing.T, h *Hub, value string) {
		send(t, h, pi, "1")
		for i := range 10 {
			d, ok, err := h.ReceiveC2D(pi)
			want := 0
			if value == "count" {
				want = i
			}
			if err != nil || !ok || d.Count != want {
				t.Fatalf("delivery %d: count %d, %v, %v; want %d", i, d.Count, ok, err, want)
			}
			time.Sleep(lockTime)
		}
		body, _ := receiveC2D(t, h, pi)
		if value == "count" {
			if body != "" {
				t.Errorf("after ten locks that ran out: %q", body)
			}
			same(t, "feedback", feedbackOf(t, h), "1 DeliveryCountExceeded")
		} else if body != "1" {
			t.Errorf("after ten locks that ran out: %q, want 1", body)
		}
	})
}

func TestChoiceDeviceKeyForModules(t *testing.T) {
	eachChoice(t, DeviceKeyForModules, func(t *testing.T, h *Hub, value string) {
		for _, sr := range []string{"/devices/pi-01/modules/a", "/devices/pi-01"} {
			g, err := h.AuthSAS(mod, signSAS(keyOf(t, h, pi), url.QueryEscape(h.host+sr), time.Now().Add(time.Hour), ""))
			if value == "refuse" {
				wantError(t, "a device's key for its module", err, 401003)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			p := &peer{}
			must(t)(h.Attach(g, p))
			must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "a"}, "*")) // new keys of the module
			if code := p.endedBy(t); code != 0 {
				t.Errorf("the module's new keys ended the connection by the device's: %d", code)
			}
			must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, "*")) // new keys of the device
			if code := p.endedBy(t); code != 401003 {
				t.Errorf("the device's new keys: ended by %d, want 401003", code)
			}
		}
		_, err := h.AuthSAS(pi, signSAS(keyOf(t, h, mod), url.QueryEscape(h.host+"/devices/pi-01"), time.Now().Add(time.Hour), ""))
		wantError(t, "a module's key for its device", err, 401003)
		attach(t, h, mod, time.Hour) // its own key does either way
	})
}

func TestChoiceDisabledDevice(t *testing.T) {
	eachChoice(t, DisabledDevice, func(t *testing.T, h *Hub, value string) {
		_, device := attach(t, h, pi, time.Hour)
		l, module := attach(t, h, mod, time.Hour)
		tok := token(t, h, mod, time.Hour)
		must(t)(h.PutDevice(Device{DeviceID: "pi-01", Status: "disabled"}, "*"))
		if device.endedBy(t) != 403012 && device.endedBy(t) != 401003 {
			t.Errorf("the device's connection: ended by %d", device.endedBy(t))
		}
		want := 403012
		if value == "keep-modules" {
			want = 0
		}
		if code := module.endedBy(t); code != want {
			t.Errorf("the module's connection: ended by %d, want %d", code, want)
		}
		if err := l.Telemetry(Message{Body: []byte("x")}); (err == nil) != (want == 0) {
			t.Errorf("telemetry: %v", err)
		}
		_, err := h.AuthSAS(mod, tok)
		wantError(t, "a new connection of the module", err, 403012)
	})
}

func TestChoiceTokenEnd(t *testing.T) {
	eachChoice(t, TokenEnd, func(t *testing.T, h *Hub, value string) {
		_, p := attach(t, h, ID{"pi-01", "a"}, time.Hour)
		last := time.Hour + map[string]time.Duration{"10m": 10 * time.Minute}[value]
		time.Sleep(last - time.Second)
		synctest.Wait()
		if code := p.endedBy(t); code != 0 {
			t.Errorf("cut by %d before %s", code, last)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if code := p.endedBy(t); code != 401003 {
			t.Errorf("cut by %d after %s, want 401003", code, last)
		}
	})
}

func TestChoiceOwnModules(t *testing.T) {
	eachChoice(t, OwnModules, func(t *testing.T, h *Hub, value string) {
		must(t)(h.PutDevice(Device{DeviceID: "edge-01", Capabilities: &Capabilities{IoTEdge: true}}, ""))
		for device, want := range map[string]bool{"edge-01": true, "pi-01": value == "any"} {
			asDevice, err := h.AuthModules(device, Credential{Token: token(t, h, ID{Device: device}, time.Hour)}, RegistryRead, "/devices/"+device+"/modules")
			if asDevice != want || (err == nil) != want {
				t.Errorf("%s: %v, %v; want %v", device, asDevice, err, want)
			}
		}
	})
}

func TestChoiceTwinArrays(t *testing.T) {
	eachChoice(t, TwinArrays, func(t *testing.T, h *Hub, value string) {
		device, _ := attach(t, h, pi, time.Hour)
		module, _ := attach(t, h, mod, time.Hour)
		deep := json.RawMessage(`{"a":{"b":[1]}}`)
		for _, c := range []struct {
			id   ID
			link *Link
			want int
		}{{pi, device, map[string]int{"refuse": 400004}[value]}, {mod, module, map[string]int{"refuse": 400004, "refuse-in-modules": 400004}[value]}} {
			_, err := h.PatchTwin(c.id, json.RawMessage(`{"properties":{"desired":`+string(deep)+`}}`), "")
			wantError(t, c.id.String()+": desired", err, c.want)
			_, err = h.ReplaceTwin(c.id, json.RawMessage(`{"tags":`+string(deep)+`}`), "")
			wantError(t, c.id.String()+": tags", err, c.want)
			_, err = c.link.Report(deep, 0)
			wantError(t, c.id.String()+": reported", err, c.want)
			line := ExportImportDevice{ID: c.id.Device, ModuleID: nullable(c.id.Module), ImportMode: "updateTwin", Status: "enabled", Tags: deep}
			wantError(t, c.id.String()+": import", h.Import(line), c.want)
		}
		for content, want := range map[string]int{
			`{"deviceContent":{"properties.desired.a":[1]}}`: map[string]int{"refuse": 400402}[value],
			`{"moduleContent":{"properties.desired.a":[1]}}`: map[string]int{"refuse": 400402, "refuse-in-modules": 400402}[value],
		} {
			target := "tags.x = 1"
			if strings.Contains(content, "moduleContent") {
				target = "FROM devices.modules WHERE tags.x = 1"
			}
			_, err := h.PutConfiguration(ConfigurationRequest{ID: fmt.Sprint("c", len(content), content[2:3]), Content: json.RawMessage(content), TargetCondition: target}, "")
			wantError(t, content, err, want)
		}
	})
}

func TestChoiceTwinReplace(t *testing.T) {
	eachChoice(t, TwinReplace, func(t *testing.T, h *Hub, value string) {
		must(t)(h.PatchTwin(pi, json.RawMessage(`{"tags":{"t":1},"properties":{"desired":{"d":1}}}`), ""))
		kept := value == "keep"
		twin, err := h.ReplaceTwin(pi, json.RawMessage(`{"tags":{"u":2}}`), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, there := twin.Properties.Desired["d"]; there != kept {
			t.Errorf("desired after PUT of tags: %v", twin.Properties.Desired)
		}
		if len(twin.Tags) != 1 || fmt.Sprint(twin.Tags["u"]) != "2" {
			t.Errorf("tags after PUT of tags: %v", twin.Tags)
		}
		twin, err = h.ReplaceTwin(pi, json.RawMessage(`{"properties":{"desired":{"e":3}}}`), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, there := twin.Tags["u"]; there != kept {
			t.Errorf("tags after PUT of desired: %v", twin.Tags)
		}
		if _, there := twin.Properties.Desired["d"]; there {
			t.Errorf("desired after PUT of desired: %v", twin.Properties.Desired)
		}
	})
}

func TestChoiceReplacedDesired(t *testing.T) {
	eachChoice(t, ReplacedDesired, func(t *testing.T, h *Hub, value string) {
		must(t)(h.PatchTwin(pi, json.RawMessage(`{"properties":{"desired":{"gone":1,"o":{"x":1,"y":2}}}}`), ""))
		l, p := attach(t, h, pi, time.Hour)
		l.Want(Desired, true)
		must(t)(h.ReplaceTwin(pi, json.RawMessage(`{"properties":{"desired":{"o":{"x":1}}}}`), ""))
		want := `3 {"$version":3,"gone":null,"o":{"x":1,"y":null}}`
		if value == "document" {
			want = `3 {"$version":3,"o":{"x":1}}`
		}
		same(t, "told", p.told(), want)
		twin, err := h.Twin(pi)
		if err != nil {
			t.Fatal(err)
		}
		if meta := fmt.Sprint(twin.Properties.Desired["$metadata"]); strings.Contains(meta, "gone") || strings.Contains(meta, "y:") {
			t.Errorf("metadata of what is gone: %s", meta)
		}
	})
}

func TestChoiceMethodTimeout(t *testing.T) {
	eachChoice(t, MethodTimeout, func(t *testing.T, h *Hub, value string) {
		longest := map[string]time.Duration{"300": 300 * time.Second, "3600": time.Hour}[value]
		for _, c := range []struct {
			response, connect time.Duration
			want              int
		}{{longest, 0, 404103}, {longest, longest, 404103}, {longest + time.Second, 0, 400004}, {longest + time.Second, longest + time.Second, 400004}} {
			start := time.Now()
			_, err := h.Invoke(context.Background(), pi, MethodRequest{Name: "m", Response: c.response, Connect: c.connect})
			wantError(t, fmt.Sprint(c.response, " ", c.connect), err, c.want)
			if took := time.Since(start); c.want == 404103 && took != c.connect {
				t.Errorf("waited %v, want %v", took, c.connect)
			}
		}
		var job JobRequest
		if err := json.Unmarshal([]byte(`{"jobId":"j","type":"scheduleDeviceMethod","queryCondition":"*",
			"cloudToDeviceMethod":{"methodName":"m","responseTimeoutInSeconds":301}}`), &job); err != nil {
			t.Fatal(err)
		}
		_, err := h.ScheduleJob(job)
		wantError(t, "a job's method with 301 s", err, map[string]int{"300": 400004}[value])
	})
}

func TestChoiceUnnamedAggregate(t *testing.T) {
	eachChoice(t, UnnamedAggregate, func(t *testing.T, h *Hub, value string) {
		page, err := h.Query("SELECT status, COUNT(), MAX(version), COUNT() AS n FROM devices GROUP BY status", 0, "")
		if value == "refuse" {
			wantError(t, "without AS", err, 400004)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := string(encode(page.Items)); got != `[{"status":"enabled","$1":1,"$2":2,"n":1}]` {
			t.Error(got)
		}
	})
}

func TestChoiceModuleAggregates(t *testing.T) {
	eachChoice(t, ModuleAggregates, func(t *testing.T, h *Hub, value string) {
		page, err := h.Query("SELECT COUNT() AS n FROM devices.modules", 0, "")
		wantError(t, "of modules", err, map[string]int{"refuse": 400004}[value])
		if err == nil && string(encode(page.Items)) != `[{"n":1}]` {
			t.Errorf("%s", encode(page.Items))
		}
		if _, err := h.Query("SELECT COUNT() AS n FROM devices", 0, ""); err != nil {
			t.Errorf("of devices: %v", err)
		}
		if _, err := h.Query("SELECT moduleId FROM devices.modules", 0, ""); err != nil {
			t.Errorf("without aggregates: %v", err)
		}
	})
}

func TestChoiceBulkErrorCode(t *testing.T) {
	eachChoice(t, BulkErrorCode, func(t *testing.T, h *Hub, value string) {
		result, err := h.BulkRegistry([]ExportImportDevice{{ID: "pi-01", ImportMode: "create"}})
		if err != nil || len(result.Errors) != 1 {
			t.Fatalf("%+v, %v", result, err)
		}
		want := `"errorCode":"DeviceAlreadyExists"`
		if value == "number" {
			want = `"errorCode":409001`
		}
		if got := string(encode(result)); !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestFaultConnack(t *testing.T) {
	h := newHub(t)
	for _, f := range []Fault{{On: "connect", Do: "refuse", Connack: 6}, {On: "connect", Do: "refuse", Connack: -1}, {On: "connect", Do: "refuse", Connack: 127},
		{On: "connect", Do: "refuse", Connack: 139}, {On: "connect", Do: "refuse", Connack: 160}, {On: "connect", Do: "refuse", Connack: 261},
		{On: "connect", Do: "kick", Connack: 4}, {On: "publish", Do: "refuse", Connack: 4}} {
		wantError(t, fmt.Sprintf("%+v", f), h.AddFault(f), 400004)
	}
	for _, code := range []int{1, 2, 3, 4, 5, 128, 138, 140, 144, 149, 151, 153, 157, 159} {
		h.ClearFaults()
		if err := h.AddFault(Fault{On: "connect", Do: "refuse", Connack: code}); err != nil || h.Faults()[0].Connack != code {
			t.Errorf("%v, %+v", err, h.Faults())
		}
	}
}
