package mqttd

import (
	"crypto/tls"
	"crypto/x509"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
)

const (
	apiVersion5     = "2020-10-01-preview"
	authSAS         = "SAS"
	authX509        = "X509"
	keepAliveMax5   = 1140 // seconds
	receiveMaximum5 = 16
	aliasMaximum5   = 10
	maxFilters5     = 50
)

// login5 is what authentication needs of a CONNECT packet, and again of AUTH.
type login5 struct {
	id               hub.ID
	host, policy     string
	at, expiry       string
	method           string
	data             []byte
	keepAlive        uint16 // the one in force
	keep             bool   // the session outlives the connection
	limit            int    // the longest packet that the client takes; 0 means any
	receiveMaximum   int    // messages with QoS 1 that the client takes without acknowledging one
	noProblemDetails bool
}

// readLogin5 checks what can be checked before the hub is asked.
func readLogin5(p *packets.Connect, sni string) (login5, *outcome) {
	device, module, isModule := strings.Cut(p.ClientID, "/")
	l := login5{id: hub.ID{Device: device, Module: module}, method: p.Properties.AuthMethod, data: p.Properties.AuthData}
	user, o := takeUser(p.Properties.User, "api-version", "host", "sas-at", "sas-expiry", "sas-policy", "client-agent")
	switch {
	case o != nil:
		return l, o
	case device == "" || (isModule && module == "") || strings.Contains(module, "/"):
		return l, badRequest("Client Id `%s` is neither device nor device/module", p.ClientID)
	case p.UsernameFlag || p.PasswordFlag:
		return l, badRequest("User Name and Password are not supported")
	case user["api-version"] != apiVersion5:
		return l, badRequest("`api-version` must be %s", apiVersion5)
	case p.Properties.ReceiveMaximum != nil && *p.Properties.ReceiveMaximum == 0: // MQTT 5, section 3.1.2.11.3
		return l, &outcome{code: reasonProtocol, reason: "Receive Maximum is 0"}
	case l.method == "":
		return l, badRequest("`Authentication Method` property is missing")
	case l.method != authSAS && l.method != authX509:
		return l, &outcome{reasonBadMethod, statusBadRequest, "`Authentication Method` is neither SAS nor X509"}
	}
	l.host, l.policy = user["host"], user["sas-policy"]
	l.at, l.expiry = user["sas-at"], user["sas-expiry"]
	if l.host == "" {
		l.host = sni
	}
	if l.host == "" {
		return l, badRequest("`host` property is missing, and so is SNI")
	}
	l.readLimits(p)
	return l, l.checkSAS()
}

func (l *login5) readLimits(p *packets.Connect) {
	l.keepAlive = p.KeepAlive
	if l.keepAlive == 0 || l.keepAlive > keepAliveMax5 {
		l.keepAlive = keepAliveMax5
	}
	l.keep = p.Properties.SessionExpiryInterval != nil && *p.Properties.SessionExpiryInterval > 0
	if p.Properties.MaximumPacketSize != nil {
		l.limit = int(*p.Properties.MaximumPacketSize)
	}
	l.receiveMaximum = math.MaxUint16
	if p.Properties.ReceiveMaximum != nil {
		l.receiveMaximum = int(*p.Properties.ReceiveMaximum)
	}
	l.noProblemDetails = p.Properties.RequestProblemInfo != nil && *p.Properties.RequestProblemInfo == 0
}

func (l *login5) checkSAS() *outcome {
	switch {
	case l.method == authX509: // by the certificate that TLS has
	case l.expiry == "":
		return badRequest("`sas-expiry` property is missing")
	case len(l.data) == 0:
		return badRequest("`Authentication Data` property is missing")
	}
	return nil
}

// renew is the login with the new signature of an AUTH packet.
func (l login5) renew(p *packets.Auth) (login5, *outcome) {
	user, o := takeUser(p.Properties.User, "sas-at", "sas-expiry", "sas-policy")
	if o != nil {
		return l, o
	}
	if p.ReasonCode != packets.AuthReauthenticate {
		return l, &outcome{code: reasonProtocol, reason: "AUTH with a reason code other than 0x19"}
	}
	policy, given := user["sas-policy"]
	if p.Properties.AuthMethod != l.method || (given && policy != l.policy) {
		return l, &outcome{reasonNotAuthorized, statusNotAuthorized, "re-authentication must keep method and policy"}
	}
	l.at, l.expiry, l.data = user["sas-at"], user["sas-expiry"], p.Properties.AuthData
	return l, l.checkSAS()
}

// tlsState is what TLS knows of a connection, nothing if it has none.
func tlsState(nc net.Conn) tls.ConnectionState {
	if t := tlsConn(nc); t != nil {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}

// serverName is what the client has named in TLS.
func serverName(c *conn) string { return tlsState(c.nc).ServerName }

// certificates are those that the client has shown in TLS, its own first.
func certificates(nc net.Conn) []*x509.Certificate { return tlsState(nc).PeerCertificates }

// readWill5 makes telemetry of a will.
func readWill5(p *packets.Connect) (*hub.Message, *outcome) {
	switch {
	case !p.WillFlag:
		return nil, nil
	case p.WillRetain:
		return nil, &outcome{code: reasonRetain, reason: "RETAIN is not supported"}
	case p.WillQOS > 1:
		return nil, &outcome{code: reasonQoS, reason: "Maximum QoS is 1"}
	case p.WillTopic != topic5Telemetry:
		return nil, &outcome{code: reasonTopicInvalid, reason: "a will goes to " + topic5Telemetry}
	}
	m, o := telemetry5(p.WillProperties, slices.Clone(p.WillMessage))
	if o != nil {
		return nil, o
	}
	m.Properties["iothub-MessageType"] = "Will"
	return &m, nil
}

// accept5 is the CONNACK of a connection that stands: "IoT Hub MQTT 5 support", Connection.
func accept5(p *packets.Connect, l login5, present bool) *packets.Connack {
	pr := &packets.Properties{
		ReceiveMaximum:     ptr(uint16(receiveMaximum5)),
		MaximumQOS:         ptr(byte(1)),
		RetainAvailable:    ptr(byte(0)),
		MaximumPacketSize:  ptr(uint32(maxMessage)),
		TopicAliasMaximum:  ptr(uint16(aliasMaximum5)),
		SubIDAvailable:     ptr(byte(0)),
		SharedSubAvailable: ptr(byte(0)),
		AuthMethod:         l.method, // MQTT 5, section 4.12: a successful CONNACK names the method
	}
	if s := p.Properties.SessionExpiryInterval; s != nil && *s > 0 && *s < math.MaxUint32 {
		pr.SessionExpiryInterval = ptr(uint32(math.MaxUint32))
	}
	if p.KeepAlive != l.keepAlive {
		pr.ServerKeepAlive = ptr(l.keepAlive)
	}
	return &packets.Connack{SessionPresent: present, Properties: pr}
}

func ptr[T any](v T) *T { return &v }

// patience is how long a client may be silent.
func (l login5) patience() time.Duration { return patience(l.keepAlive) }
