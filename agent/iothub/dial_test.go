package iothub_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/mqtt3"
	"github.com/twinbay/twinbay/agent/iothub/mqtt5"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// overSocket runs a session over a real socket until its first event.
func overSocket(t *testing.T, cfg iothub.Config) iothub.Event {
	t.Helper()
	s := iothub.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	select {
	case e := <-s.Events():
		if _, up := e.(iothub.Up); up {
			if err := s.Publish(t.Context(), iothub.Message{ID: "1", Body: []byte("{}")}); err != nil {
				t.Errorf("publish: %v", err)
			}
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
		return nil
	}
}

func TestOverASocket(t *testing.T) {
	h := hubtest.New(t)
	address := h.Listen()
	for name, open := range map[string]iothub.Open{"3.1.1": mqtt3.Open, "5": mqtt5.Open} {
		cfg := iothub.Config{
			Address: address, CA: h.CA(), Wire: open,
			Credential: credential(t, h.Module("d", "m"+name[:1])),
		}
		if e, ok := overSocket(t, cfg).(iothub.Up); !ok {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestDialErrorsSayWhatToDo(t *testing.T) {
	h := hubtest.New(t)
	address := h.Listen()
	cs := h.Module("d", "m")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	plain := plainServer(t)
	for _, test := range []struct {
		name string
		edit func(*iothub.Config)
		want []string
	}{
		{"refused", func(c *iothub.Config) { c.Address = nobody }, []string{nobody, "nothing listens there"}},
		{"wrong CA", func(c *iothub.Config) { c.CA = foreignCA(t) }, []string{"wrong CA", "hub.ca_file"}},
		{"system's CAs", func(c *iothub.Config) { c.CA = nil }, []string{"the system does not know it", "hub.ca_file"}},
		{"wrong name", func(c *iothub.Config) { c.Host = "other.example" }, []string{"another name", "hub.host", "other.example"}},
		{"no PEM", func(c *iothub.Config) { c.CA = []byte("x") }, []string{"no certificate in PEM"}},
		{"no TLS", func(c *iothub.Config) { c.Address = plain }, []string{"does not speak TLS"}},
		{"no such host", func(c *iothub.Config) { c.Address = ""; c.Host = "hub.invalid" }, []string{"hub.invalid:8883", "hub.host"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := iothub.Config{Address: address, CA: h.CA(), Wire: mqtt3.Open, Credential: credential(t, cs)}
			test.edit(&cfg)
			down, ok := overSocket(t, cfg).(iothub.Down)
			if !ok {
				t.Fatal("the session is up")
			}
			for _, want := range append(test.want, "d/m") {
				if !strings.Contains(down.Err.Error(), want) {
					t.Errorf("%q does not say %q", down.Err, want)
				}
			}
		})
	}
}

// plainServer answers whatever comes with a line of text.
func plainServer(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.Write([]byte("220 mail.example ESMTP\r\n"))
				_, _ = c.Read(make([]byte, 1024))
				_ = c.Close()
			}
		}
	}()
	return ln.Addr().String()
}

// foreignCA is a CA that has signed nothing.
func foreignCA(t *testing.T) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "foreign"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(nil, cert, cert, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
