package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/twin"
)

// twinFolder is the twins' in the state folder: a file per component, and one for the device.
const twinFolder = "twins"

// deviceTwin is the device's own file there; a component's is its name with a suffix, so that the two never meet.
const (
	deviceTwin      = "device"
	componentSuffix = ".component"
)

// memory is what a component knows of its twin beyond one life of its goroutine, and beyond one of the agent: a device that
// starts offline runs with it. It belongs to the goroutine of whichever life there is.
type memory struct {
	desired  twin.Desired
	inForce  map[string]any // settings, the last good ones
	reported int64          // the version that the hub has acknowledged last
	owner    string         // whose it is: the hub's host and the identity

	fs    disk.FS // nil: it is not kept
	path  string
	log   *slog.Logger
	dirty bool
	busy  bool      // a save is under way, or waits for its time
	saved time.Time // the last one's beginning
	note  func(string)
}

// savedMemory is a memory on disk.
type savedMemory struct {
	Owner    string          `json:"owner"`
	Desired  twin.Desired    `json:"desired"`
	InForce  json.RawMessage `json:"in_force"`
	Reported int64           `json:"reported_version"`
}

// saveGap is the least time between two saves: a storm of changes is worth one a second to the flash.
const saveGap = time.Second

// load reads what an earlier agent has kept. Whatever is wrong with it is said and is no reason not to start.
func (m *memory) load(fs disk.FS, path string, log *slog.Logger) {
	m.fs, m.path, m.log = fs, path, log
	var s savedMemory
	var inForce map[string]any
	text, damage := disk.Load(fs, path, func(text []byte) error {
		s, inForce = savedMemory{}, nil
		if err := json.Unmarshal(text, &s); err != nil {
			return fmt.Errorf("it is not a twin: %w", err)
		}
		var err error
		inForce, err = twin.Parse(s.InForce)
		return err
	})
	if damage != nil {
		log.Warn("the last twin could not be read; the hub has it", "error", damage)
	}
	if text != nil {
		m.desired, m.inForce, m.reported, m.owner = s.Desired, inForce, s.Reported, s.Owner
	}
}

// show puts what was kept where others may see it.
func (m *memory) show(shown *view) {
	shown.set(func(v *view) {
		v.desired, v.desiredVersion, v.settings, v.reportedVer = m.desired.Doc, m.desired.Version, m.inForce, m.reported
	})
}

// belongs says whose it is from now on. What is another's is forgotten.
func (m *memory) belongs(l *loop, host string, id identity.ID) {
	owner := host + "/" + id.String()
	if m.owner != "" && m.owner != owner {
		m.log.Info("the component has another identity than before: its old twin is forgotten", "before", m.owner, "now", owner)
		m.desired, m.inForce, m.reported = twin.Desired{}, nil, 0
	}
	m.owner = owner
	if m.dirty {
		m.keep(l)
	}
}

// keep has the memory saved: at once, or after what is under way, or when a second has passed since the last time.
func (m *memory) keep(l *loop) {
	m.dirty = true
	if m.fs == nil || m.busy || m.owner == "" {
		return
	}
	m.busy = true
	if wait := saveGap - time.Since(m.saved); wait > 0 {
		l.after(wait, func() { m.write(l) })
		return
	}
	m.write(l)
}

func (m *memory) write(l *loop) {
	m.dirty, m.saved = false, time.Now()
	text, err := m.encode()
	l.away(func(context.Context) func() {
		if err == nil {
			err = disk.Save(m.fs, m.path, text)
		}
		return func() {
			m.busy = false
			m.failed(err)
			if m.dirty {
				m.keep(l)
			}
		}
	})
}

// flush saves what is not saved yet, at the end of a life, when nothing else runs.
func (m *memory) flush() {
	unfinished := m.dirty || m.busy
	m.busy = false
	if m.fs == nil || !unfinished || m.owner == "" {
		return
	}
	m.dirty = false
	text, err := m.encode()
	if err == nil {
		err = disk.Save(m.fs, m.path, text)
	}
	m.failed(err)
}

func (m *memory) failed(err error) {
	text := ""
	if err != nil {
		text = clip(fmt.Sprintf("the twin could not be kept on disk, so a start without the hub would use an older one: %v", err), 500)
		m.log.Warn("the twin could not be kept on disk", "error", err)
	}
	if m.note != nil {
		m.note(text)
	}
}

func (m *memory) encode() ([]byte, error) {
	return json.Marshal(savedMemory{Owner: m.owner, Desired: m.desired, InForce: object(m.inForce), Reported: m.reported})
}

func (a *Agent) twinFile(name string) string {
	return filepath.Join(a.file().Agent.StateDir, twinFolder, name)
}
