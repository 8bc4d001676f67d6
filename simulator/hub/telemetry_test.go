package hub

import (
	"crypto/x509"
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// stamped are the system properties that the hub sets.
func stamped(id ID, generation, method, enqueued string) map[string]string {
	all := map[string]string{
		"iothub-connection-device-id": id.Device, "iothub-connection-auth-generation-id": generation,
		"iothub-enqueuedtime": enqueued, "iothub-message-source": "Telemetry",
	}
	if id.Module != "" {
		all["iothub-connection-module-id"] = id.Module
	}
	if method != "" {
		all["iothub-connection-auth-method"] = method
	}
	return all
}

// TestStamps: each message tells who has sent it, how that one has proved itself, and when the hub had it; nobody can say
// so of himself.
func TestStamps(t *testing.T) {
	const bySAS = `","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}`
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		defer h.Close()
		policy := h.policies[0]
		for _, id := range []ID{{"pi-01", ""}, {"pi-01", "a"}} {
			scope := map[bool]string{true: "device", false: "module"}[id.Module == ""]
			own, err := h.AuthSAS(id, token(t, h, id, time.Hour))
			must(t)(own, err)
			hubs, err := h.AuthSAS(id, signSAS(policy.PrimaryKey, "hub1.azure-devices.net", h.Now().Add(time.Hour), policy.Name))
			must(t)(hubs, err)
			silent := own
			silent.Method = "" // MQTT 5
			for _, c := range []struct {
				name   string
				grant  Grant
				method string
			}{
				{"own key", own, `{"scope":"` + scope + bySAS},
				{"policy", hubs, `{"scope":"hub` + bySAS},
				{"without a method", silent, ""},
			} {
				events := h.Watch(t.Context())
				link, err := h.Attach(c.grant, &peer{})
				must(t)(link, err)
				for _, send := range []func(Message) error{link.Telemetry, func(m Message) error { return h.Telemetry(c.grant, m) }} {
					time.Sleep(1234567 * time.Microsecond)
					system := map[string]string{"message-id": "x", "content-type": "application/json", "content-encoding": "utf-8",
						"iothub-connection-device-id": "spoofed", "iothub-connection-module-id": "spoofed", "iothub-connection-auth-method": "spoofed",
						"iothub-enqueuedtime": "spoofed", "dt-dataschema": "spoofed"}
					before := maps.Clone(system)
					if err := send(Message{Body: []byte("1"), System: system}); err != nil {
						t.Fatal(err)
					}
					if !maps.Equal(system, before) {
						t.Errorf("the sender's own map has become %v", system)
					}
					want := stamped(id, h.Generation(id), c.method, time.Now().UTC().Format("2006-01-02T15:04:05.0000000Z"))
					want["message-id"], want["content-type"], want["content-encoding"] = "x", "application/json", "utf-8"
					e := next(t, events, "telemetry")
					if !maps.Equal(e.System, want) {
						t.Errorf("%s, %s:\n got %v\nwant %v", id, c.name, e.System, want)
					}
					if !e.At.Equal(time.Now()) {
						t.Errorf("%s, %s: at %s, want %s", id, c.name, e.At, time.Now())
					}
				}
			}
		}
	})
}

// next is the next event of a kind.
func next(t *testing.T, events <-chan Event, kind string) Event {
	t.Helper()
	for {
		select {
		case e := <-events:
			if e.Kind == kind {
				return e
			}
		default:
			t.Fatalf("no event %s", kind)
		}
	}
}

// TestStampsOfNewIdentity: a device that is made anew under the same name is another one.
func TestStampsOfNewIdentity(t *testing.T) {
	h := newHub(t)
	defer h.Close()
	id := ID{"pi-01", ""}
	events := h.Watch(t.Context())
	seen := map[string]bool{}
	for range 2 {
		g, err := h.AuthSAS(id, token(t, h, id, time.Hour))
		must(t)(g, err)
		if err := h.Telemetry(g, Message{Body: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		seen[next(t, events, "telemetry").System["iothub-connection-auth-generation-id"]] = true
		if err := h.DeleteDevice(id.Device, "*"); err != nil {
			t.Fatal(err)
		}
		must(t)(h.PutDevice(Device{DeviceID: id.Device}, ""))
	}
	if len(seen) != 2 || seen[""] {
		t.Errorf("generations %v, want two", seen)
	}
}

func TestChoiceCertificateAuthMethod(t *testing.T) {
	eachChoice(t, CertificateAuthMethod, func(t *testing.T, h *Hub, value string) {
		root := (*issuer)(nil).issue(t, "root", authority)
		h.deviceCAs = x509.NewCertPool()
		h.deviceCAs.AddCert(root.cert)
		id := ID{"pi-02", ""}
		must(t)(h.PutDevice(Device{DeviceID: id.Device, Authentication: &Authentication{Type: authCA}}, ""))
		g, err := h.AuthX509(id, []*x509.Certificate{root.issue(t, id.Device, nil).cert})
		must(t)(g, err)
		want := map[string]string{
			"x509":            `{"scope":"device","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}`,
			"x509Certificate": `{"scope":"device","type":"x509Certificate","issuer":"external","acceptingIpFilterRule":null}`,
		}[value]
		events := h.Watch(t.Context())
		if err := h.Telemetry(g, Message{Body: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		if got := next(t, events, "telemetry").System["iothub-connection-auth-method"]; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}
