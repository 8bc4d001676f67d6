package mqttd

import (
	"maps"
	"slices"
	"sync"

	"github.com/twinbay/twinbay/simulator/hub"
)

// session is what outlives a connection: the subscriptions, by topic filter, with the granted QoS, and the
// cloud-to-device messages that have been sent and not acknowledged.
type session struct {
	level      byte   // MQTT protocol level
	keep       bool   // it is there for the next connection
	generation string // of the identity that made it: one made anew under the same name starts clean

	mu      sync.Mutex // the connection that has been taken over may still be ending
	filters map[string]byte
	sent    map[uint16]sentMessage // by packet id
	last    uint16                 // packet id given
}

// sentMessage is a cloud-to-device message under way. When it is sent again it keeps its packet id (MQTT-4.4.0-1), but
// its lock token is another.
type sentMessage struct {
	sequence uint64
	token    string
}

// maxSent bounds what is remembered of messages that were never acknowledged and have expired or been purged since.
// The hub has at most 50 under way.
const maxSent = 64

// openSession returns the session of an identity for a new connection and whether it existed. With clean, the kept one
// is discarded; with keep, this one will be there for the next connection, and for the hub's next start.
func (s *Server) openSession(id hub.ID, level byte, clean, keep bool) (*session, bool) {
	generation := s.hub.Generation(id)
	kept := s.hub.KeptSession(id)
	sess, present := s.takeSession(id, level, generation, clean, keep, kept)
	if !present {
		s.hub.KeepSession(id, nil)
	}
	s.keepSession(id, sess)
	return sess, present
}

func (s *Server) takeSession(id hub.ID, level byte, generation string, clean, keep bool, kept *hub.Session) (*session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess := s.sessions[id]
	present := sess != nil && !clean && sess.level == level && sess.generation == generation
	if !present {
		sess = &session{level: level, generation: generation, filters: map[string]byte{}, sent: map[uint16]sentMessage{}}
		if kept != nil && !clean && kept.Level == level { // from before the hub was started
			sess.filters, present = kept.Filters, true
		}
	}
	sess.mu.Lock()
	sess.keep = keep
	sess.mu.Unlock()
	if keep {
		s.sessions[id] = sess
	} else {
		delete(s.sessions, id)
	}
	return sess, present
}

// keepSession tells the hub of a session that outlives its connection.
func (s *Server) keepSession(id hub.ID, sess *session) {
	sess.mu.Lock()
	kept := &hub.Session{Level: sess.level, Filters: maps.Clone(sess.filters)}
	if !sess.keep {
		kept = nil
	}
	sess.mu.Unlock()
	s.hub.KeepSession(id, kept)
}

// dropSession forgets a session, if it is still the identity's.
func (s *Server) dropSession(id hub.ID, sess *session) {
	s.mu.Lock()
	current := s.sessions[id] == sess
	if current {
		delete(s.sessions, id)
	}
	s.mu.Unlock()
	if current {
		s.hub.KeepSession(id, nil)
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

// qos is the highest granted QoS among these filters; ok is false when there is none of them.
func (s *session) qos(topics ...string) (qos byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, topic := range topics {
		if granted, have := s.filters[topic]; have {
			qos, ok = max(qos, granted), true
		}
	}
	return qos, ok
}

// send gives a message its packet id; again says that it has been sent with it before.
func (s *session) send(sequence uint64, token string) (id uint16, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := sequence
	for other, m := range s.sent {
		if m.sequence == sequence {
			s.sent[other] = sentMessage{sequence, token}
			return other, true
		}
		oldest = min(oldest, m.sequence)
	}
	if len(s.sent) >= maxSent {
		maps.DeleteFunc(s.sent, func(_ uint16, m sentMessage) bool { return m.sequence == oldest })
	}
	id = s.nextIDLocked()
	s.sent[id] = sentMessage{sequence, token}
	return id, false
}

// nextID is a packet id for what is sent once and not remembered.
func (s *session) nextID() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextIDLocked()
}

func (s *session) nextIDLocked() uint16 {
	for {
		s.last++
		if _, taken := s.sent[s.last]; s.last != 0 && !taken {
			return s.last
		}
	}
}

// token is the lock token of the message with this packet id, "" if there is none.
func (s *session) token(id uint16) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[id].token
}

// forget gives a packet id back, unless another lock is on its message by now.
func (s *session) forget(id uint16, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent[id].token == token {
		delete(s.sent, id)
	}
}

// topics are the filters, sorted.
func (s *session) topics() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.filters))
}
