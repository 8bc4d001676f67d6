// Package local is the technician's API of an agent: HTTP with JSON on a unix socket that only its owner can open. It
// has the server, the client, and the ring of log lines that `twinbay logs` reads.
//
//	GET  /v1/status
//	GET  /v1/components/{component}/twin
//	POST /v1/components/{component}/methods/{method}   the payload as body, or none
//	POST /v1/components/{component}/restart            the module, from whatever state it is in
//	POST /v1/reload
//	POST /v1/resume                                    leaves safe mode
//	GET  /v1/messages                                  the device's cloud-to-device messages
//	DELETE /v1/messages/{which}                        by number or message id: dismissed
//	GET  /metrics                                      of Status, in the Prometheus text format
//	GET  /v1/logs?component=&lines=&follow=1           one JSON object a line
//
// A failed request answers {"error": "…", "code": "…"}. The socket's protection is its folder (mode 0700), its own mode
// 0600, and the peer's user id as the kernel tells it (unix(7), SO_PEERCRED).
package local

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/twinbay/twinbay/agent/lives"
	"github.com/twinbay/twinbay/agent/outbox"
)

// Errors that an Agent answers and that come out of the Client again, for errors.Is.
var (
	ErrNoComponent = errors.New("no such component")             // 404
	ErrNotRunning  = errors.New("the module is not running now") // 503
	ErrTimeout     = errors.New("no answer in time")             // 504
	ErrNoMessage   = errors.New("no such message")               // 404
	ErrInvalidFile = errors.New("the device file has errors")    // 422
	ErrNotSafe     = errors.New("the agent is not in safe mode") // 409
)

// Agent is what the API shows and does. Its methods are called from several goroutines at once.
type Agent interface {
	Status() Status
	// Twin answers what is known of a component's twin, without asking the hub.
	Twin(ctx context.Context, component string) (TwinView, error)
	// Invoke calls a component's direct method as the hub would. payload is JSON or empty.
	Invoke(ctx context.Context, component, method string, payload json.RawMessage) (status int, answer json.RawMessage, err error)
	// Restart has a component's module started again: at once, and with a fresh start where it waits or is quarantined.
	Restart(ctx context.Context, component string) (Restarted, error)
	// Reload reads the device file again. An error of the file's is ErrInvalidFile, and nothing has changed then.
	Reload(ctx context.Context) (Reloaded, error)
	// Resume leaves safe mode: the components start. Without it, it is ErrNotSafe.
	Resume(ctx context.Context) error
	// Messages are the device's cloud-to-device messages, oldest first.
	Messages(ctx context.Context) ([]CloudMessage, error)
	// Dismiss removes one, by its number or its message id.
	Dismiss(ctx context.Context, which string) error
	// Logs answers the last lines, and with q.Follow the coming ones until ctx ends; then it closes the channel.
	Logs(ctx context.Context, q LogQuery) (<-chan LogLine, error)
}

// Restarted says what a restart found.
type Restarted struct {
	Component string `json:"component"`
	Was       string `json:"was"` // the Process's state
}

// Reloaded says what another device file has changed: names of components.
type Reloaded struct {
	Added   []string       `json:"added,omitempty"`
	Removed []string       `json:"removed,omitempty"`
	Changed []string       `json:"changed,omitempty"`
	Device  bool           `json:"device,omitempty"` // the device's own session was started anew
	Kept    map[string]int `json:"kept,omitempty"`   // messages of removed components that wait until they come back
	Later   []string       `json:"later,omitempty"`  // keys that count from the agent's next start
}

// Status is the whole device at one moment.
type Status struct {
	Version    string      `json:"version"`               // of the agent
	Device     string      `json:"device"`                // the device's id
	Host       string      `json:"hub_host"`              // the hub's host name
	Address    string      `json:"hub_address,omitempty"` // where it connects instead of to the host
	Protocol   string      `json:"protocol"`              // "mqtt 3.1.1" or "mqtt 5"
	Started    time.Time   `json:"started"`
	Safe       *SafeMode   `json:"safe_mode,omitempty"` // nil: not in safe mode
	Clock      Clock       `json:"clock"`
	Messages   int         `json:"messages"` // cloud-to-device messages that nobody has dismissed
	Session    Link        `json:"session"`  // the device's own connection
	Storage    Storage     `json:"storage"`  // where messages wait
	Versions   Versions    `json:"twin"`     // of the device's own twin
	Components []Component `json:"components"`
	Self       Self        `json:"agent"`             // the agent's own process
	Metrics    *Endpoint   `json:"metrics,omitempty"` // for Prometheus over TCP; nil: none is asked for
}

// Self is the agent's own process.
type Self struct {
	Resident   int64   `json:"resident_bytes"`
	CPUS       float64 `json:"cpu_s"` // processor time since the start, in seconds
	OpenFiles  int     `json:"open_files"`
	Goroutines int     `json:"goroutines"`
}

// Endpoint is an address at which metrics are asked for.
type Endpoint struct {
	Address string `json:"address"`
	Error   string `json:"error,omitempty"` // why nobody is answered there now
}

// SafeMode is an agent that starts no module and sends nothing of theirs, because it has ended early too often. The device's
// own identity is connected.
type SafeMode struct {
	Since     time.Time   `json:"since"`
	Until     time.Time   `json:"until"`      // when it is left by itself
	EarlyEnds int         `json:"early_ends"` // in a row
	Ends      []lives.End `json:"ends"`       // the last ones, as far as they are known
}

// Clock says which time tokens are signed and certificates are checked with.
type Clock struct {
	Source  string  `json:"source"`         // system; hub, saved or before when the system's clock cannot be right
	OffsetS float64 `json:"offset_s"`       // the system's clock less the time that is used, in seconds
	Note    string  `json:"note,omitempty"` // what is wrong, and what is done about it
}

// Component is one component's place on the device.
type Component struct {
	Name     string   `json:"name"`      // as in the device file
	ModuleID string   `json:"module_id"` // as in the hub's registry
	Module   string   `json:"module"`    // which module it runs: "bme280"
	Process  Process  `json:"process"`
	Link     Link     `json:"hub"`
	Versions Versions `json:"twin"`
	Last     Reading  `json:"last_reading"`
	Queue    Queue    `json:"queue"`
	Health   Health   `json:"health"`
	Inputs   []Input  `json:"inputs,omitempty"` // those that are linked
}

// Input is what comes to a component over a link.
type Input struct {
	Name   string          `json:"name"`
	From   string          `json:"from"`            // "door.open"
	Known  bool            `json:"known"`           // the value may be believed
	Value  json.RawMessage `json:"value,omitempty"` // while known
	At     time.Time       `json:"at"`              // of the value, or since when it is unknown
	Reason string          `json:"reason,omitempty"`
}

// States of a Process.
const (
	Starting = "starting"
	Running  = "running"
	Waiting  = "waiting" // ended, and waiting to be started again
	Hung     = "hung"    // does not answer, or a call on a wire is long overdue
	Stopped  = "stopped" // for good: the agent is ending
	Held     = "held"    // not started: the agent is in safe mode
	Failed   = "failed"  // cannot run until somebody changes something; LastExit says what

	Quarantined = "quarantined" // ended too often, as the device file's policy has it; until somebody restarts it
)

// Process is a module's process.
type Process struct {
	PID      int       `json:"pid,omitempty"` // 0 when there is none
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	LastExit string    `json:"last_exit,omitempty"` // why the last process ended

	Ends map[string]int `json:"ends,omitempty"` // how often it has ended or could not be started, by reason: signal, exit, hung, limit, misbehaved, start, other

	Quarantine string `json:"quarantine,omitempty"` // why it is not started again, and how to

	Limits []Limit `json:"limits,omitempty"` // of the process that runs, or ran last
}

// Limit is one limit of a module's process.
type Limit struct {
	Of    string `json:"of"`             // memory, tasks, cpu, files
	Value int64  `json:"value"`          // bytes, a number, per cent of one processor, a number
	By    string `json:"by,omitempty"`   // cgroup, rlimit, or agent: it looks once a second; "" is not in force
	Note  string `json:"note,omitempty"` // why it is not in force, or not by the kernel, and what to do
}

// Reasons in Process.Ends.
const (
	EndStart      = "start"      // it could not be started
	EndExit       = "exit"       // by itself, with an exit status
	EndSignal     = "signal"     // by a signal: a crash, or killed by somebody else
	EndHung       = "hung"       // no heartbeat, or a call on a wire beyond its deadline
	EndLimit      = "limit"      // it took more than it may
	EndMisbehaved = "misbehaved" // it broke the contract between module and agent
	EndOther      = "other"
)

// Link is one identity's connection to the hub.
type Link struct {
	Connected    bool      `json:"connected"`
	Since        time.Time `json:"since"`                // of Connected being as it is
	LastError    string    `json:"last_error,omitempty"` // why the last connection or try ended
	Notice       string    `json:"notice,omitempty"`     // what somebody should look at although it may be connected just now
	Retry        time.Time `json:"retry,omitzero"`       // the next try, while not connected
	Reconnects   int       `json:"reconnects"`
	TokenExpires time.Time `json:"token_expires,omitzero"`
}

// Versions are the twin's.
type Versions struct {
	Desired  int64 `json:"desired_version"`  // applied; 0 before the first twin
	Reported int64 `json:"reported_version"` // acknowledged by the hub
}

// Reading is the last message that a module handed over.
type Reading struct {
	At   time.Time       `json:"at,omitzero"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Queue is a component's outbox.
type Queue struct {
	Queued   int               `json:"queued"`
	InFlight int               `json:"in_flight"`
	Bytes    int               `json:"bytes"`
	Oldest   time.Time         `json:"oldest,omitzero"`
	Accepted uint64            `json:"accepted"`
	Acked    uint64            `json:"acked"`
	Dropped  map[string]uint64 `json:"dropped,omitempty"` // by reason: full, expired, set-aside, unreadable
	Held     int               `json:"held,omitempty"`    // handed over and not accepted yet: the disk has not taken them
	Aside    []outbox.Aside    `json:"aside,omitempty"`   // the newest of those set aside
}

// Storage is the outbox of the whole device.
type Storage struct {
	Profile    string         `json:"profile,omitempty"` // "durable" or "sd-card"; "" before the agent has started
	PowerCut   string         `json:"power_cut,omitempty"`
	Folder     string         `json:"folder,omitempty"`
	Error      string         `json:"error,omitempty"` // why it cannot be written now
	Since      time.Time      `json:"since,omitzero"`  // of Error
	Full       string         `json:"full,omitempty"`  // why it cannot grow now
	Bytes      int            `json:"bytes"`           // of what waits
	MaxBytes   int64          `json:"max_bytes"`       // for it
	DiskBytes  int64          `json:"disk_bytes"`
	Written    uint64         `json:"written_bytes"` // since the agent's start, as the five below
	Syncs      uint64         `json:"syncs"`
	LastSyncMS float64        `json:"last_sync_ms"`
	SlowestMS  float64        `json:"slowest_sync_ms"`
	SyncSumMS  float64        `json:"sync_sum_ms"`          // of all syncs together
	SyncTimes  []Bucket       `json:"sync_times,omitempty"` // how often a sync took at most so long
	StateBytes uint64         `json:"state_written_bytes"`  // to all files of the state folder, the outbox among them, since the agent's start
	Busy       time.Time      `json:"busy_since,omitzero"`  // of a call on the disk that has been under way for more than 5 s
	Damaged    uint64         `json:"damaged,omitempty"`    // places that could not be read at the start
	Left       map[string]int `json:"left,omitempty"`       // messages of components that are not in the device file
}

// Bucket counts what took at most so long, what took less among it.
type Bucket struct {
	MaxMS float64 `json:"max_ms"`
	Count uint64  `json:"count"`
}

// StorageOf is an outbox's Status for people.
func StorageOf(s outbox.Status) Storage {
	v := Storage{
		Profile: string(s.Profile), PowerCut: s.Profile.Promise(), Folder: s.Dir, Since: s.Since, Bytes: s.Bytes, MaxBytes: s.MaxBytes,
		DiskBytes: s.DiskBytes, Written: s.Written, Syncs: s.Syncs, LastSyncMS: ms(s.LastSync), SlowestMS: ms(s.Slowest),
		SyncSumMS: ms(s.Took.Sum),
		Damaged:   s.Damaged, Left: s.Left,
	}
	for n, count := range s.Took.Buckets {
		v.SyncTimes = append(v.SyncTimes, Bucket{MaxMS: ms(outbox.SyncBounds[n]), Count: count})
	}
	if s.Err != nil {
		v.Error = s.Err.Error()
	}
	if s.Full != nil {
		v.Full = s.Full.Error()
	}
	return v
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// QueueOf is an outbox's Stats for people.
func QueueOf(s outbox.Stats) Queue { return Queue(s) }

// States of Health.
const (
	OK       = "ok"
	Degraded = "degraded"
	Faulted  = "faulted"
)

// Health is a component's condition as its module tells it.
type Health struct {
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
}

// TwinView is a component's twin as the agent knows it.
type TwinView struct {
	Component       string          `json:"component"`
	ModuleID        string          `json:"module_id"`
	Desired         json.RawMessage `json:"desired"` // JSON objects
	DesiredVersion  int64           `json:"desired_version"`
	Reported        json.RawMessage `json:"reported"` // what the hub should have
	ReportedVersion int64           `json:"reported_version"`
	Settings        json.RawMessage `json:"settings"` // in force
	Synced          bool            `json:"synced"`   // the hub has acknowledged Reported
}

// MethodResult is a direct method's answer.
type MethodResult struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// CloudMessage is a cloud-to-device message of the device. Of Body, Text and Base64 one is there.
type CloudMessage struct {
	Number     uint64            `json:"number"` // this device's own; never repeats
	ID         string            `json:"message_id,omitempty"`
	Received   time.Time         `json:"received"`
	Properties map[string]string `json:"properties,omitempty"`
	System     map[string]string `json:"system,omitempty"` // by the hub's names: correlation-id, content-type, …
	Body       json.RawMessage   `json:"body,omitempty"`   // when it is JSON
	Text       string            `json:"text,omitempty"`   // when it is other text
	Base64     []byte            `json:"base64,omitempty"` // when it is neither
}

// LogQuery says which lines are wanted.
type LogQuery struct {
	Component string // "" means all, and the agent itself
	Lines     int    // the last so many per component; 0 means what the ring holds, negative means none
	Follow    bool
}

// LogLine is one line of the log.
type LogLine struct {
	Seq       uint64            `json:"seq"` // counts all lines of this agent; a gap means that the ring was faster than its reader
	At        time.Time         `json:"at"`
	Level     string            `json:"level"`
	Component string            `json:"component,omitempty"` // "" is the agent itself
	Text      string            `json:"text"`
	Attrs     map[string]string `json:"attrs,omitempty"`
}
