// Package mqttd is the MQTT door of the simulated hub: MQTT 3.1.1 and 5 on one port, told apart by the protocol level
// in CONNECT. It is not a broker. Topics are a fixed set of verbs, and a device reaches nobody but the hub.
//
// Sources: Microsoft Learn, "Communicate with an IoT hub using the MQTT protocol" for 3.1.1; Microsoft Learn, "IoT Hub
// MQTT 5 support" and "IoT Hub data plane MQTT 5 API reference", api-version 2020-10-01-preview, for 5; the OASIS
// standards of both versions for packets.
//
// Where the sources are silent or contradict each other, this door has chosen:
//
//   - 3.1.1: every refused credential, a client id that differs from the user name and a user name out of grammar get
//     CONNACK 5 (azure-iot-sdk-c, doc/connection_and_messaging_reliability.md); a connect fault that throttles gets 3.
//   - A CONNECT packet is at most 64 KiB, since it comes from somebody unknown; a longer one ends the connection.
//   - 3.1.1: a model-id is on the twin until a connection announces another or none.
//   - 3.1.1: the sixth subscription, an unknown filter and an unknown topic close the connection. A filter that the
//     identity already has is not a further subscription.
//   - 3.1.1: a twin request without $rid, or by somebody who has not subscribed to $iothub/twin/res/#, is carried out
//     and not answered. Answers, desired properties and methods always go out with QoS 0.
//   - 3.1.1: PUBLISH with DUP is taken like any other; the hub delivers at least once.
//   - Cloud-to-device messages wait for a device that has never subscribed, and for one that connects with a clean session
//     (the documents contradict each other). With a subscription of QoS 0 a message is done once it is sent. One without
//     a PUBACK comes again, with DUP and the same packet id, on the session's next connection, and after a minute on
//     the same one. A module that subscribes to its own devicebound topics gets its messages; from {module}/# and
//     inputs/# it gets none, because SDKs take everything there for inputs. A message whose properties don't fit a topic
//     is rejected.
//   - A will whose topic is not the identity's own for telemetry closes the connection. A will is sent when the device
//     goes without DISCONNECT; a connection that the hub itself ends (taken over, token out of date, identity gone) leaves
//     none, because its identity may not speak any more.
//   - A session is kept until a clean one replaces it or the identity is made anew, over a restart of a hub with a journal
//     too. It belongs to one protocol version:
//     the other version starts clean, because its filters mean nothing there.
//   - 5: the client id of a module is "device/module", as in 3.1.1. The api-version is 2020-10-01-preview alone; the
//     2020-10-10 of the document's example is a misprint. creation-time is taken as milliseconds and as ISO 8601.
//   - 5: CONNACK names the Authentication Method, as the standard demands (MQTT-4.12.0-5) and the document's example does
//     not show.
//   - 5: an undefined topic gets PUBACK 131 with status 0504, and DISCONNECT 144 with QoS 0. A request that lacks
//     Correlation Data gets DISCONNECT, since no answer could be matched.
//   - 5: properties beginning with @ are taken on every PUBLISH and mean something on telemetry only.
//   - 5: a method answered with a status (0603 or 06A0, the documents differ) is one not answered; its caller times out.
//   - 5: a will goes to $iothub/telemetry and its delay is not waited for.
//
// The door asks the hub's fault rules about connect, subscribe, publish, twin-get and report before it carries them out,
// about puback after the hub has taken a message and before the device is told, and about desired, method and c2d before it
// sends them. kick closes the connection; refuse, throttle and quota answer with the version's own error, and where 3.1.1
// has none they close; drop neither carries out nor answers; delay waits and keeps the order; freeze leaves the connection
// half open. What the hub sends is lost by refuse, throttle, quota and drop alike. A hub with a tier is then asked how long
// to hold back connect, publish, twin-get and report; what would be held for too long is answered like throttle.
package mqttd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

var (
	errNoConnect = errors.New("no CONNECT within 30 s of the accept")
	errSilent    = errors.New("nothing heard for one and a half times the keep-alive")
)

const (
	connectTimeout = 30 * time.Second   // from accept to CONNECT: "IoT Hub MQTT 5 support", Connection
	keepAliveCap   = 1767 * time.Second // "Communicate with an IoT hub using the MQTT protocol", keep-alive: 29.45 min
)

// Server is the door. Its methods may be called from any goroutine.
type Server struct {
	hub *hub.Hub
	log *slog.Logger

	mu       sync.Mutex
	sessions map[hub.ID]*session
}

// New returns a door to h. A nil log means none.
func New(h *hub.Hub, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{hub: h, log: log, sessions: map[hub.ID]*session{}}
}

// Serve accepts connections until ctx ends, which closes ln, and returns when all of them have ended. A connection
// that ln returns with TLS on it (tls.NewListener) is shaken hands with here.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			return nil
		case err != nil && isTemporary(err):
			// Out of file descriptors, mostly: those that end give some back.
			s.log.Warn("accept", "error", err)
			pause(ctx, 100*time.Millisecond)
		case err != nil:
			return fmt.Errorf("mqttd: accept on %s: %w", ln.Addr(), err)
		default:
			wg.Go(func() { s.ServeConn(ctx, nc) })
		}
	}
}

func isTemporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// ServeConn serves one connection and returns when it has ended and is closed; the end of ctx ends it. If nc is a
// *tls.Conn, the handshake is done first.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	deadline := time.Now().Add(connectTimeout)
	if err := handshake(ctx, nc, deadline); err != nil {
		s.log.Debug("TLS handshake", "remote", nc.RemoteAddr(), "error", err)
		_ = rawConn(nc).Close()
		return
	}
	c := newConn(ctx, nc)
	stop := context.AfterFunc(ctx, func() { c.end(errShutdown) })
	defer stop()
	err := s.serve(c, deadline)
	s.log.Debug("connection ended", "remote", nc.RemoteAddr(), "reason", err)
}

func handshake(ctx context.Context, nc net.Conn, deadline time.Time) error {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return deep(func() error { return t.HandshakeContext(ctx) })
}

// deep runs something in a goroutine of its own and waits for it: what needs a deep stack, which the goroutine of an idle
// connection would keep: TLS's handshake, a password's hash, a twin's JSON. That one's stack stays at 4 KiB, which `make
// bench` shows.
func deep(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return <-done
}

// serve reads CONNECT and hands over to the version that it asks for.
func (s *Server) serve(c *conn, deadline time.Time) error {
	f, level, err := firstFrame(c, deadline)
	if err != nil {
		c.finish(nil)
		return err
	}
	switch level {
	case 4:
		return s.serve3(c, f)
	case 5:
		return s.serve5(c, f)
	}
	c.finish(appendConnack(nil, false, connackVersion))
	return errors.New("CONNECT asks for neither MQTT 3.1.1 nor 5")
}

func firstFrame(c *conn, deadline time.Time) (frame, byte, error) {
	if err := c.deadline(time.Until(deadline)); err != nil {
		return frame{}, 0, err
	}
	c.in.want, c.in.limit = typeConnect<<4, maxConnect
	f, err := c.in.next()
	if err != nil {
		return frame{}, 0, explain(c, err, errNoConnect)
	}
	c.in.want, c.in.limit = 0, maxFrame
	level, err := protocolLevel(f.body())
	return f, level, err
}

// explain turns a read error into the reason of the connection's end; late is what a missed deadline means.
func explain(c *conn, err, late error) error {
	switch {
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return late
	case errors.Is(err, io.EOF):
		return errors.New("the device closed the connection without DISCONNECT")
	}
	return err
}

// patience is how long a connection may be silent: one and a half times its keep-alive (MQTT-3.1.2-24), with the hub's
// cap, which holds without a keep-alive too.
func patience(keepAlive uint16) time.Duration {
	d := time.Duration(keepAlive) * time.Second * 3 / 2
	if d == 0 || d > keepAliveCap {
		return keepAliveCap
	}
	return d
}
