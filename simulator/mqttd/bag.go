package mqttd

import (
	"strings"
	"unicode/utf8"
)

// systemNames are the system properties that a device may set, from what stands in a property bag to the name that the
// hub gives them: azure-iot-sdk-csharp, MqttIotHubAdapter.cs and MessageSystemPropertyNames.cs; iotedge,
// SystemProperties.cs.
var systemNames = map[string]string{
	"$.mid":     "message-id",
	"$.cid":     "correlation-id",
	"$.uid":     "user-id",
	"$.to":      "to",
	"$.ct":      "content-type",
	"$.ce":      "content-encoding",
	"$.exp":     "absolute-expiry-time",
	"$.ctime":   "iothub-creation-time-utc",
	"$.on":      "iothub-outputname",
	"$.schema":  "iothub-message-schema",
	"$.ifid":    "iothub-interface-id",
	"$.sub":     "dt-subject",
	"$.diagid":  "Diagnostic-Id",
	"$.diagctx": "Correlation-Context",
}

// decodeBag reads the end of a telemetry topic: key=value pairs joined by &, percent-encoded. Clients write it in many
// ways, so that a leading ? and one / behind it are dropped and what is not an escape stands for itself: the C SDK
// encodes nothing unless told to. A pair without = has an empty value, and the last of two equal keys wins. Properties
// that only the hub may set ($.cdid, $.cmid) are left out; of an unknown $. name the hub makes nothing, and it is left
// out too.
func decodeBag(bag string) (properties, system map[string]string) {
	bag = strings.TrimSuffix(strings.TrimPrefix(bag, "?"), "/")
	properties, system = map[string]string{}, map[string]string{}
	for pair := range strings.SplitSeq(bag, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		key, value = unescape(key), unescape(value)
		switch name := systemNames[key]; {
		case name != "":
			system[name] = value
		case !strings.HasPrefix(key, "$."):
			properties[key] = value
		}
	}
	return properties, system
}

// unescape decodes percent escapes. + stays +; a % that begins no escape stands for itself, and so does text whose
// escapes are not UTF-8.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			out = append(out, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	if !utf8.Valid(out) {
		return s
	}
	return string(out)
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}

func unhex(b byte) byte {
	switch {
	case b >= 'a':
		return b - 'a' + 10
	case b >= 'A':
		return b - 'A' + 10
	}
	return b - '0'
}
