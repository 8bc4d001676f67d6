package hub

import (
	"errors"
	"maps"
	"strings"
)

// Session is what is kept of an identity's MQTT session between its connections: some clients subscribe once and never
// again. It is the door's to read and write, and goes with its identity.
type Session struct {
	Level   byte            `json:"level"`   // MQTT protocol level: 4 for 3.1.1, 5
	Filters map[string]byte `json:"filters"` // granted QoS by topic filter
}

// maxFilters bounds what is kept; the doors allow at most 50 (MQTT 5).
const maxFilters = 50

const sessions = "session" // key: id of the device or module

// KeepSession keeps the session of an identity; nil forgets it. Of an identity that is not there nothing is kept, nor by
// a hub without a journal: its sessions end with the process that the door is in.
func (h *Hub) KeepSession(id ID, s *Session) {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if h.journal == nil || err != nil || n.session.equal(s) {
		return
	}
	n.session = nil
	if s != nil {
		n.session = &Session{Level: s.Level, Filters: maps.Clone(s.Filters)}
	}
	h.changed(sessions, id.String())
}

func (s *Session) equal(o *Session) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.Level == o.Level && maps.Equal(s.Filters, o.Filters)
}

// KeptSession answers the session of an identity, nil for none.
func (h *Hub) KeptSession(id ID) *Session {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil || n.session == nil {
		return nil
	}
	return &Session{Level: n.session.Level, Filters: maps.Clone(n.session.Filters)}
}

func sessionKind() kind {
	return kind{
		name: sessions,
		save: func(h *Hub, key string) any {
			n, err := h.find(keyID(key))
			if err != nil || n.session == nil {
				return nil
			}
			return n.session
		},
		keys: func(h *Hub) []string {
			var keys []string
			for _, d := range h.devices {
				if d.session != nil {
					keys = append(keys, d.id.String())
				}
				for _, m := range d.modules {
					if m.session != nil {
						keys = append(keys, m.id.String())
					}
				}
			}
			return keys
		},
		load: func(h *Hub, key string, data []byte) error {
			var s Session
			if err := decodeSaved(data, &s); err != nil {
				return err
			}
			n, missing := h.find(keyID(key))
			switch {
			case missing != nil:
				return errors.New("its identity is not there")
			case s.Level != 4 && s.Level != 5, len(s.Filters) > maxFilters:
				return errors.New("the record is not whole")
			}
			for _, qos := range s.Filters {
				if qos > 1 {
					return errors.New("a QoS above 1 was never granted")
				}
			}
			if s.Filters == nil {
				s.Filters = map[string]byte{}
			}
			n.session = &s
			return nil
		},
	}
}

// keyID is an identity by its text: see ID.String.
func keyID(key string) ID {
	device, module, _ := strings.Cut(key, "/")
	return ID{device, module}
}
