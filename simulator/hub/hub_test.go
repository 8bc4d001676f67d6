package hub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const testKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// newHub is a hub with device "pi-01" and its modules "a" and "b".
func newHub(t *testing.T) *Hub {
	t.Helper()
	h := New(Options{HostName: "hub1.azure-devices.net"})
	must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, ""))
	for _, m := range []string{"a", "b"} {
		must(t)(h.PutModule(Module{DeviceID: "pi-01", ModuleID: m}, ""))
	}
	return h
}

func must(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// wantError holds err to a code.
func wantError(t *testing.T, what string, err error, code int) {
	t.Helper()
	if code == 0 {
		if err != nil {
			t.Errorf("%s: %v, want no error", what, err)
		}
		return
	}
	e, ok := err.(*Error)
	if !ok || e == nil {
		t.Errorf("%s: %v, want %d", what, err, code)
		return
	}
	if e.Code != code {
		t.Errorf("%s: %d %v, want %d", what, e.Code, e, code)
	}
}

// keyOf is an identity's primary key.
func keyOf(t *testing.T, h *Hub, id ID) string {
	t.Helper()
	cs, err := h.ConnectionString(id)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(cs, "SharedAccessKey=")
	return key
}

// signSAS makes a token of an sr that is escaped already.
func signSAS(key, sr string, expires time.Time, policy string) string {
	return signSASOver(key, sr, sr, expires, policy)
}

func signSASOver(key, sr, signed string, expires time.Time, policy string) string {
	se := fmt.Sprint(expires.Unix())
	token := "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac(key, signed+"\n"+se))) + "&se=" + se
	if policy != "" {
		token += "&skn=" + policy
	}
	return token
}

func mac(key, text string) []byte {
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		panic(err)
	}
	m := hmac.New(sha256.New, raw)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// token is a good token of an identity's own key.
func token(t *testing.T, h *Hub, id ID, life time.Duration) string {
	t.Helper()
	return signSAS(keyOf(t, h, id), url.QueryEscape(h.host+"/"+strings.Join(id.resourcePath(), "/")), time.Now().Add(life), "")
}

// attach connects an identity with a token of its own.
func attach(t *testing.T, h *Hub, id ID, life time.Duration) (*Link, *peer) {
	t.Helper()
	g, err := h.AuthSAS(id, token(t, h, id, life))
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{}
	l, err := h.Attach(g, p)
	if err != nil {
		t.Fatal(err)
	}
	return l, p
}

// peer notes what the hub tells it.
type peer struct {
	mu      sync.Mutex
	desired []string
	mail    []Delivery
	closed  []*Error
	method  func(rid, name string, payload json.RawMessage)
}

func (p *peer) Protocol() string { return "test" }

func (p *peer) Desired(patch json.RawMessage, version int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.desired = append(p.desired, fmt.Sprint(version, " ", string(patch)))
}

func (p *peer) Method(rid, name string, payload json.RawMessage) {
	if p.method != nil {
		p.method(rid, name, payload)
	}
}

func (p *peer) CloudToDevice(d Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mail = append(p.mail, d)
}

func (p *peer) Close(why *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = append(p.closed, why)
}

func (p *peer) told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.desired)
}

// endedBy answers the code that the peer was closed with, 0 for not at all.
func (p *peer) endedBy(t *testing.T) int {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch len(p.closed) {
	case 0:
		return 0
	case 1:
		return p.closed[0].Code
	}
	t.Fatalf("closed %d times", len(p.closed))
	return 0
}
