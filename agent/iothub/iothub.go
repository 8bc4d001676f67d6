// Package iothub is the device side of Azure IoT Hub: one [Session] per identity, which keeps one MQTT connection
// of its own open, asks for and reports twins, answers direct methods and sends telemetry.
//
// Source: Microsoft Learn, "Communicate with your IoT hub by using the MQTT protocol". The wires are in mqtt3 (MQTT
// 3.1.1, what the hub speaks) and mqtt5 (api-version 2020-10-01-preview).
package iothub

import (
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/twinbay/twinbay/agent/identity"
)

// Errors that a caller branches on.
var (
	ErrOffline      = errors.New("not connected to the hub")
	ErrUnauthorized = errors.New("the hub refused the credential") // unknown, disabled or wrong key: not cured by trying again soon
	ErrThrottled    = errors.New("the hub is throttling")
	ErrRejected     = errors.New("the hub refused the request")   // 400, 413: not cured by trying again
	ErrStale        = errors.New("the hub has another version")   // 412: cured by asking for the twin
	ErrRenewing     = errors.New("reconnecting with a new token") // planned: of a Down on a wire that cannot renew
	ErrTakenOver    = errors.New("another connection of this identity took over: identity used elsewhere?")
)

// Message is one telemetry message.
type Message struct {
	ID         string // system property message-id
	Body       []byte // JSON in UTF-8
	Properties map[string]string
	Created    time.Time
}

// Twin is what a twin GET answers: two JSON objects, each without its $version.
type Twin struct {
	Desired         json.RawMessage
	DesiredVersion  int64
	Reported        json.RawMessage
	ReportedVersion int64
}

// Event is something that a session tells its owner. It is one of Up, Down, DesiredPatch, MethodCall and CloudMessage.
type Event interface{ event() }

// Up says that the connection stands and all subscriptions are made: the owner asks for the twin now. It may come again
// without a Down between: then patches came faster than the owner took them, and asking for the twin replaces them.
type Up struct{}

// Down says that the connection has ended, or that a try to make one has failed: why, and when the next try will be.
// Of several that the owner has not yet taken only the newest is kept.
type Down struct {
	Err   error
	Retry time.Time
}

// DesiredPatch is a change of desired properties: an object without $version; null deletes.
type DesiredPatch struct {
	Version int64
	Patch   json.RawMessage
}

// MethodCall is a direct method that wants an answer. Answer may be called once, from any goroutine; MQTT carries no
// deadline, so a late answer is lost silently.
type MethodCall struct {
	Name    string
	Payload json.RawMessage
	Answer  func(status int, payload json.RawMessage)
}

// CloudMessage is a cloud-to-device message. The hub hands it out again, within a minute or on the next connection, until
// Ack is called: once, from any goroutine.
type CloudMessage struct {
	ID         string // message-id
	Properties map[string]string
	System     map[string]string // by the hub's names: correlation-id, content-type, …
	Body       []byte
	Again      bool // it may have come before
	Ack        func()
}

func (CloudMessage) event() {}
func (Up) event()           {}
func (Down) event()         {}
func (DesiredPatch) event() {}
func (MethodCall) event()   {}

// Config is what a session needs.
type Config struct {
	Host       string // the hub's host name: SNI, user name and sr; "" means the credential's
	Address    string // "host:port" to dial; "" means Host:8883
	CA         []byte // PEM; nil means the system's roots
	Credential identity.Credential
	Reload     func() (identity.Credential, error) // reads the credential again after it was refused; nil means that it stays
	Dial       Dial                                // nil means TCP with TLS 1.2 or newer
	Wire       Open                                // mqtt3.Open or mqtt5.Open
	Messages   bool                                // take cloud-to-device messages: of a device, not of a module
	Log        *slog.Logger

	Pace    *Pace   // shared by the sessions of a device; nil means that this one connects when it likes
	Network *Signal // raised when a network link comes up; nil means that nobody tells
	Clock   Clock   // of tokens and certificates; nil means the system's
}

// Clock is the best known time. Its methods are called from several goroutines.
type Clock interface {
	Now() time.Time
	Changed() <-chan struct{} // closed when Now has jumped
	// Stamp is Now; since is closed when the time has gone another way than it passes.
	Stamp() (now time.Time, since <-chan struct{})
	Accepted(since <-chan struct{}) // a connection stands that was made with what Stamp answered
	Refused()                       // the hub refuses what was signed with Now, or its certificate does not hold then
}

// systemClock is the system's.
type systemClock struct{}

func (systemClock) Now() time.Time                      { return time.Now() }
func (systemClock) Changed() <-chan struct{}            { return nil }
func (systemClock) Accepted(<-chan struct{})            {}
func (systemClock) Stamp() (time.Time, <-chan struct{}) { return time.Now(), nil }
func (systemClock) Refused()                            {}
