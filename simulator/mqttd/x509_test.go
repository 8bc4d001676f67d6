package mqttd_test

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"testing"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// dialWith shakes hands with a client certificate.
func dialWith(t testing.TB, h *hubtest.Hub, c credential, cert tls.Certificate) *raw {
	t.Helper()
	nc, err := h.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conf := h.TLS()
	conf.Certificates = []tls.Certificate{cert}
	tc := tls.Client(nc, conf)
	t.Cleanup(func() { _ = tc.Close() })
	return &raw{t, c, tc, bufio.NewReader(tc)}
}

var byAuthority = &hub.Authentication{Type: "certificateAuthority"}

// certified makes a device and a module of it that prove themselves by certificates: the device by one of an authority,
// the module by a thumbprint. It answers one of the two, and its certificate or the other's.
func certified(t testing.TB, h *hubtest.Hub, module, others bool) (credential, tls.Certificate) {
	t.Helper()
	certs := map[bool]tls.Certificate{false: h.Certificate("pi-01"), true: h.Certificate("a module's")}
	sum := sha1.Sum(certs[true].Leaf.Raw)
	print := hex.EncodeToString(sum[:])
	if _, err := h.PutDevice(hub.Device{DeviceID: "pi-01", Authentication: byAuthority}, ""); err != nil {
		t.Fatal(err)
	}
	auth := &hub.Authentication{Type: "selfSigned", X509Thumbprint: hub.X509Thumbprint{PrimaryThumbprint: &print}}
	if _, err := h.PutModule(hub.Module{DeviceID: "pi-01", ModuleID: "bme280", Authentication: auth}, ""); err != nil {
		t.Fatal(err)
	}
	who := credential{host: h.Host(), device: "pi-01"}
	if module {
		who.module = "bme280"
	}
	return who, certs[module != others]
}

func TestCertificates3(t *testing.T) {
	for _, c := range []struct {
		name           string
		module, others bool // who, and by whose certificate
		how            hello
		code           byte
	}{
		{"device", false, false, hello{password: "-"}, 0},
		{"module", true, false, hello{password: "-"}, 0},
		{"the other's, module", true, true, hello{password: "-"}, 5},
		{"the other's, device", false, true, hello{password: "-"}, 5},
		{"a token beside it", false, false, hello{}, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				who, cert := certified(t, h, c.module, c.others)
				r := dialWith(t, h, who, cert)
				r.send(c.how.packet(who))
				r.expect(0x20, []byte{0, c.code})
				if c.code != 0 {
					r.closed()
					return
				}
				r.open()
				// A disabled device ends its connection, and those of its modules.
				if _, err := h.PutDevice(hub.Device{DeviceID: "pi-01", Status: "disabled", Authentication: byAuthority}, "*"); err != nil {
					t.Fatal(err)
				}
				r.closed()
				r = dialWith(t, h, who, cert)
				r.send(c.how.packet(who))
				r.expect(0x20, []byte{0, 5})
			})
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *hubtest.Hub) {
			who, _ := certified(t, h, false, false)
			r := dial(t, h, who)
			r.send(hello{password: "-"}.packet(who))
			r.expect(0x20, []byte{0, 5})
		})
	})
}

// hello5x is a CONNECT packet of a client with a certificate.
func (c credential) hello5x() *packets.Connect {
	return &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: c.clientID(), KeepAlive: 240,
		Properties: &packets.Properties{AuthMethod: "X509", User: user("api-version", "2020-10-01-preview", "host", c.host)}}
}

func TestCertificates5(t *testing.T) {
	for _, c := range []struct {
		name           string
		module, others bool
		change         func(*packets.Connect)
		code           byte
	}{
		{"device", false, false, nil, 0},
		{"module", true, false, nil, 0},
		{"host by SNI", false, false, func(p *packets.Connect) { p.Properties.User = p.Properties.User[:1] }, 0},
		{"another host", false, false, func(p *packets.Connect) { p.Properties.User[1].Value = "other" }, 135},
		{"the other's", true, true, nil, 135},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				who, cert := certified(t, h, c.module, c.others)
				r := &raw5{dialWith(t, h, who, cert)}
				p := who.hello5x()
				if c.change != nil {
					c.change(p)
				}
				r.put(p)
				ack := get[*packets.Connack](r)
				if ack.ReasonCode != c.code {
					t.Fatalf("CONNACK %d %v, want %d", ack.ReasonCode, ack.Properties.User, c.code)
				}
				if c.code != 0 {
					r.closed()
					return
				}
				if ack.Properties.AuthMethod != "X509" {
					t.Errorf("CONNACK names the method %q", ack.Properties.AuthMethod)
				}
				// Re-authentication looks at the same certificate again.
				r.put(&packets.Auth{ReasonCode: packets.AuthReauthenticate, Properties: &packets.Properties{AuthMethod: "X509"}})
				if a := get[*packets.Auth](r); a.ReasonCode != 0 {
					t.Errorf("AUTH %d", a.ReasonCode)
				}
			})
		})
	}
}
