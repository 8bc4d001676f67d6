package mqttd

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

var (
	errClosed     = errors.New("the hub ends the connection")
	errKicked     = errors.New("a fault rule ends the connection")
	errUnanswered = errors.New("a fault rule leaves CONNECT unanswered")
	errGoodbye    = errors.New("the device has said DISCONNECT")
)

// What a fault rule leaves for the door to do; kicks and delays have been done by then.
const (
	doNothing  = ""
	doRefuse   = "refuse"
	doThrottle = "throttle"
	doDrop     = "drop"
	doQuota    = "quota"
)

// device is one connected identity, whatever the protocol version.
type device struct {
	srv  *Server
	c    *conn
	id   hub.ID
	link *hub.Link
	sess *session
	will *hub.Message

	connack byte // with which a fault rule refuses CONNECT; 0: the hub's own
}

// log is made when there is something to say: most connections never have, and would keep a logger.
func (d *device) log() *slog.Logger {
	return d.srv.log.With("remote", d.c.nc.RemoteAddr().String(), "device", d.id.Device, "module", d.id.Module)
}

// attach makes the link, after which the hub may call p.
func (d *device) attach(g hub.Grant, p hub.Peer) error {
	link, err := d.srv.hub.Attach(g, p)
	if err != nil {
		return err
	}
	d.link = link
	return nil
}

// Close implements a part of hub.Peer.
func (d *device) Close(why *hub.Error) {
	if why == nil {
		d.c.end(errClosed)
		return
	}
	d.c.end(why)
}

// throttled are the events that the hub's tier limits.
var throttled = map[string]hub.Operation{
	"connect": hub.OpConnect, "publish": hub.OpSend, "twin-get": hub.OpTwinRead, "report": hub.OpTwinUpdate,
}

// ask asks the fault rules, and then the throttle of the hub's tier, about something that the device wants. It waits
// through a delay, and an error ends the connection.
func (d *device) ask(on string) (string, error) {
	switch f := d.srv.hub.Fault(on, d.id); f.Do {
	case doRefuse, doThrottle, doDrop, doQuota:
		d.connack = byte(f.Connack) // which fits: hub.AddFault
		return f.Do, nil
	case "kick":
		return "", fmt.Errorf("%w: on %s", errKicked, on)
	case "freeze":
		d.c.freeze()
		return "", d.c.thaw()
	case "delay":
		if err := d.c.wait(f.Delay); err != nil {
			return "", err
		}
	}
	op, ok := throttled[on]
	if !ok {
		return doNothing, nil
	}
	held, err := d.srv.hub.Throttle(op, d.id, 1)
	if err != nil {
		return doThrottle, nil
	}
	return doNothing, d.c.wait(held)
}

// admit asks the fault rules about something that the hub sends. It never waits: the packet does, for delay.
func (d *device) admit(on string) (delay time.Duration, ok bool) {
	switch f := d.srv.hub.Fault(on, d.id); f.Do {
	case "kick":
		d.c.end(fmt.Errorf("%w: on %s", errKicked, on))
		return 0, false
	case "freeze":
		d.c.freeze()
		return 0, false
	case doRefuse, doThrottle, doDrop, doQuota:
		return 0, false
	case "delay":
		return f.Delay, true
	}
	return 0, true
}

// faultError is what a rule that refuses answers, and the hub's throttle; nil for the others.
func faultError(do string) *hub.Error {
	switch do {
	case doRefuse:
		return &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: "a fault rule refuses this"}
	case doThrottle:
		return &hub.Error{Code: 429001, Name: "ThrottlingException", Text: "too many requests: wait and try again"}
	case doQuota:
		return &hub.Error{Code: 403002, Name: "IotHubQuotaExceeded", Text: "a fault rule has the hub's messages of this day used up"}
	}
	return nil
}

// asHubError gives every error a number.
func asHubError(err error) *hub.Error {
	if e, ok := errors.AsType[*hub.Error](err); ok {
		return e
	}
	return &hub.Error{Code: 500001, Name: "ServerError", Text: err.Error()}
}

// ignore takes a device's packets and answers none, until the device or the time for CONNECT is gone.
func (d *device) ignore() error {
	if err := d.c.deadline(connectTimeout); err != nil {
		return err
	}
	for {
		if _, err := d.c.in.next(); err != nil {
			return errUnanswered
		}
	}
}

// leave ends the link. The will is sent unless the device has said goodbye.
func (d *device) leave(why error) {
	if d.link == nil {
		return
	}
	if d.will != nil && !errors.Is(why, errGoodbye) {
		if err := d.link.Will(*d.will); err != nil {
			d.log().Debug("the will is not sent", "error", err)
		}
	}
	if errors.Is(why, errGoodbye) {
		d.link.Detach()
		return
	}
	d.link.Lost(why)
}
