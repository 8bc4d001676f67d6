package mqttd_test

import (
	"bytes"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hubtest"
)

// raw5 is a client that speaks packets of MQTT 5.
type raw5 struct{ *raw }

func ptr[T any](v T) *T { return &v }

func user(kv ...string) []packets.User {
	var u []packets.User
	for i := 0; i < len(kv); i += 2 {
		u = append(u, packets.User{Key: kv[i], Value: kv[i+1]})
	}
	return u
}

// authentication is what CONNECT and AUTH carry for a signature of this life.
func (c credential) authentication(life time.Duration) (users []packets.User, data []byte) {
	at := strconv.FormatInt(time.Now().UnixMilli(), 10)
	expiry := strconv.FormatInt(time.Now().Add(life).UnixMilli(), 10)
	data = c.sign(c.host + "\n" + c.clientID() + "\n\n" + at + "\n" + expiry + "\n")
	return user("api-version", "2020-10-01-preview", "host", c.host, "sas-at", at, "sas-expiry", expiry, "client-agent", "test"), data
}

// hello5 is a CONNECT packet that is right in everything.
func (c credential) hello5() *packets.Connect {
	u, data := c.authentication(time.Hour)
	return &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: c.clientID(), KeepAlive: 240,
		Properties: &packets.Properties{AuthMethod: "SAS", AuthData: data, User: u}}
}

func dial5(t testing.TB, h *hubtest.Hub, c credential) *raw5 {
	t.Helper()
	return &raw5{dial(t, h, c)}
}

// connect5 expects CONNACK 0 and answers it.
func connect5(t testing.TB, h *hubtest.Hub, c credential, p *packets.Connect) (*raw5, *packets.Connack) {
	t.Helper()
	r := dial5(t, h, c)
	r.put(p)
	ack := get[*packets.Connack](r)
	if ack.ReasonCode != 0 {
		t.Fatalf("CONNACK %d %v", ack.ReasonCode, ack.Properties.User)
	}
	return r, ack
}

func (r *raw5) put(p packets.Packet) {
	r.t.Helper()
	var b bytes.Buffer
	if _, err := p.WriteTo(&b); err != nil {
		r.t.Fatal(err)
	}
	r.send(b.Bytes())
}

// get reads a packet, which must be of this type.
func get[T packets.Packet](r *raw5) T {
	r.t.Helper()
	p, err := packets.ReadPacket(r.r)
	if err != nil {
		r.t.Fatal(err)
	}
	got, ok := p.Content.(T)
	if !ok {
		r.t.Fatalf("got %v, want a %T", p, got)
	}
	return got
}

// users are a packet's user properties.
func users(p *packets.Properties) map[string]string {
	m := map[string]string{}
	for _, u := range p.User {
		m[u.Key] = u.Value
	}
	return m
}

func (r *raw5) publish5(topic string, qos byte, id uint16, payload string, p *packets.Properties) {
	r.t.Helper()
	if p == nil {
		p = &packets.Properties{}
	}
	r.put(&packets.Publish{Topic: topic, QoS: qos, PacketID: id, Payload: []byte(payload), Properties: p})
}

// request sends a request and answers the response to it.
func (r *raw5) request(topic, payload string, u ...packets.User) *packets.Publish {
	r.t.Helper()
	correlation := []byte{1, 0xfa}
	r.publish5(topic, 0, 0, payload, &packets.Properties{CorrelationData: correlation, User: u})
	p := get[*packets.Publish](r)
	if p.Topic != "$iothub/responses" || p.QoS != 0 || !bytes.Equal(p.Properties.CorrelationData, correlation) {
		r.t.Fatalf("response %v", p)
	}
	return p
}

// subscribe5 answers the reason codes.
func (r *raw5) subscribe5(filters ...string) []byte {
	r.t.Helper()
	p := &packets.Subscribe{PacketID: 9, Properties: &packets.Properties{}}
	for _, f := range filters {
		p.Subscriptions = append(p.Subscriptions, packets.SubOptions{Topic: f, QoS: 1})
	}
	r.put(p)
	return get[*packets.Suback](r).Reasons
}

// ended expects DISCONNECT with this code and status at once, and the end of the connection.
func (r *raw5) ended(code byte, status string) {
	r.t.Helper()
	start := time.Now()
	r.endedLater(code, status)
	if d := time.Since(start); d > 5*time.Second { // no keep-alive runs out so soon
		r.t.Errorf("the connection ended after %v, not at once", d)
	}
}

func (r *raw5) endedLater(code byte, status string) {
	r.t.Helper()
	d := get[*packets.Disconnect](r)
	if got := users(d.Properties)["status"]; d.ReasonCode != code || got != status {
		r.t.Errorf("DISCONNECT %d, status %q (%s); want %d, %q", d.ReasonCode, got, users(d.Properties)["reason"], code, status)
	}
	r.ends()
}

func (r *raw5) wantUsers(p *packets.Properties, want map[string]string) {
	r.t.Helper()
	got := users(p)
	delete(got, "reason")
	if !maps.Equal(got, want) {
		r.t.Errorf("user properties %v, want %v", got, want)
	}
}
