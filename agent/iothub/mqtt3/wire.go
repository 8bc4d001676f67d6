// Package mqtt3 is the wire of an IoT Hub session over MQTT 3.1.1, what Azure IoT Hub speaks.
//
// Source: Microsoft Learn, "Communicate with your IoT hub by using the MQTT protocol" (topics, CONNECT), api-version
// 2021-04-12; the client is Paho's, github.com/eclipse/paho.mqtt.golang, used for one connection and never again.
//
// Two habits of that client shape this package. What is published while it stops after a loss may wait for half a
// minute for somebody to take it; so one goroutine, the pump, makes all calls, and the link shows a loss to the client
// only when the pump has stopped. And with a persistent session it never completes what was in flight at a loss; so
// everything here waits for the end of the link as well.
package mqtt3

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/internal/link"
)

const (
	maxFrame = 512 << 10        // a message of 256 KiB and its topic; a twin of 32 KiB each way is less
	silence  = 10 * time.Second // after a PINGREQ
	goodbye  = 200              // milliseconds for DISCONNECT
	cleanUp  = 250 * time.Millisecond
)

type wire struct {
	id      identity.ID
	link    *link.Link
	client  mqtt.Client
	desired func(iothub.DesiredPatch)
	method  func(iothub.MethodCall)
	message func(iothub.CloudMessage) // nil: none are wanted

	calls   chan call
	closing chan struct{} // closed by the first Close
	quiet   chan struct{} // closed when the pump makes no calls any more
	gone    chan struct{} // closed when the client has ended its goroutines
	once    sync.Once     // of closing
	ended   sync.Once     // of gone

	rid     atomic.Uint64
	mu      sync.Mutex
	waiting map[string]chan reply // by rid
}

// call is one call of the client, made by the pump.
type call struct {
	do    func() mqtt.Token
	token chan mqtt.Token // capacity one
}

type reply struct {
	status  int
	version int64
	body    []byte
}

// Open is the iothub.Open of MQTT 3.1.1.
func Open(ctx context.Context, conn net.Conn, p iothub.OpenParams) (iothub.Wire, error) {
	token, err := p.Credential.Token(p.Host, p.At, p.Expires.Sub(p.At))
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	w := &wire{
		id:      p.Credential.ID,
		desired: p.Desired,
		method:  p.Method,
		message: p.Message,
		calls:   make(chan call),
		closing: make(chan struct{}),
		quiet:   make(chan struct{}),
		gone:    make(chan struct{}),
		waiting: map[string]chan reply{},
	}
	w.link = link.New(conn, link.Options{MaxFrame: maxFrame, Check: check, Silence: silence, Hold: w.quiet})
	w.client = mqtt.NewClient(w.options(p, token))
	w.rid.Store(rand.Uint64() >> 1) // an answer that comes late, to an earlier connection's question, fits none of this one's
	go w.pump()
	stop := context.AfterFunc(ctx, func() { w.link.Fail(context.Cause(ctx)) })
	defer stop()
	if err := w.connect(p); err != nil {
		return nil, err
	}
	if err := w.subscribe(ctx); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *wire) options(p iothub.OpenParams, token identity.Token) *mqtt.ClientOptions {
	o := mqtt.NewClientOptions()
	o.AddBroker("tls://" + p.Host) // only so that there is one: the connection stands
	o.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return w.link, nil })
	o.SetClientID(w.id.String())
	o.SetUsername(userName(p.Host, w.id))
	o.SetPassword(token.Text)
	o.SetProtocolVersion(4)
	o.SetCleanSession(false) // the hub keeps subscriptions and what is queued
	o.SetKeepAlive(p.KeepAlive)
	o.SetPingTimeout(24 * time.Hour) // the link watches, and ends in a way that the pump knows of
	o.SetAutoReconnect(false)
	o.SetConnectRetry(false)
	o.SetResumeSubs(false)
	o.SetOrderMatters(true) // patches have an order; handle does not block
	o.SetAutoAckDisabled(true)
	o.SetDefaultPublishHandler(w.handle)
	o.SetConnectionLostHandler(func(mqtt.Client, error) { w.markGone() })
	return o
}

// check lets through what a hub sends and this client can take: it indexes a slice by the number of SUBACK codes, and
// answers QoS 2 packets, which no hub sends.
func check(first byte, length int) error {
	ok := false
	switch first >> 4 {
	case packets.Connack, packets.Puback, packets.Unsuback:
		ok = length == 2
	case packets.Suback:
		ok = length > 2 && length <= 2+len(filters)+1
	case packets.Pingresp:
		ok = length == 0
	case packets.Publish:
		ok = first&0x06 <= 0x02
	}
	if !ok {
		return fmt.Errorf("the hub sent a packet that is none of MQTT 3.1.1's for a client: %#02x, %d bytes", first, length)
	}
	return nil
}

func (w *wire) connect(p iothub.OpenParams) error {
	t := w.client.Connect()
	<-t.Done() // a context that ends fails the link, and that ends this
	err := t.Error()
	if err == nil {
		return nil
	}
	_ = w.link.Close()
	<-w.link.Gone()
	switch code := t.(*mqtt.ConnectToken).ReturnCode(); code {
	case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised:
		return fmt.Errorf("%w (CONNACK %d): is %s in the hub's registry and enabled, is its key right, is this device's clock right (%s)?",
			iothub.ErrUnauthorized, code, w.id, p.At.UTC().Format(time.RFC3339))
	case packets.ErrRefusedBadProtocolVersion:
		return fmt.Errorf("%w: CONNACK 1, it does not take MQTT 3.1.1: is hub.address right, should hub.mqtt be \"5\"?", iothub.ErrRejected)
	case packets.ErrRefusedIDRejected:
		return fmt.Errorf("%w: CONNACK 2, it does not take the client id %s: is the credential right?", iothub.ErrRejected, w.id)
	case packets.ErrRefusedServerUnavailable:
		return fmt.Errorf("the hub is not available now (CONNACK %d)", code)
	}
	if lost := w.link.Err(); lost != nil && !errors.Is(lost, link.ErrClosed) {
		err = lost
	}
	return fmt.Errorf("CONNECT: %w", err)
}

// filters are everybody's; a device that wants its messages has one more.
var filters = map[string]byte{filterTwin: 0, filterDesired: 0, filterMethods: 0}

func (w *wire) subscribe(ctx context.Context) error {
	filters := maps.Clone(filters)
	if w.message != nil {
		filters["devices/"+w.id.Device+suffixDevicebound+"#"] = 1
	}
	t, err := w.run(ctx, func() mqtt.Token { return w.client.SubscribeMultiple(filters, nil) })
	if err == nil {
		err = w.wait(ctx, t)
	}
	if err != nil {
		return fmt.Errorf("SUBSCRIBE: %w", err)
	}
	granted := t.(*mqtt.SubscribeToken).Result()
	for filter := range filters {
		if code, ok := granted[filter]; !ok || code > 1 {
			return fmt.Errorf("%w: no subscription to %s", iothub.ErrRejected, filter)
		}
	}
	return nil
}

// Quiet implements iothub.Quieter. The next connection subscribes again.
func (w *wire) Quiet(ctx context.Context) error {
	t, err := w.run(ctx, func() mqtt.Token { return w.client.Unsubscribe(filterMethods) })
	if err != nil {
		return err
	}
	return w.wait(ctx, t)
}

// pump makes all calls that hand something to the client, and the last one, Disconnect.
func (w *wire) pump() {
	for {
		select {
		case c := <-w.calls:
			c.token <- c.do()
		case <-w.link.Lost():
			close(w.quiet)
			return
		case <-w.closing:
			close(w.quiet)
			if w.client.IsConnectionOpen() {
				w.client.Disconnect(goodbye)
				w.markGone() // no handler is called after Disconnect
			}
			_ = w.link.Close()
			return
		}
	}
}

// run has the pump make a call.
func (w *wire) run(ctx context.Context, do func() mqtt.Token) (mqtt.Token, error) {
	c := call{do: do, token: make(chan mqtt.Token, 1)}
	select {
	case w.calls <- c:
		return <-c.token, nil // the client hands over without waiting: the link's Write never blocks
	case <-w.quiet:
		return nil, w.loss()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// wait waits for the hub's acknowledgement.
func (w *wire) wait(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
	case <-w.link.Lost():
		select {
		case <-t.Done(): // it was the last thing to come
		default:
			return w.loss()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.Error() != nil {
		return w.loss() // the client completes a call with an error only because of the connection
	}
	return nil
}

func (w *wire) loss() error {
	if err := w.link.Err(); err != nil {
		return fmt.Errorf("%w any more: %w", iothub.ErrOffline, err)
	}
	return iothub.ErrOffline
}

func (w *wire) markGone() { w.ended.Do(func() { close(w.gone) }) }

// Close implements iothub.Wire.
func (w *wire) Close() {
	w.once.Do(func() { close(w.closing) })
	select {
	case <-w.gone:
	case <-w.link.Gone():
		select {
		case <-w.gone:
		case <-time.After(cleanUp):
		}
	}
	<-w.link.Gone()
}

func (w *wire) Protocol() string      { return "3.1.1" }
func (w *wire) Done() <-chan struct{} { return w.link.Lost() }
func (w *wire) Err() error            { return w.link.Err() }
