package mqtt5

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/internal/payload"
)

// Topics and names of api-version 2020-10-01-preview. They count to the letter.
const (
	apiVersion = "2020-10-01-preview"

	topicTelemetry = "$iothub/telemetry"
	topicTwinGet   = "$iothub/twin/get"
	topicReported  = "$iothub/twin/patch/reported"
	topicDesired   = "$iothub/twin/patch/desired"
	topicMethods   = "$iothub/methods/+"
	topicCommands  = "$iothub/commands"
	topicResponses = "$iothub/responses" // subscribed by the hub itself
	prefixMethods  = "$iothub/methods/"

	methodSAS = "SAS"
)

// millis is the API's type "time": milliseconds since 1970.
func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// telemetry makes the packet of a message. The names of its own properties get an "@" in front: the hub refuses what
// has none and is none of the API's.
func telemetry(m iothub.Message) *paho.Publish {
	user := paho.UserProperties{{Key: "content-encoding", Value: "utf-8"}}
	if m.ID != "" {
		user.Add("message-id", m.ID)
	}
	if !m.Created.IsZero() {
		user.Add("creation-time", millis(m.Created))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		user.Add("@"+name, m.Properties[name])
	}
	return &paho.Publish{
		QoS:        1,
		Topic:      topicTelemetry,
		Payload:    m.Body,
		Properties: &paho.PublishProperties{ContentType: "application/json", User: user},
	}
}

// packetSize is at least what p takes on the wire: Maximum Packet Size counts headers and properties too.
func packetSize(p *paho.Publish) int {
	const fixed, id, propertyLength = 5, 2, 4
	n := fixed + 2 + len(p.Topic) + id + propertyLength + 3 + len(p.Properties.ContentType) + len(p.Payload)
	for _, u := range p.Properties.User {
		n += 5 + len(u.Key) + len(u.Value)
	}
	return n
}

// MQTT 5.0 reason codes that mean something of their own here (section 2.4; Microsoft Learn, "IoT Hub MQTT 5 support").
const (
	reasonBadPassword   = 0x86
	reasonNotAuthorized = 0x87
	reasonBanned        = 0x8A
	reasonBadMethod     = 0x8C
	reasonTakenOver     = 0x8E
	reasonTopicFilter   = 0x8F
	reasonTopicName     = 0x90
	reasonTooLarge      = 0x95
	reasonQuota         = 0x97
	reasonFormat        = 0x99
	reasonRate          = 0x9F
)

// failure makes an error of what a negative packet or answer says: its reason code, 0 in an answer; its user
// properties, of which the API uses status, reason and trace-id; its reason string.
func failure(what string, code byte, user paho.UserProperties, reason string) error {
	text := what
	if code != 0 {
		text += fmt.Sprintf(": reason code %d", code)
	}
	status := user.Get("status")
	if status != "" {
		text += ": status " + payload.Line(status) + statusName(status)
	}
	for _, more := range []string{user.Get("reason"), reason} {
		if more != "" {
			text += ": " + payload.Line(more)
		}
	}
	if trace := user.Get("trace-id"); trace != "" {
		text += " (trace-id " + payload.Line(trace) + ")"
	}
	if kind := kindOf(code, status); kind != nil {
		return fmt.Errorf("%w: %s", kind, text)
	}
	return errors.New(text)
}

// kindOf is the session's error for a status or, without one, for a reason code; nil when it may pass.
func kindOf(code byte, status string) error {
	if first, second, ok := parseStatus(status); ok {
		const client, retry = 0x01, 0x04 // of the first byte: who is at fault, and whether to try again
		switch {
		case status == "0101":
			return iothub.ErrUnauthorized
		case status == "0104":
			return iothub.ErrStale
		case first == client|retry && (second == 0x01 || second == 0x02):
			return iothub.ErrThrottled
		case first&3 == client && first&retry == 0:
			return iothub.ErrRejected
		}
		return nil
	}
	switch code {
	case reasonBadPassword, reasonNotAuthorized, reasonBanned, reasonBadMethod:
		return iothub.ErrUnauthorized
	case reasonTakenOver:
		return iothub.ErrTakenOver
	case reasonQuota, reasonRate:
		return iothub.ErrThrottled
	case reasonTopicFilter, reasonTopicName, reasonTooLarge, reasonFormat:
		return iothub.ErrRejected
	}
	return nil
}

// parseStatus reads the property: four hexadecimal digits.
func parseStatus(status string) (first, second byte, ok bool) {
	if len(status) != 4 {
		return 0, 0, false
	}
	n, err := strconv.ParseUint(status, 16, 16)
	return byte(n >> 8), byte(n), err == nil
}

var statusNames = map[string]string{
	"0001": "Not Modified", "0100": "Bad Request", "0101": "Not Authorized", "0102": "Not Allowed", "0103": "Conflict",
	"0104": "Precondition Failed", "0501": "Throttled", "0502": "Quota Exceeded", "0503": "Resource Exhausted",
	"0504": "Not Found", "0601": "Server Error", "0602": "Timeout", "0603": "Server Busy", "06A0": "Target Unavailable",
	"06A1": "Target Timeout", "06A2": "Target Failed",
}

func statusName(status string) string {
	if name, ok := statusNames[strings.ToUpper(status)]; ok {
		return " " + name
	}
	return ""
}

// version reads the property of a desired patch or of an answer to a report; 0 when there is none.
func version(user paho.UserProperties) (int64, error) {
	text := user.Get("version")
	if text == "" {
		return 0, nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 {
		return 0, errors.New("the version property is not a number")
	}
	return v, nil
}
