package websocketd

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const patience = 10 * time.Second

// serve is a door by TLS whose protocol mqtt has this accept loop for each connection.
func serve(t *testing.T, each func(net.Conn)) *httptest.Server {
	t.Helper()
	door := New()
	l := door.Listen("mqtt")
	web := httptest.NewTLSServer(door)
	t.Cleanup(web.Close)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			each(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return web
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

func dial(t *testing.T, web *httptest.Server, subprotocols ...string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	d := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: roots}, Subprotocols: subprotocols, HandshakeTimeout: patience}
	c, r, err := d.DialContext(t.Context(), "wss"+strings.TrimPrefix(web.URL, "https")+Path+"?iothub-no-client-cert=true", nil)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(patience))
	}
	return c, r, err
}

func TestSubprotocolIsEchoedAsItWasOffered(t *testing.T) {
	web := serve(t, echo)
	for _, offered := range []string{"mqtt", "MQTT", "Mqtt"} {
		_, r, err := dial(t, web, "chat", offered)
		if err != nil {
			t.Fatalf("%s: %v", offered, err)
		}
		if got := r.Header.Get("Sec-WebSocket-Protocol"); got != offered || r.StatusCode != 101 {
			t.Errorf("%d, subprotocol %q, want %q", r.StatusCode, got, offered)
		}
	}
}

func TestNoWebSocketIs400(t *testing.T) {
	web := serve(t, echo)
	for _, offered := range [][]string{nil, {"chat"}, {"AMQPWSB10"}} {
		if _, r, err := dial(t, web, offered...); err == nil || r.StatusCode != 400 {
			t.Errorf("offering %q: %v, %v", offered, r, err)
		}
	}
	for _, target := range []string{"/$iothub/websocket", "/%24iothub/websocket", "/"} {
		r, err := web.Client().Get(web.URL + target)
		if err != nil || r.StatusCode != 400 {
			t.Errorf("GET %s: %v, %v", target, r, err)
		}
	}
	for target, want := range map[string]bool{Path: true, "/devices": false} {
		if got := Wanted(httptest.NewRequest("GET", target, nil)); got != want {
			t.Errorf("Wanted(%s) = %v", target, got)
		}
	}
	r := httptest.NewRequest("GET", "/elsewhere", nil)
	r.Header.Set("Connection", "keep-alive, Upgrade")
	r.Header.Set("Upgrade", "WebSocket")
	if !Wanted(r) {
		t.Error("a WebSocket at another path is not answered here")
	}
}

func TestBytesGoBothWays(t *testing.T) {
	web := serve(t, echo)
	c, _, err := dial(t, web, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	for i := range 100 { // one message is one write, of any length
		part := bytes.Repeat([]byte{byte(i)}, i*i)
		sent.Write(part)
		if err := c.WriteMessage(websocket.BinaryMessage, part); err != nil {
			t.Fatal(err)
		}
	}
	var got bytes.Buffer
	for got.Len() < sent.Len() {
		kind, part, err := c.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage {
			t.Fatalf("message of kind %d, %v", kind, err)
		}
		got.Write(part)
	}
	if !bytes.Equal(got.Bytes(), sent.Bytes()) {
		t.Error("the bytes come back changed")
	}
}

// frames is a client that writes frames itself.
type frames struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func open(t *testing.T, web *httptest.Server) *frames {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	nc, err := tls.Dial("tcp", web.Listener.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", Path)
	r := bufio.NewReader(nc)
	answer, err := http.ReadResponse(r, nil)
	if err != nil || answer.StatusCode != 101 {
		t.Fatalf("%v, %v", answer, err)
	}
	return &frames{t, nc, r}
}

// frame is a masked frame whose mask is zero.
func frame(first byte, payload string) []byte {
	return append([]byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

func (f *frames) send(p ...[]byte) {
	f.t.Helper()
	if _, err := f.Write(bytes.Join(p, nil)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *frames) expect(want []byte) {
	f.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(f.r, got); err != nil || !bytes.Equal(got, want) {
		f.t.Fatalf("got % x, %v; want % x", got[:n], err, want)
	}
}

func (f *frames) ends() {
	f.t.Helper()
	if b, err := f.r.ReadByte(); err == nil {
		f.t.Fatalf("got %#x, want the end", b)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		f.t.Fatal("the connection stays open")
	}
}

func TestFragmentsAndPings(t *testing.T) {
	f := open(t, serve(t, echo))
	f.send(frame(0x02, "a"), frame(0x89, "ping"), frame(0x00, ""), frame(0x80, "b")) // a ping between the fragments
	f.expect([]byte{0x82, 1, 'a'})
	f.expect(append([]byte{0x8a, 4}, "ping"...))
	f.expect([]byte{0x82, 1, 'b'})
	f.send(frame(0x88, "\x03\xe8")) // close is answered
	f.expect([]byte{0x88, 2, 0x03, 0xe8})
	f.ends()
}

func TestBadFramesEndTheConnection(t *testing.T) {
	for name, bad := range map[string][]byte{
		"text":                  frame(0x81, "hello"),
		"not masked":            {0x82, 1, 'a'},
		"unknown opcode":        frame(0x83, ""),
		"reserved bit":          frame(0xc2, ""),
		"fragmented control":    frame(0x09, ""),
		"continuation first":    frame(0x80, "x"),
		"longer than allowed":   {0x82, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0},
		"length of 2^63":        {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"long control":          {0x89, 0xfe, 0, 200, 0, 0, 0, 0},
		"close of a wrong code": frame(0x88, "\x00\x01"),
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			f := open(t, serve(t, func(c net.Conn) {
				_, err := c.Read(make([]byte, 10))
				_, again := c.Read(make([]byte, 10))
				if again != err {
					t.Errorf("the next read says %v, after %v", again, err)
				}
				ended <- err
			}))
			f.send(bad)
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it was read")
				}
			case <-time.After(patience):
				t.Fatal("the door still reads")
			}
			for { // a close frame, maybe
				if _, err := f.r.ReadByte(); err != nil {
					break
				}
			}
		})
	}
}

func TestDeadlinesAndGoodbye(t *testing.T) {
	result := make(chan error, 1)
	f := open(t, serve(t, func(c net.Conn) {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		_, err := c.Read(make([]byte, 1))
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
			result <- fmt.Errorf("read: %w, want a timeout", err)
			return
		}
		if _, err := c.Write([]byte("bye")); err != nil { // the packet that says why still goes out
			result <- err
			return
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			result <- err
			return
		}
		_ = c.SetWriteDeadline(time.Unix(1, 0))
		if _, err := c.Write([]byte("x")); err == nil {
			result <- errors.New("a write after CloseWrite goes through")
			return
		}
		result <- nil
	}))
	f.expect([]byte{0x82, 3, 'b', 'y', 'e', 0x88, 2, 0x03, 0xe8})
	if err := <-result; err != nil {
		t.Error(err)
	}
	f.ends()
}

func TestClosedListenerClosesWhatComes(t *testing.T) {
	door := New()
	l := door.Listen("mqtt")
	web := httptest.NewTLSServer(door)
	defer web.Close()
	_ = l.Close()
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	c, _, err := dial(t, web, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("the connection stays open")
	}
	if l.Addr().Network() != "websocket" || l.Addr().String() != "mqtt" {
		t.Error(l.Addr())
	}
}

// hijacked is a ResponseWriter whose connection is one end of a pipe.
type hijacked struct {
	http.ResponseWriter
	nc net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.nc, bufio.NewReadWriter(bufio.NewReader(h.nc), bufio.NewWriter(h.nc)), nil
}

// FuzzFrames pours bytes into a connection.
func FuzzFrames(f *testing.F) {
	f.Add(frame(0x82, "hello"))
	f.Add(append(frame(0x02, "a"), append(frame(0x89, ""), frame(0x80, "b")...)...))
	f.Add(frame(0x88, "\x03\xe8"))
	f.Add([]byte{0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, stream []byte) {
		door := New()
		l := door.Listen("mqtt")
		client, server := net.Pipe()
		r := httptest.NewRequest("GET", Path, nil)
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Sec-WebSocket-Protocol": "mqtt"} {
			r.Header.Set(name, value)
		}
		go door.ServeHTTP(hijacked{httptest.NewRecorder(), server}, r)
		drained := make(chan struct{})
		go func() { defer close(drained); _, _ = io.Copy(io.Discard, client) }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = client.Write(stream); _ = client.Close() }()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, err := io.Copy(io.Discard, c)
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			t.Error("the end was not noticed")
		}
		if n > int64(len(stream)) {
			t.Errorf("%d bytes out of %d", n, len(stream))
		}
		_ = c.Close()
		<-drained
	})
}
