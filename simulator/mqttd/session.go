package mqttd

import (
	"maps"
	"slices"
	"sync"

	"github.com/twinbay/twinbay/simulator/hub"
)

// session is what outlives a connection: the subscriptions, by topic filter, with the granted QoS.
type session struct {
	level      byte   // MQTT protocol level
	generation string // of the identity that made it: one made anew under the same name starts clean

	mu      sync.Mutex // the connection that has been taken over may still be ending
	filters map[string]byte
}

// openSession returns the session of an identity for a new connection and whether it existed. With clean, the kept one
// is discarded; with keep, this one will be there for the next connection.
func (s *Server) openSession(id hub.ID, level byte, clean, keep bool) (*session, bool) {
	generation := s.hub.Generation(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.sessions[id]
	present := old != nil && !clean && old.level == level && old.generation == generation
	if !present {
		old = &session{level: level, generation: generation, filters: map[string]byte{}}
	}
	if keep {
		s.sessions[id] = old
	} else {
		delete(s.sessions, id)
	}
	return old, present
}

// dropSession forgets a session, if it is still the identity's.
func (s *Server) dropSession(id hub.ID, sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[id] == sess {
		delete(s.sessions, id)
	}
}

// subscribe adds a filter, unless that would be more than limit.
func (s *session) subscribe(topic string, qos byte, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, have := s.filters[topic]; !have && len(s.filters) >= limit {
		return false
	}
	s.filters[topic] = qos
	return true
}

// unsubscribe removes a filter and says whether it was there.
func (s *session) unsubscribe(topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, have := s.filters[topic]
	delete(s.filters, topic)
	return have
}

func (s *session) has(topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, have := s.filters[topic]
	return have
}

// topics are the filters, sorted.
func (s *session) topics() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.filters))
}
