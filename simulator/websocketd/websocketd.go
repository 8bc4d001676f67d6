// Package websocketd takes WebSocket connections off the HTTPS port and hands them to the door whose protocol they ask
// for, as a stream of bytes: MQTT over WebSocket (subprotocol mqtt).
//
// Sources: Microsoft Learn, "Communicate with an IoT hub using the MQTT protocol", for the address; MicrosoftDocs/
// azure-docs issue 21306, for the answer 400; the OASIS standards of MQTT 3.1.1 and 5, chapter 6, for binary frames.
// The subprotocol is echoed exactly as it was offered, because mqtt.js and .NET compare it: azure-iot-sdk-c says MQTT and
// the other SDKs say mqtt.
package websocketd

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Path is where a hub takes WebSockets.
const Path = "/$iothub/websocket"

const (
	// maxMessage bounds one WebSocket message, which is read as it comes and takes no memory of that size. MQTT packets
	// need not end with messages; the longest is 320 KiB.
	maxMessage   = 1 << 20
	buffer       = 4096        // bytes for each direction of a connection
	writeTimeout = time.Second // for a close frame
)

// Door is the http.Handler of Path. Make it with New, and tell it the protocols with Listen before it serves.
type Door struct {
	protocols map[string]*listener // by subprotocol in lower case
	upgrader  websocket.Upgrader
}

// New returns a door that knows no protocol.
func New() *Door {
	return &Door{
		protocols: map[string]*listener{},
		upgrader: websocket.Upgrader{
			HandshakeTimeout: 10 * time.Second,
			ReadBufferSize:   buffer,
			WriteBufferSize:  buffer,
			WriteBufferPool:  &sync.Pool{},                             // most connections are idle
			CheckOrigin:      func(*http.Request) bool { return true }, // browsers may, as on the hub: the token decides
			Error:            func(w http.ResponseWriter, _ *http.Request, _ int, why error) { refuse(w, why.Error()) },
		},
	}
}

// Listen returns the listener that gets the connections of a subprotocol. Whoever serves it closes it.
func (d *Door) Listen(subprotocol string) net.Listener {
	l := &listener{name: subprotocol, conns: make(chan net.Conn), done: make(chan struct{})}
	d.protocols[strings.ToLower(subprotocol)] = l
	return l
}

// ServeHTTP implements http.Handler. It returns once the connection is handed over.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path {
		refuse(w, "WebSockets are at "+Path)
		return
	}
	for _, offered := range websocket.Subprotocols(r) {
		l := d.protocols[strings.ToLower(offered)]
		if l == nil {
			continue
		}
		c, err := d.upgrader.Upgrade(w, r, http.Header{"Sec-Websocket-Protocol": {offered}})
		if err == nil {
			c.SetReadLimit(maxMessage)
			l.hand(&stream{Conn: c})
		}
		return // Upgrade has answered
	}
	refuse(w, "offer the WebSocket subprotocol mqtt (Sec-WebSocket-Protocol)")
}

// Wanted says whether a request is for this door: one for Path, or one for a WebSocket anywhere.
func Wanted(r *http.Request) bool { return r.URL.Path == Path || websocket.IsWebSocketUpgrade(r) }

func refuse(w http.ResponseWriter, why string) { http.Error(w, why, http.StatusBadRequest) }

// listener gives what ServeHTTP has taken to a door's accept loop.
type listener struct {
	name  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) hand(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.done:
		_ = c.Close()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.name) }

type address string

func (a address) Network() string { return "websocket" }
func (a address) String() string  { return string(a) }

var errNotBinary = errors.New("websocketd: a message that is not binary")

// stream is the bytes of binary messages. Like any net.Conn it has one reader and one writer at a time, and deadlines
// that end a read or a write; what was not written can still be, after a read has ended.
type stream struct {
	*websocket.Conn
	message io.Reader // the one that is being read; nil between two
	failed  error     // of the read that was the last

	mu       sync.Mutex
	deadline time.Time // of writes
}

func (s *stream) Read(p []byte) (int, error) {
	if s.failed != nil {
		return 0, s.failed
	}
	n, err := s.read(p)
	if err != nil {
		s.failed = err
	}
	return n, err
}

func (s *stream) read(p []byte) (int, error) {
	for {
		if s.message == nil {
			kind, message, err := s.NextReader()
			if _, closed := errors.AsType[*websocket.CloseError](err); closed {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				_ = s.sayClose(websocket.CloseUnsupportedData)
				return 0, errNotBinary
			}
			s.message = message
		}
		n, err := s.message.Read(p)
		if err == io.EOF {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// Write sends one message.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	deadline := s.deadline
	s.mu.Unlock()
	_ = s.Conn.SetWriteDeadline(deadline) // package websocket sets it before it writes, and never fails here
	if err := s.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline also ends a write that is under way.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	s.deadline = t
	s.mu.Unlock()
	return s.NetConn().SetWriteDeadline(t)
}

func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// CloseWrite says that nothing more comes. The peer may still send.
func (s *stream) CloseWrite() error { return s.sayClose(websocket.CloseNormalClosure) }

// Close says so too, if the peer takes it at once, and closes.
func (s *stream) Close() error {
	_ = s.sayClose(websocket.CloseNormalClosure) // a peer that is gone need not be told
	return s.Conn.Close()
}

func (s *stream) sayClose(code int) error {
	return s.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(writeTimeout))
}
