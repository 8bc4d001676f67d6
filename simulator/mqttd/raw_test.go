package mqttd_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// credential is a connection string taken apart.
type credential struct{ host, device, module, key string }

func parseCredential(t testing.TB, text string) credential {
	t.Helper()
	var c credential
	for part := range strings.SplitSeq(text, ";") {
		k, v, _ := strings.Cut(part, "=")
		switch k {
		case "HostName":
			c.host = v
		case "DeviceId":
			c.device = v
		case "ModuleId":
			c.module = v
		case "SharedAccessKey":
			c.key = v
		}
	}
	if c.host == "" || c.device == "" || c.key == "" {
		t.Fatalf("connection string lacks something: %d bytes", len(text))
	}
	return c
}

func (c credential) clientID() string {
	if c.module == "" {
		return c.device
	}
	return c.device + "/" + c.module
}

func (c credential) base() string {
	if c.module == "" {
		return "devices/" + c.device
	}
	return "devices/" + c.device + "/modules/" + c.module
}

func (c credential) user() string { return c.host + "/" + c.clientID() + "/?api-version=2021-04-12" }

func (c credential) sign(text string) []byte {
	key, err := base64.StdEncoding.DecodeString(c.key)
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func (c credential) token(life time.Duration) string {
	sr := url.QueryEscape(c.host + "/" + c.base())
	se := strconv.FormatInt(time.Now().Add(life).Unix(), 10)
	sig := base64.StdEncoding.EncodeToString(c.sign(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(sig) + "&se=" + se
}

func str(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func u16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// packet puts a packet of parts together.
func packet(first byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	p := []byte{first}
	n := len(body)
	for ; n >= 128; n /= 128 {
		p = append(p, byte(n%128)|128)
	}
	return append(append(p, byte(n)), body...)
}

// hello says how to connect. The zero value connects a persistent session with 240 s of keep-alive.
type hello struct {
	clean              bool
	keepAlive          uint16
	noKeepAlive        bool
	clientID, user     string // "": the credential's
	password           string // "": a fresh token, "-": none
	willTopic, willMsg string
	willFlags          byte
	level              byte
}

func (h hello) packet(c credential) []byte {
	flags := byte(0xc0)
	if h.clean {
		flags |= 2
	}
	if h.level == 0 {
		h.level = 4
	}
	if h.keepAlive == 0 && !h.noKeepAlive {
		h.keepAlive = 240
	}
	if h.clientID == "" {
		h.clientID = c.clientID()
	}
	if h.user == "" {
		h.user = c.user()
	}
	parts := [][]byte{str("MQTT"), {h.level, 0}, u16(h.keepAlive), str(h.clientID)}
	if h.willTopic != "" {
		flags |= 4 | h.willFlags
		parts = append(parts, str(h.willTopic), str(h.willMsg))
	}
	parts = append(parts, str(h.user))
	switch h.password {
	case "":
		parts = append(parts, str(c.token(time.Hour)))
	case "-":
		flags &^= 0x40
	default:
		parts = append(parts, str(h.password))
	}
	parts[1][1] = flags
	return packet(0x10, parts...)
}

// raw is a client that speaks bytes.
type raw struct {
	t testing.TB
	c credential
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, h *hubtest.Hub, c credential) *raw {
	t.Helper()
	nc, err := h.DialTLS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &raw{t, c, nc, bufio.NewReader(nc)}
}

// connect expects CONNACK with this session-present flag.
func connect(t testing.TB, h *hubtest.Hub, c credential, how hello, present byte) *raw {
	t.Helper()
	r := dial(t, h, c)
	r.send(how.packet(c))
	r.expect(0x20, []byte{present, 0})
	return r
}

func (r *raw) send(p ...[]byte) {
	r.t.Helper()
	if _, err := r.Write(bytes.Join(p, nil)); err != nil {
		r.t.Fatalf("write: %v", err)
	}
}

func (r *raw) publish(topic, payload string) {
	r.t.Helper()
	r.send(packet(0x30, str(topic), []byte(payload)))
}

// subscribe expects the filters to be granted QoS 0.
func (r *raw) subscribe(filters ...string) {
	r.t.Helper()
	parts := [][]byte{u16(9)}
	for _, f := range filters {
		parts = append(parts, str(f), []byte{0})
	}
	r.send(packet(0x82, parts...))
	r.expect(0x90, append(u16(9), make([]byte, len(filters))...))
}

// next reads one packet; err is what ended the connection.
func (r *raw) next() (first byte, body []byte, err error) {
	if first, err = r.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r.r, body)
	return first, body, err
}

// expect fails unless this packet comes next.
func (r *raw) expect(first byte, body []byte) {
	r.t.Helper()
	f, b, err := r.next()
	if err != nil || f != first || !bytes.Equal(b, body) {
		r.t.Fatalf("got %#x % x (%q), %v\nwant %#x % x", f, b, b, err, first, body)
	}
}

// message expects a PUBLISH with QoS 0.
func (r *raw) message() (topic, payload string) {
	r.t.Helper()
	f, b, err := r.next()
	if err != nil || f != 0x30 || len(b) < 2 {
		r.t.Fatalf("got %#x % x, %v; want a PUBLISH with QoS 0", f, b, err)
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return string(b[2:n]), string(b[n:])
}

// closed fails unless the hub ends the connection at once, and without a packet.
func (r *raw) closed() {
	r.t.Helper()
	start := time.Now()
	r.ends()
	if d := time.Since(start); d > 5*time.Second { // no keep-alive runs out so soon
		r.t.Errorf("the connection ended after %v, not at once", d)
	}
}

// ends fails unless the hub ends the connection, sooner or later, and without a packet.
func (r *raw) ends() {
	r.t.Helper()
	if f, b, err := r.next(); err != io.EOF {
		r.t.Fatalf("got %#x % x, %v; want the end of the connection", f, b, err)
	}
}

// open fails unless the connection still answers.
func (r *raw) open() {
	r.t.Helper()
	r.send([]byte{0xc0, 0})
	r.expect(0xd0, nil)
}

// bubble runs a test with a hub inside a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T, h *hubtest.Hub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, hubtest.New(t)) })
}

func device(t testing.TB, h *hubtest.Hub) credential {
	t.Helper()
	return parseCredential(t, h.Device("pi-01"))
}

func module(t testing.TB, h *hubtest.Hub) credential {
	t.Helper()
	return parseCredential(t, h.Module("pi-01", "bme280"))
}

func (c credential) id() hub.ID { return hub.ID{Device: c.device, Module: c.module} }

func kind(k string) func(hub.Event) bool {
	return func(e hub.Event) bool { return e.Kind == k }
}

// count is how many events of a kind there have been.
func count(h *hubtest.Hub, k string) int {
	n := 0
	for _, e := range h.Events() {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// desired changes a desired property from the service's side.
func desired(t testing.TB, h *hubtest.Hub, id hub.ID, value int) {
	t.Helper()
	patch := fmt.Sprintf(`{"properties":{"desired":{"n":%d}}}`, value)
	if _, err := h.PatchTwin(id, []byte(patch), ""); err != nil {
		t.Fatal(err)
	}
}
