package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/simulator/hub"
)

// A module that is killed takes nothing with it but the call that it was about to answer. That this is so when a process gets
// a real SIGKILL is shown by TestRealProcesses and `make smoke`.
func TestR03_KilledModule(t *testing.T) {
	t.Run("idle", killedIdle)
	t.Run("in a call", killedInACall)
	t.Run("while it hands over", killedWhileHandingOver)
}

func killedInACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		answer := make(chan hub.MethodResult, 1)
		go func() { answer <- r.invoke("coins", "hold", `{}`) }()
		synctest.Wait()
		r.machines["coins"].ruin("the motor is stuck") // or the next start is at once
		r.kill("coins", "killed")
		if got := <-answer; got.Status != 503 {
			t.Errorf("a method whose module dies = %d %s", got.Status, got.Payload)
		}
		synctest.Wait() // the bay knows, and waits to start it again
		if _, _, err := r.agent.Invoke(t.Context(), "coins", "echo", nil); !errors.Is(err, local.ErrNotRunning) {
			t.Errorf("of a dead module: %v", err)
		}
		r.machines["coins"].ruin("")
		time.Sleep(time.Second)
		if status, _, err := r.agent.Invoke(t.Context(), "coins", "echo", nil); status != 200 || err != nil {
			t.Errorf("after the restart: %d, %v", status, err)
		}
	})
}

func killedWhileHandingOver(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		r.desire("coins", `{"interval_ms":33}`)
		r.reported("coins", `{"interval_ms":{"value":33,"ac":200}}`)
		for n := range 20 {
			r.machines["coins"].insert(3)
			if n%4 == 1 {
				r.kill("coins", "killed by signal 9 (SIGKILL)")
			}
			time.Sleep(time.Duration(n) * 37 * time.Millisecond)
		}
		for n := range 60 {
			if got, want := r.telemetry("coins"), fmt.Sprintf(`{"coin":%d}`, n+1); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		if doc, _ := r.machines["coins"].lastApplied(); doc != `{"interval_ms":33,"mode":"normal"}` {
			t.Errorf("a restarted module was given %s", doc)
		}
		time.Sleep(time.Minute)
		c := r.component("coins")
		if c.Process.Restarts != 5 || !strings.Contains(c.Process.LastExit, "SIGKILL") || c.Queue.Acked != 60 {
			t.Errorf("status = %+v", c)
		}
	})
}

func killedIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins", "door")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.reported("door", `{"mode":{"ac":203}}`)
		r.kill("coins", "killed")
		synctest.Wait()
		if c := r.component("coins"); c.Process.State != local.Running || c.Health.State != local.OK || c.Process.LastExit != "killed" {
			t.Errorf("with no time gone after the kill: %+v", c)
		}
		r.kill("coins", "killed again")
		synctest.Wait()
		if h := r.component("coins").Health; h.State != local.Faulted || h.Detail != "killed again" {
			t.Errorf("health while it is down = %+v", h)
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if c := r.component("coins"); c.Process.State != local.Running || c.Health.State != local.OK {
			t.Errorf("300 ms after the second kill: %+v", c)
		}
		if c := r.component("door"); c.Process.Restarts != 0 || c.Link.Reconnects != 0 || r.component("coins").Link.Reconnects != 0 {
			t.Errorf("the neighbour, or the connection, noticed: %+v", c)
		}
	})
}

func TestHungWireCallEndsTheModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins", "door")
		r.machines["coins"].stuck = true
		r.start()
		r.machines["coins"].insert(1)
		if got := r.telemetry("coins"); got != `{"coin":1}` {
			t.Errorf("got %s", got)
		}
		p := r.component("coins").Process
		if p.Restarts != 1 || !strings.HasPrefix(p.LastExit, "hung: serial stuck:line: write is ") || !strings.HasSuffix(p.LastExit, " beyond its deadline") {
			t.Errorf("process = %+v", p)
		}
	})
}

func TestKickedConnectionLosesNothing(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.hub.Fault(hub.Fault{On: "publish", Who: deviceID + "/coins", After: 5, Times: 3, Do: "kick"})
		r.start()
		const coins = 100
		for range coins {
			r.machines["coins"].insert(1)
			time.Sleep(50 * time.Millisecond)
		}
		seen := map[string]bool{}
		for len(seen) < coins {
			seen[r.telemetry("coins")] = true // at least once: some come again after a kick
		}
		time.Sleep(time.Minute)
		c := r.component("coins")
		if len(c.Queue.Dropped) > 0 || c.Queue.Queued > 0 || c.Link.Reconnects < 2 {
			t.Errorf("status = %+v", c)
		}
	})
}

func TestThrottledMessagesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.hub.Fault(hub.Fault{On: "publish", Who: deviceID + "/coins", Times: 12, Do: "throttle"})
		r.start()
		r.machines["coins"].insert(5)
		seen := map[string]bool{}
		for len(seen) < 5 {
			seen[r.telemetry("coins")] = true
		}
		time.Sleep(time.Minute)
		if c := r.component("coins"); len(c.Queue.Dropped) > 0 || c.Queue.Queued > 0 {
			t.Errorf("status = %+v", c)
		}
	})
}

// Only MQTT 5 has a word for a message that the hub will never take.
func TestRefusedMessageIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.hub.Fault(hub.Fault{On: "publish", Who: deviceID + "/coins", After: 1, Times: 1, Do: "refuse"})
		r.start()
		for range 3 {
			r.machines["coins"].insert(1)
			time.Sleep(time.Second)
		}
		if first, next := r.telemetry("coins"), r.telemetry("coins"); first != `{"coin":1}` || next != `{"coin":3}` {
			t.Errorf("got %s, %s", first, next)
		}
		time.Sleep(time.Minute)
		c := r.component("coins")
		if c.Queue.Dropped[outbox.DroppedRefused] != 1 || c.Queue.Queued > 0 {
			t.Errorf("status = %+v", c.Queue)
		}
	})
}

func TestHubIsDownAtStart(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "[modules.coins.settings]\ninterval_ms = 250\n", "coins")
		r.hub.Down()
		r.start()
		r.machines["coins"].insert(40)
		time.Sleep(10 * time.Minute)
		if doc, _ := r.machines["coins"].lastApplied(); doc != `{"interval_ms":250,"mode":"normal"}` {
			t.Errorf("offline the module was given %s", doc)
		}
		c := r.component("coins")
		if c.Queue.Queued != 40 || c.Link.Connected || c.Link.LastError == "" || c.Health.State != local.Degraded {
			t.Errorf("offline status = %+v", c)
		}
		if status, _, err := r.agent.Invoke(t.Context(), "coins", "echo", nil); status != 200 || err != nil {
			t.Errorf("a method from the technician: %d, %v", status, err)
		}
		r.desire("coins", `{"interval_ms":500}`)
		r.hub.Up()
		for n := range 40 {
			if got, want := r.telemetry("coins"), fmt.Sprintf(`{"coin":%d}`, n+1); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		r.reported("coins", `{"interval_ms":{"value":500,"ac":200}}`)
	})
}

func TestOutageBringsMissedSettings(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		for n := range 5 {
			r.hub.Down()
			time.Sleep(time.Duration(n) * 40 * time.Second)
			r.desire("coins", fmt.Sprintf(`{"interval_ms":%d}`, 10+n))
			r.desire("coins", fmt.Sprintf(`{"mode":"m%d"}`, n))
			r.hub.Up()
			r.reported("coins", fmt.Sprintf(`{"interval_ms":{"value":%d,"ac":200},"mode":{"value":"m%d","ac":200}}`, 10+n, n))
		}
	})
}

func TestTwinTroubleIsOvercome(t *testing.T) {
	for _, f := range []hub.Fault{
		{On: "twin-get", Times: 3, Do: "throttle"},
		{On: "twin-get", Times: 2, Do: "drop"},
		{On: "report", Times: 3, Do: "throttle"},
		{On: "report", Times: 2, Do: "drop"},
		{On: "report", Times: 2, Do: "kick"},
		{On: "connect", Times: 3, Do: "refuse"},
	} {
		t.Run(f.On+" "+f.Do, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "3.1.1", "", "coins")
				f.Who = deviceID + "/coins"
				r.hub.Fault(f)
				r.start()
				r.desire("coins", `{"interval_ms":5}`)
				r.reported("coins", `{"interval_ms":{"value":5,"ac":200}}`)
			})
		})
	}
}

func TestPanicInOneBayRestartsThatBayAlone(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door")
		var armed atomic.Bool
		r.start(func(a *Agent) {
			a.probe = func(component, at string) {
				if component == "coins" && at == "said" && armed.Swap(false) {
					panic("injected")
				}
			}
		})
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.reported("door", `{"mode":{"ac":203}}`)
		r.machines["coins"].insert(2)
		time.Sleep(time.Second)
		armed.Store(true)
		r.machines["coins"].insert(2)
		r.machines["door"].insert(2)
		synctest.Wait()
		if h := r.component("coins").Health; h.State != local.Faulted || !strings.Contains(h.Detail, "panic: injected") {
			t.Errorf("health after the panic = %+v", h)
		}
		for n := range 4 {
			if got, want := r.telemetry("coins"), fmt.Sprintf(`{"coin":%d}`, n+1); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		time.Sleep(time.Minute)
		if c := r.component("coins"); c.Process.State != local.Running || c.Health.State != local.OK || !c.Link.Connected {
			t.Errorf("a minute later: %+v", c)
		}
		if d := r.component("door"); d.Process.Restarts != 0 || d.Link.Reconnects != 0 || d.Queue.Acked != 2 {
			t.Errorf("the other bay: %+v", d)
		}
		stacks := 0
		for line := range r.logs.Query(t.Context(), local.LogQuery{Component: "coins"}) {
			if strings.Contains(line.Attrs["stack"], "agent.(*bay).onSaid") {
				stacks++
			}
		}
		if stacks != 1 {
			t.Errorf("the stack is in the log %d times", stacks)
		}
	})
}

func TestPanicAwayFromTheBay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		p := r.agent.places[0]
		p.mu.Lock()
		l := p.bay.loop
		p.mu.Unlock()
		l.wg.Go(func() {
			defer l.catch()
			panic("injected")
		})
		time.Sleep(time.Minute)
		if c := r.component("coins"); c.Process.State != local.Running || c.Process.Restarts != 1 || c.Health.State != local.OK {
			t.Errorf("a minute later: %+v", c)
		}
	})
}

func TestBadInputIsOneComponentsTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", `
[modules.wiring.wiring]
port = 7
speed = 9600
[modules.wire.wiring]
address = 3
[modules.set.settings]
interval_ms = "quick"
[modules.unread]
use = "counter"
[modules.misspelt]
use = "counter"
credential = "file:good.cred"
wirring = {}
`, "good", "nokey", "badkey", "wiring", "wire", "set", "twice")
		folder := strings.TrimSuffix(r.file.File, "device.toml")
		if err := os.Remove(folder + "nokey.cred"); err != nil {
			t.Fatal(err)
		}
		r.write(folder, "badkey", "HostName="+r.hub.Host()+";DeviceId="+deviceID+";ModuleId=badkey;SharedAccessKey=d3JvbmcgYnV0IGxvbmcgZW5vdWdo")
		good, err := r.hub.ConnectionString(hub.ID{Device: deviceID, Module: "good"})
		if err != nil {
			t.Fatal(err)
		}
		r.write(folder, "twice", good)
		r.start()
		r.machines["good"].insert(1)
		r.telemetry("good")
		time.Sleep(time.Minute)
		for name, want := range map[string][]string{
			"nokey":  {"device.toml:", "modules.nokey.credential", "nokey.cred"},
			"badkey": {"vending-1/badkey", "refused the credential"},
			"wiring": {"device.toml:", "modules.wiring.wiring.port", "modules.wiring.wiring.speed", "known are address, port"},
			"wire":   {"modules.wire.wiring", "port"},
			"set":    {"device.toml:", "modules.set.settings.interval_ms", "quick"},
			"twice":  {"modules.twice.credential", "is the identity of component good already"},

			"unread":   {"device.toml:", "modules.unread", "the credential is missing", "write credential ="},
			"misspelt": {"device.toml:", "modules.misspelt.wirring", "unknown key", "did you mean"},
		} {
			h := r.component(name).Health
			for _, part := range want {
				if !strings.Contains(h.Detail, part) {
					t.Errorf("%s: health = %+v, want %q in it", name, h, part)
				}
			}
			if h.State == local.OK {
				t.Errorf("%s: health is ok", name)
			}
		}
		if h := r.component("good").Health; h.State != local.OK {
			t.Errorf("good: %+v", h)
		}
		if s := r.component("set").Process.State; s != local.Running {
			t.Errorf("set is %s", s)
		}
		for _, name := range []string{"wiring", "unread", "misspelt"} {
			if s := r.component(name).Process.State; s != local.Failed {
				t.Errorf("%s is %s", name, s)
			}
		}
		if _, _, err := r.agent.Invoke(t.Context(), "unread", "echo", nil); !errors.Is(err, local.ErrNotRunning) {
			t.Errorf("a method of a component that cannot run: %v", err)
		}
		said := 0
		for line := range r.agent.logs.Query(t.Context(), local.LogQuery{Component: "badkey"}) {
			if line.Level == "WARN" && line.Text == "no connection to the hub" {
				said++
			}
		}
		if said != 1 {
			t.Errorf("the refused credential is complained of %d times, want once", said)
		}
		// A person mends it, and need not start anything again.
		key, err := r.hub.ConnectionString(hub.ID{Device: deviceID, Module: "nokey"})
		if err != nil {
			t.Fatal(err)
		}
		r.write(folder, "nokey", key)
		r.machines["nokey"].insert(1)
		r.telemetry("nokey")
	})
}

// Two components never drive one piece of hardware: the kernel would let them.
func TestHardwareBelongsToOneComponent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", `
[modules.left.wiring]
port = "serial:/dev/null"
[modules.right.wiring]
port = "serial:/dev/../dev/null"
`, "left", "right", "other")
		r.start()
		time.Sleep(time.Minute)
		var states []string
		for _, name := range []string{"left", "right"} {
			c := r.component(name)
			states = append(states, c.Process.State)
			if c.Process.State == local.Failed && !strings.Contains(c.Health.Detail, "modules."+name+".wiring.port: serial:/dev/null belongs to component") {
				t.Errorf("%s: %+v", name, c.Health)
			}
		}
		slices.Sort(states)
		if want := []string{local.Failed, local.Running}; !slices.Equal(states, want) {
			t.Errorf("states %v, want %v", states, want)
		}
		if s := r.component("other").Process.State; s != local.Running {
			t.Errorf("other is %s", s)
		}
	})
}

func TestEndsWithinTwoSecondsAndSendsWhatIsLeft(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins", "door")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.machines["coins"].insert(10)
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the agent ended after %v", took)
		}
		queued := r.component("coins").Queue
		if queued.Queued != 0 {
			t.Errorf("left in the outbox: %+v", queued)
		}
		if c := r.component("coins"); c.Process.State != local.Stopped || c.Link.Connected {
			t.Errorf("status after the end: %+v", c)
		}
	})
}

func TestEndsWithinTwoSecondsOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "3.1.1", "", "coins", "door")
		r.hub.Down()
		r.start()
		r.machines["coins"].insert(10)
		time.Sleep(time.Minute)
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the agent ended after %v", took)
		}
	})
}
