package mqttd

import (
	"errors"
	"fmt"

	"github.com/eclipse/paho.golang/packets"

	"github.com/twinbay/twinbay/simulator/hub"
)

// Reason codes of MQTT 5, section 2.4, as far as the hub uses them.
const (
	reasonOK              = 0x00
	grantedQoS1           = 0x01
	reasonMalformed       = 0x81
	reasonProtocol        = 0x82
	reasonImplementation  = 0x83
	reasonNotAuthorized   = 0x87
	reasonShuttingDown    = 0x8b
	reasonBadMethod       = 0x8c
	reasonKeepAlive       = 0x8d
	reasonTakenOver       = 0x8e
	reasonFilterInvalid   = 0x8f
	reasonTopicInvalid    = 0x90
	reasonAliasInvalid    = 0x94
	reasonTooLarge        = 0x95
	reasonQuota           = 0x97
	reasonRetain          = 0x9a
	reasonQoS             = 0x9b
	reasonShared          = 0x9e
	reasonConnectionRate  = 0x9f
	reasonSubscriptionIDs = 0xa1
	reasonWildcard        = 0xa2

	firstFailure5 = 0x80
)

// Status codes: Microsoft Learn, "IoT Hub data plane MQTT 5 API reference", Responses.
const (
	statusBadRequest    = "0100"
	statusNotAuthorized = "0101"
	statusNotAllowed    = "0102"
	statusConflict      = "0103"
	statusPrecondition  = "0104"
	statusThrottled     = "0501"
	statusQuota         = "0502"
	statusExhausted     = "0503"
	statusNotFound      = "0504"
	statusServerError   = "0601"
	statusTimeout       = "0602"
	statusBusy          = "0603"
)

// outcome is an answer other than success: a reason code for acknowledgements and the packets that end a connection,
// the hub's status ("" for none) and a text for a person.
type outcome struct {
	code   byte
	status string
	reason string
}

func (o *outcome) Error() string {
	if o.status == "" {
		return fmt.Sprintf("reason code %d: %s", o.code, o.reason)
	}
	return fmt.Sprintf("reason code %d, status %s: %s", o.code, o.status, o.reason)
}

// user is the outcome as user properties. The hub's errors have no place for a text where the status says it all, and
// a text does no harm.
func (o *outcome) user() []packets.User {
	var u []packets.User
	if o.status != "" {
		u = append(u, packets.User{Key: "status", Value: o.status})
	}
	if o.reason != "" {
		u = append(u, packets.User{Key: "reason", Value: o.reason})
	}
	return u
}

func badRequest(format string, args ...any) *outcome {
	return &outcome{reasonImplementation, statusBadRequest, fmt.Sprintf(format, args...)}
}

// hubStatus translates one of the hub's errors.
func hubStatus(e *hub.Error) *outcome {
	status := httpStatus(e.Status())
	switch {
	case e.Code == 403002:
		status = statusQuota
	case e.Code == 403004:
		status = statusExhausted
	case e.Code == 500008 || e.Status() == 504:
		status = statusTimeout
	}
	o := &outcome{reasonImplementation, status, e.Text}
	switch status {
	case statusNotAuthorized:
		o.code = reasonNotAuthorized
	case statusThrottled, statusQuota:
		o.code = reasonQuota
	}
	return o
}

func httpStatus(status int) string {
	switch status {
	case 400, 413:
		return statusBadRequest
	case 401:
		return statusNotAuthorized
	case 403:
		return statusNotAllowed
	case 404:
		return statusNotFound
	case 409:
		return statusConflict
	case 412:
		return statusPrecondition
	case 429:
		return statusThrottled
	case 503:
		return statusBusy
	}
	return statusServerError
}

// farewell is what DISCONNECT says about the end of a connection; nil means that none is sent.
func farewell(why error) *outcome {
	if o, ok := errors.AsType[*outcome](why); ok {
		return o
	}
	if e, ok := errors.AsType[*hub.Error](why); ok {
		if e.Code == 400029 { // ordered by AzIoTHub_FaultOperationType KillTcp: a cut, not a goodbye
			return nil
		}
		return hubFarewell(e)
	}
	switch {
	case errors.Is(why, errShutdown):
		return &outcome{code: reasonShuttingDown, reason: why.Error()}
	case errors.Is(why, errSilent):
		return &outcome{code: reasonKeepAlive, reason: why.Error()}
	case errors.Is(why, errTooLarge):
		return &outcome{code: reasonTooLarge, reason: why.Error()}
	case errors.Is(why, errMalformed):
		return &outcome{code: reasonMalformed, reason: why.Error()}
	}
	return nil
}

// hubFarewell is for a connection that the hub ends.
func hubFarewell(e *hub.Error) *outcome {
	switch {
	case e.Code == 400027 || e.Code == 409002: // "Azure IoT Hub error codes": another connection of the identity
		return &outcome{code: reasonTakenOver, reason: e.Text}
	case e.Status() == 401 || e.Status() == 404 || e.Code == 403012: // token out of date; identity gone or disabled
		return &outcome{reasonNotAuthorized, statusNotAuthorized, e.Text}
	}
	return hubStatus(e)
}
