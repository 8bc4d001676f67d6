package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"

	"github.com/twinbay/twinbay/simulator/hub"
)

const patience = 10 * time.Second

// started is a simulator that serves until the test ends, with device "d".
func started(t *testing.T) (s *Simulator, trust *tls.Config, key string) {
	t.Helper()
	s, err := Start(t.Context(), Config{Dir: t.TempDir(), NoRig: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	pem, err := os.ReadFile(s.Env["CA_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	if _, err := s.Hub.PutDevice(hub.Device{DeviceID: "d"}, ""); err != nil {
		t.Fatal(err)
	}
	text, err := s.Hub.ConnectionString(hub.ID{Device: "d"})
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ = strings.Cut(text, "SharedAccessKey=")
	return s, &tls.Config{RootCAs: roots, ServerName: "localhost"}, key
}

func mac(t *testing.T, key, text string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	m := hmac.New(sha256.New, raw)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// event waits for one of a kind.
func event(t *testing.T, from <-chan hub.Event, kind string) hub.Event {
	t.Helper()
	over := time.After(patience)
	for {
		select {
		case e := <-from:
			if e.Kind == kind {
				return e
			}
		case <-over:
			t.Fatalf("no event %s", kind)
		}
	}
}

func (s *Simulator) socket() string {
	return "wss://127.0.0.1:" + s.Env["HTTPS_PORT"] + "/$iothub/websocket"
}

func TestMQTT3OverWebSocket(t *testing.T) {
	s, trust, key := started(t)
	events := s.Hub.Watch(t.Context())
	sr, se := url.QueryEscape("localhost/devices/d"), strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	token := "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac(t, key, sr+"\n"+se))) + "&se=" + se
	got := make(chan string, 10)
	o := mqtt3.NewClientOptions().AddBroker(s.socket()).SetClientID("d").SetUsername("localhost/d/?api-version=2021-04-12").
		SetPassword(token).SetTLSConfig(trust).SetCleanSession(false).SetProtocolVersion(4).SetAutoReconnect(false)
	c := mqtt3.NewClient(o)
	wait := func(what string, token mqtt3.Token) {
		t.Helper()
		if !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatalf("%s: %v", what, token.Error())
		}
	}
	wait("connect", c.Connect())
	defer c.Disconnect(0)
	large := strings.Repeat("x", 200<<10)
	wait("publish", c.Publish("devices/d/messages/events/a=b", 1, false, large))
	if e := event(t, events, "telemetry"); string(e.Base64) != large || e.Properties["a"] != "b" {
		t.Errorf("%d bytes, %v", len(e.Base64), e.Properties)
	}
	wait("subscribe", c.Subscribe("devices/d/messages/devicebound/#", 1, func(_ mqtt3.Client, m mqtt3.Message) { got <- string(m.Payload()) }))
	if err := s.Hub.SendC2D(hub.ID{Device: "d"}, hub.C2D{Message: hub.Message{Body: []byte("down")}}); err != nil {
		t.Fatal(err)
	}
	select {
	case body := <-got:
		if body != "down" {
			t.Errorf("message %q", body)
		}
	case <-time.After(patience):
		t.Fatal("no message")
	}
}

func TestMQTT5OverWebSocket(t *testing.T) {
	s, trust, key := started(t)
	d := websocket.Dialer{TLSClientConfig: trust, Subprotocols: []string{"mqtt"}, HandshakeTimeout: patience}
	c, _, err := d.DialContext(t.Context(), s.socket(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	expiry := strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)
	// The host is left out: the hub takes the name in TLS, below the WebSocket.
	user := []packets.User{{Key: "api-version", Value: "2020-10-01-preview"}, {Key: "sas-expiry", Value: expiry}}
	hello := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: "d", KeepAlive: 60, Properties: &packets.Properties{
		AuthMethod: "SAS", AuthData: mac(t, key, "localhost\nd\n\n\n"+expiry+"\n"), User: user}}
	var b bytes.Buffer
	_, _ = hello.WriteTo(&b)
	for _, half := range [][]byte{b.Bytes()[:10], b.Bytes()[10:]} { // packets need not end with messages
		if err := c.WriteMessage(websocket.BinaryMessage, half); err != nil {
			t.Fatal(err)
		}
	}
	kind, answer, err := c.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage {
		t.Fatalf("%d, %v", kind, err)
	}
	p, err := packets.ReadPacket(bytes.NewReader(answer))
	if err != nil {
		t.Fatal(err)
	}
	if ack, ok := p.Content.(*packets.Connack); !ok || ack.ReasonCode != 0 {
		t.Errorf("%v, want CONNACK 0", p)
	}
	if _, err := s.Hub.PutDevice(hub.Device{DeviceID: "d", Status: "disabled"}, "*"); err != nil {
		t.Fatal(err)
	}
	_, answer, err = c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if p, err = packets.ReadPacket(bytes.NewReader(answer)); err != nil || p.Type != packets.DISCONNECT {
		t.Errorf("%v, %v, want DISCONNECT", p, err)
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("then %v, want a close frame", err)
	}
}

func TestWebSocketAtAnotherPath(t *testing.T) {
	s, trust, _ := started(t)
	d := websocket.Dialer{TLSClientConfig: trust, Subprotocols: []string{"mqtt"}, HandshakeTimeout: patience}
	_, r, err := d.DialContext(t.Context(), strings.TrimSuffix(s.socket(), "/$iothub/websocket")+"/mqtt", nil)
	if err == nil || r == nil || r.StatusCode != http.StatusBadRequest {
		t.Errorf("%v, %v, want 400", r, err)
	}
}
