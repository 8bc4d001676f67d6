package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// network is what lies between a rig's agent and its hub.
type network struct {
	hub   *hubtest.Hub
	delay func() time.Duration // one way, for each piece that is sent; nil means none

	mu    sync.Mutex
	err   error // of each dial; nil while the network works
	dials int
	conns map[net.Conn]bool
}

func newNetwork(r *rig) *network { return &network{hub: r.hub, conns: map[net.Conn]bool{}} }

// use has an agent dial through the network.
func (n *network) use(a *Agent) {
	a.dial = func(identity.ID) iothub.Dial { return n.dial }
}

func (n *network) dial(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	err := n.err
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c, err := n.hub.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if n.delay != nil {
		c = slowly(c, n.delay)
	}
	n.mu.Lock()
	n.conns[c] = true
	n.mu.Unlock()
	secure := tls.Client(c, n.hub.TLS())
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return secure, nil
}

// fail has each dial fail with err and ends all connections; nil makes the network work again.
func (n *network) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
	if err != nil {
		for c := range n.conns {
			_ = c.Close()
		}
		clear(n.conns)
	}
}

func (n *network) tries() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// slowly is a connection to far on which each piece takes its time, in order.
func slowly(far net.Conn, delay func() time.Duration) net.Conn {
	near, inner := net.Pipe()
	var once sync.Once
	end := func() { once.Do(func() { _, _ = inner.Close(), far.Close() }) }
	carry := func(from, to net.Conn) {
		type piece struct {
			at time.Time
			b  []byte
		}
		pieces := make(chan piece, 10000)
		go func() {
			defer close(pieces)
			var last time.Time
			for {
				b := make([]byte, 16<<10)
				n, err := from.Read(b)
				if n > 0 {
					at := time.Now().Add(delay())
					if at.Before(last) {
						at = last
					}
					last = at
					pieces <- piece{at, b[:n]}
				}
				if err != nil {
					return
				}
			}
		}()
		go func() {
			defer end()
			for p := range pieces {
				time.Sleep(time.Until(p.at))
				if _, err := to.Write(p.b); err != nil {
					end()
				}
			}
		}()
	}
	carry(inner, far)
	carry(far, inner)
	return near
}

// allCoins waits until each of n coins has arrived, in any order and any number of times. Those in seen have.
func (r *rig) allCoins(name string, n int, before ...string) {
	r.t.Helper()
	seen := map[string]bool{}
	for _, coin := range before {
		seen[coin] = true
	}
	for len(seen) < n {
		seen[r.telemetry(name)] = true
	}
	for i := range n {
		if !seen[fmt.Sprintf(`{"coin":%d}`, i+1)] {
			r.t.Errorf("coin %d of %s has not arrived", i+1, name)
		}
	}
}

// TestR11_FlappingNetwork has a network that is there for a second and away for three, for ten minutes.
func TestR11_FlappingNetwork(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		n := newNetwork(r)
		r.start(n.use)
		for range 150 {
			r.machines["coins"].insert(1)
			n.fail(nil)
			time.Sleep(time.Second)
			n.fail(errors.New("network is unreachable"))
			time.Sleep(3 * time.Second)
			if notice := r.component("coins").Link.Notice; notice != "" {
				t.Fatalf("a bad network is taken for something else: %s", notice)
			}
		}
		if tries := n.tries(); tries > 2*600 { // two identities
			t.Errorf("%d connects in ten minutes", tries)
		}
		if q := r.component("coins").Queue; q.Acked == 0 {
			t.Error("no message has made it through in ten minutes")
		}
		n.fail(nil)
		r.allCoins("coins", 150)
		time.Sleep(time.Minute)
		if c := r.component("coins"); len(c.Queue.Dropped) > 0 || c.Queue.Queued > 0 || !c.Link.Connected {
			t.Errorf("status = %+v", c)
		}
	})
}

// A network with two seconds there and back, on which three of ten pieces are lost and sent again after one to three.
func TestSlowAndLossyNetwork(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		n := newNetwork(r)
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(11, 11))
		n.delay = func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			d := time.Second
			if random.IntN(10) < 3 {
				d += time.Second + rand.N(2*time.Second)
			}
			return d
		}
		t.Cleanup(func() { time.Sleep(10 * time.Second) }) // what is still on its way when the agent has ended
		r.start(n.use)
		r.desire("coins", `{"interval_ms":33}`)
		for range 100 {
			r.machines["coins"].insert(1)
			time.Sleep(3 * time.Second)
		}
		r.allCoins("coins", 100)
		r.reported("coins", `{"interval_ms":{"value":33,"ac":200}}`)
		if c := r.component("coins"); c.Link.Reconnects > 3 || len(c.Queue.Dropped) > 0 {
			t.Errorf("status = %+v", c)
		}
	})
}

// TestR14_StartsWithoutNetworkNameOrHub starts where nothing can be reached, for two hours, and then everything can.
func TestR14_StartsWithoutNetworkNameOrHub(t *testing.T) {
	for name, err := range map[string]error{
		"network": errors.New("connect to hub.example:8883: network is unreachable (no way to it: is the network up?)"),
		"name":    fmt.Errorf("connect to hub.example:8883: %w (the name is unknown: look at hub.host and at the network's DNS)", &net.DNSError{Err: "no such host", Name: "hub.example", IsNotFound: true}),
		"hub":     errors.New("connect to hub.example:8883: connection refused (nothing listens there: is the hub running, is hub.address right?)"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "3.1.1", "[modules.coins.settings]\ninterval_ms = 250\n", "coins")
				n := newNetwork(r)
				n.fail(err)
				r.start(n.use)
				r.machines["coins"].insert(40)
				time.Sleep(2 * time.Hour)
				if doc, _ := r.machines["coins"].lastApplied(); doc != `{"interval_ms":250,"mode":"normal"}` {
					t.Errorf("offline the module was given %s", doc)
				}
				c := r.component("coins")
				_, advice, _ := strings.Cut(err.Error(), "(")
				if c.Queue.Queued != 40 || c.Link.Connected || c.Health.State != local.Degraded || !strings.Contains(c.Health.Detail, advice) {
					t.Errorf("offline status = %+v", c)
				}
				if tries := n.tries(); tries < 2*2*60 || tries > 2*2*60*5 {
					t.Errorf("two identities made %d tries in two hours", tries)
				}
				if status, _, err := r.agent.Invoke(t.Context(), "coins", "echo", nil); status != 200 || err != nil {
					t.Errorf("a method from the technician: %d, %v", status, err)
				}
				n.fail(nil)
				back := time.Now()
				r.allCoins("coins", 40)
				if took := time.Since(back); took > 31*time.Second {
					t.Errorf("back after %v", took)
				}
			})
		})
	}
}

func TestLinkUpEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		n := newNetwork(r)
		n.fail(errors.New("network is unreachable"))
		up := make(chan func(), 1)
		r.start(n.use, func(a *Agent) {
			a.network = func(ctx context.Context, call func()) error {
				up <- call
				<-ctx.Done()
				return nil
			}
		})
		raise := <-up
		time.Sleep(time.Hour)
		r.machines["coins"].insert(1)
		n.fail(nil)
		back := time.Now()
		raise()
		r.telemetry("coins")
		if took := time.Since(back); took > 2*time.Second {
			t.Errorf("the first message after the link is up came after %v", took)
		}
	})
}

// TestR22_ThrottledForTenMinutes has a hub throttle everything for ten minutes and then cut all connections.
func TestR22_ThrottledForTenMinutes(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		asked := map[string]int{}
		for _, on := range []string{"twin-get", "report", "publish"} {
			r.hub.Fault(hub.Fault{On: on, Who: deviceID + "/coins", Do: "throttle"})
		}
		r.desire("coins", `{"interval_ms":44}`)
		for range 60 {
			r.machines["coins"].insert(1)
			time.Sleep(10 * time.Second)
		}
		for _, e := range r.hub.Events() {
			if e.ModuleID == "coins" {
				asked[e.Kind]++
			}
		}
		if asked["connected"] > 40 {
			t.Errorf("%d connects in ten minutes of throttling", asked["connected"])
		}
		c := r.component("coins")
		if c.Health.State == local.OK {
			t.Errorf("health says nothing of it: %+v", c)
		}
		r.hub.Down()
		r.hub.ClearFaults()
		r.hub.Up()
		r.allCoins("coins", 60)
		r.reported("coins", `{"interval_ms":{"value":44,"ac":200}}`)
		time.Sleep(15 * time.Minute)
		if c := r.component("coins"); c.Health.State != local.OK || len(c.Queue.Dropped) > 0 || c.Queue.Queued > 0 {
			t.Errorf("afterwards: %+v", c)
		}
	})
}

// TestR40_FiftyComponentsReconnectTogether cuts 51 identities off at once, and counts how they come back.
func TestR40_FiftyComponentsReconnectTogether(t *testing.T) {
	long(t)
	bubbles(t, func(t *testing.T, mqtt string) {
		var names []string
		for i := range 50 {
			names = append(names, fmt.Sprintf("m%02d", i))
		}
		r := newRig(t, mqtt, "", names...)
		r.start()
		connected := func() (n int) {
			for _, c := range r.agent.Status().Components {
				if c.Link.Connected {
					n++
				}
			}
			return n
		}
		for _, outage := range []time.Duration{0, 100 * time.Millisecond, time.Minute, 10 * time.Minute} {
			r.hub.Down()
			time.Sleep(outage)
			r.hub.Up()
			back := time.Now()
			for connected() < 50 {
				time.Sleep(100 * time.Millisecond)
				if time.Since(back) > time.Minute {
					t.Fatalf("only %d are back a minute after an outage of %v", connected(), outage)
				}
			}
			t.Logf("all are back %v after an outage of %v", time.Since(back), outage)
		}
		var at []time.Time
		for _, e := range r.hub.Events() {
			if e.Kind == "connected" {
				at = append(at, e.At)
			}
		}
		if len(at) < 4*51 {
			t.Errorf("only %d connects", len(at))
		}
		for i := range at {
			if n := i + 16; n < len(at) && at[n].Sub(at[i]) < time.Second {
				t.Fatalf("17 connects within %v", at[n].Sub(at[i]))
			}
		}
	})
}
