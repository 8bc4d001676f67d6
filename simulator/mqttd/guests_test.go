package mqttd_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// These tests have other people's clients as guests, over real sockets and real TLS.

const patience = 10 * time.Second

// receive waits for a value in real time.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func waitToken(t *testing.T, token mqtt3.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("no answer, or %v", token.Error())
	}
}

// guest3 is paho.mqtt.golang.
type guest3 struct {
	mqtt3.Client
	messages chan mqtt3.Message
	lost     chan error
}

func newGuest3(t *testing.T, h *hubtest.Hub, address string, c credential, clean bool) *guest3 {
	t.Helper()
	g := &guest3{messages: make(chan mqtt3.Message, 10), lost: make(chan error, 1)}
	o := mqtt3.NewClientOptions().AddBroker("ssl://" + address).SetClientID(c.clientID()).SetUsername(c.user()).
		SetPassword(c.token(time.Hour)).SetCleanSession(clean).SetAutoReconnect(false).SetProtocolVersion(4).
		SetTLSConfig(h.TLS()).SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ mqtt3.Client, m mqtt3.Message) { g.messages <- m }).
		SetConnectionLostHandler(func(_ mqtt3.Client, err error) { g.lost <- err })
	g.Client = mqtt3.NewClient(o)
	token := g.Connect()
	waitToken(t, token)
	t.Cleanup(func() { g.Disconnect(0) })
	return g
}

func TestPahoMQTT3(t *testing.T) {
	h := hubtest.New(t)
	address := h.Listen()
	c := module(t, h)
	g := newGuest3(t, h, address, c, false)

	waitToken(t, g.Publish(c.base()+"/messages/events/%24.mid=1&a=b", 1, false, `{"t":1}`))
	if e := h.Wait(t, kind("telemetry")); e.ModuleID != "bme280" || e.System["message-id"] != "1" {
		t.Errorf("%+v", e)
	}
	waitToken(t, g.SubscribeMultiple(map[string]byte{
		"$iothub/twin/res/#": 0, "$iothub/twin/PATCH/properties/desired/#": 0, "$iothub/methods/POST/#": 0,
	}, nil))
	waitToken(t, g.Publish("$iothub/twin/GET/?$rid=1", 0, false, ""))
	if m := receive(t, g.messages, "the twin"); m.Topic() != "$iothub/twin/res/200/?$rid=1" {
		t.Errorf("%s %s", m.Topic(), m.Payload())
	}
	waitToken(t, g.Publish("$iothub/twin/PATCH/properties/reported/?$rid=2", 0, false, `{"a":1}`))
	if m := receive(t, g.messages, "the answer to the patch"); m.Topic() != "$iothub/twin/res/204/?$rid=2&$version=2" {
		t.Errorf("%s %s", m.Topic(), m.Payload())
	}
	desired(t, h, c.id(), 4)
	if m := receive(t, g.messages, "the desired change"); string(m.Payload()) != `{"$version":2,"n":4}` {
		t.Errorf("%s %s", m.Topic(), m.Payload())
	}
	done := invoke(t, h, c.id(), "reboot", `{}`)
	m := receive(t, g.messages, "the method")
	_, rid, _ := strings.Cut(m.Topic(), "$rid=")
	waitToken(t, g.Publish("$iothub/methods/res/200/?$rid="+rid, 0, false, `"done"`))
	if got := receive(t, done, "the method's answer"); got != `{"status":200,"payload":"done"}` {
		t.Errorf("%s", got)
	}

	// The newest connection wins, and finds the subscriptions.
	next := newGuest3(t, h, address, c, false)
	receive(t, g.lost, "the end of the older connection")
	desired(t, h, c.id(), 5)
	receive(t, next.messages, "the desired change on the newer connection")
}

func TestPahoMQTT3Refused(t *testing.T) {
	h := hubtest.New(t)
	c := device(t, h)
	o := mqtt3.NewClientOptions().AddBroker("ssl://" + h.Listen()).SetClientID(c.clientID()).SetUsername(c.user()).
		SetPassword(c.token(-time.Hour)).SetAutoReconnect(false).SetProtocolVersion(4).SetTLSConfig(h.TLS())
	token := mqtt3.NewClient(o).Connect()
	if !token.WaitTimeout(patience) || token.Error() == nil || !strings.Contains(token.Error().Error(), "ot Authorized") {
		t.Errorf("err = %v", token.Error())
	}
}

// guest5 is paho.golang.
type guest5 struct {
	*paho.Client
	messages     chan *paho.Publish
	disconnected chan byte
}

// oneStep is for an authentication that needs no second message.
type oneStep struct{}

func (oneStep) Authenticate(a *paho.Auth) *paho.Auth { return a }
func (oneStep) Authenticated()                       {}

func newGuest5(t *testing.T, h *hubtest.Hub, address string, c credential) (*guest5, *paho.Connack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc, err := (&tls.Dialer{Config: h.TLS()}).DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest5{messages: make(chan *paho.Publish, 10), disconnected: make(chan byte, 1)}
	g.Client = paho.NewClient(paho.ClientConfig{
		Conn:        packets.NewThreadSafeConn(nc),
		AuthHandler: oneStep{}, // without one, the client dies of a CONNACK that names the method
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) { g.messages <- p.Packet; return true, nil },
		},
		OnServerDisconnect: func(d *paho.Disconnect) { g.disconnected <- d.ReasonCode },
	})
	u, data := c.authentication(time.Hour)
	var pu paho.UserProperties
	for _, x := range u {
		pu.Add(x.Key, x.Value)
	}
	ack, err := g.Connect(ctx, &paho.Connect{ClientID: c.clientID(), KeepAlive: 60, Properties: &paho.ConnectProperties{
		AuthMethod: "SAS", AuthData: data, SessionExpiryInterval: ptr(uint32(3600)), User: pu}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Disconnect(&paho.Disconnect{}) })
	return g, ack
}

func (g *guest5) send(t *testing.T, p *paho.Publish) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := g.Publish(ctx, p); err != nil {
		t.Fatal(err)
	}
}

func (g *guest5) request(t *testing.T, topic, payload string) *paho.Publish {
	t.Helper()
	g.send(t, &paho.Publish{Topic: topic, Payload: []byte(payload), Properties: &paho.PublishProperties{CorrelationData: []byte("c1")}})
	m := receive(t, g.messages, "the answer on "+topic)
	if m.Topic != "$iothub/responses" || string(m.Properties.CorrelationData) != "c1" {
		t.Fatalf("%v", m)
	}
	return m
}

func TestPahoMQTT5(t *testing.T) {
	h := hubtest.New(t)
	address := h.Listen()
	c := module(t, h)
	g, ack := newGuest5(t, h, address, c)
	if ack.SessionPresent {
		t.Error("session present at the first connection")
	}
	g.send(t, &paho.Publish{Topic: "$iothub/telemetry", QoS: 1, Payload: []byte(`{"t":1}`), Properties: &paho.PublishProperties{
		ContentType: "application/json", User: paho.UserProperties{{Key: "message-id", Value: "1"}, {Key: "@a", Value: "b"}}}})
	if e := h.Wait(t, kind("telemetry")); e.ModuleID != "bme280" || e.System["message-id"] != "1" || e.Properties["a"] != "b" {
		t.Errorf("%+v", e)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := g.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{
		{Topic: "$iothub/twin/patch/desired"}, {Topic: "$iothub/methods/+"}}}); err != nil {
		t.Fatal(err)
	}
	if m := g.request(t, "$iothub/twin/get", ""); !json.Valid(m.Payload) {
		t.Errorf("%s", m.Payload)
	}
	if m := g.request(t, "$iothub/twin/patch/reported", `{"a":1}`); m.Properties.User.Get("version") != "2" {
		t.Errorf("%v", m)
	}
	desired(t, h, c.id(), 4)
	if m := receive(t, g.messages, "the desired change"); m.Topic != "$iothub/twin/patch/desired" || m.Properties.User.Get("version") != "2" {
		t.Errorf("%v", m)
	}
	done := invoke(t, h, c.id(), "reboot", `{}`)
	m := receive(t, g.messages, "the method")
	g.send(t, &paho.Publish{Topic: "$iothub/responses", Payload: []byte(`"done"`), Properties: &paho.PublishProperties{
		CorrelationData: m.Properties.CorrelationData, User: paho.UserProperties{{Key: "response-code", Value: "200"}}}})
	if got := receive(t, done, "the method's answer"); got != `{"status":200,"payload":"done"}` {
		t.Errorf("%s", got)
	}

	u, data := c.authentication(2 * time.Hour)
	a, err := g.Authenticate(ctx, &paho.Auth{ReasonCode: 0x19, Properties: &paho.AuthProperties{AuthMethod: "SAS", AuthData: data,
		User: paho.UserProperties{{Key: u[2].Key, Value: u[2].Value}, {Key: u[3].Key, Value: u[3].Value}}}})
	if err != nil || !a.Success {
		t.Errorf("re-authentication: %+v, %v", a, err)
	}

	next, ack := newGuest5(t, h, address, c)
	if code := receive(t, g.disconnected, "DISCONNECT on the older connection"); code != 142 {
		t.Errorf("DISCONNECT %d", code)
	}
	if !ack.SessionPresent {
		t.Error("no session at the second connection")
	}
	desired(t, h, c.id(), 5)
	receive(t, next.messages, "the desired change on the newer connection")
}

func TestBothVersionsOnOnePort(t *testing.T) {
	h := hubtest.New(t)
	address := h.Listen()
	m := module(t, h)
	d := parseCredential(t, mustConnectionString(t, h, hub.ID{Device: "pi-01"}))
	g3 := newGuest3(t, h, address, d, true)
	g5, _ := newGuest5(t, h, address, m)
	waitToken(t, g3.Publish(d.base()+"/messages/events/", 1, false, "3"))
	g5.send(t, &paho.Publish{Topic: "$iothub/telemetry", QoS: 1, Payload: []byte("5")})
	if e := h.Wait(t, kind("telemetry")); e.ModuleID != "" || string(e.Body) != "3" {
		t.Errorf("%+v", e)
	}
	if e := h.Wait(t, kind("telemetry")); e.ModuleID != "bme280" || string(e.Body) != "5" {
		t.Errorf("%+v", e)
	}
}

// Many clients that talk at once lose nothing.
func TestManyGuests(t *testing.T) {
	h := hubtest.New(t)
	address := h.Listen()
	var taken atomic.Int64
	finished := make(chan struct{})
	const guests, each = 10, 20
	for i := range guests {
		c := parseCredential(t, h.Module("pi-01", string(rune('a'+i))))
		go func() {
			defer func() { finished <- struct{}{} }()
			o := mqtt3.NewClientOptions().AddBroker("ssl://" + address).SetClientID(c.clientID()).SetUsername(c.user()).
				SetPassword(c.token(time.Hour)).SetAutoReconnect(false).SetProtocolVersion(4).SetTLSConfig(h.TLS())
			g := mqtt3.NewClient(o)
			if token := g.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
				t.Errorf("connect: %v", token.Error())
				return
			}
			defer g.Disconnect(100)
			for range each {
				if token := g.Publish(c.base()+"/messages/events/", 1, false, "{}"); token.WaitTimeout(patience) && token.Error() == nil {
					taken.Add(1)
				}
			}
		}()
	}
	for range guests {
		receive(t, finished, "a guest's end")
	}
	if n := taken.Load(); n != guests*each {
		t.Errorf("%d of %d messages were acknowledged", n, guests*each)
	}
	for range guests * each {
		h.Wait(t, kind("telemetry"))
	}
}

// A client that has sent more than the hub cares to read must still learn why it was refused, not just see a reset.
func TestRefusalArrivesThoughMoreWasSent(t *testing.T) {
	h := hubtest.New(t)
	c := device(t, h)
	nc, err := tls.Dial("tcp", h.Listen(), h.TLS())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	r := &raw{t, c, nc, bufio.NewReader(nc)}
	r.send(hello{password: "nonsense"}.packet(c), make([]byte, 200_000))
	r.expect(0x20, []byte{0, 5})
	r.closed()
}
