package mqttd

import (
	"strconv"

	"github.com/eclipse/paho.golang/packets"
)

const maxCorrelation = 16 // "IoT Hub MQTT 5 support", Request-Response Interactions

// publish carries a PUBLISH out. An error ends the connection.
func (d *device5) publish(p *packets.Publish) error {
	topic, o := d.topic(p)
	switch {
	case o != nil:
		return o
	case p.QoS > 1:
		return &outcome{code: reasonQoS, reason: "Maximum QoS is 1"}
	case p.Retain:
		return &outcome{code: reasonRetain, reason: "RETAIN is not supported"}
	case len(p.Properties.CorrelationData) > maxCorrelation:
		return badRequest("`Correlation Data` is longer than %d bytes", maxCorrelation)
	}
	switch topic {
	case topic5Telemetry:
		return d.telemetry(p)
	case topic5TwinGet, topic5Reported, topic5Responses:
	default:
		d.srv.hub.NoteUnsupported("MQTT 5 PUBLISH on " + topic)
		if p.QoS == 0 {
			return &outcome{code: reasonTopicInvalid, reason: "Unsupported topic: `" + topic + "`"}
		}
		return d.acknowledge(p, &outcome{reasonImplementation, statusNotFound, "Unsupported topic: `" + topic + "`"})
	}
	if p.QoS > 0 {
		return d.acknowledge(p, badRequest("requests and responses have QoS 0"))
	}
	if len(p.Properties.CorrelationData) == 0 {
		return badRequest("`Correlation Data` property is missing")
	}
	switch topic {
	case topic5TwinGet:
		return deep(func() error { return d.twinGet(p) })
	case topic5Reported:
		return deep(func() error { return d.report(p) })
	}
	return d.response(p)
}

// topic is the packet's topic, which may stand for itself, set an alias or be one.
func (d *device5) topic(p *packets.Publish) (string, *outcome) {
	if p.Properties.TopicAlias == nil {
		if p.Topic == "" {
			return "", &outcome{code: reasonProtocol, reason: "PUBLISH has neither a topic nor an alias"}
		}
		return p.Topic, nil
	}
	alias := *p.Properties.TopicAlias
	if alias == 0 || alias > aliasMaximum5 {
		return "", &outcome{code: reasonAliasInvalid, reason: "Topic Alias Maximum is 10"}
	}
	if p.Topic != "" {
		d.aliases[alias] = p.Topic
	}
	if d.aliases[alias] == "" {
		return "", &outcome{code: reasonProtocol, reason: "PUBLISH with an alias that has no topic"}
	}
	return d.aliases[alias], nil
}

// acknowledge ends a message: with a PUBACK, or with QoS 0 by the end of the connection if it has failed.
func (d *device5) acknowledge(p *packets.Publish, o *outcome) error {
	if p.QoS == 0 {
		if o != nil {
			return o
		}
		return nil
	}
	ack := &packets.Puback{PacketID: p.PacketID, Properties: &packets.Properties{}}
	if o != nil {
		ack.ReasonCode = o.code
		if !d.login.noProblemDetails {
			ack.Properties.User = o.user()
		}
	}
	raw := encode5(ack)
	if d.login.limit > 0 && len(raw) > d.login.limit {
		raw = encode5(&packets.Puback{PacketID: p.PacketID, ReasonCode: ack.ReasonCode, Properties: &packets.Properties{}})
	}
	d.c.queue(raw)
	return nil
}

func (d *device5) telemetry(p *packets.Publish) error {
	m, o := telemetry5(p.Properties, p.Payload)
	if o != nil {
		return d.acknowledge(p, o)
	}
	do, err := d.ask("publish")
	if err != nil || do == doDrop {
		return err
	}
	if e := faultError(do); e != nil {
		return d.acknowledge(p, hubStatus(e))
	}
	if err := d.link.Telemetry(m); err != nil {
		return d.acknowledge(p, hubStatus(asHubError(err)))
	}
	if p.QoS > 0 {
		if do, err := d.ask("puback"); err != nil || do != doNothing {
			return err
		}
	}
	return d.acknowledge(p, nil)
}

func (d *device5) twinGet(p *packets.Publish) error {
	do, err := d.ask("twin-get")
	if err != nil || do == doDrop {
		return err
	}
	if e := faultError(do); e != nil {
		d.respond(p, hubStatus(e).user(), nil)
		return nil
	}
	if _, o := takeUser(p.Properties.User); o != nil {
		d.respond(p, o.user(), nil)
		return nil
	}
	doc, err := d.link.Twin()
	if err != nil {
		d.respond(p, hubStatus(asHubError(err)).user(), nil)
		return nil
	}
	d.respond(p, nil, doc)
	return nil
}

func (d *device5) report(p *packets.Publish) error {
	do, err := d.ask("report")
	if err != nil || do == doDrop {
		return err
	}
	if e := faultError(do); e != nil {
		d.respond(p, hubStatus(e).user(), nil)
		return nil
	}
	ifVersion, o := readIfVersion(p.Properties.User)
	if o != nil {
		d.respond(p, o.user(), nil)
		return nil
	}
	version, err := d.link.Report(p.Payload, ifVersion)
	if err != nil {
		d.respond(p, hubStatus(asHubError(err)).user(), nil)
		return nil
	}
	d.respond(p, []packets.User{{Key: "version", Value: strconv.FormatInt(version, 10)}}, nil)
	return nil
}

// readIfVersion is the version that the reported state must have, 0 for any.
func readIfVersion(users []packets.User) (int64, *outcome) {
	user, o := takeUser(users, "if-version")
	if o != nil {
		return 0, o
	}
	text, given := user["if-version"]
	if !given {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, badRequest("`if-version` is not a version")
	}
	return n, nil
}

// respond answers a request.
func (d *device5) respond(p *packets.Publish, user []packets.User, body []byte) {
	pr := &packets.Properties{CorrelationData: p.Properties.CorrelationData, User: user}
	raw := encode5(&packets.Publish{Topic: topic5Responses, Payload: body, Properties: pr})
	if d.fits(raw) {
		d.c.queue(raw)
	}
}

// response is the client's answer to a direct method.
func (d *device5) response(p *packets.Publish) error {
	user, o := takeUser(p.Properties.User, "response-code", "status", "reason", "trace-id")
	if o != nil {
		return o
	}
	if user["status"] != "" {
		d.log().Warn("a direct method is not answered, since the client is unavailable", "status", user["status"])
		return nil
	}
	code, err := strconv.ParseInt(user["response-code"], 10, 32)
	if err != nil {
		return badRequest("`response-code` is missing or no number")
	}
	d.link.MethodResult(string(p.Properties.CorrelationData), int(code), p.Payload)
	return nil
}
