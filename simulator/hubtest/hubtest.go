// Package hubtest is an IoT Hub in anybody's Go test: the simulated hub behind its MQTT and HTTPS doors, over TLS, in
// memory.
//
//	h := hubtest.New(t)                          // hub.Options{ModuleLimit: 50} and others if you like
//	credential := h.Module("pi-01", "bme280")    // a connection string
//	nc, err := h.DialTLS(t.Context())            // or h.Listen() for a socket; h.HTTP() for REST
//	h.WaitFor(t, "connected", "pi-01/bme280")    // waits without sleeping, and fails with what happened instead
//	h.Desire("pi-01/bme280", `{"interval_ms":5}`)
//	h.WaitReported(t, "pi-01/bme280", `{"interval_ms":{"value":5,"ac":200}}`)
//	h.Fault(hub.Fault{On: "publish", Do: "kick"})
//
// docs/hubtest.md has a test to copy.
//
// It works inside a testing/synctest bubble too, if New is called there: nothing waits for anything outside, the
// certificates hold from 1999 to 2100, and everything has ended when the test has.
package hubtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/blobs"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/mqttd"
)

// host is the hub's name in connection strings and in its certificate.
const host = "twinbay-hub.test"

// ErrDown is what dialling answers between Down and Up.
var ErrDown = errors.New("hubtest: the hub is down")

// Hub is a hub for one test. Its methods may be called from any goroutine, except those that take or keep the test.
type Hub struct {
	*hub.Hub

	t      testing.TB
	certs  *certificates
	door   *mqttd.Server
	ctx    context.Context // of everything that the test has started
	wg     sync.WaitGroup
	events *events

	mu   sync.Mutex
	live context.Context // of the connections; nil while the hub is down
	cut  context.CancelFunc
	web  *webListener // nil: not needed yet
}

// New returns a hub that ends with t. Options may be left out; the host name is always the one that Host answers, and
// without device authorities hubtest's own CA is one, for Certificate.
func New(t testing.TB, options ...hub.Options) *Hub {
	t.Helper()
	certs, err := theCertificates()
	if err != nil {
		t.Fatal(err)
	}
	var o hub.Options
	if len(options) > 0 {
		o = options[0]
	}
	o.HostName = host
	if o.DeviceCAs == nil {
		o.DeviceCAs = certs.pool
	}
	if o.Storage == nil {
		o.Storage = blobs.Storage{}
	}
	h := &Hub{Hub: hub.New(o), t: t, certs: certs, events: newEvents()}
	h.door = mqttd.New(h.Hub, nil)
	ctx, cancel := context.WithCancel(context.Background())
	h.ctx = ctx
	stream := h.Watch(ctx)
	h.wg.Go(func() { h.events.keep(stream) })
	h.Up()
	t.Cleanup(func() {
		h.Down()
		h.Close()
		cancel()
		h.wg.Wait()
	})
	return h
}

// Host is the hub's host name: the one in connection strings, tokens and the certificate.
func (h *Hub) Host() string { return host }

// CA is the certificate to trust, PEM.
func (h *Hub) CA() []byte { return slices.Clone(h.certs.caPEM) }

// TLS is a client's TLS configuration that trusts the hub.
func (h *Hub) TLS() *tls.Config {
	return &tls.Config{RootCAs: h.certs.pool, ServerName: host, MinVersion: tls.VersionTLS12}
}

// Device creates a device identity and answers its connection string.
func (h *Hub) Device(id string) string {
	h.t.Helper()
	if _, err := h.PutDevice(hub.Device{DeviceID: id}, ""); err != nil {
		h.t.Fatalf("hubtest: create device %q: %v", id, err)
	}
	return h.connectionString(hub.ID{Device: id})
}

// Module creates a module identity, and its device unless there is one, and answers its connection string.
func (h *Hub) Module(device, module string) string {
	h.t.Helper()
	if _, err := h.Hub.Device(device); err != nil {
		h.Device(device)
	}
	if _, err := h.PutModule(hub.Module{DeviceID: device, ModuleID: module}, ""); err != nil {
		h.t.Fatalf("hubtest: create module %s/%s: %v", device, module, err)
	}
	return h.connectionString(hub.ID{Device: device, Module: module})
}

func (h *Hub) connectionString(id hub.ID) string {
	h.t.Helper()
	text, err := h.ConnectionString(id)
	if err != nil {
		h.t.Fatalf("hubtest: connection string of %s: %v", id, err)
	}
	return text
}

// Fault adds a fault rule.
func (h *Hub) Fault(f hub.Fault) {
	h.t.Helper()
	if err := h.AddFault(f); err != nil {
		h.t.Fatalf("hubtest: %v", err)
	}
}

// Dial connects in memory. The client speaks TLS first, as on port 8883.
func (h *Hub) Dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := newPipe()
	if !h.serve(tls.Server(server, h.serverTLS())) {
		return nil, ErrDown
	}
	return client, nil
}

// DialTLS connects in memory and shakes hands: what is left to the client is MQTT.
func (h *Hub) DialTLS(ctx context.Context) (net.Conn, error) {
	nc, err := h.Dial(ctx)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(nc, h.TLS())
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("hubtest: TLS handshake: %w", err)
	}
	return tc, nil
}

// Listen opens the MQTT door on a socket of the loopback and answers its "address:port". It speaks TLS, and is not for a
// bubble.
func (h *Hub) Listen() string {
	h.t.Helper()
	return h.listen(func(nc net.Conn) bool { return h.serve(tls.Server(nc, h.serverTLS())) })
}

// listen hands the connections of a socket to a door, and closes those that it does not take.
func (h *Hub) listen(take func(net.Conn) bool) string {
	h.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatalf("hubtest: listen: %v", err)
	}
	context.AfterFunc(h.ctx, func() { _ = ln.Close() })
	h.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return // closed by the test's end
			}
			if !take(nc) {
				_ = nc.Close()
			}
		}
	})
	return ln.Addr().String()
}

func (h *Hub) serverTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{h.certs.server}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
}

// serve hands a connection to the door, unless the hub is down.
func (h *Hub) serve(nc net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		return false
	}
	ctx := h.live
	h.wg.Go(func() { h.door.ServeConn(ctx, nc) })
	return true
}

// Down cuts all connections and refuses new ones, as an outage does. What the hub knows stays.
func (h *Hub) Down() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil {
		h.cut()
		h.live, h.cut = nil, nil
	}
}

// Up ends what Down began.
func (h *Hub) Up() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil && h.ctx.Err() == nil {
		h.live, h.cut = context.WithCancel(h.ctx)
	}
}

// waitLimit is when Wait gives up. A bubble's clock, which begins with 2000, costs nothing, and a device that backs off
// there may take its time.
func waitLimit() time.Duration {
	if time.Now().Year() < 2020 {
		return 24 * time.Hour
	}
	return 10 * time.Second
}
