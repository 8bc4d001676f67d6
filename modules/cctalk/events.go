package cctalk

import (
	"errors"
	"fmt"
	"time"
)

// take hands over what changed and advances the record. Nothing advances when a coin's name cannot be read: the
// next poll shows the same events again.
func (s *session) take(now reading, c change) error {
	if now.counter == s.record.Counter && s.serial == s.record.Serial && c.gap == "" {
		return nil
	}
	for _, f := range c.fresh {
		if f.position == 0 {
			continue
		}
		if _, err := s.coin(int(f.position)); err != nil {
			return err
		}
	}
	s.preface(now, c)
	for _, f := range c.fresh {
		s.hand(f)
	}
	s.record.Counter, s.record.Serial = now.counter, s.serial
	if c.gap == gapReset {
		s.expected = false
		s.mask = 0 // a reset leaves all coins inhibited
		return s.arm()
	}
	return nil
}

// preface says what the fresh events do not: a gap or a loss before them.
func (s *session) preface(now reading, c change) {
	var body message
	switch {
	case c.gap == gapReset && s.expected:
		body = message{Event: "reset", Reason: "asked for"}
	case c.gap != "":
		body = s.gapMessage(c.gap, now)
	case c.lost > 0:
		body = message{Event: "events_lost", Lost: c.lost, Reason: "more events between two polls than the acceptor keeps"}
	default:
		return
	}
	before := now.counter
	if len(c.fresh) > 0 {
		before = previous(c.fresh[0].counter, c.gap == gapReset)
	}
	s.record.Counter, s.record.Serial = before, s.serial
	body.Counter = int(before)
	s.queue.put(entry{body: body, high: true, state: *s.record, at: time.Now()})
}

// previous is the counter before c.
func previous(c byte, afterReset bool) byte {
	if c == 1 && !afterReset {
		return 255
	}
	return c - 1
}

func (s *session) gapMessage(why string, now reading) message {
	last := int(s.record.Counter)
	m := message{Event: "credit_gap_unknown", Reason: why, Last: &last, Counter: int(now.counter)}
	for _, e := range now.events {
		m.Buffer = append(m.Buffer, [2]int{int(e.position), int(e.code)})
	}
	return m
}

// hand hands one event over, with the state as of it.
func (s *session) hand(f fresh) {
	s.record.Counter = f.counter
	e := entry{at: time.Now(), body: message{Counter: int(f.counter)}}
	code := int(f.code)
	if f.position > 0 {
		s.record.Credits++
		c := s.known(int(f.position))
		e.high = true
		e.body.Event, e.body.Seq, e.body.Position, e.body.Path = "credit", s.record.Credits, int(f.position), &code
		e.body.Coin, e.body.Cents = c.ID, c.Cents
	} else {
		e.high = alarming(f.code)
		e.body.Event, e.body.Code, e.body.Name = "error", &code, errorName(f.code)
	}
	e.state = *s.record
	s.queue.put(e)
}

// known is the coin at a position that coin has read.
func (s *session) known(position int) coin {
	if position > positions || s.coins[position] == nil {
		return coin{Position: position}
	}
	return *s.coins[position]
}

// coin reads the name of the coin at a position, once.
func (s *session) coin(position int) (coin, error) {
	if position > positions || s.coins[position] != nil {
		return s.known(position), nil
	}
	p, err := s.bus.ask(s.ctx, 2, coinID, byte(position))
	if errors.Is(err, errSilent) && s.asked[position] < 2 {
		s.asked[position]++ // a make without this command, or a bad moment: a coin without a name is the last resort
		return coin{}, err
	}
	if err != nil && !errors.Is(err, errSilent) && !errors.Is(err, errNAK) {
		return coin{}, err
	}
	id := cleanID(p)
	s.coins[position] = &coin{Position: position, ID: id, Cents: value(id, s.m.set.CoinValues)}
	return *s.coins[position], nil
}

// identitySteps are what the acceptor says of itself, read between polls, one question each.
func (s *session) identitySteps() []func() error {
	s.identity = make(map[string]string)
	var steps []func() error
	for _, q := range []struct {
		name   string
		header byte
	}{{"manufacturer", manufacturer}, {"category", category}, {"product", product}, {"software", softwareRev}, {"build", buildCode}} {
		steps = append(steps, func() error {
			p, err := s.optional(q.header)
			if text := cleanID(p); text != "" {
				s.identity[q.name] = text
			}
			return err
		})
	}
	steps = append(steps, func() error {
		err := s.readFault()
		s.sayHealth()
		return err
	})
	for position := 1; position <= positions; position++ {
		steps = append(steps, func() error {
			_, err := s.coin(position)
			return err
		})
	}
	return steps
}

func (s *session) readFault() error {
	p, err := s.optional(selfCheck)
	if err != nil {
		return err
	}
	s.fault = nil
	if len(p) > 0 {
		code := int(p[0])
		s.fault = &code
	}
	return nil
}

// report is what the twin shows of the acceptor beside the settings.
func (s *session) report() {
	if len(s.steps) > 0 {
		return // half a table is no table
	}
	doc := map[string]any{"identity": s.identity, "coins": s.table(), "echo": s.bus.echoes}
	if s.serial >= 0 {
		doc["serial_number"] = fmt.Sprint(s.serial)
	}
	if s.fault != nil {
		doc["self_check"] = map[string]any{"fault_code": *s.fault, "fault": faultName(byte(*s.fault))}
	}
	s.bay.Report(doc)
}

// table is the coins that the acceptor knows, by position: IoT Hub's twins take arrays badly, a changed element
// would send the whole.
func (s *session) table() map[string]any {
	t := make(map[string]any)
	for i, c := range s.coins {
		if c != nil && c.ID != "" {
			entry := map[string]any{"coin": c.ID}
			if c.Cents != nil { // in a twin, null would delete
				entry["value_cents"] = *c.Cents
			}
			t[fmt.Sprintf("position_%d", i)] = entry
		}
	}
	return t
}
