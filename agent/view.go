package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
)

// view is what other goroutines may see of a component: `twinbay status` must get its answer at once, whatever the
// component's owner is doing. The documents in it are never changed once they are made.
type view struct {
	mu      sync.Mutex
	id      identity.ID
	session *iothub.Session
	noLink  error             // why there is no session
	began   time.Time         // of having none
	retry   time.Time         // of the next connection
	notes   map[string]string // what is wrong with the hub although there may be a connection, by what it is about

	process  local.Process
	last     local.Reading
	module   local.Health // as the module tells it
	fault    string       // of the agent's own
	fileNote string       // what is wrong in the device file, and left out

	desired, reported, settings map[string]any
	desiredVersion, applied     int64
	reportedVer                 int64
	inSync                      bool
}

func newView() *view {
	return &view{began: time.Now(), process: local.Process{State: local.Starting, Since: time.Now()}, module: local.Health{State: local.OK}}
}

func (v *view) identity() identity.ID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.id
}

// state is the module's process's.
func (v *view) state() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.process.State
}

func (v *view) set(f func(v *view)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(v)
}

func (v *view) linked(s *iothub.Session)  { v.set(func(v *view) { v.session, v.noLink = s, nil }) }
func (v *view) linkError(err error)       { v.set(func(v *view) { v.session, v.noLink = nil, err }) }
func (v *view) retryAt(t time.Time)       { v.set(func(v *view) { v.retry = t }) }
func (v *view) reportedVersion(n int64)   { v.set(func(v *view) { v.reportedVer = n }) }
func (v *view) wanted(doc map[string]any) { v.set(func(v *view) { v.reported = doc }) }
func (v *view) synced(yes bool)           { v.set(func(v *view) { v.inSync = yes }) }

// note shows what is wrong about one thing; "" is nothing.
func (v *view) note(about, text string) {
	v.set(func(v *view) {
		if text == "" {
			delete(v.notes, about)
			return
		}
		if v.notes == nil {
			v.notes = map[string]string{}
		}
		v.notes[about] = text
	})
}

// Things to note.
const (
	aboutTwin      = "twin"      // desired properties cannot be read
	aboutReport    = "report"    // reported properties are not taken now
	aboutRefused   = "refused"   // reported properties that the hub will not have
	aboutForbidden = "forbidden" // reported properties that no hub would have
	aboutInbox     = "inbox"     // cloud-to-device messages are not taken now
	aboutDisk      = "disk"      // the twin cannot be kept
	aboutSend      = "send"      // messages are not taken now
)

// processIs changes the process's state.
func (v *view) processIs(state string, pid int) {
	v.set(func(v *view) {
		v.process.State, v.process.PID, v.process.Since = state, pid, time.Now()
	})
}

// link is the connection for people.
func (v *view) link() local.Link {
	if v.session == nil {
		l := local.Link{Since: v.began}
		if v.noLink != nil {
			l.LastError = v.noLink.Error()
		}
		return l
	}
	s := v.session.Status()
	l := local.Link{Connected: s.Connected, Since: s.Since, Reconnects: s.Reconnects, TokenExpires: s.TokenExpires}
	notes := []string{s.Notice}
	for _, about := range slices.Sorted(maps.Keys(v.notes)) {
		notes = append(notes, v.notes[about])
	}
	l.Notice = strings.TrimPrefix(strings.Join(notes, "; "), "; ")
	if s.LastError != nil {
		l.LastError = s.LastError.Error()
	}
	if !l.Connected {
		l.Retry = v.retry
	}
	return l
}

// health is the component's condition: the first of what keeps it from working, what its module says, and what a
// person should mend.
func (v *view) health(link local.Link) local.Health {
	switch {
	case v.fault != "":
		return local.Health{State: local.Faulted, Detail: v.fault}
	case v.process.State == local.Quarantined:
		return local.Health{State: local.Faulted, Detail: v.process.Quarantine + "; the last time: " + v.process.LastExit}
	case v.process.State == local.Waiting || v.process.State == local.Failed:
		return local.Health{State: local.Faulted, Detail: v.process.LastExit}
	case v.process.State == local.Held:
		return local.Health{State: local.Degraded, Detail: "not started: the agent is in safe mode; see twinbay status"}
	case v.module.State != local.OK:
		return v.module
	case v.fileNote != "":
		return local.Health{State: local.Degraded, Detail: v.fileNote}
	case !link.Connected && link.LastError != "":
		return local.Health{State: local.Degraded, Detail: link.LastError}
	case link.Notice != "":
		return local.Health{State: local.Degraded, Detail: link.Notice}
	}
	return v.module
}

// component is the view for people.
func (v *view) component() local.Component {
	v.mu.Lock()
	defer v.mu.Unlock()
	link := v.link()
	process := v.process
	process.Ends = maps.Clone(process.Ends)
	return local.Component{
		ModuleID: v.id.Module,
		Process:  process,
		Link:     link,
		Versions: local.Versions{Desired: v.applied, Reported: v.reportedVer},
		Last:     v.last,
		Health:   v.health(link),
	}
}

// twin is the twin for people.
func (v *view) twin() local.TwinView {
	v.mu.Lock()
	defer v.mu.Unlock()
	return local.TwinView{
		ModuleID: v.id.Module,
		Desired:  object(v.desired), DesiredVersion: v.desiredVersion,
		Reported: object(v.reported), ReportedVersion: v.reportedVer,
		Settings: object(v.settings), Synced: v.inSync,
	}
}

// object is a document as JSON; {} when there is none.
func object(doc map[string]any) json.RawMessage {
	if doc == nil {
		return json.RawMessage("{}")
	}
	raw, err := json.Marshal(doc)
	if err != nil { // documents come from JSON, so they have a JSON form
		return json.RawMessage("{}")
	}
	return raw
}
