package mqttd_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

func TestFaults(t *testing.T) {
	const events = "devices/pi-01/messages/events/"
	publish := packet(0x32, str(events), u16(1), []byte("{}"))
	puback := func(r *raw) { r.t.Helper(); r.expect(0x40, u16(1)) }
	twinGet := packet(0x30, str(getTwin+"1"))
	status := func(want string) func(*raw) {
		return func(r *raw) {
			r.t.Helper()
			if topic, _ := r.message(); !strings.HasPrefix(topic, "$iothub/twin/res/"+want+"/") {
				r.t.Errorf("%s, want status %s", topic, want)
			}
		}
	}
	patch := packet(0x30, str(reported+"1"), []byte(`{"a":1}`))
	subscribe := packet(0x82, u16(1), str("$iothub/methods/POST/#"), []byte{0})
	closed, open := (*raw).closed, (*raw).open
	tests := []struct {
		on, do  string
		send    []byte
		then    func(*raw)
		taken   int // telemetry that the hub has
		elapsed time.Duration
	}{
		{"publish", "kick", publish, closed, 0, 0},
		{"publish", "refuse", publish, closed, 0, 0},
		{"publish", "throttle", publish, closed, 0, 0},
		{"publish", "drop", publish, open, 0, 0},
		{"publish", "delay", publish, puback, 1, time.Minute},
		{"puback", "kick", publish, closed, 1, 0},
		{"puback", "drop", publish, open, 1, 0},
		{"puback", "delay", publish, puback, 1, time.Minute},
		{"twin-get", "kick", twinGet, closed, 0, 0},
		{"twin-get", "refuse", twinGet, status("400"), 0, 0},
		{"twin-get", "throttle", twinGet, status("429"), 0, 0},
		{"twin-get", "drop", twinGet, open, 0, 0},
		{"twin-get", "delay", twinGet, status("200"), 0, time.Minute},
		{"report", "kick", patch, closed, 0, 0},
		{"report", "refuse", patch, status("400"), 0, 0},
		{"report", "throttle", patch, status("429"), 0, 0},
		{"report", "drop", patch, open, 0, 0},
		{"publish", "quota", publish, closed, 0, 0},
		{"publish", "freeze", publish, (*raw).ends, 0, 6 * time.Minute}, // one and a half times the keep-alive
		{"puback", "freeze", publish, (*raw).ends, 1, 6 * time.Minute},
		{"twin-get", "freeze", twinGet, (*raw).ends, 0, 6 * time.Minute},
		{"twin-get", "quota", twinGet, status("403"), 0, 0},
		{"subscribe", "quota", subscribe, closed, 0, 0},
		{"subscribe", "kick", subscribe, closed, 0, 0},
		{"subscribe", "refuse", subscribe, func(r *raw) { r.expect(0x90, append(u16(1), 0x80)) }, 0, 0},
		{"subscribe", "throttle", subscribe, closed, 0, 0},
		{"subscribe", "drop", subscribe, open, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.on+" "+test.do, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := connect(t, h, device(t, h), hello{}, 0)
				r.subscribe(twinRes)
				h.Fault(hub.Fault{On: test.on, Who: "pi-01", Times: 1, Do: test.do, Delay: time.Minute})
				start := time.Now()
				r.send(test.send)
				test.then(r)
				if d := time.Since(start); d != test.elapsed {
					t.Errorf("took %v, want %v", d, test.elapsed)
				}
				synctest.Wait()
				if n := count(h, "telemetry"); n != test.taken {
					t.Errorf("the hub has %d messages, want %d", n, test.taken)
				}
			})
		})
	}
}

func TestConnectFaults(t *testing.T) {
	answer := func(code byte) func(*raw) {
		return func(r *raw) { r.t.Helper(); r.expect(0x20, []byte{0, code}); r.closed() }
	}
	for do, then := range map[string]func(*raw){
		"kick":     (*raw).closed,
		"refuse":   answer(5),
		"throttle": answer(3),
		"quota":    answer(5),
		"freeze":   (*raw).ends,
		"drop":     (*raw).ends, // once the time for CONNECT is over
		"delay":    func(r *raw) { r.t.Helper(); r.expect(0x20, []byte{0, 0}); r.open() },
	} {
		t.Run(do, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				c := device(t, h)
				h.Fault(hub.Fault{On: "connect", Do: do, Delay: time.Minute, Times: 1})
				start := time.Now()
				r := dial(t, h, c)
				r.send(hello{}.packet(c))
				then(r)
				want := map[string]time.Duration{"drop": 30 * time.Second, "freeze": 30 * time.Second, "delay": time.Minute}[do]
				if d := time.Since(start); d != want {
					t.Errorf("took %v, want %v", d, want)
				}
			})
		})
	}
}

func TestFaultsOfWhatTheHubSends(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#")

		h.Fault(hub.Fault{On: "desired", Do: "drop", Times: 1})
		desired(t, h, c.id(), 1)
		desired(t, h, c.id(), 2)
		if topic, _ := r.message(); !strings.HasSuffix(topic, "$version=3") {
			t.Errorf("%s: the change before should be lost", topic)
		}

		// A delayed change is not overtaken by the next one.
		h.Fault(hub.Fault{On: "desired", Do: "delay", Delay: time.Minute, Times: 1})
		start := time.Now()
		desired(t, h, c.id(), 3)
		desired(t, h, c.id(), 4)
		for _, version := range []string{"4", "5"} {
			if topic, _ := r.message(); !strings.HasSuffix(topic, "$version="+version) {
				t.Errorf("%s, want version %s", topic, version)
			}
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("delayed by %v", d)
		}

		h.Fault(hub.Fault{On: "method", Do: "drop", Times: 1})
		if got := <-invoke(t, h, c.id(), "m", "1"); !strings.HasPrefix(got, "GatewayTimeout") {
			t.Errorf("a lost method: %s", got)
		}
		h.Fault(hub.Fault{On: "method", Do: "kick", Times: 1})
		done := invoke(t, h, c.id(), "m", "1")
		r.closed()
		<-done
	})
}

// A half-open connection looks connected to the hub, and nothing comes out of it.
func TestFrozenByWhatTheHubSends(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe("$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#")
		h.Fault(hub.Fault{On: "desired", Do: "freeze", Times: 1})
		start := time.Now()
		desired(t, h, c.id(), 1)
		desired(t, h, c.id(), 2)
		if got := <-invoke(t, h, c.id(), "m", "1"); !strings.HasPrefix(got, "GatewayTimeout") {
			t.Errorf("a method of a frozen connection: %s", got)
		}
		if d, err := h.Hub.Device("pi-01"); err != nil || d.ConnectionState != "Connected" {
			t.Errorf("%s, %v", d.ConnectionState, err)
		}
		r.ends()
		if d := time.Since(start); d < 5*time.Minute || d > 7*time.Minute {
			t.Errorf("over after %v, want one and a half times the keep-alive", d)
		}
		connect(t, h, c, hello{}, 1).open()
	})
}

// The hub's tier holds back first and then refuses.
func TestTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Options{Tier: "S1"})
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.subscribe(twinRes)
		start := time.Now()
		for range 150 { // 50 at once, 50 per second
			r.publish(reported+"1", `{"a":1}`)
			if topic, _ := r.message(); !strings.HasPrefix(topic, "$iothub/twin/res/204/") {
				t.Fatalf("%s, want status 204", topic)
			}
		}
		if d := time.Since(start); d < 1900*time.Millisecond || d > 2100*time.Millisecond {
			t.Errorf("150 reported patches took %v, want 2 s", d)
		}
		for range 500 { // as if another device had filled the queue
			if _, err := h.Throttle(hub.OpTwinUpdate, hub.ID{}, 1); err != nil {
				t.Fatal(err)
			}
		}
		r.publish(reported+"2", `{"a":1}`)
		if topic, _ := r.message(); !strings.HasPrefix(topic, "$iothub/twin/res/429/") {
			t.Errorf("%s, want status 429", topic)
		}
		for range 1100 {
			if _, err := h.Throttle(hub.OpSend, hub.ID{}, 1); err != nil {
				t.Fatal(err)
			}
		}
		r.send(packet(0x32, str("devices/pi-01/messages/events/"), u16(1), []byte("{}")))
		r.closed()
		if h.Wait(t, kind("throttled")); count(h, "telemetry") != 0 {
			t.Error("a refused message has been taken")
		}
	})
}

// The SDKs' own tests order faults by messages: see hub's faultorder.go.
func TestOrderedFaults(t *testing.T) {
	const topic = "devices/pi-01/messages/events/AzIoTHub_FaultOperationType=KIND&AzIoTHub_FaultOperationCloseReason=boom&" +
		"AzIoTHub_FaultOperationDelayInSecs=1&AzIoTHub_FaultOperationDurationInSecs=20"
	telemetry := func(n uint16, on string) []byte { return packet(0x32, str(on), u16(n), []byte("{}")) }
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		c := device(t, h)
		r := connect(t, h, c, hello{}, 0)
		r.send(telemetry(1, strings.Replace(topic, "KIND", "InvokeThrottling", 1)))
		r.expect(0x40, u16(1))
		time.Sleep(2 * time.Second)
		r.send(telemetry(2, "devices/pi-01/messages/events/")) // no acknowledgement
		r.open()
		time.Sleep(20 * time.Second)
		r.send(telemetry(3, "devices/pi-01/messages/events/"))
		r.expect(0x40, u16(3))

		r.send(telemetry(4, strings.Replace(topic, "KIND", "KillTcp", 1)))
		r.expect(0x40, u16(4))
		start := time.Now()
		r.ends()
		if d := time.Since(start); d != time.Second {
			t.Errorf("cut after %v, want 1 s", d)
		}
		again := dial(t, h, c)
		again.send(hello{}.packet(c))
		again.closed()
		time.Sleep(20 * time.Second)
		connect(t, h, c, hello{}, 1).open()
	})
}
