package mqttd

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
)

// maxUnacknowledged is how many cloud-to-device messages a device may have without acknowledging one: all that its
// queue can hold.
const maxUnacknowledged = 50

// settle ends a cloud-to-device message by its packet id. A PUBACK that comes when the message's lock has run out ends
// the message if it has been sent again by then, and else nothing.
func (d *device) settle(id uint16, how hub.Outcome) {
	token := d.sess.token(id)
	if token == "" {
		d.log().Debug("PUBACK for a packet id that is not under way", "id", id)
		return
	}
	if err := d.link.Settle(token, how); err != nil {
		d.log().Debug("cloud-to-device message is not settled", "id", id, "error", err)
		return
	}
	d.sess.forget(id, token)
}

// reject is for a message that can't be sent to this device.
func (d *device) reject(m hub.Delivery, why string) {
	d.log().Warn("cloud-to-device message is rejected", "sequence", m.Sequence, "reason", why)
	if err := d.link.Settle(m.Token, hub.Reject); err != nil {
		d.log().Debug("cloud-to-device message is not settled", "error", err)
	}
}

// c2dFilters3 are the filters that have cloud-to-device messages sent.
func c2dFilters3(id hub.ID) []string {
	own := idBase(id) + "messages/devicebound/#"
	if id.Module != "" {
		return []string{own}
	}
	return []string{own, anyDevicebound}
}

// wantC2D tells the hub whether cloud-to-device messages can be delivered.
func (d *device3) wantC2D() {
	window := 0
	if _, ok := d.sess.qos(c2dFilters3(d.id)...); ok {
		window = maxUnacknowledged
	}
	d.link.Window(window)
}

// missedC2D tells whether a subscription is the session's first to cloud-to-device messages, and the hub has it get what
// comes from then on: see hub.C2DBeforeSubscription.
func (d *device3) missedC2D(filter string) bool {
	own := c2dFilters3(d.id)
	if !slices.Contains(own, filter) || !d.srv.hub.Chose(hub.C2DBeforeSubscription, "purge") {
		return false
	}
	_, subscribed := d.sess.qos(own...)
	return !subscribed
}

func (d *device3) purge() {
	if _, err := d.srv.hub.PurgeC2D(d.id); err != nil {
		d.log().Debug("cloud-to-device messages are not purged", "error", err)
	}
}

// CloudToDevice implements hub.Peer.
func (d *device3) CloudToDevice(m hub.Delivery) {
	p := publish{topic: deviceboundTopic(d.id, m), payload: m.Body}
	if len(p.topic) > math.MaxUint16 {
		d.reject(m, "its properties are longer than an MQTT topic can be")
		return
	}
	if p.qos, _ = d.sess.qos(c2dFilters3(d.id)...); p.qos > 0 {
		p.id, p.dup = d.sess.send(m.Sequence, m.Token)
	}
	if delay, ok := d.admit("c2d"); ok {
		d.c.post(appendPublish(nil, p), delay)
	}
	if p.qos == 0 { // nothing will say that it has come
		if err := d.link.Settle(m.Token, hub.Complete); err != nil {
			d.log().Debug("cloud-to-device message is not settled", "error", err)
		}
	}
}

func deviceboundTopic(id hub.ID, m hub.Delivery) string {
	return idBase(id) + "messages/devicebound/" + encodeC2D(m)
}

// encodeC2D is the property bag of a cloud-to-device message. A property that begins with %24. stands first, as on the
// hub: the Java SDK reads from there on, and the C# SDK fails without one (azure-iot-sdk-java, MqttMessaging.java;
// azure-iot-sdk-csharp, MqttIotHubAdapter.cs). C# wants its times with seven digits.
func encodeC2D(m hub.Delivery) string {
	var b strings.Builder
	put := func(key, value string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		escape(&b, key)
		b.WriteByte('=')
		escape(&b, value)
	}
	for _, p := range [...]struct{ wire, name string }{
		{"$.to", "to"}, {"$.mid", "message-id"}, {"$.cid", "correlation-id"}, {"$.uid", "user-id"},
		{"$.ct", "content-type"}, {"$.ce", "content-encoding"}, {"$.ctime", "iothub-creation-time-utc"},
	} {
		if v := m.System[p.name]; v != "" {
			put(p.wire, v)
		}
	}
	if !m.Expires.IsZero() {
		put("$.exp", m.Expires.UTC().Format("2006-01-02T15:04:05.0000000Z"))
	}
	if v := m.System["iothub-operation"]; v != "" {
		put("iothub-operation", v)
	}
	put("iothub-ack", m.Ack)
	for _, key := range slices.Sorted(maps.Keys(m.Properties)) {
		put(key, m.Properties[key])
	}
	return b.String()
}

// escape percent-encodes all but A-Z a-z 0-9 - . _ ~. The SDKs differ in what they do with anything else: + is a space
// to the Java SDK, and C# and Python cut the topic at each slash.
func escape(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
}

// wantC2D tells the hub how many messages the client takes.
func (d *device5) wantC2D() {
	window := 0
	if _, ok := d.sess.qos(topic5Commands); ok {
		window = min(maxUnacknowledged, d.login.receiveMaximum)
	}
	d.link.Window(window)
}

// CloudToDevice implements hub.Peer.
func (d *device5) CloudToDevice(m hub.Delivery) {
	p := &packets.Publish{Topic: topic5Commands, Payload: m.Body, Properties: commandProperties(m)}
	if p.QoS, _ = d.sess.qos(topic5Commands); p.QoS > 0 {
		p.PacketID, p.Duplicate = d.sess.send(m.Sequence, m.Token)
	}
	raw := encode5(p)
	if !d.fits(raw) {
		if p.QoS > 0 {
			d.sess.forget(p.PacketID, m.Token)
		}
		d.reject(m, "it is longer than the client takes")
		return
	}
	if delay, ok := d.admit("c2d"); ok {
		d.c.post(raw, delay)
	}
	if p.QoS == 0 {
		if err := d.link.Settle(m.Token, hub.Complete); err != nil {
			d.log().Debug("cloud-to-device message is not settled", "error", err)
		}
	}
}

// commandProperties are those of "IoT Hub data plane MQTT 5 API reference", Receive Commands, whose times are
// milliseconds since 1970. Application properties begin with @.
func commandProperties(m hub.Delivery) *packets.Properties {
	p := &packets.Properties{ContentType: m.System["content-type"]}
	put := func(key, value string) {
		p.User = append(p.User, packets.User{Key: key, Value: value})
	}
	put("sequence-no", strconv.FormatUint(m.Sequence, 10))
	put("enqueued-time", strconv.FormatInt(m.Enqueued.UnixMilli(), 10))
	put("delivery-count", strconv.Itoa(m.Count))
	if t, err := time.Parse(time.RFC3339Nano, m.System["iothub-creation-time-utc"]); err == nil {
		put("creation-time", strconv.FormatInt(t.UnixMilli(), 10))
	}
	for _, name := range []string{"message-id", "user-id", "correlation-id", "content-encoding"} {
		if v := m.System[name]; v != "" {
			put(name, v)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.Properties)) {
		put("@"+key, m.Properties[key])
	}
	return p
}

// outcome5 is what a PUBACK says of a command ("IoT Hub data plane MQTT 5 API reference", Receive Commands). A failure
// that the document does not list abandons.
func outcome5(p *packets.Puback) hub.Outcome {
	if p.ReasonCode < 0x80 {
		return hub.Complete
	}
	if p.Properties != nil {
		for _, u := range p.Properties.User {
			if u.Key == "status" && u.Value == statusBadRequest {
				return hub.Reject
			}
		}
	}
	return hub.Abandon
}
