package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/twinbay/twinbay/agent/inbox"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
)

const (
	inboxFolder = "messages" // in the state folder
	maxArrivals = 32         // messages that wait for the disk
)

// mail is the device's cloud-to-device messages, for whoever asks.
type mail struct{ box atomic.Pointer[inbox.Box] } // nil before Run

func (d *device) openInbox() {
	if d.mail.box.Load() == nil {
		d.mail.box.Store(inbox.Open(d.agent.disk, filepath.Join(d.agent.file().Agent.StateDir, inboxFolder), d.log))
	}
}

func (d *device) messages() int {
	if box := d.mail.box.Load(); box != nil {
		return box.Len()
	}
	return 0
}

// keepMessages puts what arrives on disk, in order, and tells the hub then.
func (d *device) keepMessages(ctx context.Context, arrivals <-chan iothub.CloudMessage) func() {
	box := d.mail.box.Load()
	full := false
	for {
		select {
		case m := <-arrivals:
			before := box.Len()
			err := box.Put(inbox.Message{ID: m.ID, Received: d.agent.clock.Now().UTC(), Properties: m.Properties, System: m.System, Body: m.Body}, m.Again)
			if err != nil {
				d.shown.note(aboutInbox, clip("a cloud-to-device message is left to the hub: "+err.Error(), 500))
				if !errors.Is(err, inbox.ErrFull) || !full {
					d.log.Warn("a cloud-to-device message is left to the hub", "message_id", clip(m.ID, 128), "error", err)
				}
				full = errors.Is(err, inbox.ErrFull)
				continue
			}
			full = false
			d.shown.note(aboutInbox, "")
			m.Ack()
			if box.Len() > before {
				d.log.Info("a cloud-to-device message has come: twinbay messages", "message_id", clip(m.ID, 128), "bytes", len(m.Body))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Messages implements [local.Agent].
func (a *Agent) Messages(context.Context) ([]local.CloudMessage, error) {
	out := []local.CloudMessage{}
	box := a.device.mail.box.Load()
	if box == nil {
		return out, nil
	}
	for _, m := range box.List() {
		c := local.CloudMessage{Number: m.Number, ID: m.ID, Received: m.Received.Truncate(time.Millisecond), Properties: m.Properties, System: m.System}
		switch {
		case json.Valid(m.Body) && utf8.Valid(m.Body):
			c.Body = m.Body
		case utf8.Valid(m.Body):
			c.Text = string(m.Body)
		default:
			c.Base64 = m.Body
		}
		out = append(out, c)
	}
	return out, nil
}

// Dismiss implements [local.Agent].
func (a *Agent) Dismiss(_ context.Context, which string) error {
	box := a.device.mail.box.Load()
	if box == nil {
		return local.ErrNoMessage
	}
	err := box.Dismiss(which)
	if errors.Is(err, inbox.ErrUnknown) {
		return fmt.Errorf("%w: %.200q", local.ErrNoMessage, which)
	}
	if err == nil {
		a.device.shown.note(aboutInbox, "")
	}
	return err
}
