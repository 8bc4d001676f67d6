package clock

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// device is a clock whose system's clock can be set, and a hub that knows the time of the bubble.
type device struct {
	*Clock
	t       *testing.T
	mu      sync.Mutex
	wrong   time.Duration // the system's clock less the truth
	slept   time.Duration // that the monotonic clock of Go does not know of
	hub     time.Duration // the hub's Date less the truth
	mute    error         // of the hub
	asked   []time.Duration
	saved   []time.Time
	started time.Time
	stop    func()
}

var built = time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC)

func start(t *testing.T, wrong time.Duration, remember time.Time) *device {
	d := &device{t: t, wrong: wrong, started: time.Now()}
	d.Clock = New(Options{
		Floor: built,
		Now: func() time.Time {
			d.mu.Lock()
			defer d.mu.Unlock()
			return time.Now().Add(d.wrong + d.slept)
		},
		Elapsed: func() time.Duration {
			d.mu.Lock()
			defer d.mu.Unlock()
			return time.Since(d.started) + d.slept
		},
		Ask: func(context.Context) (time.Time, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.asked = append(d.asked, time.Since(d.started))
			return d.truthLocked().Add(d.hub), d.mute
		},
		Save: func(now time.Time) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.saved = append(d.saved, now)
		},
	})
	if !remember.IsZero() {
		d.Remember(remember)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	d.stop = func() { cancel(); <-done }
	t.Cleanup(d.stop)
	synctest.Wait()
	return d
}

// accepted is a connection that is made in no time.
func (d *device) accepted() {
	_, since := d.Stamp()
	d.Accepted(since)
}

func (d *device) truthLocked() time.Time { return time.Now().Add(d.slept) }

// set sets the system's clock to the truth and wrong.
func (d *device) set(wrong time.Duration) {
	d.mu.Lock()
	d.wrong = wrong
	d.mu.Unlock()
	d.Now() // as the kernel tells
	synctest.Wait()
}

// is checks the best known time against the truth, and its source.
func (d *device) is(when string, off time.Duration, source Source) {
	d.t.Helper()
	synctest.Wait()
	d.mu.Lock()
	want := d.truthLocked().Add(off)
	d.mu.Unlock()
	if got := d.Now().Sub(want); got > time.Second || got < -time.Second || d.Status().Source != source {
		d.t.Errorf("%s: the time is wrong by %v from %s, want %v from %s", when, got+off, d.Status().Source, off, source)
	}
}

func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

const (
	hour = time.Hour
	year = 365 * 24 * time.Hour
)

func TestSteps(t *testing.T) {
	for _, c := range []struct {
		name   string
		taken  bool // the hub has taken a token before
		mute   bool // the hub tells no time
		from   time.Duration
		to     time.Duration
		off    time.Duration // of the time after the step
		source Source
		raised bool
	}{
		{"mended by a little", true, false, -30 * time.Minute, 0, 0, System, true},
		{"mended by a little, unseen by a hub", false, true, -30 * time.Minute, 0, 0, System, true},
		{"mended by much before the hub has taken anything", false, true, -3 * hour, 0, 0, System, true},
		{"a second, as a time server corrects", true, true, time.Second, 0, 0, System, false},
		{"three hours ahead", true, false, 0, 3 * hour, 0, Hub, false},
		{"three hours ahead, and nobody to ask", true, true, 0, 3 * hour, 0, Before, false},
		{"back to 1970", true, false, 0, -30 * year, 0, Hub, false},
		{"back to 1970, and nobody to ask", true, true, 0, -30 * year, 0, Before, false},
		{"back to 1970 before the hub has taken anything", false, true, 0, -30 * year, 0, Before, false},
		{"from three hours ahead to the truth, as the hub says", true, false, 3 * hour, 0, 0, System, true},
		{"from three hours ahead to the truth, and nobody to ask", true, true, 3 * hour, 0, 3 * hour, Before, false},
		{"a minute back, as in a bad leap", true, true, 0, -time.Minute, -time.Minute, System, true},
	} {
		bubble(t, c.name, func(t *testing.T) {
			d := start(t, c.from, time.Time{})
			if c.mute {
				d.mute = errors.New("no way to it")
			}
			if c.taken {
				d.accepted()
			}
			time.Sleep(time.Hour)
			d.is("before", c.from, System)
			changed := d.Changed()
			d.set(c.to)
			d.is("after", c.off, c.source)
			select {
			case <-changed:
				if !c.raised {
					t.Error("everybody was woken, for nothing")
				}
			default:
				if c.raised {
					t.Error("nobody was told")
				}
			}
			time.Sleep(10 * time.Hour)
			d.is("ten hours later", c.off, c.source)
			d.set(0) // in the end somebody sets it right
			if c.off == 0 {
				d.is("set right", 0, System)
				if n := d.Status().Note; n != "" {
					t.Errorf("with the right time there is still a note: %s", n)
				}
			}
		})
	}
}

func TestBootIn1970(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		yesterday := time.Now().Add(-24 * hour)
		d := start(t, -30*year, yesterday)
		d.mu.Lock()
		d.mute = errors.New("no network yet")
		d.mu.Unlock()
		// The first question was answered at once: the hub's time is on trial.
		d.is("at the start", 0, Hub)
		if n := d.Status().Note; !strings.Contains(n, "seems to be wrong by about −30 y") || !strings.Contains(n, "trying the hub's time") {
			t.Errorf("note: %s", n)
		}
		d.accepted()
		if n := d.Status().Note; !strings.Contains(n, "the clock is wrong by about −30 y") || !strings.Contains(n, "signing with the hub's time") {
			t.Errorf("note: %s", n)
		}
		time.Sleep(1000 * hour)
		d.is("weeks later", 0, Hub)
		d.set(0)
		d.is("set right", 0, System)
	})
}

func TestBootIn1970WithoutAHubToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &device{t: t, started: time.Now()}
		d.Clock = New(Options{Floor: built, Now: func() time.Time { return time.Now().Add(-30 * year) }})
		if got := d.Now(); !got.Equal(built) {
			t.Errorf("with nothing known it is %v, want the time of the build", got)
		}
		yesterday := time.Now().Add(-24 * hour)
		d.Remember(yesterday)
		time.Sleep(hour)
		d.is("an hour later", -24*hour, Saved)
		if n := d.Status().Note; !strings.Contains(n, "last known time") {
			t.Errorf("note: %s", n)
		}
	})
}

func TestRefusedToken(t *testing.T) {
	for _, wrong := range []time.Duration{-3 * hour, year, -10 * time.Minute} {
		bubble(t, wrong.String(), func(t *testing.T) {
			d := start(t, wrong, time.Time{})
			d.is("before", wrong, System)
			changed := d.Changed()
			d.Refused()
			d.is("on trial", 0, Hub)
			select {
			case <-changed:
			default:
				t.Error("nobody was told to try again")
			}
			d.Refused() // a try that began before the hint
			d.is("still on trial", 0, Hub)
			d.accepted()
			d.Refused() // another identity, with a wrong key
			time.Sleep(2 * hour)
			d.Refused()
			d.is("confirmed", 0, Hub)
			if n := len(d.asked); n != 1 {
				t.Errorf("the hub was asked %d times", n)
			}
		})
	}
}

// A connection that is being made while the system's clock is set was signed before: that the hub takes it speaks for the
// clock as it was.
func TestStepWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, 0, time.Time{})
		_, since := d.Stamp()
		time.Sleep(2 * time.Second) // the network is slow
		d.set(-3 * hour)
		d.is("nothing is known against it", -3*hour, System)
		time.Sleep(2 * time.Second)
		d.Accepted(since)
		d.Refused() // the next connection is signed with the new time
		d.is("the hub was asked", 0, Hub)
		d.accepted()
		d.is("confirmed", 0, Hub)
	})
}

func TestHintOfNoHelp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, 0, time.Time{})
		d.hub = -5 * hour // somebody in between, or a server that is wrong itself
		d.Refused()
		d.is("on trial", -5*hour, Hub)
		time.Sleep(2 * time.Minute)
		d.Refused()
		d.is("after the trial", 0, System)
		for range 60 * 24 {
			d.Refused()
			time.Sleep(time.Minute)
		}
		if n := len(d.asked); n < 20 || n > 40 {
			t.Errorf("a wrong key asks the hub for its time %d times in a day", n)
		}
		d.hub = -year
		d.mu.Lock()
		d.asked = nil
		d.mu.Unlock()
		time.Sleep(2 * hour)
		d.Refused()
		d.is("a time from before the build", 0, System)
	})
}

func TestPauseBetweenQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, 0, time.Time{})
		for range 8 * 60 * 60 {
			d.Refused() // an identity with a wrong key; the hub's time agrees
			time.Sleep(time.Second)
		}
		last := time.Duration(0)
		for i, at := range d.asked {
			if pause := at - last; i > 0 && (pause < firstAsk || pause > lastAsk+2*time.Second) {
				t.Errorf("question %d after %v", i+1, pause)
			}
			last = at
		}
		if n := len(d.asked); n < 10 || n > 16 {
			t.Errorf("%d questions in eight hours: %v", n, d.asked)
		}
		d.is("all the time", 0, System)
	})
}

func TestSleepIsNoStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, 0, time.Time{})
		d.accepted()
		d.mu.Lock()
		d.slept = 9 * hour
		d.mu.Unlock()
		d.is("after a night", 0, System)
		if n := d.Status().Note; n != "" || len(d.asked) > 0 {
			t.Errorf("sleep is taken for a step: %s", n)
		}
	})
}

func TestPoisonedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A device whose clock was a year ahead had its tokens taken, and remembers that time.
		d := start(t, 0, time.Now().Add(year))
		d.is("after the hub was asked", 0, System)
		if n := d.Status().Note; n != "" {
			t.Errorf("note: %s", n)
		}
	})
}

func TestSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, 0, time.Time{})
		time.Sleep(hour)
		d.stop()
		if len(d.saved) != 0 {
			t.Errorf("a time that no hub has taken was kept: %v", d.saved)
		}
		d = start(t, 0, time.Time{})
		for range 100 {
			d.accepted()
			time.Sleep(45 * time.Minute) // 75 hours
		}
		synctest.Wait()
		if n := len(d.saved); n != 4 {
			t.Errorf("%d times were kept in three days, want one at the start and one a day", n)
		}
		d.stop()
		if n := len(d.saved); n != 5 || time.Since(d.saved[4]) > time.Second {
			t.Errorf("the end was not kept: %v", d.saved)
		}
	})
}

func TestAbout(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-3 * hour: "−3 h", 175 * time.Minute: "+3 h", year: "+1 y", -30 * year: "−30 y", 3 * 24 * hour: "+3 days",
		-5 * time.Minute: "−5 min", 4 * time.Second: "+4 s",
	} {
		if got := about(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, func() {}) }()
	cancel()
	select {
	case err := <-ended: // nil, or this system does not tell
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Fatal("Watch goes on")
	}
	if a, b := Uptime(), Uptime(); b < a || a <= 0 {
		t.Errorf("uptime %v, then %v", a, b)
	}
	if b := Built(); b.Before(released) || b.After(time.Now()) {
		t.Errorf("built %v", b)
	}
}
