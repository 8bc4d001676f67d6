package hubtest

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/twinbay/twinbay/simulator/restd"
)

// HTTP is a client of the hub's HTTPS door: the service API, and what devices say by HTTPS. It connects in memory,
// whatever host and port a request names, and works in a bubble. A request needs an Authorization header, as at a hub;
// simulator/admin makes tokens of policies.
func (h *Hub) HTTP() *http.Client {
	door := h.theWeb()
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		client, server := newPipe()
		if !h.serveWeb(door, server) {
			return nil, ErrDown
		}
		tc := tls.Client(client, h.TLS())
		if err := tc.HandshakeContext(ctx); err != nil {
			_ = client.Close()
			return nil, err
		}
		return tc, nil
	}}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ListenHTTPS opens the HTTPS door on a socket of the loopback and answers its "address:port". It is not for a bubble.
func (h *Hub) ListenHTTPS() string {
	h.t.Helper()
	door := h.theWeb()
	return h.listen(func(nc net.Conn) bool { return h.serveWeb(door, nc) })
}

// serveWeb hands a connection to the HTTPS door, unless the hub is down. Down closes it.
func (h *Hub) serveWeb(door *webListener, nc net.Conn) bool {
	h.mu.Lock()
	live := h.live
	h.mu.Unlock()
	if live == nil {
		return false
	}
	context.AfterFunc(live, func() { _ = nc.Close() })
	return door.add(tls.Server(nc, h.serverTLS()))
}

// theWeb starts the HTTPS door when it is first needed.
func (h *Hub) theWeb() *webListener {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.web != nil {
		return h.web
	}
	l := &webListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{
		Handler:     restd.New(h.Hub, nil),
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // ends of connections
		BaseContext: func(net.Listener) context.Context { return h.ctx },
	}
	spelled := restd.KeepSpelling(server, l)
	h.wg.Go(func() {
		if err := server.Serve(spelled); !errors.Is(err, http.ErrServerClosed) {
			h.t.Errorf("hubtest: the HTTPS door has ended: %v", err)
		}
	})
	context.AfterFunc(h.ctx, func() { _ = server.Close() })
	h.web = l
	return l
}

// webListener is the listener of the HTTPS door: it is handed its connections.
type webListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// add hands over a connection, unless the door is closed.
func (l *webListener) add(nc net.Conn) bool {
	select {
	case l.conns <- nc:
		return true
	case <-l.closed:
		return false
	}
}

// Accept implements net.Listener.
func (l *webListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *webListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *webListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return host }
