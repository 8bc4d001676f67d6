package bme280

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

const (
	recheckEvery = 20                     // readings
	wetAfter     = 20                     // readings of 100 %: condensation, or a sensor that is done for
	settle       = 150 * time.Millisecond // until the first reading is there
)

// session is one connection to a chip that answers.
type session struct {
	*runner
	ctx  context.Context // of the Run
	chip chip

	tick   *time.Ticker
	last   *reading
	count  int   // readings since the chip was checked
	wet    int   // readings of 100 % in a row
	broken error // the chip failed during a call
}

// begin finds the chip and takes the first readings. The first after power-up is often wrong and is dropped.
func (s *session) begin() error {
	if err := s.restartChip(); err != nil {
		return err
	}
	s.bay.Report(map[string]any{
		"chip": map[string]any{"id": fmt.Sprintf("%#02x", idBME280), "calibration_crc": fmt.Sprintf("%08x", s.chip.sum)},
	})
	return nil
}

func (s *session) restartChip() error {
	if err := s.chip.begin(s.ctx, s.m.set); err != nil {
		return err
	}
	if err := sleep(s.ctx, settle); err != nil {
		return err
	}
	_, err := s.chip.sense(s.ctx)
	var odd *implausibleError
	if errors.As(err, &odd) || errors.Is(err, errNothing) {
		err = nil
	}
	s.count, s.last = 0, nil
	return err
}

// adopt brings new settings to the chip. One that fails there is found by the next reading.
func (s *session) adopt(old settings) {
	now := s.m.set
	if s.tick != nil && now.IntervalMS != old.IntervalMS {
		s.tick.Reset(now.interval())
	}
	if now.Oversampling != old.Oversampling || now.Filter != old.Filter {
		if err := s.restartChip(); err != nil {
			s.broken = err
		}
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

// turn is one reading, and what follows from it.
func (s *session) turn() error {
	r, err := s.measure()
	if err != nil {
		return err
	}
	s.sayHealth(r)
	s.raise(r)
	s.send(modkit.Message{Body: must(r.body())})
	return nil
}

// measure takes a reading, climbing the ladder when there is none: once more, then with the chip reset. What comes
// after that is the runner's: closing the bus and opening it again.
func (s *session) measure() (reading, error) {
	r, err := s.look()
	if err == nil {
		return r, nil
	}
	if s.lost(err) {
		return reading{}, err
	}
	s.bay.Log.Warn("no reading, once more", "error", err)
	if r, err = s.look(); err == nil {
		return r, nil
	}
	if s.lost(err) {
		return reading{}, err
	}
	s.bay.Log.Warn("no reading again, the chip is reset", "error", err)
	return s.restart()
}

// lost is whether a repetition is no use.
func (s *session) lost(err error) bool {
	return s.ctx.Err() != nil || errors.Is(err, hal.ErrGone) || errors.Is(err, hal.ErrClosed)
}

// restart resets the chip and takes a reading.
func (s *session) restart() (reading, error) {
	if err := s.restartChip(); err != nil {
		return reading{}, err
	}
	return s.look()
}

// look takes one reading, checks the chip now and then, and looks twice at what has changed too fast.
func (s *session) look() (reading, error) {
	if s.count++; s.count >= recheckEvery {
		if err := s.chip.recheck(s.ctx); err != nil {
			return reading{}, err
		}
		s.count = 0
	}
	r, err := s.chip.sense(s.ctx)
	if err != nil {
		return reading{}, err
	}
	if s.last != nil && r.jumped(*s.last) {
		again, err := s.chip.sense(s.ctx)
		if err != nil {
			return reading{}, err
		}
		if !again.near(r) && again.jumped(*s.last) {
			return reading{}, &implausibleError{fmt.Sprintf("%.2f °C, then %.2f °C, after %.2f °C", r.temperature, again.temperature, s.last.temperature)}
		}
		r = again
	}
	kept := r
	s.last = &kept
	r.temperature += Celsius(s.m.set.OffsetC)
	return r, nil
}

func (s *session) sayHealth(r reading) {
	if r.humidity >= 99.9 {
		s.wet++
	} else {
		s.wet = 0
	}
	h := modkit.Health{State: modkit.OK, Detail: "bme280: the sensor answers"}
	if s.wet >= wetAfter {
		h = modkit.Health{State: modkit.Degraded, Detail: fmt.Sprintf(
			"bme280: humidity at %#02x on %s stays at 100 %%: look for condensation, and exchange the sensor when it is dry", s.wiring.Address, s.wiring.Bus)}
	}
	s.bay.Health(h)
}

// send hands a message over. While the agent takes none, the newest reading is worth more than the oldest: this one
// is dropped, the next one is tried.
func (s *session) send(m modkit.Message) bool {
	_, err := s.bay.Send(m)
	if err != nil && !errors.Is(err, modkit.ErrFull) && !errors.Is(err, modkit.ErrEnded) {
		s.bay.Log.Error("a reading cannot be handed over", "error", err)
	}
	return err == nil
}
