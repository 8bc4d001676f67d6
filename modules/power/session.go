package power

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// session is one connection to a chip that answers.
type session struct {
	*runner
	ctx    context.Context // of the Run
	chip   chip
	tick   *time.Ticker
	broken error // the chip failed during a call
}

// adopt brings new settings to the chip.
func (s *session) adopt() {
	now, old := s.m.set, s.chip.set
	if s.tick != nil {
		s.tick.Reset(now.interval())
	}
	if now.ShuntMOhm != old.ShuntMOhm || now.MaxA != old.MaxA {
		s.broken = s.restart()
	}
}

// work measures until chip or bus are gone, or ctx ends.
func (s *session) work() error {
	if err := s.turn(); err != nil {
		return err
	}
	s.tick = time.NewTicker(s.m.set.interval())
	defer s.tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-s.tick.C:
			if err := s.turn(); err != nil {
				return err
			}
		case call := <-s.calls:
			call()
		}
		if s.broken != nil {
			return s.broken
		}
	}
}

// turn is one reading, and what follows from it. An overload is none, and the most urgent of all.
func (s *session) turn() error {
	r, err := s.measure()
	if errors.Is(err, errOverload) {
		s.bay.Health(modkit.Health{State: modkit.Degraded, Detail: fmt.Sprintf(
			"power: %#02x on %s: %v: look for a short circuit; when there is none, raise max_a (now %g)", s.wiring.Address, s.wiring.Bus, err, s.m.set.MaxA)})
		s.raise(2, true, map[string]any{"limit_a": s.m.set.MaxA})
		return nil
	}
	if err != nil {
		return err
	}
	s.bay.Health(modkit.Health{State: modkit.OK, Detail: "power: the chip answers"})
	for i, on := range next(s.alarms, r, s.m.set) {
		limit := []map[string]any{{"limit_v": s.m.set.AlarmLowV}, {"limit_v": s.m.set.AlarmHighV}, {"limit_a": s.m.set.AlarmHighA}}[i]
		limit["voltage_v"], limit["current_a"] = round(r.voltage), round(r.current)
		s.raise(i, on, limit)
	}
	s.send(modkit.Message{Body: must(r.body())})
	return nil
}

// Hysteresis keeps an alarm from coming and going at its limit.
const (
	slackV Volt = 0.2
	slackA      = 0.05 // of the limit
)

// next is which limits are passed by a reading, after the alarms that were: voltage low, voltage high, current high.
func next(was [3]bool, r reading, s settings) [3]bool {
	low, high, most := Volt(s.AlarmLowV), Volt(s.AlarmHighV), Ampere(s.AlarmHighA)
	return [3]bool{
		r.voltage < low || was[0] && r.voltage < low+slackV,
		r.voltage > high || was[1] && r.voltage > high-slackV,
		r.current > most || was[2] && r.current > most*(1-slackA),
	}
}

// raise sends a message when an alarm changes. One that the agent does not take is tried again with the next reading.
func (s *session) raise(i int, on bool, doc map[string]any) {
	if s.alarms[i] == on {
		return
	}
	doc["event"], doc["active"] = []string{"voltage_low", "voltage_high", "current_high"}[i], on
	if s.send(modkit.Message{Body: must(doc), Priority: modkit.High}) {
		s.alarms[i] = on
	}
}

// measure takes a reading, climbing the ladder when there is none: once more, then with the chip programmed anew. What
// comes after that is the runner's: closing the bus and opening it again.
func (s *session) measure() (reading, error) {
	r, err := s.chip.sense(s.ctx)
	for try := 1; err != nil && !errors.Is(err, errOverload); try++ {
		if try == 3 || s.ctx.Err() != nil || errors.Is(err, hal.ErrGone) || errors.Is(err, hal.ErrClosed) {
			return reading{}, err
		}
		s.bay.Log.Warn("no reading, it is tried again", "error", err)
		if try == 2 || errors.Is(err, errForgot) {
			if err = s.restart(); err != nil {
				return reading{}, err
			}
		}
		r, err = s.chip.sense(s.ctx)
	}
	return r, err
}

// restart programs the chip anew.
func (s *session) restart() error {
	if err := s.chip.begin(s.ctx, s.m.set); err != nil {
		return err
	}
	s.restarts++
	s.report()
	return nil
}

func (s *session) report() {
	s.bay.Report(map[string]any{"chip": map[string]any{"calibration": s.chip.cal, "restarts": s.restarts}})
}

// send hands a message over. While the agent takes none, the newest reading is worth more than the oldest: this one is
// dropped, the next one is tried.
func (s *session) send(m modkit.Message) bool {
	_, err := s.bay.Send(m)
	if err != nil && !errors.Is(err, modkit.ErrFull) && !errors.Is(err, modkit.ErrEnded) {
		s.bay.Log.Error("a reading cannot be handed over", "error", err)
	}
	return err == nil
}
