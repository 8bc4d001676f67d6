// Package mqtt5 is the wire of an IoT Hub session over MQTT 5, api-version 2020-10-01-preview.
//
// Source: Microsoft Learn, "IoT Hub MQTT 5 support" and "IoT Hub data plane MQTT 5 API reference" (both marked as
// deprecated there); the client is Paho's, github.com/eclipse/paho.golang/paho, used for one connection and never
// again.
package mqtt5

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/internal/link"
)

const (
	maxFrame   = 512 << 10        // the hub's own limit is 256 KiB
	silence    = 10 * time.Second // after a PINGREQ
	reasonTime = 100 * time.Millisecond
	never      = 24 * time.Hour // the client's own time-out: the session watches
	receiveMax = 32             // also the size of a queue that the client makes, 65535 entries by default
	forEver    = 0xFFFFFFFF     // Session Expiry Interval
)

type wire struct {
	host       string
	credential identity.Credential
	link       *link.Link
	client     *paho.Client
	desired    func(iothub.DesiredPatch)
	method     func(iothub.MethodCall)
	message    func(iothub.CloudMessage) // nil: none are wanted
	session    *acks
	maxPacket  int

	done chan struct{}
	rid  atomic.Uint64

	mu      sync.Mutex
	err     error
	waiting map[string]chan *paho.Publish // by correlation data
}

// Open is the iothub.Open of MQTT 5.
func Open(ctx context.Context, conn net.Conn, p iothub.OpenParams) (iothub.Wire, error) {
	w := &wire{
		host:       p.Host,
		credential: p.Credential,
		desired:    p.Desired,
		method:     p.Method,
		message:    p.Message,
		session:    &acks{SessionManager: state.NewInMemory()},
		maxPacket:  maxFrame,
		done:       make(chan struct{}),
		waiting:    map[string]chan *paho.Publish{},
	}
	w.rid.Store(rand.Uint64() >> 1) // an answer that comes late, to an earlier connection's question, fits none of this one's
	connect, err := w.connectPacket(p)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	w.link = link.New(conn, link.Options{MaxFrame: maxFrame, Check: check, Silence: silence})
	w.client = paho.NewClient(paho.ClientConfig{
		ClientID:           w.credential.ID.String(),
		Conn:               &link.Batch{Link: w.link},
		Session:            w.session,
		AuthHandler:        auther{},
		PacketTimeout:      never,
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){w.handle},
		OnServerDisconnect: func(d *paho.Disconnect) { w.end(disconnected(d)) },
		OnClientError:      w.broken,
	})
	stop := context.AfterFunc(ctx, func() { w.link.Fail(context.Cause(ctx)) })
	defer stop()
	if err := w.connect(ctx, connect, p.At); err != nil {
		_ = w.link.Close()
		<-w.link.Gone()
		_ = w.session.Close()
		return nil, err
	}
	if err := w.subscribe(ctx); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *wire) connectPacket(p iothub.OpenParams) (*paho.Connect, error) {
	proof, err := w.sign(p.At, p.Expires)
	if err != nil {
		return nil, err
	}
	user := paho.UserProperties{{Key: "api-version", Value: apiVersion}, {Key: "host", Value: w.host}}
	user = append(user, proof.User...)
	user.Add("client-agent", iothub.ClientAgent)
	expiry, receive, size := uint32(forEver), uint16(receiveMax), uint32(maxFrame)
	return &paho.Connect{
		ClientID:  w.credential.ID.String(),
		KeepAlive: uint16(p.KeepAlive / time.Second),
		Properties: &paho.ConnectProperties{
			AuthMethod:            proof.AuthMethod,
			AuthData:              proof.AuthData,
			SessionExpiryInterval: &expiry,
			ReceiveMaximum:        &receive,
			MaximumPacketSize:     &size,
			RequestProblemInfo:    true,
			User:                  user,
		},
	}, nil
}

// sign makes what proves the identity: the same in CONNECT and AUTH.
func (w *wire) sign(at, expires time.Time) (*paho.AuthProperties, error) {
	data, err := w.credential.SignMQTT5(w.host, "", millis(at), millis(expires))
	if err != nil {
		return nil, err
	}
	return &paho.AuthProperties{
		AuthMethod: methodSAS,
		AuthData:   data,
		User:       paho.UserProperties{{Key: "sas-at", Value: millis(at)}, {Key: "sas-expiry", Value: millis(expires)}},
	}, nil
}

// check lets through what a hub sends to a client.
func check(first byte, length int) error {
	switch first >> 4 {
	case packets.CONNACK, packets.PUBACK, packets.SUBACK, packets.DISCONNECT, packets.AUTH:
		return nil
	case packets.PINGRESP:
		if length == 0 {
			return nil
		}
	case packets.PUBLISH:
		if first&0x06 <= 0x02 { // no QoS 2
			return nil
		}
	}
	return fmt.Errorf("the hub sent a packet that is none of MQTT 5's for a client: %#02x, %d bytes", first, length)
}

// auther is asked when the hub goes on with AUTH. With SAS there is nothing more to say, but the client calls whatever
// is there.
type auther struct{}

func (auther) Authenticate(*paho.Auth) *paho.Auth {
	return &paho.Auth{ReasonCode: packets.AuthContinueAuthentication, Properties: &paho.AuthProperties{AuthMethod: methodSAS}}
}

func (auther) Authenticated() {}

func (w *wire) connect(ctx context.Context, p *paho.Connect, at time.Time) error {
	ack, err := w.client.Connect(ctx, p)
	switch {
	case err == nil:
		if ack.Properties != nil && ack.Properties.MaximumPacketSize != nil {
			w.maxPacket = int(min(*ack.Properties.MaximumPacketSize, maxFrame)) // an int may have 32 bits
		}
		return nil
	case ack != nil && ack.ReasonCode >= 0x80:
		return refusal(ack, w.credential.ID, at)
	case ctx.Err() != nil:
		return fmt.Errorf("CONNECT: %w", context.Cause(ctx))
	}
	if lost := w.link.Err(); lost != nil && !errors.Is(lost, link.ErrClosed) {
		err = lost
	}
	return fmt.Errorf("CONNECT: %w", err)
}

func refusal(ack *paho.Connack, id identity.ID, at time.Time) error {
	p := ack.Properties
	if p == nil {
		p = &paho.ConnackProperties{}
	}
	err := failure("CONNACK", ack.ReasonCode, p.User, p.ReasonString)
	if errors.Is(err, iothub.ErrUnauthorized) {
		return fmt.Errorf("%w: is %s in the hub's registry and enabled, is its key right, is this device's clock right (%s)?",
			err, id, at.UTC().Format(time.RFC3339))
	}
	return err
}

func (w *wire) subscribe(ctx context.Context) error {
	filters := []paho.SubscribeOptions{{Topic: topicDesired}, {Topic: topicMethods}}
	if w.message != nil {
		filters = append(filters, paho.SubscribeOptions{Topic: topicCommands, QoS: 1})
	}
	ack, err := w.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: filters})
	if ack != nil {
		for i, code := range ack.Reasons {
			if code >= 0x80 && i < len(filters) {
				return failure("SUBSCRIBE to "+filters[i].Topic, code, ack.Properties.User, ack.Properties.ReasonString)
			}
		}
		if err == nil && len(ack.Reasons) != len(filters) {
			err = fmt.Errorf("%d answers for %d filters", len(ack.Reasons), len(filters))
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("SUBSCRIBE: %w", context.Cause(ctx))
	}
	return fmt.Errorf("SUBSCRIBE: %w", w.loss(err))
}

// Renew implements iothub.Renewer.
func (w *wire) Renew(ctx context.Context, at, expires time.Time) error {
	proof, err := w.sign(at, expires)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer func() { <-ended }()
	go func() { // the client waits for an answer whatever becomes of the connection
		defer close(ended)
		select {
		case <-w.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer cancel()
	answer, err := w.client.Authenticate(ctx, &paho.Auth{ReasonCode: packets.AuthReauthenticate, Properties: proof})
	if err != nil {
		return w.loss(err)
	}
	if !answer.Success {
		return failure("AUTH", answer.ReasonCode, answer.Properties.User, answer.Properties.ReasonString)
	}
	return nil
}

// disconnected is the hub's DISCONNECT as an error. A token that has run out is no refusal: the next one will do.
func disconnected(d *paho.Disconnect) error {
	p := d.Properties
	if p == nil {
		p = &paho.DisconnectProperties{}
	}
	err := failure("the hub disconnected", d.ReasonCode, p.User, p.ReasonString)
	if errors.Is(err, iothub.ErrUnauthorized) {
		return errors.New(err.Error())
	}
	return err
}

// broken is called when the client has ended for another reason than a DISCONNECT.
func (w *wire) broken(err error) {
	if lost := w.link.Err(); lost != nil && !errors.Is(lost, link.ErrClosed) {
		err = lost
	}
	w.end(err)
}

func (w *wire) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		close(w.done)
	}
}

// loss is the error of something that was under way when the connection ended. The client says so first and why a
// moment later.
func (w *wire) loss(err error) error {
	select {
	case <-w.done:
	case <-time.After(reasonTime):
	}
	reason := w.Err()
	if reason == nil {
		reason = w.link.Err()
	}
	if reason != nil && !errors.Is(reason, link.ErrClosed) {
		err = reason
	}
	return fmt.Errorf("%w any more: %w", iothub.ErrOffline, err)
}

// Close implements iothub.Wire.
func (w *wire) Close() {
	_ = w.client.Disconnect(&paho.Disconnect{}) // waits for the client's goroutines; its error is that of a lost link
	<-w.link.Gone()
	_ = w.session.Close() // the client closes only a session of its own
	w.end(link.ErrClosed)
}

func (w *wire) Protocol() string      { return "5" }
func (w *wire) Done() <-chan struct{} { return w.done }

func (w *wire) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
