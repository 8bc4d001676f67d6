package modkit

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/twinbay/twinbay/hal"
)

// Bay is what a running module sees of its place on the device. Its fields do not change during Run. Its methods may
// be called from any goroutine.
type Bay struct {
	Wires  *hal.Wires      // opens the wires
	Wiring json.RawMessage // the wiring table, defaults filled in
	State  []byte          // the last durable state, nil at the first start ever
	Linked []Input         // each input that is linked, as it stood at the start; nothing ever comes for the others
	Inputs <-chan Input    // what comes after that; never closed. A newer value replaces one of its name not yet taken
	Log    *slog.Logger

	link *link
}

// Send hands a message over and never blocks. It fails with ErrFull while MaxOutstanding messages wait, with
// ErrTooLarge, and with ErrEnded after the end of the run. The ticket says when the message will not be lost any more.
func (b *Bay) Send(m Message) (*Ticket, error) {
	properties := 0
	for name, value := range m.Properties {
		properties += len(name) + len(value)
	}
	switch {
	case len(m.Body) > MaxBody:
		return nil, fmt.Errorf("body of %d bytes, at most %d: %w", len(m.Body), MaxBody, ErrTooLarge)
	case properties > MaxBody:
		return nil, fmt.Errorf("properties of %d bytes, at most %d: %w", properties, MaxBody, ErrTooLarge)
	case len(m.State) > MaxState:
		return nil, fmt.Errorf("state of %d bytes, at most %d: %w", len(m.State), MaxState, ErrTooLarge)
	}
	return b.link.send(m)
}

// Health says how the component is. Saying the same again costs nothing.
func (b *Bay) Health(h Health) {
	if len(h.Detail) > MaxDetail {
		h.Detail = strings.ToValidUTF8(h.Detail[:MaxDetail], "")
	}
	b.link.health(h)
}

// Report sets the whole document of reported properties that are no settings: what the part says of itself, tables,
// counters that change rarely. properties becomes a JSON object.
func (b *Bay) Report(properties any) {
	doc, err := json.Marshal(properties)
	if err != nil {
		b.Log.Error("the module's reported properties have no JSON form, this is a bug of the module", "error", err)
		return
	}
	if len(doc) > MaxReport {
		b.Log.Error("the module's reported properties are too large and left out, this is a bug of the module", "bytes", len(doc), "at_most", MaxReport)
		return
	}
	b.link.report(doc)
}

// Output says what is to be seen at one of the module's output ports. The agent takes it to the inputs that the device
// file links, and keeps it for those that come later. When the module ends, all its outputs become unknown by themselves.
func (b *Bay) Output(o Output) {
	b.link.output(o)
}

// Ticket is the receipt of one message.
type Ticket struct {
	done chan struct{}
	err  error
}

// Done is closed when the agent has taken the message, or refused it, or the run has ended.
func (t *Ticket) Done() <-chan struct{} {
	return t.done
}

// Err is nil when the message and its state will not be lost any more; a *Refused when the agent will never take
// it; ErrEnded when the run ended first. It is valid once Done is closed.
func (t *Ticket) Err() error {
	return t.err
}

func (t *Ticket) resolve(err error) {
	t.err = err
	close(t.done)
}

// Refused says that the agent will never take a message, and why.
type Refused struct {
	Reason string
}

func (r *Refused) Error() string {
	return "the agent refused the message: " + r.Reason
}
