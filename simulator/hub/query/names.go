package query

import "strings"

// names are what the hub calls the members of twins and of jobs, which are found in any case: the documentation's own samples
// write DeviceID and LastActivityTime. Sources: Azure/azure-iot-hub-node, src/service.json, Twin; "Queries for IoT Hub
// jobs".
var names = canonical(
	"deviceId", "moduleId", "etag", "deviceEtag", "status", "statusReason", "statusUpdateTime", "connectionState",
	"lastActivityTime", "cloudToDeviceMessageCount", "authenticationType", "x509Thumbprint",
	"x509Thumbprint.primaryThumbprint", "x509Thumbprint.secondaryThumbprint", "modelId", "version", "tags", "properties",
	"properties.desired", "properties.reported", "capabilities", "capabilities.iotEdge", "deviceScope", "parentScopes",
	"configurations",
	"jobId", "jobType", "startTimeUtc", "endTimeUtc", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "outcome",
	"outcome.deviceMethodResponse", "outcome.deviceMethodResponse.status", "outcome.deviceMethodResponse.payload", "error",
	"error.code", "error.description",
)

func canonical(all ...string) map[string]string {
	m := make(map[string]string, len(all))
	for _, name := range all {
		m[strings.ToLower(name)] = name
	}
	return m
}

// normalize puts the hub's own spelling in place of the names that are the hub's.
func normalize(segments []string) {
	prefix := ""
	for i, s := range segments {
		name, ok := names[strings.ToLower(prefix+s)]
		if !ok {
			return
		}
		segments[i] = name[len(prefix):]
		prefix = name + "."
	}
}

// collection takes the name of the collection off a path: devices.deviceId is deviceId. It answers nil for one that leads
// into another collection, which would be a join.
func collection(from Source, segments []string) []string {
	is := func(i int, name string) bool { return i < len(segments) && strings.EqualFold(segments[i], name) }
	switch {
	case !is(0, "devices"):
		return segments
	case is(1, "jobs") && from == Jobs, is(1, "modules") && from == Modules:
		return segments[2:]
	case is(1, "jobs"), is(1, "modules"), from == Jobs:
		return nil
	}
	return segments[1:]
}
