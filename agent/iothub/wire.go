package iothub

import (
	"context"
	"encoding/json"
	"net"
	"time"

	"github.com/twinbay/twinbay/agent/identity"
)

// Limits of a session.
const (
	MaxInFlight    = 32        // messages handed to the wire and not yet acknowledged
	MaxMessageSize = 256 << 10 // bytes, as the hub counts (Microsoft Learn, "Create and read IoT Hub messages")
	ClientAgent    = "twinbay" // DeviceClientType, client-agent
	tokenLife      = time.Hour // of a SAS token
	keepAlive      = 30 * time.Second
	requestTime    = 15 * time.Second // for a twin's answer
	ackTime        = 10 * time.Second // without any acknowledgement while one is due
	slowestLink    = 8 << 10          // bytes per second that ackTime is extended by
	openTime       = 30 * time.Second // for CONNECT and SUBSCRIBE
	clockSlack     = 5 * time.Minute  // that the hub allows; SharedAccessSignature.cs in github.com/Azure/iotedge, edge-util
	resignTime     = 10 * time.Second // for all identities of a device, after the clock has jumped
)

// Dial makes a connection to the hub, with TLS already spoken. It honours ctx.
type Dial func(ctx context.Context) (net.Conn, error)

// Open speaks MQTT on conn: CONNECT and all subscriptions, in one SUBSCRIBE. It owns conn from the call on, and has
// closed it when it answers an error.
type Open func(ctx context.Context, conn net.Conn, p OpenParams) (Wire, error)

// OpenParams is what a wire needs to know.
type OpenParams struct {
	Host        string
	Credential  identity.Credential
	At, Expires time.Time // of the token to make
	KeepAlive   time.Duration
	Desired     func(DesiredPatch) // called in order; must not block
	Method      func(MethodCall)   // called in order; must not block
	Message     func(CloudMessage) // called in order; must not block; nil means that none are wanted
}

// Wire is one open connection. Its methods may be called from any goroutine.
type Wire interface {
	// Publish sends m at QoS 1 and returns when the hub has acknowledged it. Many may be in flight at once.
	Publish(ctx context.Context, m Message) error
	// Twin asks for the whole twin.
	Twin(ctx context.Context) (Twin, error)
	// Report merges patch into the reported properties and answers their new version.
	Report(ctx context.Context, patch json.RawMessage) (version int64, err error)
	// Protocol is "3.1.1" or "5".
	Protocol() string
	// Close says goodbye if that is possible at once, and returns, within half a second, when all is cleaned up.
	Close()
	// Done is closed when the connection has ended; Err says why then.
	Done() <-chan struct{}
	Err() error
}

// Renewer is a wire that can show a new signature on the open connection. For others a new connection is made.
type Renewer interface {
	Renew(ctx context.Context, at, expires time.Time) error
}

// Quieter is a wire that can ask the hub for no more methods, before a connection is given up on purpose: a caller is
// told that the device is not online, in place of losing the answer.
type Quieter interface {
	Quiet(ctx context.Context) error
}
