package mqttd

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
)

// Topics of MQTT 5: Microsoft Learn, "IoT Hub data plane MQTT 5 API reference".
const (
	topic5Telemetry = "$iothub/telemetry"
	topic5TwinGet   = "$iothub/twin/get"
	topic5Reported  = "$iothub/twin/patch/reported"
	topic5Desired   = "$iothub/twin/patch/desired"
	topic5Responses = "$iothub/responses"
	topic5Methods   = "$iothub/methods/"
	topic5Commands  = "$iothub/commands"

	filter5Methods = topic5Methods + "+"
)

// filterCode is the SUBACK code of a filter when QoS 1 is asked for. Only commands get it: methods and responses are QoS
// 0, and a desired change that gets lost shows by its version.
func filterCode(id hub.ID, topic string) byte {
	switch {
	case topic == filter5Methods, topic == topic5Desired, topic == topic5Responses:
		return reasonOK
	case topic == topic5Commands && id.Module == "": // the documents know commands of devices alone
		return grantedQoS1
	case strings.HasPrefix(topic, "$share/"):
		return reasonShared
	case strings.ContainsAny(topic, "+#"):
		return reasonWildcard
	case methodName(topic) != "":
		return reasonOK
	}
	return reasonFilterInvalid
}

// methodName is the method of $iothub/methods/{name}, "" for other topics.
func methodName(topic string) string {
	name, ok := strings.CutPrefix(topic, topic5Methods)
	if !ok || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// systemNames5 are the user properties of telemetry that are the hub's, by what the hub makes of them.
var systemNames5 = map[string]string{
	"content-encoding": "content-encoding",
	"message-id":       "message-id",
	"user-id":          "user-id",
	"correlation-id":   "correlation-id",
	"creation-time":    "iothub-creation-time-utc",
}

// telemetry5 makes a message of a PUBLISH or of a will.
func telemetry5(p *packets.Properties, payload []byte) (hub.Message, *outcome) {
	m := hub.Message{Body: payload, Properties: map[string]string{}, System: map[string]string{}}
	if p.ContentType != "" {
		m.System["content-type"] = p.ContentType
	}
	for _, u := range p.User {
		if name, ok := strings.CutPrefix(u.Key, "@"); ok && name != "" {
			m.Properties[name] = u.Value
			continue
		}
		name, ok := systemNames5[u.Key]
		if !ok {
			return hub.Message{}, badRequest("unknown property `%s`", u.Key)
		}
		value := u.Value
		if u.Key == "creation-time" {
			if value, ok = creationTime(value); !ok {
				return hub.Message{}, badRequest("`creation-time` is neither milliseconds nor ISO 8601")
			}
		}
		m.System[name] = value
	}
	return m, nil
}

// creationTime is the time in the form that the hub stamps, from milliseconds since 1970 or ISO 8601.
func creationTime(text string) (string, bool) {
	const latest = 253402300799999 // the end of the year 9999
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms < 0 || ms > latest {
			return "", false
		}
		t = time.UnixMilli(ms)
	}
	return t.UTC().Format("2006-01-02T15:04:05.999Z"), true
}

// takeUser reads the user properties of a request. Those beginning with @ are the device's own and mean nothing here;
// any other than known is an error.
func takeUser(users []packets.User, known ...string) (map[string]string, *outcome) {
	found := map[string]string{}
	for _, u := range users {
		switch {
		case slices.Contains(known, u.Key):
			found[u.Key] = u.Value
		case !strings.HasPrefix(u.Key, "@"):
			return nil, badRequest("unknown property `%s`", u.Key)
		}
	}
	return found, nil
}
