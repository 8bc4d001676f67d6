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
)

// device is one connected identity, whatever the protocol version.
type device struct {
	srv  *Server
	c    *conn
	log  *slog.Logger
	id   hub.ID
	link *hub.Link
	sess *session
	will *hub.Message
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

// ask asks the fault rules about something that the device wants. It waits through a delay, and an error ends the
// connection.
func (d *device) ask(on string) (string, error) {
	switch f := d.srv.hub.Fault(on, d.id); f.Do {
	case doNothing, doRefuse, doThrottle, doDrop:
		return f.Do, nil
	case "kick":
		return "", fmt.Errorf("%w: on %s", errKicked, on)
	case "delay":
		return doNothing, d.c.wait(f.Delay)
	default:
		d.log.Warn("fault rule with an unknown action is ignored", "on", on, "do", f.Do)
		return doNothing, nil
	}
}

// admit asks the fault rules about something that the hub sends. It never waits: the packet does, for delay.
func (d *device) admit(on string) (delay time.Duration, ok bool) {
	switch f := d.srv.hub.Fault(on, d.id); f.Do {
	case "kick":
		d.c.end(fmt.Errorf("%w: on %s", errKicked, on))
		return 0, false
	case doRefuse, doThrottle, doDrop:
		return 0, false
	case "delay":
		return f.Delay, true
	}
	return 0, true
}

// faultError is what a refusing or throttling rule answers, nil for the others.
func faultError(do string) *hub.Error {
	switch do {
	case doRefuse:
		return &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: "a fault rule refuses this"}
	case doThrottle:
		return &hub.Error{Code: 429001, Name: "ThrottlingException", Text: "a fault rule throttles this"}
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
		if err := d.link.Telemetry(*d.will); err != nil {
			d.log.Debug("the will is not sent", "error", err)
		}
	}
	d.link.Detach()
}
