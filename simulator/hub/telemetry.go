package hub

import (
	"maps"
	"time"
)

// maxMessage is how much a message may be: body, values of system properties, names and values of application
// properties. Source: Microsoft Learn, "Create and read IoT Hub messages".
const maxMessage = 256 << 10 // bytes

// What the hub says of a message's sender in the system properties, and no device can: Microsoft Learn, "Create and read
// IoT Hub messages", System properties of device-to-cloud messages.
const (
	stampDevice     = "iothub-connection-device-id"
	stampModule     = "iothub-connection-module-id" // of a module's message alone
	stampGeneration = "iothub-connection-auth-generation-id"
	stampMethod     = "iothub-connection-auth-method"
	stampEnqueued   = "iothub-enqueuedtime" // 2026-01-31T12:00:00.0000000Z
	stampSource     = "iothub-message-source"
	stampModel      = "dt-dataschema" // of a connection that has announced a model
	stamps          = 7

	sourceTelemetry = "Telemetry"
)

// Telemetry takes a message in. Having returned nil, the hub has it.
func (l *Link) Telemetry(m Message) error {
	size := m.size()
	if err := checkTelemetry(size); err != nil {
		return err
	}
	e := l.hub.telemetryEvent(l.id, m)
	l.hub.mu.Lock()
	defer l.hub.unlock()
	if l.over {
		return l.gone()
	}
	if err := l.hub.spend(l.id, size); err != nil {
		return err
	}
	l.n.activity = time.Now()
	l.hub.emitTelemetry(e, l.n, m, l.method, l.n.modelID)
	l.obey(m.Properties)
	return nil
}

// Will takes the will of a connection in, which the hub itself may have ended: because a newer one of the identity has taken over,
// say, or its token has run out. An identity that is gone or disabled has no will.
func (l *Link) Will(m Message) error {
	size := m.size()
	if err := checkTelemetry(size); err != nil {
		return err
	}
	e := l.hub.telemetryEvent(l.id, m)
	l.hub.mu.Lock()
	defer l.hub.unlock()
	n, err := l.hub.admissible(l.id)
	switch {
	case err != nil:
		return err
	case n != l.n: // made anew under the same name
		return l.gone()
	}
	if err := l.hub.spend(l.id, size); err != nil {
		return err
	}
	l.hub.emitTelemetry(e, n, m, l.method, n.modelID)
	return nil
}

// Telemetry takes a message in of somebody without a connection (HTTPS). Having returned nil, the hub has it.
func (h *Hub) Telemetry(g Grant, m Message) error {
	size := m.size()
	if err := checkTelemetry(size); err != nil {
		return err
	}
	e := h.telemetryEvent(g.ID, m)
	h.mu.Lock()
	defer h.unlock()
	n, err := h.admissible(g.ID)
	if err != nil {
		return err
	}
	if o, ok := readFaultOrder(m.Properties); ok && o.refusal() != nil {
		return o.refusal()
	}
	if err := h.spend(g.ID, size); err != nil {
		return err
	}
	n.activity = time.Now()
	h.emitTelemetry(e, n, m, g.Method, "")
	return nil
}

func checkTelemetry(size int) *Error {
	if size > maxMessage {
		return &Error{Code: 413001, Name: "MessageTooLarge", Text: "a message is at most 262144 bytes with its properties"}
	}
	return nil
}

// telemetryEvent makes the event of a message, whose body takes longer to look through than all else takes: so without
// the lock, and only if somebody watches. nil means nobody does.
func (h *Hub) telemetryEvent(id ID, m Message) *Event {
	if h.watched.Load() == 0 {
		return nil
	}
	return newTelemetryEvent(id, m)
}

func newTelemetryEvent(id ID, m Message) *Event {
	e := &Event{Kind: "telemetry", DeviceID: id.Device, ModuleID: id.Module, Properties: m.Properties}
	e.System = make(map[string]string, len(m.System)+stamps)
	maps.Copy(e.System, m.System)
	e.setBody(m.Body)
	return e
}

// emitTelemetry stamps a message that is in and tells the watchers; one who came since telemetryEvent sees it, too. method and
// modelID are of the connection, "" for none.
func (h *Hub) emitTelemetry(e *Event, n *identity, m Message, method, modelID string) {
	if len(h.watchers) == 0 {
		return
	}
	if e == nil {
		e = newTelemetryEvent(n.id, m)
	}
	e.At = time.Now()
	e.stamp(stampDevice, n.id.Device)
	e.stamp(stampModule, n.id.Module)
	e.stamp(stampGeneration, n.generation)
	e.stamp(stampMethod, method)
	e.stamp(stampEnqueued, twinTime(e.At))
	e.stamp(stampSource, sourceTelemetry)
	e.stamp(stampModel, modelID)
	h.emit(*e)
}

// stamp sets a system property that is not the device's to set; "" means that there is none.
func (e *Event) stamp(name, value string) {
	if value == "" {
		delete(e.System, name)
		return
	}
	e.System[name] = value
}
