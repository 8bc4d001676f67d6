package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// target is an MQTT 3.1.1 server over TLS: the simulated hub, or the broker that it is compared with.
type target struct {
	name    string
	address string
	tls     *tls.Config
	pid     int
	user    func(device string) (user, password string) // nil where anybody may connect
}

// patience of a load's connections: longer than any part of the bench.
const connectionLimit = 3 * time.Minute

// dial connects a device: TLS, CONNECT and CONNACK.
func (t *target) dial(ctx context.Context, device string) (net.Conn, error) {
	d := tls.Dialer{Config: t.tls}
	nc, err := d.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", t.name, err)
	}
	err = t.greet(nc, device)
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("MQTT connect of %s to %s: %w", device, t.name, err)
	}
	return nc, nil
}

func (t *target) greet(nc net.Conn, device string) error {
	if err := nc.SetDeadline(time.Now().Add(connectionLimit)); err != nil {
		return err
	}
	flags, payload := byte(0x02), mqttText(device) // a clean session
	if t.user != nil {
		user, password := t.user(device)
		flags |= 0xc0
		payload = slices.Concat(payload, mqttText(user), mqttText(password))
	}
	const keepAlive = 1200 // s
	body := slices.Concat(mqttText("MQTT"), []byte{4, flags, keepAlive >> 8, keepAlive & 0xff}, payload)
	if _, err := nc.Write(mqttPacket(0x10, body)); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(nc, answer[:]); err != nil {
		return fmt.Errorf("no CONNACK: %w", err)
	}
	if answer[3] != 0 {
		return fmt.Errorf("CONNACK %d", answer[3])
	}
	return nil
}

// behave does what a device does before it falls silent: it subscribes, gets its twin and sends a message.
func behave(nc net.Conn, device string) error {
	filters := []string{"$iothub/methods/POST/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"}
	subscribe := []byte{0, 1} // packet id
	for _, f := range filters {
		subscribe = append(append(subscribe, mqttText(f)...), 0)
	}
	telemetry := slices.Concat(mqttText("devices/"+device+"/messages/events/"), []byte{0, 2}, []byte(`{"temperature_c":6.5}`))
	for _, step := range []struct {
		what   string
		packet []byte
		answer byte // the first of its bytes
	}{
		{"SUBSCRIBE", mqttPacket(0x82, subscribe), 0x90},
		{"GET of the twin", mqttPacket(0x30, mqttText("$iothub/twin/GET/?$rid=1")), 0x30},
		{"telemetry", mqttPacket(0x32, telemetry), 0x40},
	} {
		if _, err := nc.Write(step.packet); err != nil {
			return err
		}
		var answer [1024]byte // of less than 128 bytes, in one TLS record
		n, err := nc.Read(answer[:])
		if err != nil || n < 2 || answer[0] != step.answer {
			return fmt.Errorf("%s of %s is answered by % x, %w", step.what, device, answer[:n], err)
		}
	}
	return nil
}

// mqttText and mqttPacket are of MQTT 3.1.1, sections 1.5.3 and 2.2.
func mqttText(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func mqttPacket(head byte, body []byte) []byte {
	p := []byte{head}
	n := len(body)
	for n >= 0x80 {
		p = append(p, byte(n)|0x80)
		n >>= 7
	}
	return append(append(p, byte(n)), body...)
}

// connectAll opens so many connections, a few at once: the handshakes are the work of both sides.
func (t *target) connectAll(ctx context.Context, device func(int) string, n int) ([]net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns := make([]net.Conn, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				nc, err := t.dial(ctx, device(i))
				if err != nil {
					cancel(err)
					return
				}
				conns[i] = nc
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		closeAll(conns)
		return nil, context.Cause(ctx)
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, nc := range conns {
		if nc != nil {
			_ = nc.Close()
		}
	}
}

const (
	loadWindow = 4   // messages in flight on each connection
	loadBody   = 256 // bytes
)

// throughput is what a server has done with a load.
type throughput struct {
	messages int64
	took     time.Duration
	cpu      time.Duration // of the server's process
}

func (a throughput) plus(b throughput) throughput {
	return throughput{a.messages + b.messages, a.took + b.took, a.cpu + b.cpu}
}

func (a throughput) perSecond() float64 { return float64(a.messages) / a.took.Seconds() }

func (a throughput) cpuPerMessage() float64 { // µs
	return float64(a.cpu.Microseconds()) / float64(max(a.messages, 1))
}

// load sends telemetry with QoS 1 on all connections for a while, and counts the messages that the server has acknowledged.
// Everything in flight has been acknowledged when it returns, so that it can be called again.
func (t *target) load(conns []net.Conn, devices func(int) string, d time.Duration) (throughput, error) {
	before, err := cpuTime(t.pid)
	if err != nil {
		return throughput{}, err
	}
	begin := time.Now()
	end := begin.Add(d)
	var all atomic.Int64
	failed := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, nc := range conns {
		wg.Go(func() {
			n, err := pump(nc, "devices/"+devices(i)+"/messages/events/", end)
			all.Add(n)
			failed[i] = err
		})
	}
	wg.Wait()
	took := time.Since(begin)
	after, err := cpuTime(t.pid)
	return throughput{all.Load(), took, after - before}, errors.Join(append(failed, err)...)
}

// pump keeps a window of messages in flight until end: what a read brings of acknowledgements is sent anew with one write.
func pump(nc net.Conn, topic string, end time.Time) (acknowledged int64, err error) {
	body := make([]byte, 0, loadBody)
	body = append(body, `{"text":"`...)
	for len(body) < loadBody-2 {
		body = append(body, 'x')
	}
	body = append(body, `"}`...)
	message := mqttPacket(0x32, slices.Concat(mqttText(topic), []byte{0, 1}, body))
	burst := make([]byte, 0, loadWindow*len(message))
	for i := range loadWindow {
		id := len(burst) + len(message) - loadBody - 2
		burst = append(burst, message...)
		burst[id+1] = byte(i + 1)
	}
	if _, err := nc.Write(burst); err != nil {
		return 0, err
	}
	const puback = 4 // bytes
	var in [loadWindow * puback]byte
	have := 0
	for flying := loadWindow; flying > 0; {
		n, err := nc.Read(in[have:])
		if err != nil {
			return acknowledged, err
		}
		have += n
		whole := have / puback
		burst = burst[:0]
		for i := range whole {
			ack := in[i*puback : (i+1)*puback]
			if ack[0] != 0x40 || ack[1] != 2 {
				return acknowledged, fmt.Errorf("% x is no PUBACK", ack)
			}
			at := len(burst) + len(message) - loadBody - 2
			burst = append(burst, message...)
			copy(burst[at:], ack[2:])
		}
		have = copy(in[:], in[whole*puback:have])
		acknowledged += int64(whole)
		flying -= whole
		if whole > 0 && time.Now().Before(end) {
			if _, err := nc.Write(burst); err != nil {
				return acknowledged, err
			}
			flying += whole
		}
	}
	return acknowledged, nil
}
