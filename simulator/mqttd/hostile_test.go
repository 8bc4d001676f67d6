package mqttd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/mqttd"
)

// fuzzHub is a hub with one device, without TLS.
func fuzzHub(f *testing.F) (*hub.Hub, credential) {
	h := hub.New(hub.Options{ModuleLimit: 1})
	if _, err := h.PutDevice(hub.Device{DeviceID: "d"}, ""); err != nil {
		f.Fatal(err)
	}
	text, err := h.ConnectionString(hub.ID{Device: "d"})
	if err != nil {
		f.Fatal(err)
	}
	return h, parseCredential(f, text)
}

// pour gives a door these bytes and takes whatever it answers. The door must have ended by then.
func pour(t *testing.T, door *mqttd.Server, stream []byte) {
	client, server := net.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		door.ServeConn(ctx, server)
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, client)
	}()
	_, err := client.Write(stream)
	if err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write: %v", err)
	}
	_ = client.Close()
	<-read
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("the door still serves a connection that has ended")
	}
}

func FuzzFirstBytes(f *testing.F) {
	h, c := fuzzHub(f)
	var five bytes.Buffer
	_, _ = c.hello5().WriteTo(&five)
	f.Add(hello{}.packet(c))
	f.Add(five.Bytes())
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		pour(t, mqttd.New(h, nil), stream)
	})
}

func FuzzConversation(f *testing.F) {
	h, c := fuzzHub(f)
	for _, p := range [][]byte{
		packet(0x32, str("devices/d/messages/events/a=b"), u16(1), []byte("{}")),
		packet(0x82, u16(1), str("$iothub/twin/res/#"), []byte{1}),
		packet(0x30, str("$iothub/twin/GET/?$rid=1")),
		packet(0x30, str("$iothub/twin/PATCH/properties/reported/?$rid=1"), []byte(`{"a":1}`)),
		packet(0x30, str("$iothub/methods/res/200/?$rid=1"), []byte(`{"a":1}`)),
		packet(0xa2, u16(1), str("$iothub/twin/res/#")),
		append(packet(0x82, u16(1), str("devices/d/messages/devicebound/#"), []byte{1}), 0x40, 2, 0, 1),
	} {
		f.Add(false, p)
	}
	pr := &packets.Properties{CorrelationData: []byte{1}, User: user("@a", "b")}
	for _, p := range []packets.Packet{
		&packets.Publish{Topic: "$iothub/telemetry", QoS: 1, PacketID: 1, Payload: []byte("{}"), Properties: pr},
		&packets.Publish{Topic: "$iothub/twin/get", Properties: pr},
		&packets.Publish{Topic: "$iothub/twin/patch/reported", Payload: []byte(`{"a":1}`), Properties: pr},
		&packets.Publish{Topic: "$iothub/responses", Properties: pr},
		&packets.Subscribe{PacketID: 1, Properties: &packets.Properties{}, Subscriptions: []packets.SubOptions{{Topic: "$iothub/methods/+"}}},
		&packets.Unsubscribe{PacketID: 1, Properties: &packets.Properties{}, Topics: []string{"$iothub/methods/+"}},
		&packets.Subscribe{PacketID: 1, Properties: &packets.Properties{}, Subscriptions: []packets.SubOptions{{Topic: "$iothub/commands", QoS: 1}}},
		&packets.Puback{PacketID: 1, ReasonCode: 131, Properties: &packets.Properties{User: user("status", "0603")}},
		&packets.Auth{ReasonCode: 0x19, Properties: &packets.Properties{AuthMethod: "SAS", AuthData: []byte{1}}},
		&packets.Disconnect{Properties: &packets.Properties{}},
	} {
		var b bytes.Buffer
		_, _ = p.WriteTo(&b)
		f.Add(true, b.Bytes())
	}
	f.Fuzz(func(t *testing.T, five bool, rest []byte) {
		if _, err := h.PurgeC2D(hub.ID{Device: "d"}); err != nil {
			t.Fatal(err)
		}
		for range 3 { // something to deliver
			if err := h.SendC2D(hub.ID{Device: "d"}, hub.C2D{Ack: "full"}); err != nil {
				t.Fatal(err)
			}
		}
		var first bytes.Buffer
		if five {
			_, _ = c.hello5().WriteTo(&first)
		} else {
			first.Write(hello{}.packet(c))
		}
		pour(t, mqttd.New(h, nil), append(first.Bytes(), rest...))
	})
}
