package hub

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type vectors struct {
	Key    string
	SE     int64
	Tokens []struct{ Name, SR, Sig string }
	MQTT5  struct{ Host, ClientID, Policy, At, Expiry, Data string }
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	raw, err := os.ReadFile("../conformance/sas.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Tokens) < 4 {
		t.Fatalf("%d tokens in the vectors", len(v.Tokens))
	}
	return v
}

// vectorHub knows the identities of the vectors, with their key.
func vectorHub(t *testing.T, key string) *Hub {
	t.Helper()
	h := New(Options{HostName: "hub1.azure-devices.net"})
	auth := &Authentication{Type: "sas", SymmetricKey: SymmetricKey{&key, &key}}
	must(t)(h.PutDevice(Device{DeviceID: "pi-01", Authentication: auth}, ""))
	must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: "bme280", Authentication: auth}, ""))
	return h
}

// The bubble's clock starts in the year 2000, long before the vectors run out.
func TestSASVectors(t *testing.T) {
	v := readVectors(t)
	synctest.Test(t, func(t *testing.T) {
		h := vectorHub(t, v.Key)
		for _, c := range v.Tokens {
			id := ID{Device: "pi-01"}
			if strings.Contains(c.SR, "modules") {
				id.Module = "bme280"
			}
			token := fmt.Sprintf("SharedAccessSignature sr=%s&sig=%s&se=%d", c.SR, url.QueryEscape(c.Sig), v.SE)
			g, err := h.AuthSAS(id, token)
			wantError(t, c.Name, err, 0)
			if g.ID != id || g.Expires.Unix() != v.SE {
				t.Errorf("%s: grant %+v", c.Name, g)
			}
			_, err = h.AuthSAS(id, strings.Replace(token, fmt.Sprint("se=", v.SE), fmt.Sprint("se=", v.SE+1), 1))
			wantError(t, c.Name+" with another se", err, 401003)
			_, err = h.AuthSAS(id, strings.Replace(token, "pi-01", "PI-01", 1))
			wantError(t, c.Name+" with another sr", err, 401003)
		}
		m := v.MQTT5
		data, err := base64.StdEncoding.DecodeString(m.Data)
		must(t)(data, err)
		id := ID{Device: m.ClientID}
		g, err := h.AuthMQTT5(id, m.Host, m.Policy, "", m.Expiry, data)
		wantError(t, "MQTT 5 without the at that was signed", err, 401003)
		_, err = h.AuthMQTT5(id, m.Host, m.Policy, m.At, m.Expiry, data)
		wantError(t, "MQTT 5 signed in 26 years", err, 401003)
		_ = g
		time.Sleep(time.Until(time.UnixMilli(1767222000000)))
		g, err = h.AuthMQTT5(id, m.Host, m.Policy, m.At, m.Expiry, data)
		wantError(t, "MQTT 5", err, 0)
		if g.Expires.UnixMilli() != 1767225600000 {
			t.Errorf("MQTT 5: expires %v", g.Expires)
		}
		_, err = h.AuthMQTT5(ID{"pi-01", "bme280"}, m.Host, m.Policy, m.At, m.Expiry, data)
		wantError(t, "MQTT 5, a device's signature for its module", err, 401003)
		_, err = h.AuthMQTT5(id, "hub2.azure-devices.net", m.Policy, m.At, m.Expiry, data)
		wantError(t, "MQTT 5, another hub", err, 401003)
		_, err = h.AuthMQTT5(id, m.Host, m.Policy, m.At, "soon", data)
		wantError(t, "MQTT 5, no time", err, 401003)
		time.Sleep(time.Hour + 6*time.Minute)
		_, err = h.AuthMQTT5(id, m.Host, m.Policy, m.At, m.Expiry, data)
		wantError(t, "MQTT 5, run out", err, 401003)
	})
}

// TestSASScope: who may be whom with which key and which sr.
func TestSASScope(t *testing.T) {
	h := newHub(t)
	host := h.host
	must(t)(h.PutDevice(Device{DeviceID: "pi-011"}, ""))
	must(t)(h.PutDevice(Device{DeviceID: "a%2Fb+c#"}, ""))
	must(t)(h.PutDevice(Device{DeviceID: "off", Status: "disabled"}, ""))
	must(t)(h.PutDevice(Device{DeviceID: "cert", Authentication: &Authentication{Type: "selfSigned"}}, ""))
	device, a, b := ID{Device: "pi-01"}, ID{"pi-01", "a"}, ID{"pi-01", "b"}
	odd, off := ID{Device: "a%2Fb+c#"}, ID{Device: "off"}
	kd, ka, kOdd := keyOf(t, h, device), keyOf(t, h, a), keyOf(t, h, odd)
	policyKey := func(name string) string {
		p, ok := h.policy(name)
		if !ok {
			t.Fatal(name)
		}
		return p.PrimaryKey
	}
	second := text(mustDevice(t, h, "pi-01").Authentication.SymmetricKey.SecondaryKey)
	esc := url.QueryEscape
	soon := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name  string
		id    ID
		token string
		code  int
	}{
		{"secondary key", device, signSAS(second, esc(host+"/devices/pi-01"), soon, ""), 0},
		{"sr is the bare host (Go)", device, signSAS(kd, host, soon, ""), 0},
		{"sr escaped after signing (Go, modules)", a,
			signSASOver(ka, esc(esc(host+"/devices/pi-01/modules/a")), esc(host+"/devices/pi-01/modules/a"), soon, ""), 0},
		{"ids escaped once more (C# through an edge)", odd, signSAS(kOdd, esc(host+"/devices/"+esc("a%2Fb+c#")), soon, ""), 0},
		{"odd id, escaped", odd, signSAS(kOdd, esc(host+"/devices/a%2Fb+c#"), soon, ""), 0},
		{"odd id, not escaped (C)", odd, signSAS(kOdd, host+"/devices/a%2Fb+c#", soon, ""), 0},
		{"lower-cased audience (IDS)", device, signSAS(kd, strings.ToLower(esc(strings.ToUpper(host)+"/devices/PI-01")), soon, ""), 0},
		{"host with a port", device, signSAS(kd, esc(host+":8883/devices/pi-01"), soon, ""), 0},
		{"fields in another order (Java)", device, reorder(signSAS(kd, host+"/devices/pi-01", soon, "")), 0},
		{"empty skn (Node)", device, signSAS(kd, esc(host+"/devices/pi-01"), soon, "") + "&skn=", 0},

		{"another hub", device, signSAS(kd, esc("hub2.azure-devices.net/devices/pi-01"), soon, ""), 401003},
		{"sr is a prefix in characters only", ID{Device: "pi-011"}, signSAS(keyOf(t, h, ID{Device: "pi-011"}), esc(host+"/devices/pi-01"), soon, ""), 401003},
		{"sr is longer than the identity", device, signSAS(kd, esc(host+"/devices/pi-01/modules/a"), soon, ""), 401003},
		{"wrong key", device, signSAS(testKey, esc(host+"/devices/pi-01"), soon, ""), 401003},
		{"module a's token for module b", b, signSAS(ka, esc(host+"/devices/pi-01/modules/a"), soon, ""), 401003},
		{"module a's key for module b's resource", b, signSAS(ka, esc(host+"/devices/pi-01/modules/b"), soon, ""), 401003},
		{"the device's key for its module", a, signSAS(kd, esc(host+"/devices/pi-01"), soon, ""), 401003},
		{"a module's key for its device", device, signSAS(ka, esc(host+"/devices/pi-01"), soon, ""), 401003},
		{"run out within the skew", device, signSAS(kd, host, time.Now().Add(-4*time.Minute), ""), 0},
		{"run out", device, signSAS(kd, host, time.Now().Add(-6*time.Minute), ""), 401003},
		{"unknown device", ID{Device: "ghost"}, signSAS(kd, host, soon, ""), 404001},
		{"unknown module", ID{"pi-01", "ghost"}, signSAS(ka, host, soon, ""), 404010},
		{"disabled device", off, signSAS(keyOf(t, h, off), host, soon, ""), 403012},
		{"certificate identity", ID{Device: "cert"}, signSAS(testKey, host, soon, ""), 401003},

		{"policy device", a, signSAS(policyKey("device"), esc(host+"/devices"), soon, "device"), 0},
		{"owner for one device's modules", a, signSAS(policyKey("iothubowner"), esc(host+"/devices/pi-01"), soon, "iothubowner"), 0},
		{"policy for another device", a, signSAS(policyKey("device"), esc(host+"/devices/pi-011"), soon, "device"), 401003},
		{"policy without DeviceConnect", a, signSAS(policyKey("service"), host, soon, "service"), 401003},
		{"policy unknown", a, signSAS(ka, host, soon, "nobody"), 401003},
		{"policy with a device's key", a, signSAS(ka, host, soon, "device"), 401003},

		{"empty", device, "", 401003},
		{"two sr", device, signSAS(kd, host, soon, "") + "&sr=x", 401003},
		{"se no number", device, "SharedAccessSignature sr=x&sig=eA==&se=later", 401003},
		{"too long", device, signSAS(kd, host, soon, strings.Repeat("x", maxToken)), 401003},
	} {
		_, err := h.AuthSAS(c.id, c.token)
		wantError(t, c.name, err, c.code)
	}
}

func mustDevice(t *testing.T, h *Hub, id string) Device {
	t.Helper()
	d, err := h.Device(id)
	must(t)(d, err)
	return d
}

// reorder puts the fields as the Java SDK does: sig, se, sr.
func reorder(token string) string {
	fields := strings.Split(strings.TrimPrefix(token, "SharedAccessSignature "), "&")
	return "SharedAccessSignature " + strings.Join([]string{fields[1], fields[2], fields[0]}, "&")
}

func TestAuthService(t *testing.T) {
	h := newHub(t)
	soon := time.Now().Add(time.Hour)
	key := func(name string) string { p, _ := h.policy(name); return p.PrimaryKey }
	for _, c := range []struct {
		name, token string
		want        Permission
		path        string
		code        int
	}{
		{"owner", signSAS(key("iothubowner"), h.host, soon, "iothubowner"), Owner, "/devices/pi-01", 0},
		{"secondary", signSAS(h.policies[0].SecondaryKey, h.host, soon, "iothubowner"), Owner, "/devices/pi-01", 0},
		{"service, twin", signSAS(key("service"), h.host, soon, "service"), ServiceConnect, "/twins/pi-01", 0},
		{"service, registry", signSAS(key("service"), h.host, soon, "service"), RegistryRead, "/devices/pi-01", 401002},
		{"registryReadWrite, twin", signSAS(key("registryReadWrite"), h.host, soon, "registryReadWrite"), ServiceConnect, "/twins/pi-01", 401002},
		{"registryRead, write", signSAS(key("registryRead"), h.host, soon, "registryRead"), RegistryWrite, "/devices/pi-01", 401002},
		{"one device", signSAS(key("iothubowner"), url.QueryEscape(h.host+"/devices/pi-01"), soon, "iothubowner"), RegistryRead, "/devices/pi-01/modules", 0},
		{"another device", signSAS(key("iothubowner"), url.QueryEscape(h.host+"/devices/pi-01"), soon, "iothubowner"), RegistryRead, "/devices/pi-011", 401002},
		{"a device's key", signSAS(keyOf(t, h, ID{Device: "pi-01"}), h.host, soon, ""), RegistryRead, "/devices/pi-01", 401002},
		{"wrong key", signSAS(testKey, h.host, soon, "iothubowner"), RegistryRead, "/devices", 401002},
		{"wrong policy", signSAS(key("iothubowner"), h.host, soon, "owner"), RegistryRead, "/devices", 401002},
		{"run out", signSAS(key("iothubowner"), h.host, time.Now().Add(-time.Hour), "iothubowner"), RegistryRead, "/devices", 401002},
		{"none", "", RegistryRead, "/devices", 401002},
		{"bearer", "Bearer abc", RegistryRead, "/devices", 401002},
	} {
		err := h.AuthService(c.token, c.want, c.path)
		wantError(t, c.name, err, c.code)
		if e, ok := err.(*Error); ok && e.Text != "Unauthorized" {
			t.Errorf("%s: the text says more than the hub does: %q", c.name, e.Text)
		}
	}
}

// TestRefusalIsSeen: the one who is refused learns nothing, the one who watches learns why, and nobody learns a key.
func TestRefusalIsSeen(t *testing.T) {
	h := newHub(t)
	events := h.Watch(t.Context())
	_ = h.AuthService(signSAS(testKey, h.host, time.Now().Add(time.Hour), "service"), ServiceConnect, "/twins/x")
	if e := <-events; e.Kind != "refused" || !strings.Contains(e.Detail, "not signed by a key of policy service") {
		t.Errorf("event %+v", e)
	}
	_, _ = h.AuthSAS(ID{"pi-01", "b"}, token(t, h, ID{"pi-01", "a"}, time.Hour))
	if e := <-events; e.Kind != "refused" || e.ModuleID != "b" || !strings.Contains(e.Detail, "pi-01/b") {
		t.Errorf("event %+v", e)
	}
}

func TestConnectionStrings(t *testing.T) {
	h := New(Options{})
	must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
	must(t)(h.PutModule(Module{DeviceID: "d", ModuleID: "m"}, ""))
	if got := h.OwnerConnectionString(); !strings.HasPrefix(got, "HostName=twinbay-hub.local;SharedAccessKeyName=iothubowner;SharedAccessKey=") {
		t.Errorf("owner: %s", got)
	}
	got, err := h.ConnectionString(ID{"d", "m"})
	must(t)(got, err)
	if !strings.HasPrefix(got, "HostName=twinbay-hub.local;DeviceId=d;ModuleId=m;SharedAccessKey=") {
		t.Errorf("module: %s", got)
	}
	_, err = h.ConnectionString(ID{"d", "n"})
	wantError(t, "missing", err, 404001)
}

// FuzzParseSAS: whatever a stranger sends as a token, reading and checking it ends without a panic, and a token that
// nobody signed opens nothing.
func FuzzParseSAS(f *testing.F) {
	f.Add("SharedAccessSignature sr=hub1.azure-devices.net%2Fdevices%2Fpi-01&sig=ILPB&se=1767225600&skn=device")
	f.Add("SharedAccessSignature sig=%%%&sr=&se=-1")
	f.Add("sharedaccesssignature sr=%252525&sig=eA%3D%3D&se=99999999999999999999")
	f.Add("Bearer x")
	h := New(Options{HostName: "hub1.azure-devices.net"})
	if _, err := h.PutDevice(Device{DeviceID: "pi-01"}, ""); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if s, err := parseSAS(token); err == nil {
			if s.resource == "" || len(s.signature) == 0 || s.expires.Year() > 9999 {
				t.Errorf("taken: %+v", s)
			}
		}
		if g, err := h.AuthSAS(ID{Device: "pi-01"}, token); err == nil {
			t.Errorf("granted: %+v", g)
		}
		if err := h.AuthService(token, RegistryRead, "/devices"); err == nil {
			t.Error("granted to a service")
		}
	})
}
