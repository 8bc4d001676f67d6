package hub

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"
)

func TestCheckTier(t *testing.T) {
	for _, tt := range []struct {
		tier  string
		units int
		ok    bool
	}{{"", 0, true}, {"F1", 0, true}, {"s1", 200, true}, {"S2", 201, false}, {"S3", 10, true}, {"S3", 11, false}, {"F1", 2, false}, {"S4", 1, false}} {
		if err := CheckTier(tt.tier, tt.units); (err == nil) != tt.ok {
			t.Errorf("%s with %d units: %v", tt.tier, tt.units, err)
		}
	}
}

// Within ten seconds a throttle lets through what has saved up, and what comes in while the last ones wait.
func TestThrottleRates(t *testing.T) {
	for _, tt := range []struct {
		tier  string
		units int
		op    Operation
		at    int // at once without waiting
		queue int // more that wait for up to 10 s
	}{
		{"F1", 1, OpRegistry, 100, 16},
		{"S1", 2, OpRegistry, 200, 33},
		{"S3", 1, OpRegistry, 5000, 833},
		{"F1", 1, OpTwinRead, 100, 1000},
		{"F1", 1, OpTwinUpdate, 50, 500},
		{"S2", 20, OpTwinRead, 200, 2000},
		{"S1", 1, OpConnect, 100, 1000},
		{"S1", 10, OpConnect, 120, 1200},
		{"S1", 1, OpQuery, 20, 3},
		{"S1", 1, OpC2DSend, 100, 16},
	} {
		t.Run(tt.tier+" "+string(tt.op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := New(Options{Tier: tt.tier, Units: tt.units})
				at, queue := 0, 0
				for {
					wait, err := h.Throttle(tt.op, ID{}, 1)
					if err != nil {
						wantError(t, "the end of the queue", err, 429002)
						break
					}
					if wait == 0 {
						at++
					} else {
						queue++
					}
					if wait > maxHeld {
						t.Fatalf("held for %v", wait)
					}
				}
				if at != tt.at || queue != tt.queue {
					t.Errorf("%d at once and %d held, want %d and %d", at, queue, tt.at, tt.queue)
				}
				time.Sleep(time.Minute + maxHeld)
				if wait, err := h.Throttle(tt.op, ID{}, 1); wait != 0 || err != nil {
					t.Errorf("a minute later: held %v, %v", wait, err)
				}
			})
		})
	}
}

func TestMethodsAreThrottledByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Tier: "S1"})
		for n := range 40 { // 160 KiB of 4 KiB each
			if wait, err := h.Throttle(OpMethod, ID{}, MethodMeter); wait != 0 || err != nil {
				t.Fatalf("call %d: held %v, %v", n, wait, err)
			}
		}
		if wait, err := h.Throttle(OpMethod, ID{}, MethodMeter); wait != 25*time.Millisecond || err != nil {
			t.Errorf("the next call: held %v, %v; want 25 ms", wait, err)
		}
	})
}

func TestNoTierNoThrottle(t *testing.T) {
	h := New(Options{})
	for range 10_000 {
		if wait, err := h.Throttle(OpQuery, ID{}, 1); wait != 0 || err != nil {
			t.Fatalf("held %v, %v", wait, err)
		}
	}
	if _, ok := h.Limits(); ok {
		t.Error("a hub without a tier has limits")
	}
}

func TestLimits(t *testing.T) {
	for _, want := range []Limits{
		{"F1", 1, 8000, 1, 10}, {"S1", 3, 1_200_000, 1, 100}, {"S2", 1, 6_000_000, 5, 100}, {"S3", 2, 600_000_000, 10, 100},
	} {
		if got, ok := New(Options{Tier: want.Tier, Units: want.Units}).Limits(); !ok || got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// A message counts once per 512 bytes begun on F1 and once per 4 KiB on S1; the day ends at midnight UTC.
func TestDailyQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins at midnight UTC
		h := New(Options{Tier: "F1"})
		must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
		l, p := attach(t, h, ID{Device: "d"}, 48*time.Hour)
		big := Message{Body: make([]byte, 513)} // two
		for n := range 3999 {
			if err := l.Telemetry(big); err != nil {
				t.Fatalf("message %d: %v", n, err)
			}
		}
		must(t)(l.Report(json.RawMessage(`{"a":1}`), 0)) // 7999
		wantError(t, "two more than are left", l.Telemetry(big), 403002)
		wantError(t, "the last one", l.Telemetry(Message{}), 0)
		wantError(t, "telemetry", l.Telemetry(Message{}), 403002)
		_, err := l.Twin()
		wantError(t, "twin", err, 403002)
		_, err = l.Report(json.RawMessage(`{"a":2}`), 0)
		wantError(t, "report", err, 403002)
		wantError(t, "cloud-to-device", h.SendC2D(ID{Device: "d"}, C2D{}), 403002)
		_, err = h.Invoke(t.Context(), ID{Device: "d"}, MethodRequest{Name: "m"})
		wantError(t, "method", err, 403002)
		must(t)(h.PutDevice(Device{DeviceID: "e"}, "")) // the registry is free
		time.Sleep(24*time.Hour - 1)
		wantError(t, "a moment before midnight", l.Telemetry(Message{}), 403002)
		time.Sleep(1)
		wantError(t, "after midnight", l.Telemetry(Message{}), 0)
		if p.endedBy(t) != 0 {
			t.Error("the hub ends the connection by itself")
		}
	})
}

func TestClockOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := ID{Device: "d"}
		connect := func(offset, life time.Duration) error {
			h := New(Options{HostName: "h", ClockOffset: offset})
			must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
			_, err := h.AuthSAS(id, token(t, h, id, life))
			return err
		}
		wantError(t, "an hour's token, clocks agree", connect(0, time.Hour), 0)
		wantError(t, "an hour's token, the hub is 2 h ahead", connect(2*time.Hour, time.Hour), 401003)
		wantError(t, "an hour's token, the hub is 1 h ahead: within the skew", connect(time.Hour, time.Hour), 0)
		wantError(t, "a token that ran out an hour ago, the hub is 2 h behind", connect(-2*time.Hour, -time.Hour), 0)

		h := New(Options{HostName: "h", ClockOffset: 50 * time.Minute})
		must(t)(h.PutDevice(Device{DeviceID: "d"}, ""))
		_, p := attach(t, h, id, time.Hour)
		time.Sleep(10*time.Minute - 1)
		synctest.Wait()
		if p.endedBy(t) != 0 {
			t.Error("cut before the hub's clock reaches the token's end")
		}
		time.Sleep(1)
		synctest.Wait()
		if code := p.endedBy(t); code != 401003 {
			t.Errorf("ended by %d, want 401003", code)
		}
		owner := signSAS(h.policies[0].PrimaryKey, "h", time.Now().Add(30*time.Minute), h.policies[0].Name)
		wantError(t, "service token of half an hour", h.AuthService(owner, 0, "/devices/d"), 401002)
	})
}
