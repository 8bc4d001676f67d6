package mqttd

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/eclipse/paho.golang/packets"
)

func samplePackets5() []packets.Packet {
	user := []packets.User{{Key: "@unit", Value: "C"}, {Key: "@unit", Value: "F"}}
	return []packets.Packet{
		&packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: "d/m", CleanStart: true, KeepAlive: 60,
			WillFlag: true, WillTopic: topic5Telemetry, WillMessage: []byte("gone"), WillProperties: &packets.Properties{User: user},
			Properties: &packets.Properties{AuthMethod: "SAS", AuthData: []byte{1, 2}, SessionExpiryInterval: ptr(uint32(9)), User: user}},
		&packets.Publish{Topic: topic5Telemetry, QoS: 1, PacketID: 7, Payload: []byte("{}"),
			Properties: &packets.Properties{ContentType: "application/json", TopicAlias: ptr(uint16(3)), User: user}},
		&packets.Publish{Topic: topic5TwinGet, Payload: []byte{}, Properties: &packets.Properties{CorrelationData: []byte{0}}},
		&packets.Puback{PacketID: 7, Properties: &packets.Properties{}},
		&packets.Subscribe{PacketID: 8, Properties: &packets.Properties{},
			Subscriptions: []packets.SubOptions{{Topic: filter5Methods}, {Topic: topic5Desired, QoS: 1}}},
		&packets.Unsubscribe{PacketID: 9, Topics: []string{topic5Desired}, Properties: &packets.Properties{}},
		&packets.Pingreq{},
		&packets.Disconnect{ReasonCode: 4, Properties: &packets.Properties{SessionExpiryInterval: ptr(uint32(0))}},
		&packets.Auth{ReasonCode: 0x19, Properties: &packets.Properties{AuthMethod: "SAS", AuthData: []byte{3}}},
	}
}

func TestRoundTrip5(t *testing.T) {
	for _, p := range samplePackets5() {
		got, err := decode5(oneFrame(t, encode5(p)))
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%T:\n%+v became\n%+v, %v", p, p, got, err)
		}
	}
}

func TestShortForms5(t *testing.T) {
	for name, raw := range map[string][]byte{
		"PUBACK of two bytes":   {0x40, 2, 0, 1},
		"PUBACK of three bytes": {0x40, 3, 0, 1, 0x10},
		"DISCONNECT, empty":     {0xe0, 0},
		"DISCONNECT, code":      {0xe0, 1, 4},
		"AUTH, empty":           {0xf0, 0},
	} {
		if _, err := decode5(oneFrame(t, raw)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformed5(t *testing.T) {
	for name, raw := range map[string]string{
		"properties longer than the packet": "\x30\x05\x00\x01t\x09\x01",
		"property cut short":                "\x30\x06\x00\x01t\x02\x23\x00",
		"property of another packet":        "\x30\x07\x00\x01t\x03\x21\x00\x01",
		"property unknown":                  "\x30\x06\x00\x01t\x02\x7f\x00",
		"property twice":                    "\x30\x0a\x00\x01t\x06\x23\x00\x01\x23\x00\x02",
		"user property half":                "\x30\x08\x00\x01t\x04\x26\x00\x01a",
		"payload format 2":                  "\x30\x06\x00\x01t\x02\x01\x02",
		"text not UTF-8":                    "\x30\x08\x00\x01t\x04\x03\x00\x01\xff",
		"length of five bytes":              "\x30\x08\x00\x01t\x80\x80\x80\x80\x00",
		"QoS 3":                             "\x36\x06\x00\x01t\x00\x01\x00",
		"DUP with QoS 0":                    "\x38\x04\x00\x01t\x00",
		"packet id 0":                       "\x32\x06\x00\x01t\x00\x00\x00",
		"SUBSCRIBE without filters":         "\x82\x03\x00\x01\x00",
		"SUBSCRIBE with reserved options":   "\x82\x07\x00\x01\x00\x00\x01a\x40",
		"SUBSCRIBE with retain handling 3":  "\x82\x07\x00\x01\x00\x00\x01a\x30",
		"SUBSCRIBE with flags 0":            "\x80\x07\x00\x01\x00\x00\x01a\x00",
		"UNSUBSCRIBE without filters":       "\xa2\x03\x00\x01\x00",
		"DISCONNECT with bytes left over":   "\xe0\x03\x00\x00\x00",
		"PINGREQ with a body":               "\xc0\x01\x00",
		"AUTH with flags":                   "\xf1\x00",
		"PUBREL":                            "\x62\x02\x00\x01",
		"CONNACK":                           "\x20\x03\x00\x00\x00",
		"reserved packet type":              "\x00\x00",
		"CONNECT with the reserved flag":    "\x10\x0e\x00\x04MQTT\x05\x01\x00\x00\x00\x00\x01d",
		"CONNECT without its client id":     "\x10\x0b\x00\x04MQTT\x05\x00\x00\x00\x00",
	} {
		size, head, err := frameSize([]byte(raw))
		if err != nil || size != len(raw) {
			t.Fatalf("%s: the test's own frame has size %d of %d, %v", name, size, len(raw), err)
		}
		if p, err := decode5(frame{[]byte(raw), head}); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %+v, %v; want a malformed packet", name, p, err)
		}
	}
}

func FuzzDecode5(f *testing.F) {
	for _, p := range samplePackets5() {
		f.Add(encode5(p))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		size, head, err := frameSize(raw)
		if err != nil || size == 0 || size > len(raw) {
			return
		}
		p, err := decode5(frame{raw[:size], head})
		if err != nil {
			return
		}
		// What has been taken can be written, and says the same again.
		again := encode5(p)
		q, err := decode5(oneFrame(t, again))
		if err != nil {
			t.Fatalf("%+v, written and read: %v", p, err)
		}
		if !bytes.Equal(encode5(q), again) {
			t.Fatalf("%+v became %+v", p, q)
		}
	})
}

func BenchmarkDecodePublish5(b *testing.B) {
	f := oneFrame(b, encode5(&packets.Publish{Topic: topic5Telemetry, QoS: 1, PacketID: 7, Payload: make([]byte, 256),
		Properties: &packets.Properties{ContentType: "application/json", User: []packets.User{{Key: "message-id", Value: "3f-17"}}}}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode5(f); err != nil {
			b.Fatal(err)
		}
	}
}
