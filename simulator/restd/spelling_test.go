package restd

import (
	"bufio"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// listening serves a handler as the simulator does, and answers a client's connection.
func listening(t *testing.T, handler http.Handler) net.Conn {
	t.Helper()
	certified := httptest.NewTLSServer(nil) // for its certificate alone
	defer certified.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: handler}
	l = KeepSpelling(web, tls.NewListener(l, &tls.Config{Certificates: certified.TLS.Certificates}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(l)
	}()
	t.Cleanup(func() { _ = web.Close(); <-done })
	trust := certified.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	trust.ServerName = "example.com"
	nc, err := tls.Dial("tcp", l.Addr().String(), trust)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc
}

func TestPropertyNamesKeepTheirCase(t *testing.T) {
	d := newDoor(t)
	d.identities()
	var secure bool
	nc := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure = WithTLS(r).TLS != nil
		d.srv.ServeHTTP(w, r)
	}))
	answers := bufio.NewReader(nc)
	for _, send := range []struct {
		headers string
		want    map[string]string
	}{
		{"iothub-app-batteryLow: 1\r\nIoTHub-App-ID: 2\r\niothub-app-: none\r\niothub-appx: none\r\n", map[string]string{"batteryLow": "1", "ID": "2"}},
		{"iothub-app-BatteryLow: 3\r\n", map[string]string{"BatteryLow": "3"}}, // the same connection, another spelling
	} {
		text := "POST /devices/d/messages/devicebound?api-version=2021-04-12 HTTP/1.1\r\nHost: h\r\nAuthorization: " +
			sas("hub1.azure-devices.net", "iothubowner") + "\r\n" + send.headers + "Content-Length: 23\r\n\r\n\niothub-app-BATTERYLOW:"
		for i := 0; i < len(text); i += 7 { // in pieces
			if _, err := io.WriteString(nc, text[i:min(i+7, len(text))]); err != nil {
				t.Fatal(err)
			}
		}
		r, err := http.ReadResponse(answers, nil)
		if err != nil || r.StatusCode != 204 {
			t.Fatalf("%v, %v", r, err)
		}
		m, ok, err := d.hub.ReceiveC2D(hub.ID{Device: "d"})
		if !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
		if !maps.Equal(m.Properties, send.want) {
			t.Errorf("properties %v, want %v", m.Properties, send.want)
		}
	}
	if !secure {
		t.Error("the request has no TLS state")
	}
}

func TestSpelling(t *testing.T) {
	long := strings.Repeat("N", maxSpelling-len(appPrefix))
	for text, want := range map[string]map[string]string{
		"iothub-app-A: x\r\nIOTHUB-APP-bC:\r\n":                   {"a": "A", "bc": "bC"},
		"x: iothub-app-A: x\r\n":                                  nil,
		"iothub-app-A\r\niothub-app-B: x":                         {"b": "B"}, // no colon, no header
		"iothub-app-" + long + ": x\niothub-app-" + long + "X: y": {strings.ToLower(long): long},
		"\n\r\niothub-app-É:\n":                                   {"é": "É"}, // empty lines before a request are none of it
		"a\r\niothub-app-B:\r\n\r\niothub-app-C:\r\n":             {"b": "B"}, // a body
		"": nil,
	} {
		for step := 1; step < 40; step++ {
			c := looking()
			for i := 0; i < len(text); i += step {
				c.look([]byte(text[i:min(i+step, len(text))]))
			}
			if !maps.Equal(c.names, want) {
				t.Errorf("%.40q in pieces of %d: %v, want %v", text, step, c.names, want)
			}
		}
	}
}

// looking is a connection at the beginning of a request.
func looking() *spellingConn {
	c := &spellingConn{}
	c.again()
	return c
}

func FuzzSpelling(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\niothub-app-A: x\r\n\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		whole, pieces := looking(), looking()
		whole.look(text)
		for i := 0; i < len(text); i += int(step) + 1 {
			pieces.look(text[i:min(i+int(step)+1, len(text))])
		}
		if !maps.Equal(whole.names, pieces.names) {
			t.Errorf("%v in one, %v in pieces", whole.names, pieces.names)
		}
	})
}
