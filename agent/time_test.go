package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/clock"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/hub"
)

// wrongClock is a device's clock that is off, beside a hub that knows the time of the bubble.
type wrongClock struct {
	mu    sync.Mutex
	off   time.Duration
	mute  bool
	asked int
	tell  func()
}

func (w *wrongClock) use(a *Agent) {
	watching := make(chan func(), 1)
	var o clock.Options
	o.Now = func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return time.Now().Add(w.off)
	}
	o.Ask = func(context.Context) (time.Time, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked++
		if w.mute {
			return time.Time{}, errors.New("nobody answers")
		}
		return time.Now(), nil
	}
	o.Watch = func(ctx context.Context, stepped func()) error {
		watching <- stepped
		<-ctx.Done()
		return nil
	}
	o.Floor = time.Now().AddDate(0, -6, 0)
	a.clock = a.newClock(o)
	w.tell = func() {
		stepped := <-watching
		watching <- stepped
		stepped()
	}
}

func (w *wrongClock) set(off time.Duration) {
	w.mu.Lock()
	w.off = off
	w.mu.Unlock()
	w.tell()
	synctest.Wait()
}

const aYear = 365 * 24 * time.Hour

// TestR23_DeviceClockIsWrong starts a device with a clock that is off, beside a hub whose clock is right.
func TestR23_DeviceClockIsWrong(t *testing.T) {
	long(t)
	for _, off := range []time.Duration{5 * time.Minute, -5 * time.Minute, -50 * time.Minute, -3 * time.Hour, aYear, -30 * aYear} {
		for _, mqtt := range []string{"3.1.1", "5"} {
			t.Run(fmt.Sprintf("%v over %s", off, mqtt), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, mqtt, "", "coins")
					w := &wrongClock{off: off}
					began := time.Now()
					r.start(w.use)
					r.machines["coins"].insert(1)
					r.telemetry("coins")
					if took := time.Since(began); took > 30*time.Second {
						t.Errorf("the first message came after %v", took)
					}
					time.Sleep(time.Minute)
					s := r.agent.Status()
					// Over MQTT 5 the hub sees when a token was made too: one from the future is refused.
					if far := off < -65*time.Minute || off == aYear && mqtt == "5"; far != (s.Clock.Note != "") {
						t.Errorf("clock = %+v", s.Clock)
					}
					if off == -3*time.Hour && s.Clock.Note != "the clock is wrong by about −3 h (it says 1999-12-31 21:01 UTC): signing with the hub's time; set the clock, or look at the time server" {
						t.Errorf("the cause is not said plainly: %s", s.Clock.Note)
					}
					if off == -3*time.Hour && (s.Clock.Source != "hub" || s.Clock.OffsetS > -10790 || s.Clock.OffsetS < -10810) {
						t.Errorf("clock = %+v", s.Clock)
					}
					// It goes on for two tokens' lives, and then somebody sets the clock.
					for range 12 {
						r.machines["coins"].insert(1)
						time.Sleep(10 * time.Minute)
					}
					w.set(0)
					for range 6 {
						r.machines["coins"].insert(1)
						time.Sleep(10 * time.Minute)
					}
					r.allCoins("coins", 12+6+1, `{"coin":1}`)
					s = r.agent.Status()
					if c := r.component("coins"); !c.Link.Connected || c.Queue.Queued > 0 || len(c.Queue.Dropped) > 0 || s.Clock.Note != "" || s.Clock.Source != "system" {
						t.Errorf("with the clock set right: %+v, %+v", s.Clock, c)
					}
				})
			})
		}
	}
}

// A device without a battery for its clock, whose last run left a time behind: it needs nobody to ask.
func TestLastKnownTimeIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "3.1.1", "", "coins")
		w := &wrongClock{}
		r.start(w.use)
		r.machines["coins"].insert(1)
		r.telemetry("coins")
		time.Sleep(time.Hour)
		r.stop()
		time.Sleep(20 * time.Minute) // the power was away
		w = &wrongClock{off: -30 * aYear, mute: true}
		r.start(w.use)
		r.machines["coins"].insert(1)
		r.telemetry("coins")
		if s := r.agent.Status(); s.Clock.Source != "saved" || !strings.Contains(s.Clock.Note, "signing with the last known time") {
			t.Errorf("clock = %+v", s.Clock)
		}
	})
}

// TestTokenRunsOut is the token's end while idle, while publishing and while offline: nobody notices.
func TestTokenRunsOut(t *testing.T) {
	long(t)
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		time.Sleep(2 * time.Hour) // idle
		for range 60 {            // publishing
			r.machines["coins"].insert(2)
			time.Sleep(time.Minute)
		}
		r.hub.Down()
		r.machines["coins"].insert(2)
		time.Sleep(2 * time.Hour) // offline
		r.hub.Up()
		r.allCoins("coins", 122)
		if c := r.component("coins"); !c.Link.Connected || strings.Contains(c.Link.LastError, "token") {
			t.Errorf("coins = %+v", c)
		}
	})
}

// TestR24_ClockStepsWhileRunning sets the clock to and fro for half a day.
func TestR24_ClockStepsWhileRunning(t *testing.T) {
	long(t)
	for _, mute := range []bool{false, true} {
		bubbles(t, func(t *testing.T, mqtt string) {
			r := newRig(t, mqtt, "", "coins")
			w := &wrongClock{mute: mute}
			r.start(w.use)
			random := rand.New(rand.NewPCG(24, 24))
			steps := []time.Duration{-3 * time.Hour, 0, aYear, 20 * time.Minute, -30 * aYear, 10 * time.Second, -20 * time.Minute, 0, 3 * time.Hour, 0}
			r.reported("coins", `{"mode":{"ac":203}}`)
			coins := 0
			for range 2 {
				for _, off := range steps {
					w.set(off)
					for range 3 {
						r.machines["coins"].insert(1)
						coins++
						time.Sleep(time.Duration(random.IntN(int(20 * time.Minute))))
						// Timers go on by the time that passes: what is sent arrives now, whatever the clock says.
						synctest.Wait()
					}
				}
			}
			time.Sleep(time.Minute)
			r.allCoins("coins", coins)
			c := r.component("coins")
			if !c.Link.Connected || c.Process.Restarts > 0 || len(c.Queue.Dropped) > 0 || c.Health.State != local.OK {
				t.Errorf("coins = %+v", c)
			}
			refused := 0
			for _, e := range r.hub.Events() {
				if e.Kind == "refused" {
					refused++
				}
			}
			if refused > 0 {
				t.Errorf("%d connects were refused: a step was followed that could not be right", refused)
			}
		})
	}
}

// A wrong key is no wrong clock: the hub is asked for its time now and then, and the other identity never notices.
func TestWrongKeyIsNoWrongClock(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins", "door")
		other, err := r.hub.ConnectionString(hub.ID{Device: deviceID, Module: "door"})
		if err != nil {
			t.Fatal(err)
		}
		key := other[strings.Index(other, "SharedAccessKey="):]
		folder := strings.TrimSuffix(r.file.File, "device.toml")
		r.write(folder, "coins", "HostName="+r.hub.Host()+";DeviceId="+deviceID+";ModuleId=coins;"+key)
		w := &wrongClock{}
		r.start(w.use)
		time.Sleep(6 * time.Hour)
		if h := r.component("coins").Health; !strings.Contains(h.Detail, iothub.ErrUnauthorized.Error()) {
			t.Errorf("coins: %+v", h)
		}
		if d := r.component("door"); !d.Link.Connected {
			t.Errorf("door: %+v", d)
		}
		if w.asked > 3 {
			t.Errorf("the hub was asked for its time %d times", w.asked)
		}
	})
}
