package mqttd

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// maxFilters3 is the number of subscriptions of an identity: Microsoft Learn, "Communicate with an IoT hub using the
// MQTT protocol".
const maxFilters3 = 5

// device3 is an identity connected with MQTT 3.1.1.
type device3 struct {
	device
	scratch []byte // the reader's next packet
}

// refusal is a CONNACK code and why.
type refusal struct {
	code byte
	err  error
}

func (r refusal) Error() string { return fmt.Sprintf("CONNACK %d: %v", r.code, r.err) }
func (r refusal) Unwrap() error { return r.err }

// Protocol is for the hub's event.
func (d *device3) Protocol() string { return "MQTT 3.1.1" }

// serve3 serves a connection from its CONNECT packet to its end.
func (s *Server) serve3(c *conn, f frame) error {
	p, err := decodeConnect(f.body())
	if err != nil {
		c.finish(nil)
		return err
	}
	d := &device3{device: device{srv: s, c: c}}
	err = deep(func() error { return d.connect(p) })
	if err == nil {
		err = d.run()
	}
	d.leave(err)
	var goodbye []byte
	if r, ok := errors.AsType[refusal](err); ok {
		goodbye = appendConnack(nil, false, r.code)
	}
	c.finish(goodbye)
	return err
}

// connect checks who it is and brings the identity up.
func (d *device3) connect(p connect) error {
	l, err := parseLogin(p.clientID, p.user)
	if err != nil {
		return refusal{connackNotAuthorized, err}
	}
	d.id = l.id
	will, err := d.readWill(p.will)
	if err != nil {
		return err
	}
	grant, err := d.authenticate(l, p.password)
	if err != nil {
		return refusal{connackNotAuthorized, err}
	}
	switch do, err := d.ask("connect"); {
	case err != nil:
		return err
	case do == doRefuse || do == doQuota:
		return refusal{d.refusalCode(), faultError(do)}
	case do == doThrottle:
		return refusal{connackUnavailable, faultError(do)}
	case do == doDrop:
		return d.ignore()
	}
	grant.ModelID = l.modelID
	if err := d.attach(grant, d); err != nil {
		return refusal{connackNotAuthorized, err}
	}
	d.will = will
	sess, present := d.srv.openSession(d.id, 4, p.clean || d.link.SessionOver(), !p.clean)
	d.sess = sess
	if p.clean && d.srv.hub.Chose(hub.C2DCleanSession, "purge") {
		d.purge()
	}
	d.c.queue(appendConnack(nil, present, connackAccepted))
	d.c.patient(patience(p.keepAlive))
	for _, topic := range sess.topics() {
		d.want(topic, true)
	}
	d.wantC2D()
	return d.c.release()
}

// refusalCode is the CONNACK code of a fault rule.
func (d *device3) refusalCode() byte {
	if d.connack == 0 || d.connack >= firstFailure5 {
		return connackNotAuthorized
	}
	return d.connack
}

// authenticate checks the password, or the certificate of a client that has none. A user name with another hub's name is
// refused like a wrong password.
func (d *device3) authenticate(l login, password string) (hub.Grant, error) {
	if !strings.EqualFold(l.host, d.srv.hub.HostName()) {
		return hub.Grant{}, fmt.Errorf("user name is for host %q, and this is %q", l.host, d.srv.hub.HostName())
	}
	return d.srv.hub.Auth(l.id, hub.Credential{Token: password, Certificates: certificates(d.c.nc)})
}

// readWill makes telemetry of the will, whose topic must be the identity's own.
func (d *device3) readWill(p *publish) (*hub.Message, error) {
	if p == nil {
		return nil, nil
	}
	r := parseTopic(d.id, p.topic)
	if r.verb != verbTelemetry || p.qos > 1 {
		return nil, fmt.Errorf("will with QoS %d on %q: it must be at most 1, on the identity's own telemetry topic", p.qos, p.topic)
	}
	m := telemetry3(r.bag, *p)
	m.Properties["iothub-MessageType"] = "Will"
	return &m, nil
}

func (d *device3) run() error {
	for {
		f, err := d.c.in.next()
		if err != nil {
			return explain(d.c, err, errSilent)
		}
		if d.c.isFrozen() {
			return d.c.thaw()
		}
		if err := d.handle(f); err != nil {
			return err
		}
	}
}

func (d *device3) handle(f frame) error {
	switch f.kind() {
	case typePublish:
		return d.publish(f)
	case typePuback:
		id, err := decodePuback(f.flags(), f.body())
		if err == nil {
			d.settle(id, hub.Complete)
		}
		return err
	case typeSubscribe:
		return d.subscribe(f)
	case typeUnsubscribe:
		return d.unsubscribe(f)
	case typePingreq:
		d.send(append(d.scratch, typePingresp<<4, 0))
		return decodeEmpty(f.flags(), f.body())
	case typeDisconnect:
		if err := decodeEmpty(f.flags(), f.body()); err != nil {
			return err
		}
		return errGoodbye
	}
	return fmt.Errorf("%w: packet of type %d", errMalformed, f.kind())
}

// send queues a packet built upon d.scratch.
func (d *device3) send(raw []byte) {
	d.c.queue(raw)
	if cap(raw) <= keptBuffer {
		d.scratch = raw[:0]
	}
}

func (d *device3) publish(f frame) error {
	p, err := decodePublish(f.flags(), f.body())
	if err != nil {
		return err
	}
	if p.qos > 1 {
		return errors.New("PUBLISH with QoS 2, which the hub does not know")
	}
	r := parseTopic(d.id, p.topic)
	ack := true
	switch r.verb {
	case verbTelemetry:
		ack, err = d.telemetry(r, p)
	case verbTwinGet:
		err = deep(func() error { return d.twinGet(r) })
	case verbReport:
		err = deep(func() error { return d.report(r, p.payload) })
	case verbMethodResult:
		d.link.MethodResult(r.rid, r.status, p.payload)
	default:
		d.srv.hub.NoteUnsupported("MQTT 3.1.1 PUBLISH on " + p.topic)
		err = fmt.Errorf("PUBLISH on %q, which is none of the identity's topics", p.topic)
	}
	if err == nil && ack && p.qos == 1 {
		d.send(appendAck(d.scratch, typePuback, p.id))
	}
	return err
}

// telemetry hands a message over and says whether to acknowledge it. MQTT 3.1.1 has no way to refuse one: the
// connection ends, so that the device sends it again.
func (d *device3) telemetry(r request, p publish) (ack bool, err error) {
	do, err := d.ask("publish")
	if err != nil || do == doDrop {
		return false, err
	}
	if e := faultError(do); e != nil {
		return false, e
	}
	if err := d.link.Telemetry(telemetry3(r.bag, p)); err != nil {
		return false, err
	}
	if p.qos == 0 {
		return false, nil
	}
	do, err = d.ask("puback")
	return do == doNothing, err
}

func telemetry3(bag string, p publish) hub.Message {
	m := hub.Message{Body: p.payload}
	m.Properties, m.System = decodeBag(bag)
	if p.retain {
		m.Properties["mqtt-retain"] = "true" // nothing is retained, but consumers are told
	}
	return m
}

func (d *device3) twinGet(r request) error {
	do, err := d.ask("twin-get")
	if err != nil || do == doDrop {
		return err
	}
	if e := faultError(do); e != nil {
		d.refuseTwin(r, e)
		return nil
	}
	doc, err := d.link.Twin()
	if err != nil {
		d.refuseTwin(r, asHubError(err))
		return nil
	}
	d.answerTwin(r, twinResponse(200, r.rid), doc)
	return nil
}

func (d *device3) report(r request, patch []byte) error {
	do, err := d.ask("report")
	if err != nil || do == doDrop {
		return err
	}
	if e := faultError(do); e != nil {
		d.refuseTwin(r, e)
		return nil
	}
	if r.version < 0 {
		d.refuseTwin(r, &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: "$version is not a positive number"})
		return nil
	}
	version, err := d.link.Report(slices.Clone(patch), r.version)
	if err != nil {
		d.refuseTwin(r, asHubError(err))
		return nil
	}
	d.answerTwin(r, reportedResponse(204, r.rid, version), nil)
	return nil
}

// answerTwin sends an answer to somebody who can take it.
func (d *device3) answerTwin(r request, topic string, body []byte) {
	if r.rid == "" || !d.sess.has(filterTwinRes) {
		d.log().Warn("twin request is not answered: it has no $rid, or the device has not subscribed to "+filterTwinRes, "rid", r.rid)
		return
	}
	d.send(appendPublish(d.scratch, d.unasked(filterTwinRes, publish{topic: topic, payload: body})))
}

// unasked gives a packet of the hub the QoS that it has for a subscription. Nothing of what it carries is sent again, so the
// PUBACK of one with QoS 1 means nothing.
func (d *device3) unasked(filter string, p publish) publish {
	if !d.srv.hub.Chose(hub.DeliveryQoS, "granted") {
		return p
	}
	if p.qos, _ = d.sess.qos(filter); p.qos > 0 {
		p.id = d.sess.nextID()
	}
	return p
}

// refuseTwin answers with the body that the hub sends with an error (amenzhinsky/iothub issue 70 shows one).
func (d *device3) refuseTwin(r request, e *hub.Error) {
	now := time.Now().UTC()
	body, err := json.Marshal(map[string]any{
		"errorCode":    e.Code,
		"trackingId":   fmt.Sprintf("%032X-G:6-TimeStamp:%s", now.UnixNano(), now.Format("01/02/2006 15:04:05")),
		"message":      e.Text,
		"timestampUtc": now.Format("2006-01-02T15:04:05.0000000Z"),
	})
	if err != nil {
		d.log().Error("encode a twin error", "error", err) // can't be: it holds numbers and strings
		return
	}
	d.answerTwin(r, twinResponse(e.Status(), r.rid), body)
}

func (d *device3) subscribe(f frame) error {
	p, err := decodeSubscribe(f.flags(), f.body())
	if err != nil {
		return err
	}
	do, err := d.ask("subscribe")
	if err != nil || do == doDrop {
		return err
	}
	if do == doThrottle || do == doQuota {
		return faultError(do)
	}
	codes := make([]byte, 0, len(p.filters))
	for _, f := range p.filters {
		if !knownFilter(d.id, f.topic) {
			d.srv.hub.NoteUnsupported("MQTT 3.1.1 SUBSCRIBE to " + f.topic)
			return fmt.Errorf("SUBSCRIBE to %q, which is none of the identity's topic filters", f.topic)
		}
		if do == doRefuse {
			codes = append(codes, subackFailure)
			continue
		}
		qos := min(f.qos, 1)
		early := d.missedC2D(f.topic)
		if !d.sess.subscribe(f.topic, qos, d.maxFilters()) {
			if d.srv.hub.Chose(hub.SixthSubscription, "refuse") {
				codes = append(codes, subackFailure)
				continue
			}
			return fmt.Errorf("SUBSCRIBE to %q would be the subscription number %d; the hub allows %d", f.topic, maxFilters3+1, maxFilters3)
		}
		if early {
			d.purge()
		}
		d.want(f.topic, true) // before the SUBACK: who has it may count on being sent what it asked for
		codes = append(codes, qos)
	}
	d.srv.keepSession(d.id, d.sess)
	d.send(appendSuback(d.scratch, p.id, codes))
	d.wantC2D() // what is queued can wait, and comes behind the SUBACK
	return nil
}

// maxFilters is how many subscriptions the identity may have. It can't have more than there are filters that knownFilter
// knows, which is six.
func (d *device3) maxFilters() int {
	if d.srv.hub.Chose(hub.SixthSubscription, "allow") {
		return math.MaxInt
	}
	return maxFilters3
}

func (d *device3) unsubscribe(f frame) error {
	p, err := decodeUnsubscribe(f.flags(), f.body())
	if err != nil {
		return err
	}
	for _, f := range p.filters {
		if d.sess.unsubscribe(f.topic) {
			d.want(f.topic, false)
		}
	}
	d.wantC2D()
	d.srv.keepSession(d.id, d.sess)
	d.send(appendAck(d.scratch, typeUnsuback, p.id))
	return nil
}

func (d *device3) want(topic string, on bool) {
	switch topic {
	case filterDesired:
		d.link.Want(hub.Desired, on)
	case filterMethods:
		d.link.Want(hub.Methods, on)
	}
}

// Desired implements hub.Peer.
func (d *device3) Desired(patch json.RawMessage, version int64) {
	if delay, ok := d.admit("desired"); ok {
		d.c.post(appendPublish(nil, d.unasked(filterDesired, publish{topic: desiredTopic(version), payload: patch})), delay)
	}
}

// Method implements hub.Peer.
func (d *device3) Method(rid, name string, payload json.RawMessage) {
	if delay, ok := d.admit("method"); ok {
		d.c.post(appendPublish(nil, d.unasked(filterMethods, publish{topic: methodTopic(name, rid), payload: payload})), delay)
	}
}
