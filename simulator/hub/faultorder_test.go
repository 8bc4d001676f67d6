package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

func order(kind, delay, duration string) Message {
	return Message{Properties: map[string]string{faultType: kind, faultReason: "boom", faultDelay: delay, faultDuration: duration}}
}

func TestOrderedCut(t *testing.T) {
	for _, tt := range []struct {
		kind string
		code int
	}{{"KillTcp", 400029}, {"ShutDownMqtt", 503001}} {
		t.Run(tt.kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t)
				id := ID{"pi-01", "a"}
				l, p := attach(t, h, id, time.Hour)
				_, neighbour := attach(t, h, ID{"pi-01", "b"}, time.Hour)
				wantError(t, "the order", l.Telemetry(order(tt.kind, "2", "10")), 0)
				time.Sleep(2*time.Second - 1)
				synctest.Wait()
				if p.endedBy(t) != 0 || h.Fault("connect", id).Do != "" {
					t.Error("the fault begins before its delay is over")
				}
				time.Sleep(1)
				synctest.Wait()
				if code := p.endedBy(t); code != tt.code {
					t.Errorf("ended by %d, want %d", code, tt.code)
				}
				time.Sleep(10*time.Second - 1)
				if h.Fault("connect", id).Do != "kick" {
					t.Error("it may connect within the duration")
				}
				if h.Fault("connect", ID{"pi-01", "b"}).Do != "" || neighbour.endedBy(t) != 0 {
					t.Error("the neighbour is hit too")
				}
				time.Sleep(1)
				if h.Fault("connect", id).Do != "" {
					t.Error("it may not connect after the duration")
				}
			})
		})
	}
}

func TestOrderedSilence(t *testing.T) {
	for _, kind := range []string{"InvokeThrottling", "InvokeMaxMessageQuota", "InvokeAuthError"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t)
				l, p := attach(t, h, ID{Device: "pi-01"}, time.Hour)
				wantError(t, "the order", l.Telemetry(order(kind, "1", "")), 0)
				if l.Fault("publish").Do != "" {
					t.Error("silent before the delay is over")
				}
				time.Sleep(time.Second)
				if l.Fault("publish").Do != "drop" {
					t.Error("not silent")
				}
				time.Sleep(defaultFaultTime)
				if l.Fault("publish").Do != "" || p.endedBy(t) != 0 {
					t.Error("still silent, or cut")
				}
			})
		})
	}
}

// Over HTTP there is no connection whose later messages could fail: the order itself does.
func TestOrderOverHTTP(t *testing.T) {
	h := newHub(t)
	id := ID{Device: "pi-01"}
	g, err := h.AuthSAS(id, token(t, h, id, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for kind, code := range map[string]int{
		"InvokeThrottling": 429001, "InvokeMaxMessageQuota": 403002, "InvokeAuthError": 401002, "KillTcp": 0, "KillAmqpSession": 0, "nonsense": 0,
	} {
		wantError(t, kind, h.Telemetry(g, order(kind, "0", "5")), code)
		lower := Message{Properties: map[string]string{"aziothub_faultoperationtype": kind}} // as HTTP headers are
		wantError(t, kind, h.Telemetry(g, lower), code)
	}
}

func TestOrderedNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		l, p := attach(t, h, ID{Device: "pi-01"}, time.Hour)
		for _, m := range []Message{order("KillAmqpSession", "0", "9"), order("", "1", "1"), order("InvokeThrottling", "soon", "-1")} {
			wantError(t, "telemetry", l.Telemetry(m), 0)
		}
		time.Sleep(time.Minute)
		if p.endedBy(t) != 0 || len(h.Faults()) != 0 {
			t.Errorf("left behind: %+v", h.Faults())
		}
	})
}

func FuzzFaultOrder(f *testing.F) {
	f.Add("KillTcp", "1", "5")
	f.Add("InvokeThrottling", "", "-1")
	f.Add("", "99999999999999999999", "1e3")
	f.Fuzz(func(t *testing.T, kind, delay, duration string) {
		o, ok := readFaultOrder(order(kind, delay, duration).Properties)
		if ok != (kind != "") || o.delay < 0 || o.duration < 0 || o.delay > 19*time.Hour || o.duration > 19*time.Hour {
			t.Errorf("%+v, %v", o, ok)
		}
	})
}
