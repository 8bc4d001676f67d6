package cctalk

import (
	"errors"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

func answer(v any) modkit.Answer {
	return modkit.Answer{Status: 200, Payload: must(v)}
}

func failed(status int, err error) modkit.Answer {
	return modkit.Answer{Status: status, Payload: must(map[string]string{"error": err.Error()})}
}

var errAway = errors.New("no acceptor answers at the moment: see the component's health")

// ended is a method that the acceptor did not let come to its end.
func (s *session) ended(err error) modkit.Answer {
	s.fail(err)
	return failed(502, err)
}

func (m *Module) selfTest() modkit.Answer {
	s := m.session
	if s == nil {
		return failed(409, errAway)
	}
	if err := s.readFault(); err != nil {
		return s.ended(err)
	}
	if s.fault == nil {
		return failed(501, errors.New("this acceptor has no self-check"))
	}
	s.sayHealth()
	s.report()
	return answer(map[string]any{"ok": *s.fault == 0, "fault_code": *s.fault, "fault": faultName(byte(*s.fault))})
}

// reset closes the acceptor, waits for the coin that may be on its way, takes what was counted, and only then resets
// the counter.
func (m *Module) reset() modkit.Answer {
	s := m.session
	if s == nil {
		return failed(409, errAway)
	}
	if err := s.setMask(0); err != nil {
		return s.ended(err)
	}
	s.pause(settleTime)
	now, err := s.read(3)
	if err == nil {
		err = s.take(now, now.since(s.record.Counter))
	}
	if err == nil {
		_, err = s.bus.ask(s.ctx, 1, reset)
	}
	if err != nil {
		return s.ended(err)
	}
	// With a counter that was 0 before, the reset is not seen in it: the mask below is all there is to do.
	s.expected = s.record.Counter != 0
	s.pause(powerUp)
	now, err = s.read(3)
	if err == nil {
		err = s.take(now, now.since(s.record.Counter))
	}
	if err == nil {
		err = s.arm()
	}
	if err != nil {
		return s.ended(err)
	}
	return answer(map[string]any{"counter": now.counter})
}

// pause waits without polling: at most for what the acceptor allows.
func (s *session) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}

func (m *Module) readCoinTable() modkit.Answer {
	s := m.session
	if s == nil {
		return failed(409, errAway)
	}
	old := s.coins
	s.coins = [positions + 1]*coin{}
	for position := 1; position <= positions; position++ {
		if _, err := s.coin(position); err != nil {
			s.coins = old
			return s.ended(err)
		}
		if time.Since(s.lastPoll) < s.interval() {
			continue
		}
		if err := s.poll(); err != nil { // sixteen names take most of the second that an acceptor waits
			return s.ended(err)
		}
	}
	s.report()
	return answer(map[string]any{"coins": s.table()})
}

func (m *Module) commsStats() modkit.Answer {
	doc := map[string]any{"host": m.stats, "connected": m.session != nil}
	s := m.session
	if s == nil {
		return answer(doc)
	}
	doc["queued"], doc["unaccepted"] = len(s.queue.waiting), len(s.queue.tickets)
	p, err := s.optional(commsCounters)
	if err != nil {
		return s.ended(err)
	}
	if len(p) == 3 {
		doc["acceptor"] = map[string]int{"timeouts": int(p[0]), "ignored_bytes": int(p[1]), "checksum_errors": int(p[2])}
	}
	return answer(doc)
}
