package cctalk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

const (
	maxFailures = 4                // polls without an answer until the acceptor counts as away
	checkEvery  = 10 * time.Second // that the acceptor still has the mask: a reset between two coins leaves no trace
	stopLimit   = 300 * time.Millisecond
	settleTime  = 300 * time.Millisecond // a coin on its way through the acceptor has been counted then
	powerUp     = 300 * time.Millisecond // part 1, section 10: 250 ms
)

// session is one connection to an acceptor that answers.
type session struct {
	*runner
	ctx context.Context // of the Run
	bus bus

	tick     *time.Ticker
	failures int
	lastPoll time.Time
	lastMask time.Time // when the acceptor's mask was last set or seen to be right
	mask     uint16    // as the acceptor has it
	expected bool      // the module has asked for a reset
	broken   error     // the line failed during a call

	serial   int
	identity map[string]string
	fault    *int          // of the self-check; nil when the acceptor has none, or it was not asked yet
	lacks    map[byte]bool // commands of which it has shown that it does not know them
	coins    [positions + 1]*coin
	steps    []func() error // what is still to be read of the acceptor
	tries    int            // of the first step
}

// begin finds the acceptor, credits what happened since it was last seen, and lets it take coins.
func (s *session) begin() error {
	if _, err := s.bus.ask(s.ctx, 2, simplePoll); err != nil {
		return err
	}
	if err := s.readSerial(); err != nil {
		return err
	}
	if err := s.catchUp(); err != nil {
		return err
	}
	if err := s.arm(); err != nil {
		return err
	}
	s.steps = s.identitySteps()
	s.sayHealth()
	return nil
}

// optional asks for what an acceptor need not have: nil without an error when it says NAK or nothing.
func (s *session) optional(header byte, data ...byte) ([]byte, error) {
	p, err := s.bus.ask(s.ctx, 2, header, data...)
	if errors.Is(err, errNAK) || errors.Is(err, errSilent) {
		s.lacks[header] = true
		return nil, nil
	}
	if err == nil && p == nil {
		p = []byte{}
	}
	return p, err
}

// readSerial reads the number that ties the event counter to one acceptor. Silence is taken for "has none" only
// where there never was one: else a bad line would look like another acceptor.
func (s *session) readSerial() error {
	s.serial = -1
	p, err := s.bus.ask(s.ctx, 3, serialNumber)
	switch {
	case err == nil && len(p) == 3:
		s.serial = int(p[0]) | int(p[1])<<8 | int(p[2])<<16
		return nil
	case err == nil:
		return fmt.Errorf("serial number of %d bytes, expected 3: %w", len(p), errForeign)
	case errors.Is(err, errNAK):
		return nil
	case errors.Is(err, errSilent) && (s.record == nil || s.record.Serial == -1):
		return nil
	}
	return err
}

// catchUp takes the first reading and compares it with the record.
func (s *session) catchUp() error {
	if s.record == nil {
		// Whatever was counted before is nobody's: close the acceptor, remember where it stands, and open it
		// when that is safe with the agent.
		if err := s.setMask(0); err != nil {
			return err
		}
	}
	now, err := s.read(3)
	if err != nil {
		return err
	}
	if s.record != nil {
		return s.take(now, now.resume(*s.record, s.serial))
	}
	s.record = &record{Serial: s.serial, Counter: now.counter}
	body := message{Event: "baseline", Counter: int(now.counter)}
	if s.gap != "" {
		body = s.gapMessage(s.gap, now)
		body.Last = nil
		s.gap = ""
	}
	s.hold = true
	s.queue.put(entry{body: body, high: true, state: *s.record, at: time.Now()})
	return nil
}

func (s *session) read(tries int) (reading, error) {
	p, err := s.bus.ask(s.ctx, tries, bufferedCredit)
	if err != nil {
		return reading{}, err
	}
	s.lastPoll = time.Now()
	return parseReading(p)
}

// arm sets what a reset takes away: master inhibit, which not every make has, and the mask.
func (s *session) arm() error {
	if !s.lacks[masterInhibit] {
		if _, err := s.optional(masterInhibit, 1); err != nil {
			return err
		}
	}
	return s.setMask(s.wanted())
}

func (s *session) wanted() uint16 {
	if s.hold {
		return 0
	}
	return s.m.set.mask()
}

func (s *session) setMask(mask uint16) error {
	if _, err := s.bus.ask(s.ctx, 3, modifyInhibit, byte(mask), byte(mask>>8)); err != nil {
		return err
	}
	s.mask, s.lastMask = mask, time.Now()
	return nil
}

// adopt brings new settings to the acceptor. It fails only when the acceptor refuses; a line that fails is tried
// again by the loop.
func (s *session) adopt(old settings) error {
	if s.tick != nil && old.PollIntervalMS != s.m.set.PollIntervalMS {
		s.tick.Reset(s.interval())
	}
	for i := range s.coins {
		if c := s.coins[i]; c != nil {
			c.Cents = value(c.ID, s.m.set.CoinValues)
		}
	}
	var err error
	if s.wanted() != s.mask {
		err = s.setMask(s.wanted())
	}
	if err != nil && !errors.Is(err, errNAK) {
		s.fail(err)
		err = nil
	}
	s.report()
	return err
}

func (s *session) interval() time.Duration {
	return time.Duration(s.m.set.PollIntervalMS) * time.Millisecond
}

// work polls until the acceptor is away or ctx ends.
func (s *session) work() error {
	s.tick = time.NewTicker(s.interval())
	defer s.tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			s.close()
			return nil
		case <-s.tick.C:
			if err := s.turn(); err != nil {
				return err
			}
		case call := <-s.calls:
			call()
		case <-s.queue.head():
			s.queue.settle()
		}
		if s.broken != nil {
			return s.broken
		}
	}
}

// close makes the acceptor return coins at once, instead of after the second that it would still take them: nobody
// counts them now.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), stopLimit)
	defer cancel()
	s.ctx = ctx
	if err := s.setMask(0); err != nil {
		s.bay.Log.Warn("the acceptor was not closed; it takes no coins from the next second on", "error", err)
	}
}

// turn is one poll and what there is time for before the next.
func (s *session) turn() error {
	if err := s.poll(); err != nil {
		return err
	}
	if s.failures > 0 {
		return nil
	}
	for err := s.chore(); ; err = s.chore() {
		switch {
		case errors.Is(err, errIdle):
			return nil
		case err != nil && !onWire(err):
			return err
		case err != nil:
			s.bay.Log.Warn("the acceptor did not answer as expected, it is asked again later", "error", err)
			return nil
		case time.Since(s.lastPoll) > s.interval()/2:
			return nil
		}
	}
}

// poll asks for new events. A single failure is no news: it is counted.
func (s *session) poll() error {
	now, err := s.read(1)
	if err == nil {
		err = s.take(now, now.since(s.record.Counter))
	}
	switch {
	case err == nil:
		s.failures = 0
		return nil
	case s.ctx.Err() != nil:
		return nil // the loop sees it too
	case !onWire(err):
		return err
	}
	s.failures++
	if s.failures >= maxFailures {
		return err
	}
	return nil
}

// errIdle says that there is nothing to do but to poll.
var errIdle = errors.New("nothing to do")

// chore does the most urgent thing beside polling.
func (s *session) chore() error {
	if s.hold && s.queue.empty() {
		s.hold = false
	}
	switch {
	case s.wanted() != s.mask:
		return s.arm()
	case time.Since(s.lastMask) >= checkEvery:
		return s.checkMask()
	case len(s.steps) > 0:
		return s.step()
	}
	return errIdle
}

// step reads the next thing that the acceptor says of itself. What fails three times is left out.
func (s *session) step() error {
	err := s.steps[0]()
	s.tries++
	if err != nil && s.tries < 3 {
		return err
	}
	s.steps, s.tries = s.steps[1:], 0
	if len(s.steps) == 0 {
		s.report()
	}
	return err
}

// checkMask finds out whether the acceptor has lost its mask, and where it cannot tell, sets it again.
func (s *session) checkMask() error {
	if s.lacks[requestInhibit] {
		return s.arm()
	}
	p, err := s.optional(requestInhibit)
	if err != nil {
		return err
	}
	if len(p) == 2 && uint16(p[0])|uint16(p[1])<<8 == s.mask {
		s.lastMask = time.Now()
		return nil
	}
	if len(p) == 2 {
		s.bay.Log.Warn("the acceptor had lost its inhibit mask, as after a reset; it is set again")
	}
	return s.arm()
}

// fail ends the session after the call that is running, when the line itself has failed.
func (s *session) fail(err error) {
	if err != nil && !onWire(err) && s.ctx.Err() == nil {
		s.broken = err
	}
}

func (s *session) sayHealth() {
	h := modkit.Health{State: modkit.OK, Detail: "cctalk: the acceptor answers"}
	if s.fault != nil && *s.fault != 0 {
		h = modkit.Health{State: modkit.Degraded, Detail: fmt.Sprintf(
			"cctalk: the acceptor's self-check finds fault %d (%s): clean it, and exchange it when that does not help",
			*s.fault, faultName(byte(*s.fault)))}
	}
	s.bay.Health(h)
}
