package mqtt3

import (
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
)

func vectors(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile("../../../simulator/conformance/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestPropertyBagVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			Name, Bag          string
			Properties, System map[string]string
			Canonical          bool
		}
	}
	vectors(t, "propertybag.json", &file)
	const fixed = "%24.ce=utf-8&%24.ct=application%2Fjson"
	checked := 0
	for _, v := range file.Vectors {
		m := iothub.Message{Properties: v.Properties, ID: v.System["message-id"]}
		for name, value := range v.System {
			switch name {
			case "message-id", "content-type", "content-encoding":
			case "iothub-creation-time-utc":
				at, err := time.Parse(time.RFC3339, value)
				if err != nil {
					t.Fatal(err)
				}
				m.Created = at
			default:
				v.Canonical = false // a property that the agent never sends
			}
		}
		if !v.Canonical {
			continue
		}
		// The agent always says what a body is; not all vectors do.
		want := strings.TrimSuffix(fixed+"&"+strings.TrimPrefix(strings.TrimPrefix(v.Bag, fixed), "&"), "&")
		var b strings.Builder
		if writeBag(&b, m); b.String() != want {
			t.Errorf("%s: %s, want %s", v.Name, b.String(), want)
		}
		checked++
	}
	if checked < 10 {
		t.Errorf("only %d vectors were checked", checked)
	}
}

func TestTopicVectors(t *testing.T) {
	var file struct {
		Publish []struct{ MQTT, Device, Module, Topic, Meaning, RID, Bag string }
		Deliver []struct {
			MQTT, Topic, Meaning, RID, Name string
			Status                          int
			Version                         int64
		}
		Filters []struct {
			MQTT, Device, Module, Filter string
			Granted                      bool
		}
	}
	vectors(t, "topics.json", &file)
	published := map[string]bool{}
	for _, v := range file.Publish {
		published[v.Topic] = published[v.Topic] || v.MQTT == "3.1.1" && v.Meaning != "none"
	}
	for _, topic := range []string{
		twinGetTopic("7"), reportedTopic("8"), methodAnswerTopic(200, "9"),
		strings.SplitAfter(telemetryTopic(identity.ID{Device: "pi-01"}, iothub.Message{}), "events/")[0],
		strings.SplitAfter(telemetryTopic(identity.ID{Device: "pi-01", Module: "bme280"}, iothub.Message{}), "events/")[0],
		strings.SplitAfter(telemetryTopic(identity.ID{Device: "a%2Fb+c"}, iothub.Message{}), "events/")[0],
	} {
		if !published[topic] {
			t.Errorf("%s is no topic of the vectors", topic)
		}
	}
	kinds := map[string]kind{"twin-result": answer, "report-result": answer, "desired": desired, "method": method}
	for _, v := range file.Deliver {
		if v.MQTT != "3.1.1" {
			continue
		}
		in, err := parseTopic(v.Topic)
		want := incoming{kind: kinds[v.Meaning], status: v.Status, rid: v.RID, version: v.Version, name: v.Name}
		if err != nil || in != want || want.kind == unknown {
			t.Errorf("%s: %+v, %v, want %+v", v.Topic, in, err, want)
		}
	}
	granted := map[string]bool{}
	for _, v := range file.Filters {
		if v.MQTT == "3.1.1" && v.Module != "" && v.Granted {
			granted[v.Filter] = true
		}
	}
	for filter := range filters {
		if !granted[filter] {
			t.Errorf("filter %s is not granted by the vectors", filter)
		}
	}
}

func TestUserNameVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			User, Host, Device, Module string
			Documented                 bool
		}
	}
	vectors(t, "connect.json", &file)
	checked := 0
	for _, v := range file.Vectors {
		if !v.Documented {
			continue
		}
		checked++
		got := userName(v.Host, identity.ID{Device: v.Device, Module: v.Module})
		if got != v.User+"&DeviceClientType=twinbay%2F1" {
			t.Errorf("user name %s, want %s and a client type", got, v.User)
		}
	}
	if checked < 2 {
		t.Errorf("only %d vectors are documented", checked)
	}
}

func TestMalformedTopics(t *testing.T) {
	for _, topic := range []string{
		"$iothub/twin/res/200", "$iothub/twin/res/200/", "$iothub/twin/res/200/?", "$iothub/twin/res/200/?$version=3",
		"$iothub/twin/res/20/?$rid=1", "$iothub/twin/res/ok/?$rid=1", "$iothub/twin/res/-20/?$rid=1",
		"$iothub/twin/res/204/?$rid=1&$version=x", "$iothub/twin/res/204/?$rid=1&$version=99999999999999999999",
		"$iothub/twin/PATCH/properties/desired/", "$iothub/twin/PATCH/properties/desired/x/?$version=1",
		"$iothub/twin/PATCH/properties/desired/?$version=-1",
		"$iothub/methods/POST/?$rid=1", "$iothub/methods/POST/a/b/?$rid=1", "$iothub/methods/POST/a/?rid=1",
	} {
		if in, err := parseTopic(topic); err == nil {
			t.Errorf("%s: %+v, want an error", topic, in)
		}
	}
	for _, topic := range []string{"", "devices/d/modules/m/inputs/i/%24.mid=1", "$iothub/other"} {
		if in, err := parseTopic(topic); err != nil || in.kind != unknown {
			t.Errorf("%s: %+v, %v, want nothing known", topic, in, err)
		}
	}
}

func TestDeviceboundVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			Name, Device, Module, Topic, Ack, Expires string
			System, Properties                        map[string]string
		}
	}
	vectors(t, "devicebound.json", &file)
	for _, v := range file.Vectors {
		in, err := parseTopic(v.Topic)
		if err != nil || in.kind != cloud {
			t.Errorf("%s: %+v, %v", v.Name, in, err)
			continue
		}
		properties, system := readBag(in.bag)
		if system["iothub-ack"] != v.Ack || v.Expires != "" && !strings.HasPrefix(system["expiry"], strings.TrimSuffix(v.Expires, "Z")) {
			t.Errorf("%s: %v", v.Name, system)
		}
		delete(system, "iothub-ack")
		delete(system, "expiry")
		if !maps.Equal(properties, v.Properties) || !maps.Equal(system, v.System) {
			t.Errorf("%s: %v and %v, want %v and %v", v.Name, properties, system, v.Properties, v.System)
		}
	}
	if len(file.Vectors) < 5 {
		t.Errorf("only %d vectors", len(file.Vectors))
	}
}

// FuzzReadBag reads a bag that nobody has checked: it has no errors, and answers text alone.
func FuzzReadBag(f *testing.F) {
	f.Add("%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&%24.mid=1&iothub-ack=none&a=b")
	f.Add("%zz=%&=&&%ff")
	f.Fuzz(func(t *testing.T, bag string) {
		properties, system := readBag(bag)
		for _, m := range []map[string]string{properties, system} {
			for k, v := range m {
				if !utf8.ValidString(k) || !utf8.ValidString(v) {
					t.Errorf("%q: %q=%q", bag, k, v)
				}
			}
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	f.Add("$iothub/twin/res/204/?$rid=8&$version=5")
	f.Add("$iothub/methods/POST/reboot/?$rid=1f")
	f.Add("$iothub/twin/PATCH/properties/desired/?$version=12")
	f.Fuzz(func(t *testing.T, topic string) {
		in, err := parseTopic(topic)
		if err != nil || in.kind == unknown {
			return
		}
		if in.version < 0 || in.kind == answer && (in.status < 100 || in.status > 999) || in.kind != desired && in.kind != cloud && in.rid == "" {
			t.Errorf("%q: %+v", topic, in)
		}
	})
}

func FuzzBag(f *testing.F) {
	f.Add("alarm", "a&b=c/d %+", "e-1")
	f.Add("$.mid", "#", "")
	f.Add("\x00", "\xff", "ü")
	f.Fuzz(func(t *testing.T, name, value, id string) {
		var b strings.Builder
		writeBag(&b, iothub.Message{ID: id, Properties: map[string]string{name: value}})
		if strings.ContainsAny(b.String(), "+#/ \x00") {
			t.Errorf("%q is no topic", b.String())
		}
		// Percent-decoding, as the hub does it, gives back what went in.
		got := map[string]string{}
		for pair := range strings.SplitSeq(b.String(), "&") {
			k, v, _ := strings.Cut(pair, "=")
			k, err1 := url.PathUnescape(k)
			v, err2 := url.PathUnescape(v)
			if err1 != nil || err2 != nil {
				t.Fatalf("%q: %v, %v", b.String(), err1, err2)
			}
			got[k] = v
		}
		if v, ok := got[name]; (!ok || v != value) && !strings.HasPrefix(name, "$.") {
			t.Errorf("%q=%q came back as %q (%v)", name, value, v, got)
		}
	})
}
