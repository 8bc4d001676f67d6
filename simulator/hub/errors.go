package hub

import "fmt"

// The hub's errors that this package makes. Numbers and names: Microsoft Learn, "Azure IoT Hub error codes".

func argument(format string, args ...any) *Error {
	return &Error{Code: 400004, Name: "ArgumentInvalid", Text: fmt.Sprintf(format, args...)}
}

func badFormat(format string, args ...any) *Error {
	return &Error{Code: 400006, Name: "IotHubFormatError", Text: fmt.Sprintf(format, args...)}
}

// unauthorized says one word to the one it refuses, as the hub does; why is for the hub's own events.
func unauthorized(format string, args ...any) *Error {
	return &Error{Code: 401002, Name: "IotHubUnauthorizedAccess", Text: "Unauthorized", why: fmt.Sprintf(format, args...)}
}

// badToken refuses the credential of a connection, whose reason the hub logs as 401003.
func badToken(format string, args ...any) *Error {
	return &Error{Code: 401003, Name: "IotHubUnauthorized", Text: fmt.Sprintf(format, args...)}
}

func deviceNotFound(id ID) *Error {
	return &Error{Code: 404001, Name: "DeviceNotFound", Text: id.Device}
}

func moduleNotFound(id ID) *Error {
	return &Error{Code: 404010, Name: "ModuleNotFound", Text: id.String()}
}

func preconditionFailed(format string, args ...any) *Error {
	return &Error{Code: 412001, Name: "PreconditionFailed", Text: fmt.Sprintf(format, args...)}
}

func connectionGone(why string) *Error {
	return &Error{Code: 404104, Name: "DeviceConnectionClosedRemotely", Text: why}
}

// reason is the fullest text there is.
func (e *Error) reason() string {
	if e.why != "" {
		return e.why
	}
	return e.Error()
}

func tooManyModules(device string, n, limit int) *Error {
	return &Error{Code: 413003, Name: "TooManyModulesOnDevice", Text: fmt.Sprintf(
		"device %s has %d module identities and this hub allows %d; start twinbay-sim with --module-limit N for more (50 is Azure's limit today)",
		device, n, limit)}
}
