package iothub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/simulator/hub"
)

// keepPublishing publishes numbered messages from several goroutines until each has been acknowledged, and answers how
// many calls failed.
func keepPublishing(o *owner, messages, goroutines int) (failed int) {
	var wg sync.WaitGroup
	var failures, next atomic.Int64
	for range goroutines {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(messages) {
					return
				}
				for {
					err := o.publish(fmt.Sprint("n", n))
					if err == nil {
						break
					}
					failures.Add(1)
					if !errors.Is(err, iothub.ErrOffline) {
						o.t.Errorf("message %d: %v, want ErrOffline", n, err)
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	return int(failures.Load())
}

// arrived counts the telemetry of an identity by message id.
func (b *bench) arrived(id hub.ID) map[string]int {
	synctest.Wait()
	n := map[string]int{}
	for _, e := range b.Events() {
		if of(id, "telemetry")(e) {
			n[e.System["message-id"]]++
		}
	}
	return n
}

// readEvents takes what the session says for as long as the test goes on.
func (o *owner) readEvents() { go drainEvents(o.t.(*testing.T), o) }

func TestKickedMidPublish(t *testing.T) {
	for _, on := range []string{"publish", "puback"} { // before the hub has taken the message, and after
		t.Run(on, func(t *testing.T) {
			everyWire(t, func(t *testing.T, b *bench) {
				o := b.module(t, "d", "m")
				o.readEvents()
				random := rand.New(rand.NewPCG(1, 2))
				for range 10 {
					b.Fault(hub.Fault{On: on, Who: "d/m", After: 20 + random.IntN(150), Times: 1, Do: "kick"})
				}
				const messages = 200
				failed := keepPublishing(o, messages, 40)
				got := b.arrived(o.id)
				for n := range messages {
					if got[fmt.Sprint("n", n+1)] == 0 {
						t.Errorf("message %d was acknowledged and has not arrived", n+1)
					}
				}
				if failed == 0 || o.Status().Reconnects < 3 {
					t.Errorf("%d failures and %d reconnects: the faults did not act", failed, o.Status().Reconnects)
				}
			})
		})
	}
}

func TestAtMost32MessagesAreInFlight(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		b.Fault(hub.Fault{On: "puback", Do: "drop", Times: 1000})
		done := make(chan error, 100)
		for n := range 100 {
			go func() { done <- o.publish(fmt.Sprint(n)) }()
		}
		time.Sleep(time.Second)
		want := iothub.MaxInFlight
		if b.name == "5" {
			want = 16 // the hub's Receive Maximum
		}
		if got := len(b.arrived(o.id)); got != want {
			t.Errorf("%d messages are in flight, want %d", got, want)
		}
		for range 100 {
			mustBe(t, "publish", <-done, iothub.ErrOffline)
		}
	})
}

func TestSilentHubIsFoundByItsDebts(t *testing.T) {
	for _, test := range []struct {
		on   string
		call func(o *owner) error
	}{
		{"publish", func(o *owner) error { return o.publish("1") }},
		{"twin-get", func(o *owner) error { _, err := o.Twin(o.t.Context()); return err }},
		{"report", func(o *owner) error {
			_, err := o.Report(o.t.Context(), json.RawMessage(`{"a":1}`))
			return err
		}},
	} {
		t.Run(test.on, func(t *testing.T) {
			everyWire(t, func(t *testing.T, b *bench) {
				o := b.module(t, "d", "m")
				b.Fault(hub.Fault{On: test.on, Times: 1, Do: "drop"})
				start := time.Now()
				mustBe(t, test.on, test.call(o), iothub.ErrOffline)
				o.down()
				if took := time.Since(start); took > 15*time.Second {
					t.Errorf("it took %v to find out", took)
				}
				o.up()
				if err := test.call(o); err != nil {
					t.Errorf("after the reconnect: %v", err)
				}
			})
		})
	}
}

// hole is a connection that can stop to carry anything, as when a cable is cut or a router forgets it.
type hole struct {
	net.Conn
	cut    chan struct{}
	closed chan struct{}
	once   sync.Once
	stall  bool // writes block, as with full buffers, in place of vanishing
}

func (h *hole) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	select {
	case <-h.cut:
		<-h.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (h *hole) Write(p []byte) (int, error) {
	select {
	case <-h.cut:
		if h.stall {
			<-h.closed
			return 0, net.ErrClosed
		}
		return len(p), nil
	default:
		return h.Conn.Write(p)
	}
}

func (h *hole) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Conn.Close()
}

func TestR12_HalfOpenLinkIsFound(t *testing.T) {
	for _, stall := range []bool{false, true} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("stall=%v,busy=%v", stall, busy), func(t *testing.T) {
				everyWire(t, func(t *testing.T, b *bench) {
					var holes []*hole
					o := b.session(t, b.Module("d", "m"), func(ctx context.Context) (net.Conn, error) {
						c, err := b.DialTLS(ctx)
						if err != nil {
							return nil, err
						}
						h := &hole{Conn: c, cut: make(chan struct{}), closed: make(chan struct{}), stall: stall}
						holes = append(holes, h)
						return h, nil
					})
					o.up()
					time.Sleep(time.Minute)
					close(holes[0].cut)
					start, limit := time.Now(), 45*time.Second
					if busy {
						limit = 15 * time.Second
						big := iothub.Message{ID: "1", Body: bytes.Repeat([]byte(" "), 1000)}
						mustBe(t, "publish", o.Publish(t.Context(), big), iothub.ErrOffline)
					}
					o.down()
					if took := time.Since(start); took > limit {
						t.Errorf("it took %v to find out", took)
					}
					o.up()
				})
			})
		}
	}
}

func TestStopOfAStalledConnectionIsQuick(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		var h *hole
		o := b.session(t, b.Module("d", "m"), func(ctx context.Context) (net.Conn, error) {
			c, err := b.DialTLS(ctx)
			h = &hole{Conn: c, cut: make(chan struct{}), closed: make(chan struct{}), stall: true}
			return h, err
		})
		o.up()
		close(h.cut)
		go func() { _ = o.publish("1") }()
		synctest.Wait()
		o.stop() // checks the time
	})
}

func TestConnectWithoutAnAnswer(t *testing.T) {
	for _, on := range []string{"connect", "subscribe"} {
		t.Run(on, func(t *testing.T) {
			everyWire(t, func(t *testing.T, b *bench) {
				b.Fault(hub.Fault{On: on, Times: 1, Do: "drop"})
				start := time.Now()
				o := b.session(t, b.Module("d", "m"), nil)
				down := o.down()
				if took := time.Since(start); took > 31*time.Second {
					t.Errorf("it took %v to give up", took)
				}
				if errors.Is(down.Err, iothub.ErrUnauthorized) {
					t.Errorf("silence is taken for a refusal: %v", down.Err)
				}
				o.up()
			})
		})
	}
}

func TestKickedWhileConnecting(t *testing.T) {
	for _, on := range []string{"connect", "subscribe"} {
		t.Run(on, func(t *testing.T) {
			everyWire(t, func(t *testing.T, b *bench) {
				b.Fault(hub.Fault{On: on, Times: 2, Do: "kick"})
				o := b.session(t, b.Module("d", "m"), nil)
				start := time.Now()
				err := o.recover()
				if !strings.Contains(err.Error(), "closed the connection") {
					t.Errorf("error = %v", err)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestThrottledAndRefused(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		b.Fault(hub.Fault{On: "twin-get", Times: 1, Do: "throttle"})
		b.Fault(hub.Fault{On: "report", Times: 1, Do: "refuse"})
		_, err := o.Twin(t.Context())
		mustBe(t, "twin", err, iothub.ErrThrottled)
		_, err = o.Report(t.Context(), json.RawMessage(`{"a":1}`))
		mustBe(t, "report", err, iothub.ErrRejected)
		if !strings.Contains(err.Error(), "fault rule refuses") {
			t.Errorf("the hub's own words are lost: %v", err)
		}
		_, err = o.Report(t.Context(), json.RawMessage(`{"$version":1}`))
		mustBe(t, "a report that no hub takes", err, iothub.ErrRejected)

		b.Fault(hub.Fault{On: "publish", Times: 1, Do: "throttle"})
		err = o.publish("1")
		if b.name == "5" { // 3.1.1 has no way to say so: the hub closes the connection
			mustBe(t, "publish", err, iothub.ErrThrottled)
			b.Fault(hub.Fault{On: "publish", Times: 1, Do: "refuse"})
			mustBe(t, "publish", o.publish("1"), iothub.ErrRejected)
		} else {
			mustBe(t, "publish", err, iothub.ErrOffline)
			o.recover()
		}
		if err := o.publish("2"); err != nil {
			t.Error(err)
		}
	})
}

func TestLargeMessages(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		send := func(size int) error {
			body := append(bytes.Repeat([]byte("1"), size-2), '.', '5')
			return o.Publish(t.Context(), iothub.Message{ID: "big", Body: body})
		}
		if err := send(250 << 10); err != nil {
			t.Errorf("250 KiB: %v", err)
		}
		mustBe(t, "256 KiB and what belongs to it", send(256<<10), iothub.ErrRejected)
		err := o.Publish(t.Context(), iothub.Message{ID: "x", Properties: map[string]string{"bad\x00": "1"}})
		mustBe(t, "a property with a zero byte", err, iothub.ErrRejected)
		err = o.Publish(t.Context(), iothub.Message{ID: "x", Properties: map[string]string{"a": "\xff"}})
		mustBe(t, "a property that is no UTF-8", err, iothub.ErrRejected)
		if o.Status().Reconnects != 0 {
			t.Error("the connection was lost")
		}
	})
}

func TestPublishHonoursItsContext(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		b.Fault(hub.Fault{On: "publish", Times: 1, Do: "delay", Delay: 5 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := o.Publish(ctx, o.message("1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
		if err := o.publish("2"); err != nil || o.Status().Reconnects != 0 {
			t.Errorf("the next one: %v", err)
		}
	})
}

func TestSlowHubIsNotTakenForADeadOne(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		b.Fault(hub.Fault{On: "publish", Do: "delay", Delay: 3 * time.Second})
		var wg sync.WaitGroup
		for n := range 12 { // the last one waits 36 s
			wg.Go(func() {
				if err := o.publish(fmt.Sprint(n)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestTwentySessionsAtOnce(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		var owners []*owner
		for i := range 20 {
			owners = append(owners, b.session(t, b.Module("d", fmt.Sprint("m", i)), nil))
		}
		var wg sync.WaitGroup
		for _, o := range owners {
			wg.Go(func() {
				o.up()
				o.readEvents()
				keepPublishing(o, 50, 4)
			})
		}
		wg.Wait()
		for _, o := range owners {
			if n := len(b.arrived(o.id)); n != 50 {
				t.Errorf("%s: %d messages", o.id, n)
			}
		}
		b.Down()
		time.Sleep(5 * time.Minute)
		b.Up()
		time.Sleep(time.Minute)
		for _, o := range owners {
			if err := o.publish("again"); err != nil {
				t.Errorf("%s: %v", o.id, err)
			}
		}
	})
}
