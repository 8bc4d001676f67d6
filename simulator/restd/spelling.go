package restd

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
)

// Names of application properties have upper and lower case, and come in headers, whose names have none to package
// net/http: it writes iothub-app-batteryLow as Iothub-App-Batterylow. So a connection remembers how such names were
// spelled when the header bytes of a request came by. All that this can do is to give a header's name its case back.

const maxSpelling = 512 // bytes of a line that is remembered; the server bounds how much header there is

// KeepSpelling prepares a server and the listener that it is to serve.
func KeepSpelling(web *http.Server, l net.Listener) net.Listener {
	web.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		return context.WithValue(ctx, spellingKey{}, nc)
	}
	web.ConnState = func(nc net.Conn, state http.ConnState) {
		if c, ok := nc.(*spellingConn); ok && state == http.StateIdle { // the request has ended, with its body
			c.again()
		}
	}
	return spellingListener{l}
}

type spellingKey struct{}

type spellingListener struct{ net.Listener }

func (l spellingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &spellingConn{Conn: nc}
	c.again()
	return c, nil
}

// spellingConn looks at what is read for lines that begin with iothub-app-, as far as the first empty line.
type spellingConn struct {
	net.Conn

	mu      sync.Mutex // a server reads while a handler runs
	names   map[string]string
	looking bool   // the header of a request has not ended yet
	begun   bool   // it has had a line
	blank   bool   // nothing has come of the current line yet
	line    []byte // the current line, as long as it may be such a header
	maybe   bool   // line is one
}

// again makes ready for the next request.
func (c *spellingConn) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.looking, c.begun = nil, true, false
	c.newLine()
}

func (c *spellingConn) newLine() { c.line, c.blank, c.maybe = c.line[:0], true, true }

func (c *spellingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(p[:n])
	return n, err
}

func (c *spellingConn) look(b []byte) {
	for c.looking && len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			c.see(b)
			return
		}
		c.see(b[:end])
		if c.blank && c.begun {
			c.looking = false
			return
		}
		c.begun = c.begun || !c.blank
		c.newLine()
		b = b[end+1:]
	}
}

// see takes a part of the current line.
func (c *spellingConn) see(part []byte) {
	c.blank = c.blank && len(bytes.TrimRight(part, "\r")) == 0
	if !c.maybe {
		return
	}
	name, _, colon := bytes.Cut(part, []byte(":"))
	if len(c.line)+len(name) > maxSpelling || !mayBeApp(c.line, name) {
		c.maybe = false
		return
	}
	c.line = append(c.line, name...)
	if colon {
		c.maybe = false
		if len(c.line) > len(appPrefix) {
			c.remember(string(c.line[len(appPrefix):]))
		}
	}
}

// mayBeApp says whether a line that is line and part so far can still be a header of an application property.
func mayBeApp(line, part []byte) bool {
	start := min(len(line), len(appPrefix))
	n := min(len(part), len(appPrefix)-start)
	return strings.EqualFold(string(part[:n]), appPrefix[start:start+n])
}

func (c *spellingConn) remember(name string) {
	if c.names == nil {
		c.names = map[string]string{}
	}
	c.names[strings.ToLower(name)] = name
}

// spelling is the name of an application property, in lower case, as the client has written it.
func spelling(r *http.Request, lower string) string {
	c, ok := r.Context().Value(spellingKey{}).(*spellingConn)
	if !ok {
		return lower
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if name, ok := c.names[lower]; ok {
		return name
	}
	return lower
}

// NetConn is the connection below.
func (c *spellingConn) NetConn() net.Conn { return c.Conn }

// WithTLS answers the request with its TLS state, which an http.Server sets only for a connection that is TLS itself.
func WithTLS(r *http.Request) *http.Request {
	c, ok := r.Context().Value(spellingKey{}).(*spellingConn)
	if !ok || r.TLS != nil {
		return r
	}
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return r
	}
	state := t.ConnectionState()
	r = r.WithContext(r.Context()) // a copy: a handler does not change what it is given
	r.TLS = &state
	return r
}
