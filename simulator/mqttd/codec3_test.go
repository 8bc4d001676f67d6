package mqttd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func oneFrame(t testing.TB, raw []byte) frame {
	t.Helper()
	size, head, err := frameSize(raw)
	if err != nil || size != len(raw) {
		t.Fatalf("frame of %d bytes has size %d, %v", len(raw), size, err)
	}
	return frame{raw, head}
}

// moduleConnect is the CONNECT packet of a module with SAS, put together by hand from MQTT 3.1.1, section 3.1.
func moduleConnect() []byte {
	const (
		clientID = "pi-01/bme280"
		user     = "hub1.azure-devices.net/pi-01/bme280/?api-version=2021-04-12"
	)
	password := strings.Repeat("x", 153)
	raw := []byte{0x10, 0xf0, 0x01, 0, 4, 'M', 'Q', 'T', 'T', 4, 0xc0, 0, 0xf0}
	for _, s := range []string{clientID, user, password} {
		raw = append(binary.BigEndian.AppendUint16(raw, uint16(len(s))), s...)
	}
	return raw
}

func TestConnectOfAModule(t *testing.T) {
	f := oneFrame(t, moduleConnect())
	if level, err := protocolLevel(f.body()); level != 4 || err != nil {
		t.Fatalf("level %d, %v", level, err)
	}
	p, err := decodeConnect(f.body())
	want := connect{keepAlive: 240, clientID: "pi-01/bme280",
		user: "hub1.azure-devices.net/pi-01/bme280/?api-version=2021-04-12", password: strings.Repeat("x", 153)}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestConnectWithWill(t *testing.T) {
	body := []byte("\x00\x04MQTT\x04\x2e\x00\x00\x00\x01d\x00\x01t\x00\x02hi") // clean, will with QoS 1 and retain
	p, err := decodeConnect(body)
	want := connect{clean: true, clientID: "d", will: &publish{topic: "t", qos: 1, retain: true, payload: []byte("hi")}}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestProtocolLevels(t *testing.T) {
	tests := []struct {
		body string
		want byte
	}{
		{"\x00\x04MQTT\x04", 4},
		{"\x00\x04MQTT\x05", 5},
		{"\x00\x04MQTT\x03", 0},
		{"\x00\x04MQTT\x84", 0},
		{"\x00\x06MQIsdp\x03", 0},
		{"\x00\x04mqtt\x04", 0},
	}
	for _, test := range tests {
		if got, err := protocolLevel([]byte(test.body)); got != test.want || err != nil {
			t.Errorf("protocolLevel(%q) = %d, %v; want %d", test.body, got, err, test.want)
		}
	}
	if _, err := protocolLevel([]byte("\x00\x04MQT")); !errors.Is(err, errMalformed) {
		t.Errorf("cut short: %v", err)
	}
}

func TestPublishRoundTrip(t *testing.T) {
	for _, p := range []publish{
		{topic: "devices/d/messages/events/", payload: []byte("x")},
		{topic: "a", payload: []byte{}},
		{topic: "a", qos: 1, id: 65535, dup: true, retain: true, payload: []byte("y")},
		{topic: "ü", qos: 2, id: 1, payload: bytes.Repeat([]byte{1}, 300)},
	} {
		f := oneFrame(t, appendPublish(nil, p))
		got, err := decodePublish(f.flags(), f.body())
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%+v became %+v, %v", p, got, err)
		}
	}
}

func TestPublishWithoutRoomForItsTopic(t *testing.T) {
	if got := appendPublish([]byte{1}, publish{topic: strings.Repeat("x", 65536)}); !bytes.Equal(got, []byte{1}) {
		t.Errorf("%d bytes were written for a topic that does not fit", len(got))
	}
}

// The answers have to be exactly these bytes: the C SDK reads some of them by position.
func TestServerPackets(t *testing.T) {
	tests := []struct {
		name      string
		got, want []byte
	}{
		{"CONNACK new", appendConnack(nil, false, 0), []byte{0x20, 2, 0, 0}},
		{"CONNACK session present", appendConnack(nil, true, 0), []byte{0x20, 2, 1, 0}},
		{"CONNACK refused", appendConnack(nil, true, 5), []byte{0x20, 2, 0, 5}},
		{"PUBACK", appendAck(nil, typePuback, 0x1234), []byte{0x40, 2, 0x12, 0x34}},
		{"UNSUBACK", appendAck(nil, typeUnsuback, 7), []byte{0xb0, 2, 0, 7}},
		{"SUBACK", appendSuback(nil, 7, []byte{0, 1, 0x80}), []byte{0x90, 5, 0, 7, 0, 1, 0x80}},
		{"PUBLISH", appendPublish(nil, publish{topic: "t", payload: []byte("p")}), []byte{0x30, 4, 0, 1, 't', 'p'}},
	}
	for _, test := range tests {
		if !bytes.Equal(test.got, test.want) {
			t.Errorf("%s: % x, want % x", test.name, test.got, test.want)
		}
	}
}

func TestSubscribeAndUnsubscribe(t *testing.T) {
	p, err := decodeSubscribe(2, []byte("\x00\x09\x00\x01a\x01\x00\x01b\x00"))
	if want := (subscribe{9, []filter{{"a", 1}, {"b", 0}}}); err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = decodeUnsubscribe(2, []byte("\x00\x09\x00\x01a"))
	if want := (subscribe{9, []filter{{"a", 0}}}); err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestMalformedPackets(t *testing.T) {
	only := func(_ any, err error) error { return err }
	tests := map[string]error{
		"CONNECT with the reserved flag":       only(decodeConnect([]byte("\x00\x04MQTT\x04\x01\x00\x00\x00\x01d"))),
		"CONNECT with will QoS 3":              only(decodeConnect([]byte("\x00\x04MQTT\x04\x1c\x00\x00\x00\x01d\x00\x01t\x00\x00"))),
		"CONNECT with will QoS and no will":    only(decodeConnect([]byte("\x00\x04MQTT\x04\x08\x00\x00\x00\x01d"))),
		"CONNECT with password and no user":    only(decodeConnect([]byte("\x00\x04MQTT\x04\x40\x00\x00\x00\x01d\x00\x01p"))),
		"CONNECT cut in the client id":         only(decodeConnect([]byte("\x00\x04MQTT\x04\x00\x00\x00\x00\x05d"))),
		"CONNECT with bytes left over":         only(decodeConnect([]byte("\x00\x04MQTT\x04\x00\x00\x00\x00\x01dx"))),
		"CONNECT with NUL in the client id":    only(decodeConnect([]byte("\x00\x04MQTT\x04\x00\x00\x00\x00\x01\x00"))),
		"CONNECT with a client id not UTF-8":   only(decodeConnect([]byte("\x00\x04MQTT\x04\x00\x00\x00\x00\x01\xff"))),
		"PUBLISH with QoS 3":                   only(decodePublish(6, []byte("\x00\x01t\x00\x01"))),
		"PUBLISH with QoS 0 and DUP":           only(decodePublish(8, []byte("\x00\x01t"))),
		"PUBLISH with packet id 0":             only(decodePublish(2, []byte("\x00\x01t\x00\x00"))),
		"PUBLISH without its packet id":        only(decodePublish(2, []byte("\x00\x01t\x00"))),
		"PUBLISH cut in the topic":             only(decodePublish(0, []byte("\x00\x02t"))),
		"SUBSCRIBE with flags 0":               only(decodeSubscribe(0, []byte("\x00\x01\x00\x01a\x00"))),
		"SUBSCRIBE without filters":            only(decodeSubscribe(2, []byte("\x00\x01"))),
		"SUBSCRIBE with QoS 3":                 only(decodeSubscribe(2, []byte("\x00\x01\x00\x01a\x03"))),
		"SUBSCRIBE with packet id 0":           only(decodeSubscribe(2, []byte("\x00\x00\x00\x01a\x00"))),
		"SUBSCRIBE cut before the QoS":         only(decodeSubscribe(2, []byte("\x00\x01\x00\x01a"))),
		"UNSUBSCRIBE with flags 0":             only(decodeUnsubscribe(0, []byte("\x00\x01\x00\x01a"))),
		"UNSUBSCRIBE without filters":          only(decodeUnsubscribe(2, []byte("\x00\x01"))),
		"PUBACK with flags":                    only(decodePuback(2, []byte{0, 1})),
		"PUBACK of three bytes":                only(decodePuback(0, []byte{0, 1, 0})),
		"PINGREQ or DISCONNECT with a body":    decodeEmpty(0, []byte{0}),
		"PINGREQ or DISCONNECT with flags set": decodeEmpty(1, nil),
	}
	for name, err := range tests {
		if !errors.Is(err, errMalformed) {
			t.Errorf("%s: err = %v, want a malformed packet", name, err)
		}
	}
}

func FuzzDecode3(f *testing.F) {
	f.Add(moduleConnect())
	f.Add([]byte("\x10\x17\x00\x04MQTT\x04\x2e\x00\x00\x00\x01d\x00\x01t\x00\x02hi"))
	f.Add(appendPublish(nil, publish{topic: "devices/d/messages/events/a=b", qos: 1, id: 3, payload: []byte("{}")}))
	f.Add([]byte("\x82\x0a\x00\x09\x00\x01a\x01\x00\x01b\x00"))
	f.Add([]byte("\xa2\x05\x00\x09\x00\x01a"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		size, head, err := frameSize(raw)
		if err != nil || size == 0 || size > len(raw) {
			return
		}
		fr := frame{raw[:size], head}
		switch fr.kind() {
		case typeConnect:
			_, _ = protocolLevel(fr.body())
			_, _ = decodeConnect(fr.body())
		case typePublish:
			p, err := decodePublish(fr.flags(), fr.body())
			if err != nil {
				return
			}
			again := oneFrame(t, appendPublish(nil, p))
			q, err := decodePublish(again.flags(), again.body())
			if err != nil || q.topic != p.topic || q.id != p.id || !bytes.Equal(q.payload, p.payload) {
				t.Fatalf("%+v became %+v, %v", p, q, err)
			}
		case typeSubscribe:
			_, _ = decodeSubscribe(fr.flags(), fr.body())
		case typeUnsubscribe:
			_, _ = decodeUnsubscribe(fr.flags(), fr.body())
		case typePuback:
			_, _ = decodePuback(fr.flags(), fr.body())
		}
	})
}

func BenchmarkDecodePublish(b *testing.B) {
	raw := appendPublish(nil, publish{topic: "devices/pi-01/modules/bme280/messages/events/%24.mid=3f-17&%24.ct=application%2Fjson", qos: 1, id: 7, payload: make([]byte, 256)})
	f := oneFrame(b, raw)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodePublish(f.flags(), f.body()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	p := publish{topic: "$iothub/twin/res/200/?$rid=17", payload: make([]byte, 256)}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = appendPublish(buf[:0], p)
	}
}
