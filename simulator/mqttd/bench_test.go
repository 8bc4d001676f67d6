package mqttd_test

import (
	"bufio"
	"io"
	"testing"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hubtest"
)

// telemetryBench sends b.N messages of 256 B with at most 64 of them unacknowledged, over TLS in memory.
func telemetryBench(b *testing.B, r *raw, message []byte, ack int) {
	const window = 64
	free := make(chan struct{}, window)
	for range window {
		free <- struct{}{}
	}
	done := make(chan error, 1)
	go func() {
		in := bufio.NewReader(r)
		buf := make([]byte, ack)
		for range b.N {
			if _, err := io.ReadFull(in, buf); err != nil {
				done <- err
				return
			}
			free <- struct{}{}
		}
		done <- nil
	}()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		<-free
		if _, err := r.Write(message); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func BenchmarkTelemetry3(b *testing.B) {
	h := hubtest.New(b)
	c := module(b, h)
	r := connect(b, h, c, hello{}, 0)
	topic := c.base() + "/messages/events/%24.mid=3f-17&%24.ct=application%2Fjson"
	telemetryBench(b, r, packet(0x32, str(topic), u16(1), make([]byte, 256)), 4)
}

func BenchmarkTelemetry5(b *testing.B) {
	h := hubtest.New(b)
	c := module(b, h)
	r, _ := connect5(b, h, c, c.hello5())
	topic, id := str("$iothub/telemetry"), u16(1)
	properties := (&packets.Properties{ContentType: "application/json", User: user("message-id", "3f-17")}).Pack(packets.PUBLISH)
	message := packet(0x32, topic, id, []byte{byte(len(properties))}, properties, make([]byte, 256))
	telemetryBench(b, r.raw, message, 6)
}

// BenchmarkConnect is TLS, CONNECT and CONNACK.
func BenchmarkConnect(b *testing.B) {
	h := hubtest.New(b)
	c := module(b, h)
	hi := hello{}.packet(c)
	b.ReportAllocs()
	for b.Loop() {
		nc, err := h.DialTLS(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Write(hi); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(nc, make([]byte, 4)); err != nil {
			b.Fatal(err)
		}
		_ = nc.Close()
	}
}
