// Package hub is IoT Hub's truth in memory: the identity registry, twins, direct methods, telemetry and cloud-to-device
// messages, with faults on demand. It opens no socket: simulator/mqttd and simulator/restd are its doors.
//
// Sources: Microsoft Learn, "Understand the identity registry in your IoT hub", "Understand and use device twins in IoT
// Hub", "Understand and use module twins in IoT Hub", "Understand and invoke direct methods from IoT Hub", "Understand
// cloud-to-device messaging from an IoT hub", "Control access to IoT Hub by using shared access signatures" and "Azure IoT Hub error codes". Where these are silent or wrong,
// what a hub really answers is taken from the measurements in github.com/mwalser/terraform-provider-iothub, CONCEPT.md,
// section 6 and appendix D.
//
// One mutex, Hub.mu, guards everything that a Hub reaches. It is held for short work in memory and never while a peer is
// called: what has to be said to peers is queued under the lock, link by link, and said by the goroutine that unlocks
// (see Hub.unlock). So a peer may call back into the hub, and what one link is told keeps its order.
package hub

import (
	"encoding/json"
	"time"
)

// ID names a device identity, or one of its module identities. Case-sensitive.
type ID struct {
	Device string
	Module string // "" for the device itself
}

// String is "device" or "device/module". Ids hold no slash.
func (id ID) String() string {
	if id.Module == "" {
		return id.Device
	}
	return id.Device + "/" + id.Module
}

// Feature is something that a connected identity wants to be sent.
type Feature int

const (
	Methods Feature = iota
	Desired
)

// Message is one telemetry message as a door hands it over. The hub stamps who sent it and when; Body is the door's again
// once it has taken the message, the maps are not.
type Message struct {
	Body       []byte
	Properties map[string]string // application properties
	System     map[string]string // message-id, correlation-id, content-type, content-encoding, … by their hub names
}

// Peer is the device's end of a [Link], implemented by a door (MQTT; AMQP later). The hub calls it without holding any
// lock, one call at a time per link and in order. A call hands over to the connection and does not wait for the
// device; Close may be called at any time and more than once.
type Peer interface {
	// Desired is called for each change of desired properties while the feature is wanted: the changed keys, null for
	// removed ones, with "$version" inside.
	Desired(patch json.RawMessage, version int64)
	// Method asks for a direct method; the door answers by Link.MethodResult with the same rid.
	Method(rid, name string, payload json.RawMessage)
	// CloudToDevice hands over a message, of which at most Link.Window are under way; the door answers by Link.Settle
	// with its token. One that is not settled within its minute comes again, with the same Sequence.
	CloudToDevice(d Delivery)
	// Close ends the connection at once, without a packet on MQTT 3.1.1; why is one of the hub's errors.
	//
	// A peer that also has a method Protocol() string names its protocol in the event of its connection.
	Close(why *Error)
}

// Grant is what authentication answers.
type Grant struct {
	ID      ID
	Expires time.Time // the hub cuts the connection then; zero means never (X.509)
	Method  string    // JSON text of iothub-connection-auth-method
	ModelID string    // the door adds it: the DTMI that the connection announces, for the twin's modelId; "" for none

	proof proof
}

// Error is one of the hub's errors: its number (Microsoft Learn, "Azure IoT Hub error codes"), whose first three digits
// are the HTTP status, its name, and a text for a person.
type Error struct {
	Code int    // 404001
	Name string // DeviceNotFound
	Text string

	why string // what the hub does not tell the one it refuses, but shows in its events
}

func (e *Error) Error() string { return e.Name + ": " + e.Text }

// Status is the HTTP status.
func (e *Error) Status() int { return e.Code / 1000 }

// Event is something that happened at the hub, for Hub.Watch, `twinbay-sim events` and GET /_sim/events.
type Event struct {
	At         time.Time         `json:"at"`
	Kind       string            `json:"kind"` // connected, disconnected, telemetry, reported, desired, tags, method, c2d, file, created, updated, deleted, refused, fault, throttled, lost, job
	DeviceID   string            `json:"deviceId"`
	ModuleID   string            `json:"moduleId,omitempty"`
	Body       json.RawMessage   `json:"body,omitempty"`   // telemetry that is JSON, a twin patch, a method's answer, a cloud-to-device message, a file notification
	Base64     []byte            `json:"base64,omitempty"` // telemetry that is not JSON
	Properties map[string]string `json:"properties,omitempty"`
	System     map[string]string `json:"system,omitempty"` // of telemetry also what the hub stamps: iothub-connection-device-id, iothub-enqueuedtime, …
	Detail     string            `json:"detail,omitempty"` // protocol of a connection, reason of an end, name of a method, what became of a message, name of a file, count of lost events, a job's end
}
