package mqttd_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

func TestConnect5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		for _, c := range []credential{module(t, h), parseCredential(t, mustConnectionString(t, h, hub.ID{Device: "pi-01"}))} {
			_, ack := connect5(t, h, c, c.hello5())
			p := ack.Properties
			if ack.SessionPresent || *p.ReceiveMaximum != 16 || *p.MaximumQOS != 1 || *p.RetainAvailable != 0 || *p.MaximumPacketSize != 262144 ||
				*p.TopicAliasMaximum != 10 || *p.SubIDAvailable != 0 || *p.SharedSubAvailable != 0 || p.AuthMethod != "SAS" {
				t.Errorf("CONNACK properties %+v", p)
			}
			if p.ServerKeepAlive != nil || p.SessionExpiryInterval != nil || p.AssignedClientID != "" || p.ResponseInfo != "" {
				t.Errorf("CONNACK has properties that were not called for: %+v", p)
			}
			if e := h.Wait(t, kind("connected")); e.ModuleID != c.module || e.Detail != "MQTT 5" {
				t.Errorf("event %+v", e)
			}
		}
	})
}

func TestConnackLimits5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		for keepAlive, want := range map[uint16]uint16{0: 1140, 1141: 1140, 1140: 0, 60: 0} {
			p := c.hello5()
			p.KeepAlive = keepAlive
			_, ack := connect5(t, h, c, p)
			got := uint16(0)
			if ack.Properties.ServerKeepAlive != nil {
				got = *ack.Properties.ServerKeepAlive
			}
			if got != want {
				t.Errorf("keep-alive %d: Server Keep Alive %d, want %d", keepAlive, got, want)
			}
		}
		for expiry, want := range map[uint32]bool{0: false, 1: true, math.MaxUint32: false} {
			p := c.hello5()
			p.CleanStart = true
			p.Properties.SessionExpiryInterval = &expiry
			_, ack := connect5(t, h, c, p)
			got := ack.Properties.SessionExpiryInterval
			if (got != nil) != want || (want && *got != math.MaxUint32) {
				t.Errorf("session expiry %d: %v in CONNACK", expiry, got)
			}
		}
	})
}

func TestHostFromSNI5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		p := c.hello5()
		p.Properties.User = slices.DeleteFunc(p.Properties.User, func(u packets.User) bool { return u.Key == "host" })
		connect5(t, h, c, p)
	})
}

func TestRefusedConnections5(t *testing.T) {
	without := func(key string) func(*credential, *packets.Connect) {
		return func(_ *credential, p *packets.Connect) {
			p.Properties.User = slices.DeleteFunc(p.Properties.User, func(u packets.User) bool { return u.Key == key })
		}
	}
	tests := []struct {
		name   string
		change func(*credential, *packets.Connect)
		code   byte
		status string
	}{
		{"wrong signature", func(_ *credential, p *packets.Connect) { p.Properties.AuthData[0] ^= 1 }, 135, "0101"},
		{"no signature", func(_ *credential, p *packets.Connect) { p.Properties.AuthData = nil }, 131, "0100"},
		{"run out", func(c *credential, p *packets.Connect) {
			p.Properties.User, p.Properties.AuthData = c.authentication(-time.Hour)
		}, 135, "0101"},
		{"sas-at not the signed one", func(c *credential, p *packets.Connect) { without("sas-at")(c, p) }, 135, "0101"},
		{"unknown device", func(_ *credential, p *packets.Connect) { p.ClientID = "pi-02" }, 135, "0101"},
		{"another identity's client id", func(_ *credential, p *packets.Connect) { p.ClientID = "pi-01" }, 135, "0101"},
		{"no client id", func(_ *credential, p *packets.Connect) { p.ClientID = "" }, 131, "0100"},
		{"client id of three parts", func(_ *credential, p *packets.Connect) { p.ClientID = "a/b/c" }, 131, "0100"},
		{"no Authentication Method", func(_ *credential, p *packets.Connect) { p.Properties.AuthMethod = "" }, 131, "0100"},
		{"unknown Authentication Method", func(_ *credential, p *packets.Connect) { p.Properties.AuthMethod = "sas" }, 140, "0100"},
		{"X509 without a certificate", func(_ *credential, p *packets.Connect) { p.Properties.AuthMethod = "X509" }, 135, "0101"},
		{"no sas-expiry", without("sas-expiry"), 131, "0100"},
		{"no api-version", without("api-version"), 131, "0100"},
		{"another api-version", func(_ *credential, p *packets.Connect) { p.Properties.User[0].Value = "2021-04-12" }, 131, "0100"},
		{"another host", func(_ *credential, p *packets.Connect) { p.Properties.User[1].Value = "other.azure-devices.net" }, 135, "0101"},
		{"unknown property", func(_ *credential, p *packets.Connect) {
			p.Properties.User = append(p.Properties.User, user("x", "1")...)
		}, 131, "0100"},
		{"user name", func(_ *credential, p *packets.Connect) { p.UsernameFlag, p.Username = true, "u" }, 131, "0100"},
		{"will elsewhere", func(_ *credential, p *packets.Connect) {
			p.WillFlag, p.WillTopic, p.WillProperties = true, "$iothub/commands", &packets.Properties{}
		}, 144, ""},
		{"will with QoS 2", func(_ *credential, p *packets.Connect) {
			p.WillFlag, p.WillQOS, p.WillTopic, p.WillProperties = true, 2, "$iothub/telemetry", &packets.Properties{}
		}, 155, ""},
		{"will with RETAIN", func(_ *credential, p *packets.Connect) {
			p.WillFlag, p.WillRetain, p.WillTopic, p.WillProperties = true, true, "$iothub/telemetry", &packets.Properties{}
		}, 154, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := module(t, h)
				p := c.hello5()
				test.change(&c, p)
				r := dial5(t, h, c)
				r.put(p)
				ack := get[*packets.Connack](r)
				if got := users(ack.Properties)["status"]; ack.ReasonCode != test.code || got != test.status || ack.SessionPresent {
					t.Errorf("CONNACK %d, status %q; want %d, %q", ack.ReasonCode, got, test.code, test.status)
				}
				r.closed()
			})
		})
	}
}

func TestMalformedConnect5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dial5(t, h, device(t, h))
		r.send(packet(0x10, str("MQTT"), []byte{5, 2, 0, 0, 9, 0x21}))
		if ack := get[*packets.Connack](r); ack.ReasonCode != 129 {
			t.Errorf("CONNACK %d", ack.ReasonCode)
		}
		r.closed()
	})
}

func TestReauthentication(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		start := time.Now()
		p := c.hello5()
		p.KeepAlive = 1140
		p.Properties.User, p.Properties.AuthData = c.authentication(10 * time.Minute)
		r, _ := connect5(t, h, c, p)
		time.Sleep(8 * time.Minute)
		u, data := c.authentication(10 * time.Minute)
		u = slices.DeleteFunc(u, func(u packets.User) bool { return !strings.HasPrefix(u.Key, "sas-") })
		r.put(&packets.Auth{ReasonCode: 0x19, Properties: &packets.Properties{AuthMethod: "SAS", AuthData: data, User: u}})
		if a := get[*packets.Auth](r); a.ReasonCode != 0 || a.Properties.AuthMethod != "SAS" {
			t.Errorf("AUTH %v", a)
		}
		r.endedLater(135, "0101") // when the second signature runs out
		if d := time.Since(start); d != 18*time.Minute {
			t.Errorf("closed after %v", d)
		}
		synctest.Wait()
		if n := count(h, "connected"); n != 1 {
			t.Errorf("%d connections: re-authentication must not be a new one", n)
		}
	})
}

func TestFailedReauthentication(t *testing.T) {
	for name, change := range map[string]func(*packets.Auth){
		"signature": func(p *packets.Auth) { p.Properties.AuthData[3] ^= 1 },
		"none":      func(p *packets.Auth) { p.Properties.AuthData = nil },
		"method":    func(p *packets.Auth) { p.Properties.AuthMethod = "X509" },
		"policy":    func(p *packets.Auth) { p.Properties.User = append(p.Properties.User, user("sas-policy", "device")...) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				r, _ := connect5(t, h, c, c.hello5())
				u, data := c.authentication(time.Hour)
				p := &packets.Auth{ReasonCode: 0x19, Properties: &packets.Properties{AuthMethod: "SAS", AuthData: data, User: u[2:4]}}
				change(p)
				r.put(p)
				if d := get[*packets.Disconnect](r); d.ReasonCode != 135 {
					t.Errorf("DISCONNECT %d %v", d.ReasonCode, users(d.Properties))
				}
			})
		})
	}
}

func TestSessions5(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := module(t, h)
		keeping := func() *packets.Connect {
			p := c.hello5()
			p.Properties.SessionExpiryInterval = ptr(uint32(3600))
			return p
		}
		r, ack := connect5(t, h, c, keeping())
		if ack.SessionPresent {
			t.Error("session present at the first connection")
		}
		r.subscribe5("$iothub/twin/patch/desired", "$iothub/methods/+")
		_ = r.Close()

		r, ack = connect5(t, h, c, keeping())
		if !ack.SessionPresent {
			t.Error("no session at the second connection")
		}
		desired(t, h, c.id(), 1)
		if m := get[*packets.Publish](r); m.Topic != "$iothub/twin/patch/desired" {
			t.Errorf("%v", m)
		}
		invoke(t, h, c.id(), "m", "1")
		if m := get[*packets.Publish](r); m.Topic != "$iothub/methods/m" {
			t.Errorf("%v", m)
		}

		connect(t, h, c, hello{}, 0).open() // 3.1.1 has another session, in the place of this one
		_, ack = connect5(t, h, c, keeping())
		if ack.SessionPresent {
			t.Error("the session of the other protocol version was taken up")
		}
		p := keeping()
		p.CleanStart = true
		if _, ack = connect5(t, h, c, p); ack.SessionPresent {
			t.Error("session present after a clean start")
		}
		r, ack = connect5(t, h, c, keeping())
		if !ack.SessionPresent {
			t.Error("no session after one that was kept")
		}
		r.put(&packets.Disconnect{Properties: &packets.Properties{SessionExpiryInterval: ptr(uint32(0))}})
		r.closed()
		r, ack = connect5(t, h, c, c.hello5())
		if ack.SessionPresent {
			t.Error("session present after DISCONNECT gave it up")
		}
		r.put(&packets.Disconnect{Properties: &packets.Properties{SessionExpiryInterval: ptr(uint32(5))}})
		r.ended(130, "")
	})
}
