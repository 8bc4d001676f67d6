package iothub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/simulator/hub"
)

func TestTokenIsRenewedForADay(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		renewals := make(chan int)
		end := make(chan struct{})
		go func() {
			n := 0
			for {
				select {
				case e := <-o.Events():
					switch e := e.(type) {
					case iothub.Down:
						if !errors.Is(e.Err, iothub.ErrRenewing) || time.Until(e.Retry) > 0 {
							t.Errorf("lost: %v", e.Err)
						}
						n++
					case iothub.Up:
					default:
						t.Errorf("event %#v", e)
					}
				case <-end:
					renewals <- n
					return
				}
			}
		}()
		failed := 0
		for i := range 24 * 60 {
			if err := o.publish(fmt.Sprint(i)); err != nil {
				failed++
			}
			if left := time.Until(o.Status().TokenExpires); left < 8*time.Minute {
				t.Fatalf("after %d minutes the token has only %v left", i, left)
			}
			time.Sleep(time.Minute)
		}
		close(end)
		n := <-renewals
		switch b.name {
		case "5": // by AUTH on the open connection
			if n != 0 || o.Status().Reconnects != 0 {
				t.Errorf("%d losses, %d reconnects, want none", n, o.Status().Reconnects)
			}
		default:
			if n < 28 || n > 32 || o.Status().Reconnects != n {
				t.Errorf("%d renewals, %d reconnects in a day, want about 30", n, o.Status().Reconnects)
			}
		}
		if failed > 3 || o.Status().LastError != nil {
			t.Errorf("%d of 1440 messages met a renewal; last error %v", failed, o.Status().LastError)
		}
	})
}

func TestRenewalWaitsForWhatIsUnderWay(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		b.Fault(hub.Fault{On: "publish", Do: "delay", Delay: time.Second}) // something is nearly always in flight
		go func() {
			for {
				select {
				case e := <-o.Events():
					if m, ok := e.(iothub.MethodCall); ok {
						go func() {
							time.Sleep(3 * time.Second)
							m.Answer(200, json.RawMessage(`"done"`))
						}()
					}
				case <-t.Context().Done():
					return
				}
			}
		}()
		stop := make(chan struct{})
		published := make(chan int)
		go func() {
			lost := 0
			for {
				select {
				case <-stop:
					published <- lost
					return
				default:
				}
				switch err := o.publish("x"); {
				case err == nil:
				case err == iothub.ErrOffline: // it was not sent: there was no connection
					time.Sleep(10 * time.Millisecond)
				default:
					lost++
					t.Log(err)
				}
			}
		}()
		for range 1200 {
			r, err := b.Invoke(t.Context(), o.id, hub.MethodRequest{Name: "slow", Connect: 20 * time.Second})
			if err != nil || r.Status != 200 {
				t.Errorf("a method met the renewal: %d, %v", r.Status, err)
			}
		}
		close(stop)
		if lost := <-published; lost > 0 {
			t.Errorf("%d messages were given up in flight", lost)
		}
		if b.name == "3.1.1" && o.Status().Reconnects == 0 {
			t.Error("no renewal has happened")
		}
	})
}

func TestSessionsOfADeviceRenewApart(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		if b.name == "5" {
			return // no connection is made
		}
		var owners []*owner
		for i := range 20 {
			o := b.module(t, "d", fmt.Sprint("m", i))
			o.readEvents()
			owners = append(owners, o)
		}
		time.Sleep(52 * time.Minute)
		perMinute := map[time.Time]int{}
		for _, o := range owners {
			if o.Status().Reconnects != 1 {
				t.Errorf("%s: %d renewals", o.id, o.Status().Reconnects)
			}
			perMinute[o.Status().Since.Truncate(10*time.Second)]++
		}
		for at, n := range perMinute {
			if n > 5 {
				t.Errorf("%d of 20 sessions renew within 10 s at %v", n, at)
			}
		}
	})
}
