package hub

import (
	"cmp"
	"encoding/json"
	"time"
)

// Link is one live connection of an identity. Made by Hub.Attach; the newest link of an identity wins, and the older
// one's peer is closed. Its methods may be called from any goroutine, also while the hub calls the peer. After the link
// has ended they change nothing, and those that return an error return DeviceConnectionClosedRemotely.
type Link struct {
	hub    *Hub
	id     ID
	n      *identity
	peer   Peer
	proof  proof
	method string      // Grant.Method; it does not change with the token
	expiry *time.Timer // nil: never

	wants  [2]bool
	window int              // of cloud-to-device messages
	calls  map[string]*call // direct methods without an answer, by rid; nil while there was none
	queue  []func(Peer)     // what to tell the peer
	busy   bool             // somebody is telling it
	over   bool
	stale  bool   // see SessionOver
	why    string // of an end that the door saw; "" for the device's goodbye
}

// Attach makes a link of an authenticated connection. The identity must still be there and enabled.
func (h *Hub) Attach(g Grant, p Peer) (*Link, error) {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.admissible(g.ID)
	if err != nil {
		return nil, h.refuse(g.ID, err)
	}
	now := time.Now()
	if !g.Expires.IsZero() && !g.Expires.After(h.Now()) {
		return nil, h.refuse(g.ID, tokenOver(g.ID))
	}
	h.cut(n, &Error{Code: 400027, Name: "ConnectionForcefullyClosedOnNewConnection",
		Text: "a newer connection of " + g.ID.String() + " has taken over"})
	l := &Link{hub: h, id: g.ID, n: n, peer: p, method: g.Method}
	l.stale = h.Chose(SessionLifetime, "1h") && now.Sub(n.linkTime) >= time.Hour && now.Sub(h.since) >= time.Hour
	l.renew(g)
	n.link, n.linkTime, n.activity = l, now, now
	if n.modelID != g.ModelID {
		n.modelID = g.ModelID
		h.changedIdentity(g.ID)
	}
	e := Event{Kind: "connected", DeviceID: g.ID.Device, ModuleID: g.ID.Module}
	if named, ok := p.(interface{ Protocol() string }); ok {
		e.Detail = named.Protocol()
	}
	h.emit(e)
	return l, nil
}

// Renew puts a new grant in the place of the one that the link was made with (MQTT 5, reauthentication).
func (l *Link) Renew(g Grant) error {
	l.hub.mu.Lock()
	defer l.hub.unlock()
	switch {
	case l.over:
		return l.gone()
	case g.ID != l.id:
		return l.hub.refuse(g.ID, badToken("a connection of %s can't become one of %s", l.id, g.ID))
	}
	if l.expiry != nil {
		l.expiry.Stop()
	}
	l.renew(g)
	return nil
}

func (l *Link) renew(g Grant) {
	l.proof, l.expiry = g.proof, nil
	if g.Expires.IsZero() {
		return
	}
	left := g.Expires.Sub(l.hub.Now())
	if l.hub.Chose(TokenEnd, "10m") {
		left += 10 * time.Minute
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		l.hub.mu.Lock()
		defer l.hub.unlock()
		if l.expiry == timer { // else it was renewed while this waited for the lock
			l.hub.end(l, tokenOver(l.id))
		}
	})
	l.expiry = timer
}

func tokenOver(id ID) *Error {
	return badToken("the token of %s has run out", id)
}

// SessionOver tells whether the device had been away for longer than the hub keeps MQTT 3.1.1 sessions: see SessionLifetime.
// Time in which the hub did not run does not count, for a state file does not know each end of a connection.
func (l *Link) SessionOver() bool { return l.stale }

// Want says whether the device wants to be sent a feature.
func (l *Link) Want(f Feature, on bool) {
	l.hub.mu.Lock()
	defer l.hub.unlock()
	if l.over || f < 0 || int(f) >= len(l.wants) {
		return
	}
	l.wants[f] = on
	if f == Methods && on {
		l.n.wake()
	}
}

// Twin answers the twin as its device gets it: {"desired":{…,"$version":n},"reported":{…,"$version":n}}.
func (l *Link) Twin() (json.RawMessage, error) {
	l.hub.mu.Lock()
	if l.over {
		defer l.hub.unlock()
		return nil, l.gone()
	}
	l.n.activity = time.Now()
	t := l.n.twin // a copy; its trees don't change
	l.hub.unlock()
	doc := t.deviceTwin()
	if err := l.hub.spendOpen(l.id, len(doc)); err != nil {
		return nil, err
	}
	return doc, nil
}

// Report merges a patch into the reported properties and answers their new version. With an ifVersion other than 0,
// it does so only if they are at that version.
func (l *Link) Report(patch json.RawMessage, ifVersion int64) (version int64, err error) {
	tree, bad := parseReported(patch)
	if bad != nil {
		return 0, bad
	}
	l.hub.mu.Lock()
	defer l.hub.unlock()
	if l.over {
		return 0, l.gone()
	}
	if bad := l.hub.spend(l.id, len(patch)); bad != nil {
		return 0, bad
	}
	version, bad = l.hub.report(l.n, tree, ifVersion)
	if bad != nil {
		return 0, bad
	}
	return version, nil
}

// Detach ends the link, whose connection has ended. No new call of the peer begins after it.
func (l *Link) Detach() {
	l.hub.mu.Lock()
	defer l.hub.unlock()
	l.hub.end(l, nil)
}

// Lost is Detach for a connection that has ended without the device's goodbye. why is said in the event: over MQTT 3.1.1 the
// device itself is not told.
func (l *Link) Lost(why error) {
	l.hub.mu.Lock()
	defer l.hub.unlock()
	l.why = why.Error()
	l.hub.end(l, nil)
}

func (l *Link) gone() *Error {
	return connectionGone("the connection of " + l.id.String() + " has ended")
}

// cut ends an identity's link, if it has one.
func (h *Hub) cut(n *identity, why *Error) {
	if n.link != nil {
		h.end(n.link, why)
	}
}

// end ends a link: its peer is closed, unless it was the one to end it, and nobody waits for its answers any more.
func (h *Hub) end(l *Link, why *Error) {
	if l.over {
		return
	}
	l.over = true
	l.queue = nil
	if l.expiry != nil {
		l.expiry.Stop()
	}
	for _, c := range l.calls {
		c.fail(l.gone())
	}
	l.calls = nil
	l.n.link, l.n.linkTime = nil, time.Now()
	l.n.mail.release(l)
	h.arm(l.n)
	e := Event{Kind: "disconnected", DeviceID: l.id.Device, ModuleID: l.id.Module, Detail: cmp.Or(l.why, "the device's end")}
	if why != nil {
		e.Detail = why.Error()
		h.later = append(h.later, func() { l.peer.Close(why) })
	}
	h.emit(e)
}

// tell queues a call of the peer, made in order once the lock is open.
func (h *Hub) tell(l *Link, call func(Peer)) {
	l.queue = append(l.queue, call)
	h.later = append(h.later, l.pump)
}

// pump makes the queued calls, one at a time. Whoever comes while somebody is at it leaves them to that one.
func (l *Link) pump() {
	l.hub.mu.Lock()
	if l.busy {
		l.hub.mu.Unlock()
		return
	}
	l.busy = true
	for len(l.queue) > 0 {
		call := l.queue[0]
		l.queue = l.queue[1:]
		l.hub.mu.Unlock() // not deferred: a peer that panics has to be seen as such
		call(l.peer)
		l.hub.mu.Lock()
	}
	l.busy = false
	l.hub.mu.Unlock()
}
