package mqttd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
)

// device5 is an identity connected with MQTT 5.
type device5 struct {
	device
	login   login5
	aliases [aliasMaximum5 + 1]string // topics by alias; 0 is none
}

// refusal5 is why a CONNECT gets no CONNACK 0.
type refusal5 struct{ *outcome }

func (r refusal5) Unwrap() error { return r.outcome }

// Protocol is for the hub's event.
func (d *device5) Protocol() string { return "MQTT 5" }

// serve5 serves a connection from its CONNECT packet to its end.
func (s *Server) serve5(c *conn, f frame) error {
	d := &device5{device: device{srv: s, c: c}}
	err := deep(func() error { return d.connect(f) })
	if err == nil {
		err = d.run()
	}
	d.leave(err)
	var goodbye []byte
	if r, ok := errors.AsType[refusal5](err); ok {
		goodbye = encode5(&packets.Connack{ReasonCode: r.code, Properties: &packets.Properties{User: r.user()}})
	} else if o := farewell(err); o != nil && d.sess != nil { // without a session there has been no CONNACK
		goodbye = encode5(&packets.Disconnect{ReasonCode: o.code, Properties: &packets.Properties{User: o.user()}})
	}
	c.finish(goodbye)
	return err
}

func (d *device5) connect(f frame) error {
	decoded, err := decode5(f)
	if err != nil {
		return refusal5{&outcome{code: reasonMalformed, reason: err.Error()}}
	}
	p := decoded.(*packets.Connect)
	l, o := readLogin5(p, serverName(d.c))
	if o != nil {
		return refusal5{o}
	}
	d.login, d.id = l, l.id
	will, o := readWill5(p)
	if o != nil {
		return refusal5{o}
	}
	grant, err := d.authenticate(l)
	if err != nil {
		return refusal5{refused(err)}
	}
	switch do, err := d.ask("connect"); {
	case err != nil:
		return err
	case do == doRefuse:
		o := refused(faultError(do))
		if d.connack >= firstFailure5 {
			o.code, o.status = d.connack, ""
		}
		return refusal5{o}
	case do == doQuota:
		return refusal5{hubStatus(faultError(do))}
	case do == doThrottle:
		return refusal5{&outcome{reasonConnectionRate, statusThrottled, faultError(do).Text}}
	case do == doDrop:
		return d.ignore()
	}
	grant.Method = "" // "IoT Hub MQTT 5 support": messages are not stamped with it, unlike those of MQTT 3.1.1
	if err := d.attach(grant, d); err != nil {
		return refusal5{refused(err)}
	}
	d.will = will
	sess, present := d.srv.openSession(d.id, 5, p.CleanStart, l.keep)
	d.sess = sess
	d.c.queue(encode5(accept5(p, l, present)))
	d.c.patient(l.patience())
	d.wantMethods()
	d.link.Want(hub.Desired, sess.has(topic5Desired))
	d.wantC2D()
	return d.c.release()
}

func (d *device5) authenticate(l login5) (hub.Grant, error) {
	if l.method == authX509 {
		if host := d.srv.hub.HostName(); !strings.EqualFold(l.host, host) {
			return hub.Grant{}, fmt.Errorf("`host` is %q, and this is %q", l.host, host)
		}
		return d.srv.hub.AuthX509(l.id, certificates(d.c.nc))
	}
	return d.srv.hub.AuthMQTT5(l.id, l.host, l.policy, l.at, l.expiry, l.data)
}

// refused is how every failed authentication looks, whatever the hub's number for it.
func refused(err error) *outcome {
	return &outcome{reasonNotAuthorized, statusNotAuthorized, asHubError(err).Text}
}

func (d *device5) run() error {
	for {
		f, err := d.c.in.next()
		if err != nil {
			return explain(d.c, err, errSilent)
		}
		if d.c.isFrozen() {
			return d.c.thaw()
		}
		if len(f.raw) > maxMessage {
			return fmt.Errorf("%w: Maximum Packet Size is %d", errTooLarge, maxMessage)
		}
		p, err := decode5(f)
		if err != nil {
			return err
		}
		if err := d.handle(p); err != nil {
			return err
		}
	}
}

func (d *device5) handle(p packets.Packet) error {
	switch p := p.(type) {
	case *packets.Publish:
		return d.publish(p)
	case *packets.Puback:
		d.settle(p.PacketID, outcome5(p))
		return nil
	case *packets.Subscribe:
		return d.subscribe(p)
	case *packets.Unsubscribe:
		return d.unsubscribe(p)
	case *packets.Pingreq:
		d.c.queue(encode5(&packets.Pingresp{}))
		return nil
	case *packets.Auth:
		return d.reauthenticate(p)
	case *packets.Disconnect:
		return d.disconnect(p)
	}
	return &outcome{code: reasonProtocol, reason: "a second CONNECT"}
}

// disconnect ends the connection as the client wishes: without its will only with reason code 0 (MQTT 5, 3.14.2.1).
func (d *device5) disconnect(p *packets.Disconnect) error {
	if s := p.Properties.SessionExpiryInterval; s != nil {
		if *s > 0 && !d.login.keep {
			return &outcome{code: reasonProtocol, reason: "DISCONNECT lengthens a session that CONNECT did not keep"}
		}
		if *s == 0 {
			d.srv.dropSession(d.id, d.sess)
		}
	}
	if p.ReasonCode != 0 {
		return fmt.Errorf("the device has said DISCONNECT with reason code %d", p.ReasonCode)
	}
	return errGoodbye
}

func (d *device5) reauthenticate(p *packets.Auth) error {
	l, o := d.login.renew(p)
	if o != nil {
		if o.code == reasonImplementation {
			o.code = reasonNotAuthorized // "IoT Hub MQTT 5 support", Reauthentication
		}
		return o
	}
	grant, err := d.authenticate(l)
	if err != nil {
		return refused(err)
	}
	if err := d.link.Renew(grant); err != nil {
		return refused(err)
	}
	d.login = l
	d.c.queue(encode5(&packets.Auth{Properties: &packets.Properties{AuthMethod: l.method}}))
	return nil
}

func (d *device5) subscribe(p *packets.Subscribe) error {
	if p.Properties.SubscriptionIdentifier != nil {
		return &outcome{code: reasonSubscriptionIDs, reason: "subscription identifiers are not supported"}
	}
	do, err := d.ask("subscribe")
	if err != nil || do == doDrop {
		return err
	}
	ack := &packets.Suback{PacketID: p.PacketID, Properties: &packets.Properties{}}
	for _, s := range p.Subscriptions {
		code := filterCode(d.id, s.Topic)
		if code != reasonOK {
			d.srv.hub.NoteUnsupported("MQTT 5 SUBSCRIBE to " + s.Topic)
		}
		if code == grantedQoS1 {
			code = min(code, s.QoS)
		}
		switch {
		case do == doRefuse:
			code = reasonImplementation
		case do == doThrottle || do == doQuota:
			code = reasonQuota
		case code <= grantedQoS1 && s.Topic != topic5Responses && !d.sess.subscribe(s.Topic, code, maxFilters5):
			code = reasonQuota
		}
		ack.Reasons = append(ack.Reasons, code)
	}
	d.wantMethods() // before the SUBACK: who has it may count on being sent what it asked for
	d.link.Want(hub.Desired, d.sess.has(topic5Desired))
	d.srv.keepSession(d.id, d.sess)
	d.c.queue(encode5(ack))
	d.wantC2D() // what is queued can wait, and comes behind the SUBACK
	return nil
}

func (d *device5) unsubscribe(p *packets.Unsubscribe) error {
	ack := &packets.Unsuback{PacketID: p.PacketID, Properties: &packets.Properties{}}
	for _, topic := range p.Topics {
		code := byte(0x11) // no subscription existed: MQTT 5, section 3.11.3
		if d.sess.unsubscribe(topic) || topic == topic5Responses {
			code = reasonOK
		}
		ack.Reasons = append(ack.Reasons, code)
	}
	d.wantMethods()
	d.link.Want(hub.Desired, d.sess.has(topic5Desired))
	d.wantC2D()
	d.srv.keepSession(d.id, d.sess)
	d.c.queue(encode5(ack))
	return nil
}

// wantMethods tells the hub whether a method, all or one by name, can be delivered.
func (d *device5) wantMethods() {
	on := false
	for _, topic := range d.sess.topics() {
		on = on || methodName(topic) != ""
	}
	d.link.Want(hub.Methods, on)
}

// Desired implements hub.Peer.
func (d *device5) Desired(patch json.RawMessage, version int64) {
	if delay, ok := d.admit("desired"); ok {
		user := []packets.User{{Key: "version", Value: strconv.FormatInt(version, 10)}}
		raw := encode5(&packets.Publish{Topic: topic5Desired, Payload: patch, Properties: &packets.Properties{User: user}})
		if d.fits(raw) {
			d.c.post(raw, delay)
		}
	}
}

// Method implements hub.Peer.
func (d *device5) Method(rid, name string, payload json.RawMessage) {
	if !d.sess.has(filter5Methods) && !d.sess.has(topic5Methods+name) {
		return // the client takes other methods; this one's caller times out
	}
	if delay, ok := d.admit("method"); ok {
		pr := &packets.Properties{CorrelationData: []byte(rid)} // 16 hexadecimal digits at most
		raw := encode5(&packets.Publish{Topic: topic5Methods + name, Payload: payload, Properties: pr})
		if d.fits(raw) {
			d.c.post(raw, delay)
		}
	}
}

// fits says whether the client takes a packet of this length; one that is longer is discarded (MQTT 5, 3.1.2.11.4).
func (d *device5) fits(raw []byte) bool {
	if d.login.limit > 0 && len(raw) > d.login.limit {
		d.log().Warn("packet is longer than the client takes; it is discarded", "bytes", len(raw), "limit", d.login.limit)
		return false
	}
	return true
}
