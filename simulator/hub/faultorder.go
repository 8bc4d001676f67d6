package hub

import (
	"strconv"
	"strings"
	"time"
)

// A telemetry message may order a fault of its own sender's connection. Microsoft's hubs obey such messages for
// Microsoft's own end-to-end tests; this one does for everybody.
//
// Sources: azure-iot-sdk-csharp, e2e/test/helpers/templates/FaultInjection.cs (names, and that the device is in fault mode
// for the duration, which begins after the delay); azure-iot-sdk-c, iothub_client/tests/common_e2e (the ordering message is
// acknowledged, messages after it are not, and then the connection works on). What a real hub does without a duration is
// not documented: here it is defaultFaultTime where the fault is a state, and nothing where it is one cut.
const (
	faultType     = "AzIoTHub_FaultOperationType"
	faultReason   = "AzIoTHub_FaultOperationCloseReason"
	faultDelay    = "AzIoTHub_FaultOperationDelayInSecs"
	faultDuration = "AzIoTHub_FaultOperationDurationInSecs"

	defaultFaultTime = 5 * time.Second // FaultInjection.DefaultFaultDuration
)

// faultOrder is what a message orders.
type faultOrder struct {
	kind, reason    string
	delay, duration time.Duration
}

// readFaultOrder finds an order among the application properties, whose names are in lower case if they came by HTTP.
func readFaultOrder(properties map[string]string) (o faultOrder, ok bool) {
	for name, value := range properties {
		switch {
		case strings.EqualFold(name, faultType):
			o.kind = value
		case strings.EqualFold(name, faultReason):
			o.reason = value
		case strings.EqualFold(name, faultDelay):
			o.delay = seconds(value)
		case strings.EqualFold(name, faultDuration):
			o.duration = seconds(value)
		}
	}
	return o, o.kind != ""
}

// seconds reads a number of seconds, at most 18 hours; what is no such number counts as 0.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// refusal is what an order over HTTP gets: there is no connection to break, so the ordering request itself fails. nil
// means that the request is telemetry like any other.
func (o faultOrder) refusal() *Error {
	switch o.kind {
	case "InvokeThrottling":
		return &Error{Code: 429001, Name: "ThrottlingException", Text: "ordered by " + faultType}
	case "InvokeMaxMessageQuota":
		return &Error{Code: 403002, Name: "IotHubQuotaExceeded", Text: "ordered by " + faultType}
	case "InvokeAuthError":
		return &Error{Code: 401002, Name: "IotHubUnauthorizedAccess", Text: "Unauthorized"}
	}
	return nil
}

// obey carries out what a message of a link orders. KillAmqp… and ShutDownAmqp have nothing to act on here.
func (l *Link) obey(properties map[string]string) {
	o, ok := readFaultOrder(properties)
	if !ok {
		return
	}
	now := time.Now()
	id := l.id
	rule := &faultRule{only: &id, begin: now.Add(o.delay)}
	rule.Who = id.String()
	switch o.kind {
	case "KillTcp", "ShutDownMqtt":
		why := &Error{Code: 400029, Name: "ConnectionForcefullyClosedOnFaultInjection", Text: faultType + " " + o.kind + ", " + o.reason}
		if o.kind == "ShutDownMqtt" {
			// Said to an MQTT 5 client in DISCONNECT; KillTcp is not.
			why = &Error{Code: 503001, Name: "ServiceUnavailable", Text: why.Text}
		}
		time.AfterFunc(o.delay, func() {
			l.hub.mu.Lock()
			defer l.hub.unlock()
			l.hub.end(l, why)
		})
		if o.duration == 0 {
			return
		}
		rule.On, rule.Do, rule.end = "connect", "kick", rule.begin.Add(o.duration)
	case "InvokeThrottling", "InvokeMaxMessageQuota", "InvokeAuthError":
		// Over MQTT 3.1.1 these show as messages without acknowledgement on a connection that stays.
		if o.duration == 0 {
			o.duration = defaultFaultTime
		}
		rule.On, rule.Do, rule.end = "publish", "drop", rule.begin.Add(o.duration)
	default:
		l.hub.emit(Event{Kind: "fault", DeviceID: id.Device, ModuleID: id.Module, Detail: faultType + " " + o.kind + " has no effect on MQTT"})
		return
	}
	l.hub.addRule(rule)
}
