package mqttd

import (
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twinbay/twinbay/simulator/hub"
)

// vectors reads one of the files that both sides of the wire are tested with.
func vectors[T any](t *testing.T, name string) T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "conformance", name))
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func TestPropertyBagVectors(t *testing.T) {
	file := vectors[struct {
		Vectors []struct {
			Name, Bag          string
			Properties, System map[string]string
		}
	}](t, "propertybag.json")
	for _, v := range file.Vectors {
		properties, system := decodeBag(v.Bag)
		if !maps.Equal(properties, v.Properties) || !maps.Equal(system, v.System) {
			t.Errorf("%s: %q\n is %v %v,\nwant %v %v", v.Name, v.Bag, properties, system, v.Properties, v.System)
		}
	}
}

func TestConnectVectors(t *testing.T) {
	file := vectors[struct {
		Vectors []struct {
			Name, ClientID, User             string
			Accepted                         bool
			Host, Device, Module, APIVersion string
			ModelID                          string
		}
	}](t, "connect.json")
	for _, v := range file.Vectors {
		l, err := parseLogin(v.ClientID, v.User)
		if (err == nil) != v.Accepted {
			t.Errorf("%s: err = %v, want accepted = %v", v.Name, err, v.Accepted)
		}
		want := login{host: v.Host, id: hub.ID{Device: v.Device, Module: v.Module}, apiVersion: v.APIVersion, modelID: v.ModelID}
		if v.Accepted && l != want {
			t.Errorf("%s: %+v, want %+v", v.Name, l, want)
		}
	}
}

type topicVectors struct {
	Publish []struct {
		MQTT, Device, Module, Topic, Meaning, Bag, Rid string
		Version                                        int64
		Status                                         int
	}
	Deliver []struct {
		MQTT, Topic, Meaning, Name, Rid string
		Version                         int64
		Status                          int
	}
	Filters []struct {
		MQTT, Device, Module, Filter string
		Granted                      bool
		Code                         byte
	}
}

var meanings = map[string]verb{
	"none": verbUnknown, "telemetry": verbTelemetry, "twin-get": verbTwinGet, "report": verbReport, "method-result": verbMethodResult,
}

func TestPublishTopicVectors(t *testing.T) {
	for _, v := range vectors[topicVectors](t, "topics.json").Publish {
		if v.MQTT != "3.1.1" {
			continue // those are exact strings; the conversation tests publish on them
		}
		got := parseTopic(hub.ID{Device: v.Device, Module: v.Module}, v.Topic)
		want := request{verb: meanings[v.Meaning], bag: v.Bag, rid: v.Rid, version: v.Version, status: v.Status}
		if got.verb == verbUnknown {
			got = request{}
		}
		if got != want {
			t.Errorf("%s/%s on %q: %+v, want %+v", v.Device, v.Module, v.Topic, got, want)
		}
	}
}

func TestDeliveredTopicVectors(t *testing.T) {
	for _, v := range vectors[topicVectors](t, "topics.json").Deliver {
		var got string
		switch v.MQTT + " " + v.Meaning {
		case "3.1.1 twin-result":
			got = twinResponse(v.Status, v.Rid)
		case "3.1.1 report-result":
			got = reportedResponse(v.Status, v.Rid, v.Version)
		case "3.1.1 desired":
			got = desiredTopic(v.Version)
		case "3.1.1 method":
			got = methodTopic(v.Name, v.Rid)
		case "5 twin-result":
			got = topic5Responses
		case "5 desired":
			got = topic5Desired
		case "5 method":
			got = topic5Methods + v.Name
		}
		if got != v.Topic {
			t.Errorf("MQTT %s, %s: %q, want %q", v.MQTT, v.Meaning, got, v.Topic)
		}
	}
}

func TestFilterVectors(t *testing.T) {
	for _, v := range vectors[topicVectors](t, "topics.json").Filters {
		id := hub.ID{Device: v.Device, Module: v.Module}
		switch v.MQTT {
		case "3.1.1":
			if got := knownFilter(id, v.Filter); got != v.Granted {
				t.Errorf("%v to %q: granted = %v, want %v", id, v.Filter, got, v.Granted)
			}
		case "5":
			if got := filterCode(id, v.Filter); got != v.Code || (got <= 1) != v.Granted {
				t.Errorf("%v to %q: code %d, want %d", id, v.Filter, got, v.Code)
			}
		default:
			t.Errorf("unknown MQTT version %q", v.MQTT)
		}
	}
}

func TestDeviceboundVectors(t *testing.T) {
	file := vectors[struct {
		Vectors []struct {
			Name, Device, Module, Ack, Topic string
			System, Properties               map[string]string
			Expires                          time.Time
		}
	}](t, "devicebound.json")
	for _, v := range file.Vectors {
		m := hub.Delivery{C2D: hub.C2D{Message: hub.Message{Properties: v.Properties, System: v.System}, Expires: v.Expires, Ack: v.Ack}}
		if got := deviceboundTopic(hub.ID{Device: v.Device, Module: v.Module}, m); got != v.Topic {
			t.Errorf("%s:\n%s, want\n%s", v.Name, got, v.Topic)
		}
	}
}

// FuzzEncodeC2D holds that what is encoded can be decoded by the strictest readers and comes out as it went in.
func FuzzEncodeC2D(f *testing.F) {
	f.Add("3f-17", "k", "a/b&c=d%e+f g")
	f.Add("", "$.mid", "%zz")
	f.Fuzz(func(t *testing.T, id, key, value string) {
		m := hub.Delivery{C2D: hub.C2D{Ack: "none", Message: hub.Message{
			System:     map[string]string{"to": "/devices/d/messages/devicebound", "message-id": id},
			Properties: map[string]string{key: value},
		}}}
		bag := encodeC2D(m)
		if !strings.HasPrefix(bag, "%24.to=%2Fdevices%2Fd%2F") || strings.ContainsAny(bag, "/+# $?") {
			t.Fatalf("bag %q", bag)
		}
		last := bag[strings.LastIndex(bag, "&")+1:]
		k, v, ok := strings.Cut(last, "=")
		k1, err1 := url.PathUnescape(k)
		v1, err2 := url.PathUnescape(v)
		if !ok || err1 != nil || err2 != nil || k1 != key || v1 != value {
			t.Errorf("%q=%q comes out of %q as %q=%q", key, value, bag, k1, v1)
		}
	})
}

func TestCreationTime(t *testing.T) {
	for text, want := range map[string]string{
		"1600987195320":             "2020-09-24T22:39:55.32Z",
		"2020-09-24T22:39:55.320Z":  "2020-09-24T22:39:55.32Z",
		"2026-01-01T01:00:00+01:00": "2026-01-01T00:00:00Z",
		"yesterday":                 "",
		"-1":                        "",
		"99999999999999999":         "",
	} {
		if got, ok := creationTime(text); got != want || ok != (want != "") {
			t.Errorf("creationTime(%q) = %q, %v; want %q", text, got, ok, want)
		}
	}
}

func FuzzDecodeBag(f *testing.F) {
	f.Add("%24.mid=3f-17&a=b%2Fc&flag&=x&%&?/")
	f.Fuzz(func(t *testing.T, bag string) {
		properties, system := decodeBag(bag)
		for k, v := range properties {
			if utf8.ValidString(bag) && (!utf8.ValidString(k) || !utf8.ValidString(v)) {
				t.Errorf("%q gives %q=%q, which is not UTF-8", bag, k, v)
			}
		}
		for name := range system {
			if name == "" {
				t.Errorf("%q gives a system property without a name", bag)
			}
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	f.Add("d", "m", "devices/d/modules/m/messages/events/a=b")
	f.Add("d", "", "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=2")
	f.Add("d", "", "$iothub/methods/res/200/?$rid=1")
	f.Fuzz(func(t *testing.T, device, module, topic string) {
		_ = parseTopic(hub.ID{Device: device, Module: module}, topic)
		_ = knownFilter(hub.ID{Device: device, Module: module}, topic)
		_ = filterCode(hub.ID{Device: device, Module: module}, topic)
	})
}

func FuzzParseLogin(f *testing.F) {
	f.Add("d/m", "h/d/m/?api-version=2021-04-12")
	f.Fuzz(func(t *testing.T, clientID, user string) {
		l, err := parseLogin(clientID, user)
		if err == nil && (l.host == "" || l.id.Device == "" || l.apiVersion == "") {
			t.Errorf("%q is taken for %+v", user, l)
		}
	})
}
