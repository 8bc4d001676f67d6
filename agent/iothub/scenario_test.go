package iothub_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/mqtt3"
	"github.com/twinbay/twinbay/agent/iothub/mqtt5"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// TestR13_EveryRefusalHasItsPace has a hub refuse with each code that there is: what the try says, and how long until the
// next. Then the hub takes the connection, and the session stands.
func TestR13_EveryRefusalHasItsPace(t *testing.T) {
	const quick, slow = 8 * time.Second, 5 * time.Minute
	for _, c := range []struct {
		name string
		open iothub.Open
		code byte
		kind error // nil: any other
		text string
	}{
		{"3.1.1", mqtt3.Open, 1, iothub.ErrRejected, "hub.mqtt"},
		{"3.1.1", mqtt3.Open, 2, iothub.ErrRejected, "client id d/m"},
		{"3.1.1", mqtt3.Open, 3, nil, "not available now"},
		{"3.1.1", mqtt3.Open, 4, iothub.ErrUnauthorized, "is its key right"},
		{"3.1.1", mqtt3.Open, 5, iothub.ErrUnauthorized, "is its key right"},
		{"5", mqtt5.Open, 0x80, nil, "128"},
		{"5", mqtt5.Open, 0x83, nil, "131"},
		{"5", mqtt5.Open, 0x86, iothub.ErrUnauthorized, "is its key right"},
		{"5", mqtt5.Open, 0x87, iothub.ErrUnauthorized, "is its key right"},
		{"5", mqtt5.Open, 0x88, nil, "136"},
		{"5", mqtt5.Open, 0x89, nil, "137"},
		{"5", mqtt5.Open, 0x8A, iothub.ErrUnauthorized, "138"},
		{"5", mqtt5.Open, 0x8C, iothub.ErrUnauthorized, "140"},
		{"5", mqtt5.Open, 0x95, iothub.ErrRejected, "149"},
		{"5", mqtt5.Open, 0x97, iothub.ErrThrottled, "151"},
		{"5", mqtt5.Open, 0x9F, iothub.ErrThrottled, "159"},
	} {
		t.Run(fmt.Sprintf("%s code %d", c.name, c.code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{Hub: hubtest.New(t), name: c.name, open: c.open}
				var refusals atomic.Int32
				refusals.Store(4)
				o := b.session(t, b.Module("d", "m"), func(ctx context.Context) (net.Conn, error) {
					if refusals.Add(-1) < 0 {
						return b.DialTLS(ctx)
					}
					near, far := net.Pipe()
					packet := "\x20\x02\x00" + string([]byte{c.code})
					if c.name == "5" {
						packet = "\x20\x03\x00" + string([]byte{c.code, 0})
					}
					go answers{packets: []string{packet}}.serve(far)
					return near, nil
				})
				low, high := 60*time.Millisecond, quick
				if c.kind != nil {
					low, high = 4*time.Second, slow
				}
				for range 4 {
					down := o.down()
					if c.kind != nil {
						mustBe(t, "Down", down.Err, c.kind)
					} else if errors.Is(down.Err, iothub.ErrUnauthorized) || errors.Is(down.Err, iothub.ErrRejected) {
						t.Errorf("it may pass, and is taken for a refusal: %v", down.Err)
					}
					if !strings.Contains(down.Err.Error(), c.text) {
						t.Errorf("%v does not say %q", down.Err, c.text)
					}
					if wait := time.Until(down.Retry); wait < low || wait > high {
						t.Errorf("retry after %v, want %v to %v", wait, low, high)
					}
				}
				o.up()
				if err := o.publish("1"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestHubClosesAtEveryStage is a hub that ends each connection right after one packet, for two minutes.
func TestHubClosesAtEveryStage(t *testing.T) {
	for _, on := range []string{"connect", "subscribe", "publish", "puback"} {
		t.Run(on, func(t *testing.T) {
			everyWire(t, func(t *testing.T, b *bench) {
				var dials atomic.Int32
				b.Fault(hub.Fault{On: on, Do: "kick"})
				o := b.session(t, b.Module("d", "m"), func(ctx context.Context) (net.Conn, error) {
					dials.Add(1)
					return b.DialTLS(ctx)
				})
				o.readEvents()
				for range 120 {
					_ = o.publish("x")
					time.Sleep(time.Second)
				}
				if n := dials.Load(); n < 4 || n > 60 {
					t.Errorf("%d connects in two minutes", n)
				}
				b.ClearFaults()
				time.Sleep(5*time.Minute + 2*time.Second)
				if err := o.publish("y"); err != nil {
					t.Errorf("when the hub has mended its ways: %v", err)
				}
			})
		})
	}
}

// outage is a network that can go away: what is sent then goes nowhere, and a connect hangs until its context ends.
type outage struct {
	b    *bench
	mu   sync.Mutex
	down bool
	open []*hole
}

func (n *outage) dial(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	down := n.down
	n.mu.Unlock()
	if down {
		ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
		defer cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c, err := n.b.DialTLS(ctx)
	if err != nil {
		return nil, err
	}
	h := &hole{Conn: c, cut: make(chan struct{}), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, h)
	return h, nil
}

func (n *outage) set(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
	if down {
		for _, h := range n.open {
			close(h.cut)
		}
		n.open = nil
	}
}

// The network is away for a minute, without a word. The first message after it: at most 2 s when the device hears that
// the link is up, and at most 15 s when it does not.
func TestFirstMessageAfterAnOutage(t *testing.T) {
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("told=%v", told), func(t *testing.T) {
			everyWire(t, func(t *testing.T, b *bench) {
				var link iothub.Signal
				n := &outage{b: b}
				var owners []*owner
				for i := range 10 {
					o := b.sessionWith(t, iothub.Config{Credential: credential(t, b.Module("d", fmt.Sprint("m", i))), Dial: n.dial, Network: &link})
					o.up()
					o.readEvents()
					owners = append(owners, o)
				}
				var worst time.Duration
				for range 8 {
					time.Sleep(time.Minute)
					n.set(true)
					time.Sleep(time.Minute)
					n.set(false)
					start := time.Now()
					if told {
						link.Raise()
					}
					for _, o := range owners {
						for o.publish("x") != nil {
							time.Sleep(10 * time.Millisecond)
						}
					}
					worst = max(worst, time.Since(start))
				}
				limit := 15 * time.Second
				if told {
					limit = 2 * time.Second
				}
				t.Logf("the slowest of 80 first messages: %v", worst)
				if worst > limit {
					t.Errorf("the slowest first message came after %v, want %v", worst, limit)
				}
			})
		})
	}
}
