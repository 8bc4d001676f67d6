package mqttd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
	"github.com/twinbay/twinbay/simulator/mqttd"
)

// heap is what is in use, in bytes, after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools have kept for one more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// strangers are first bytes of somebody who has no credential: n picks one.
func strangers(c credential, n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	noise := make([]byte, r.IntN(300))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	three := hello{password: "SharedAccessSignature sr=x&sig=eA==&se=9999999999"}
	switch n % 10 {
	case 0:
		return noise
	case 1:
		return append([]byte{0x10}, noise...)
	case 2: // longer than a CONNECT may be
		return append([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}, noise...)
	case 3: // an identity that is not there, each time another
		c.device = fmt.Sprintf("stranger-%d", n)
		return three.packet(c)
	case 4: // a signature that is none
		return three.packet(c)
	case 5: // a packet cut short
		p := three.packet(c)
		return p[:r.IntN(len(p))]
	case 6: // one bit wrong
		p := three.packet(c)
		p[r.IntN(len(p))] ^= 1 << r.IntN(8)
		return p
	case 7: // as long as it may be
		return hello{password: string(bytes.Repeat([]byte{'x'}, 60<<10))}.packet(c)
	case 8:
		return hello{level: 3, user: string(noise)}.packet(c)
	default:
		p := c.hello5()
		p.Properties.AuthData = noise
		var b bytes.Buffer
		_, _ = p.WriteTo(&b)
		return b.Bytes()
	}
}

// timerless is an end of a net.Pipe without the timers of deadlines, which a pipe keeps after its end, as no socket does.
// Strangers end their connections themselves here.
type timerless struct{ net.Conn }

func (c timerless) SetReadDeadline(t time.Time) error {
	if time.Until(t) > 0 {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c timerless) SetWriteDeadline(t time.Time) error {
	if time.Until(t) > 0 {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// TestStrangersLeaveNothing holds that ten thousand connections of people without a credential end, leave no memory and
// no goroutine behind, and do not keep the hub from serving a device meanwhile.
func TestStrangersLeaveNothing(t *testing.T) {
	const connections, at = 10_000, 20 // at once
	h := hub.New(hub.Options{})
	if _, err := h.PutDevice(hub.Device{DeviceID: "d"}, ""); err != nil {
		t.Fatal(err)
	}
	text, err := h.ConnectionString(hub.ID{Device: "d"})
	if err != nil {
		t.Fatal(err)
	}
	c := parseCredential(t, text)
	door := mqttd.New(h, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var served sync.WaitGroup
	defer served.Wait()
	open := func() net.Conn {
		client, server := net.Pipe()
		served.Go(func() { door.ServeConn(ctx, timerless{server}) })
		return client
	}
	device := open()
	defer device.Close()
	_ = device.SetDeadline(time.Now().Add(time.Minute))
	exchange := func(say, want []byte) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := device.Write(say); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(device, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the device is answered % x, %v; want % x", got, err, want)
		}
	}
	exchange(hello{}.packet(c), []byte{0x20, 2, 0, 0})

	flood := func(from, to int) {
		var strange sync.WaitGroup
		for n := range at {
			strange.Go(func() {
				for i := from + n; i < to; i += at {
					nc := open()
					answered := make(chan struct{})
					go func() { defer close(answered); _, _ = io.Copy(io.Discard, nc) }()
					_, _ = nc.Write(strangers(c, i)) // the door may have closed by then
					_ = nc.Close()
					<-answered
				}
			})
		}
		strange.Wait()
	}
	flood(0, 500) // what is made once
	before, routines := heap(), runtime.NumGoroutine()
	for i := 500; i < connections; i += 500 {
		flood(i, i+500)
		_ = device.SetDeadline(time.Now().Add(time.Minute))
		exchange([]byte{0xc0, 0}, []byte{0xd0, 0})
		id := binary.BigEndian.AppendUint16(nil, uint16(i))
		exchange(packet(0x32, str("devices/d/messages/events/"), id, []byte("{}")), append([]byte{0x40, 2}, id...))
	}
	after := heap()
	t.Logf("heap %d KiB before, %d KiB after; goroutines %d before, %d after", before>>10, after>>10, routines, runtime.NumGoroutine())
	if after > before+512<<10 {
		t.Errorf("the heap has grown from %d to %d bytes", before, after)
	}
	if n := runtime.NumGoroutine(); n > routines+at { // those of the last connections may be on their way out
		t.Errorf("%d goroutines, and %d before", n, routines)
	}
}

// TestSlowStrangers holds that somebody who sends a byte now and then is gone after 30 s, however many there are, and
// that a device is served meanwhile.
func TestSlowStrangers(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		start := time.Now()
		const many = 200
		ends := make(chan time.Duration, many)
		for range many {
			nc, err := h.DialTLS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for _, b := range (hello{}).packet(c) {
					if _, err := nc.Write([]byte{b}); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
				_, _ = io.Copy(io.Discard, nc)
				ends <- time.Since(start)
				_ = nc.Close()
			}()
		}
		time.Sleep(29 * time.Second)
		r.open()
		synctest.Wait()
		if n := len(ends); n != 0 {
			t.Errorf("%d ended early", n)
		}
		for range many {
			if d := <-ends; d > 31*time.Second {
				t.Errorf("one stayed for %v", d)
			}
		}
		r.open()
	})
}

func TestLongestConnect(t *testing.T) {
	for _, test := range []struct {
		extra int
		ok    bool
	}{{0, true}, {1, false}} {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			c := device(t, h)
			how := hello{willTopic: "devices/pi-01/messages/events/", willMsg: "x"}
			room := 64<<10 - (len(how.packet(c)) - 3) // of a header of three bytes
			how.willMsg += string(bytes.Repeat([]byte{'x'}, room+test.extra))
			r := dial(t, h, c)
			p := how.packet(c)
			go func() { _, _ = r.Write(p) }() // which the hub may cut short
			if test.ok {
				r.expect(0x20, []byte{0, 0})
				return
			}
			r.closed()
		})
	}
}

// The same for MQTT 5: a CONNECT packet that nobody needs is cut off before it has come.
func TestConnect5TooLong(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dial5(t, h, device(t, h))
		p := r.c.hello5()
		for range 20 {
			p.Properties.User = append(p.Properties.User, packets.User{Key: "@x", Value: string(bytes.Repeat([]byte{'x'}, 4<<10))})
		}
		var b bytes.Buffer
		_, _ = p.WriteTo(&b)
		go func() { _, _ = r.Write(b.Bytes()) }()
		r.closed()
	})
}
