package mqttd

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/twinbay/twinbay/simulator/hub"
)

// Topics of MQTT 3.1.1: Microsoft Learn, "Communicate with an IoT hub using the MQTT protocol". Those that begin with
// $iothub/ name no identity; it is the connection's.
const (
	topicTwinGet    = "$iothub/twin/GET/"
	topicReported   = "$iothub/twin/PATCH/properties/reported/"
	topicMethodRes  = "$iothub/methods/res/"
	topicTwinRes    = "$iothub/twin/res/"
	topicDesired    = "$iothub/twin/PATCH/properties/desired/"
	topicMethodPost = "$iothub/methods/POST/"

	filterTwinRes = topicTwinRes + "#"
	filterDesired = topicDesired + "#"
	filterMethods = topicMethodPost + "#"

	anyDevicebound = "devices/+/messages/devicebound/#" // azure-sdk-for-c, AZ_IOT_HUB_CLIENT_C2D_SUBSCRIBE_TOPIC
)

// What a topic asks of the hub.
type verb int

const (
	verbUnknown verb = iota
	verbTelemetry
	verbTwinGet
	verbReport
	verbMethodResult
)

// request is a topic of a device's PUBLISH, taken apart.
type request struct {
	verb    verb
	bag     string // telemetry
	rid     string // the others; "" means that the device did not say
	version int64  // reported: $version, 0 without one, -1 if it is none
	status  int    // method result
}

// idBase is how the topics that carry an identity begin. Ids stand there as they are, never percent-encoded.
func idBase(id hub.ID) string {
	if id.Module == "" {
		return "devices/" + id.Device + "/"
	}
	return "devices/" + id.Device + "/modules/" + id.Module + "/"
}

// parseTopic takes the topic of a PUBLISH by id apart. verbUnknown is a topic that id has no right to.
func parseTopic(id hub.ID, topic string) request {
	if bag, ok := telemetryBag(id, topic); ok {
		return request{verb: verbTelemetry, bag: bag}
	}
	switch {
	case strings.HasPrefix(topic, topicTwinGet):
		return withQuery(verbTwinGet, topic[len(topicTwinGet):])
	case strings.HasPrefix(topic, topicReported):
		return withQuery(verbReport, topic[len(topicReported):])
	case strings.HasPrefix(topic, topicMethodRes):
		return methodResult(topic[len(topicMethodRes):])
	}
	return request{}
}

// telemetryBag is what follows …/messages/events. The slash behind it may be missing.
func telemetryBag(id hub.ID, topic string) (string, bool) {
	rest, ok := strings.CutPrefix(topic, idBase(id)+"messages/events")
	if !ok {
		return "", false
	}
	if rest == "" {
		return "", true
	}
	return strings.CutPrefix(rest, "/")
}

// withQuery reads ?$rid=…&$version=…. Parameters that it does not know have no meaning to the hub.
func withQuery(v verb, query string) request {
	query, ok := strings.CutPrefix(query, "?")
	if !ok {
		if query == "" {
			return request{verb: v}
		}
		return request{}
	}
	r := request{verb: v}
	for pair := range strings.SplitSeq(query, "&") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "$rid":
			r.rid = value
		case "$version":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 1 {
				n = -1 // no version: refused
			}
			r.version = n
		}
	}
	return r
}

func methodResult(rest string) request {
	text, query, ok := strings.Cut(rest, "/")
	status, err := strconv.ParseInt(text, 10, 32)
	if !ok || err != nil {
		return request{}
	}
	r := withQuery(verbMethodResult, query)
	r.status = int(status)
	return r
}

// knownFilter says whether id may subscribe to a filter. Besides those of the documentation there are four that SDKs
// send: azure-sdk-for-c writes + for the device; the C and C# SDKs take all of a module's topics; the Java module
// client opens with cloud-to-device messages; Node and Python name a module's inputs.
func knownFilter(id hub.ID, topic string) bool {
	switch topic {
	case filterTwinRes, filterDesired, filterMethods:
		return true
	}
	base := idBase(id)
	if id.Module != "" {
		return topic == base+"#" || topic == base+"inputs/#" || topic == base+"messages/devicebound/#"
	}
	return topic == base+"messages/devicebound/#" || topic == anyDevicebound ||
		topic == "$iothub/credentials/res/#"
}

func twinResponse(status int, rid string) string {
	return fmt.Sprintf("%s%03d/?$rid=%s", topicTwinRes, status, rid)
}

func reportedResponse(status int, rid string, version int64) string {
	return twinResponse(status, rid) + "&$version=" + strconv.FormatInt(version, 10)
}

func desiredTopic(version int64) string {
	return topicDesired + "?$version=" + strconv.FormatInt(version, 10)
}

func methodTopic(name, rid string) string {
	return topicMethodPost + name + "/?$rid=" + rid
}
