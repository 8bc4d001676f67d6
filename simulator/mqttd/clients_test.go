package mqttd_test

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/mqttd"
)

type clientVectors struct {
	Key    string
	Logins []struct {
		Name, Device, Module, ClientID, User, Password string
		Clean, Accepted                                bool
		KeepAlive                                      uint16
	}
	Talk []struct{ Do, Hex, What string }
}

// vectorDoor is the hub of clients.json behind its door, without TLS: dial opens connections. It is for a bubble, whose
// clock starts long before the tokens run out.
func vectorDoor(t *testing.T) (v clientVectors, dial func() net.Conn) {
	t.Helper()
	readVectors(t, "clients.json", &v)
	h := hub.New(hub.Options{HostName: "hub1.azure-devices.net"})
	auth := &hub.Authentication{Type: "sas", SymmetricKey: hub.SymmetricKey{PrimaryKey: &v.Key, SecondaryKey: &v.Key}}
	if _, err := h.PutDevice(hub.Device{DeviceID: "pi-01", Authentication: auth}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := h.PutModule(hub.Module{DeviceID: "pi-01", ModuleID: "bme280", Authentication: auth}, ""); err != nil {
		t.Fatal(err)
	}
	door := mqttd.New(h, nil)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); synctest.Wait() })
	return v, func() net.Conn {
		client, server := net.Pipe()
		go door.ServeConn(ctx, server)
		_ = client.SetDeadline(time.Now().Add(time.Minute))
		return client
	}
}

func TestClientLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, dial := vectorDoor(t)
		if len(v.Logins) < 15 {
			t.Fatalf("%d logins", len(v.Logins))
		}
		for _, l := range v.Logins {
			nc := dial()
			c := credential{device: l.Device, module: l.Module}
			how := hello{clean: l.Clean, keepAlive: l.KeepAlive, clientID: l.ClientID, user: l.User, password: l.Password}
			if _, err := nc.Write(how.packet(c)); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 4)
			if _, err := io.ReadFull(nc, answer); err != nil {
				t.Errorf("%s: %v", l.Name, err)
			} else if accepted := answer[3] == 0; accepted != l.Accepted || answer[0] != 0x20 || !accepted && answer[3] != 5 {
				t.Errorf("%s: CONNACK % x, want accepted = %v", l.Name, answer, l.Accepted)
			}
			_ = nc.Close()
		}
	})
}

func TestTalkToTheByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, dial := vectorDoor(t)
		var nc net.Conn
		for _, step := range v.Talk {
			raw, err := hex.DecodeString(step.Hex)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case step.Do == "send":
				if nc == nil {
					nc = dial()
				}
				if _, err := nc.Write(raw); err != nil {
					t.Fatalf("%s: %v", step.What, err)
				}
			case len(raw) == 0:
				if rest, err := io.ReadAll(nc); err != nil || len(rest) > 0 {
					t.Fatalf("%s: % x, %v", step.What, rest, err)
				}
				nc = nil
			default:
				got := make([]byte, len(raw))
				if n, err := io.ReadFull(nc, got); err != nil || string(got) != string(raw) {
					t.Fatalf("%s: % x (%q), %v\nwant % x", step.What, got[:n], got[:n], err, raw)
				}
			}
		}
		_ = nc.Close()
	})
}
