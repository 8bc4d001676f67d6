package mqtt3

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
)

// Topics of the hub. Those that begin with $iothub carry no identity: the connection's is meant.
const (
	filterTwin    = "$iothub/twin/res/#"
	filterDesired = "$iothub/twin/PATCH/properties/desired/#"
	filterMethods = "$iothub/methods/POST/#"

	suffixDevicebound = "/messages/devicebound/" // behind devices/{id}; with a # the filter

	prefixTwin    = "$iothub/twin/res/"
	prefixDesired = "$iothub/twin/PATCH/properties/desired/"
	prefixMethods = "$iothub/methods/POST/"
)

func twinGetTopic(rid string) string { return "$iothub/twin/GET/?$rid=" + rid }

func reportedTopic(rid string) string { return "$iothub/twin/PATCH/properties/reported/?$rid=" + rid }

func methodAnswerTopic(status int, rid string) string {
	return "$iothub/methods/res/" + strconv.Itoa(status) + "/?$rid=" + rid
}

// telemetryTopic has the identity's raw ids and, percent-encoded, the message's properties.
func telemetryTopic(id identity.ID, m iothub.Message) string {
	var b strings.Builder
	b.WriteString("devices/" + id.Device)
	if id.Module != "" {
		b.WriteString("/modules/" + id.Module)
	}
	b.WriteString("/messages/events/")
	writeBag(&b, m)
	return b.String()
}

// writeBag writes the property bag: system properties by the names they have on the wire, in the order of the hub's
// names for them, then the message's own in the order of theirs. Routing looks into a body only when content type and
// encoding are these.
func writeBag(b *strings.Builder, m iothub.Message) {
	b.WriteString("%24.ce=utf-8&%24.ct=application%2Fjson")
	if !m.Created.IsZero() {
		b.WriteString("&%24.ctime=")
		escape(b, m.Created.UTC().Format(timeFormat))
	}
	if m.ID != "" {
		b.WriteString("&%24.mid=")
		escape(b, m.ID)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		b.WriteByte('&')
		escape(b, name)
		b.WriteByte('=')
		escape(b, m.Properties[name])
	}
}

// timeFormat is RFC 3339 in UTC, with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// escape percent-encodes all but the unreserved characters of RFC 3986: the hub leaves a plus sign a plus sign, and
// other readers of the same message make a space of it.
func escape(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
}

// incoming is what the topic of a packet from the hub says.
type incoming struct {
	kind    kind
	status  int    // of an answer
	rid     string // of an answer or a method
	version int64  // of a desired patch, or of the reported properties after a report; 0: not said
	name    string // of a method
	bag     string // of a cloud-to-device message
}

type kind byte

const (
	unknown kind = iota
	answer
	desired
	method
	cloud
)

var errTopic = errors.New("not a topic of the hub")

// parseTopic reads a topic from the hub. One of another kind, as an older session of another program may have
// subscribed to, is unknown and no error.
func parseTopic(topic string) (incoming, error) {
	var in incoming
	var rest string
	switch {
	case strings.HasPrefix(topic, prefixTwin):
		in.kind, rest = answer, topic[len(prefixTwin):]
	case strings.HasPrefix(topic, prefixDesired):
		in.kind, rest = desired, topic[len(prefixDesired):]
	case strings.HasPrefix(topic, prefixMethods):
		in.kind, rest = method, topic[len(prefixMethods):]
	case strings.HasPrefix(topic, "devices/"):
		if _, bag, ok := strings.Cut(topic, suffixDevicebound); ok {
			return incoming{kind: cloud, bag: bag}, nil
		}
		return incoming{}, nil
	default:
		return incoming{}, nil
	}
	path, query, ok := strings.Cut(rest, "?")
	if !ok {
		return incoming{}, fmt.Errorf("%w: no query", errTopic)
	}
	path = strings.TrimSuffix(path, "/")
	if err := in.readQuery(query); err != nil {
		return incoming{}, err
	}
	return in, in.readPath(path)
}

func (in *incoming) readQuery(query string) error {
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "$rid", "%24rid":
			in.rid = value
		case "$version", "%24version":
			v, err := strconv.ParseInt(value, 10, 64)
			if err != nil || v < 0 {
				return fmt.Errorf("%w: its version is not a number", errTopic)
			}
			in.version = v
		}
	}
	if in.rid == "" && in.kind != desired {
		return fmt.Errorf("%w: no $rid", errTopic)
	}
	return nil
}

func (in *incoming) readPath(path string) error {
	switch in.kind {
	case answer:
		status, err := strconv.Atoi(path)
		if err != nil || len(path) != 3 || status < 100 {
			return fmt.Errorf("%w: its status is not a number of three digits", errTopic)
		}
		in.status = status
	case method:
		if path == "" || strings.Contains(path, "/") {
			return fmt.Errorf("%w: no name of a method", errTopic)
		}
		in.name = path
	case desired:
		if path != "" {
			return errTopic
		}
	}
	return nil
}

// systemNames are the hub's names of what is short on the wire; the others are the application's.
var systemNames = map[string]string{
	"$.to": "to", "$.mid": "message-id", "$.cid": "correlation-id", "$.uid": "user-id", "$.ct": "content-type",
	"$.ce": "content-encoding", "$.ctime": "iothub-creation-time-utc", "$.exp": "expiry",
	"iothub-operation": "iothub-operation", "iothub-ack": "iothub-ack",
}

// readBag reads the property bag of a cloud-to-device message. It has no errors: what is not percent-encoded as it should
// be is taken as it stands, because a message that is not taken would come again for ever.
func readBag(bag string) (properties, system map[string]string) {
	properties, system = map[string]string{}, map[string]string{}
	for pair := range strings.SplitSeq(bag, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescape(name), unescape(value)
		if known, ok := systemNames[name]; ok {
			system[known] = value
		} else {
			properties[name] = value
		}
	}
	return properties, system
}

func unescape(s string) string {
	if text, err := url.PathUnescape(s); err == nil {
		s = text
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// userName is the hub's host, the raw ids and the query.
func userName(host string, id identity.ID) string {
	return host + "/" + id.String() + "/?api-version=2021-04-12&DeviceClientType=" + iothub.ClientAgent + "%2F1"
}
