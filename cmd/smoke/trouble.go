package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/admin"
)

// trouble is one thing that happens: to a component, for so long, by these dice.
type trouble func(x *torture, name string, long time.Duration, dice uint64) error

// troubles are all of them; what stands there more than once happens more often.
var troubles = []trouble{
	(*torture).killAgent, (*torture).killAgent, (*torture).restartAgent,
	(*torture).killModule, (*torture).killModule, (*torture).stopModule,
	(*torture).reset, (*torture).away, (*torture).halfOpen, (*torture).slow,
	(*torture).killHub, (*torture).killHub, (*torture).hubFault, (*torture).hubFault, (*torture).hubFault,
	(*torture).breakDisk, (*torture).breakDisk, (*torture).dieWriting,
	(*torture).storm, (*torture).storm, (*torture).step,
	(*torture).allAtOnce, (*torture).allAtOnce,
}

// do does one thing. It throws the same dice whatever becomes of them.
func (x *torture) do() error {
	name := modules[x.random.IntN(len(modules))]
	long := time.Duration(300+x.random.IntN(6000)) * time.Millisecond
	dice := x.random.Uint64()
	return troubles[x.random.IntN(len(troubles))](x, name, long, dice)
}

// mayEnd says whether the agent may be ended. While its disk takes nothing, a message is accepted when the hub has it, and the
// next agent cannot know of it: the module would say it once more, under another id.
func (x *torture) mayEnd() bool {
	if _, broken := x.heals["disk"]; broken {
		return false
	}
	s, err := x.local.Status(x.ctx)
	return err == nil && s.Storage.Error == ""
}

// killAgent kills the agent. Its modules must go with it.
func (x *torture) killAgent(_ string, long time.Duration, dice uint64) error {
	s, err := x.local.Status(x.ctx)
	if err != nil {
		return err
	}
	if !x.mayEnd() {
		return nil
	}
	long = time.Duration(dice % 1000 * uint64(time.Millisecond))
	x.note("kill -9 of the agent, away for %s", long)
	x.count["kill -9 of the agent"]++
	x.agent.kill()
	if err := x.modulesGone(s); err != nil {
		return err
	}
	x.kills++
	x.pause(long)
	return x.startAgent()
}

func (x *torture) modulesGone(s local.Status) error {
	delete(x.heals, "module")
	x.resume() // SIGKILL ends a stopped process, too; what resume finds is another's only if the number was given again
	for _, c := range s.Components {
		if c.Process.PID == 0 {
			continue
		}
		if err := waitGone(x.ctx, c.Process.PID); err != nil {
			return fmt.Errorf("module %s of an agent that is gone: %w", c.Name, err)
		}
	}
	return nil
}

func (x *torture) restartAgent(string, time.Duration, uint64) error {
	if !x.mayEnd() {
		return nil
	}
	x.note("SIGTERM to the agent, and a start")
	x.count["ends of the agent in order"]++
	if err := x.agent.stop(patient); err != nil {
		return fmt.Errorf("the agent's end: %w", err)
	}
	x.kills = 0
	return x.startAgent()
}

// pid is a component's process; 0 when it has none.
func (x *torture) pid(name string) (int, error) {
	s, err := x.local.Status(x.ctx)
	if err != nil {
		return 0, err
	}
	for _, c := range s.Components {
		if c.Name == name {
			return c.Process.PID, nil
		}
	}
	return 0, nil // in safe mode
}

func (x *torture) killModule(name string, _ time.Duration, _ uint64) error {
	pid, err := x.pid(name)
	if err != nil || pid == 0 {
		return err
	}
	x.note("kill -9 of the module of %s, process %d", name, pid)
	x.count["kill -9 of modules"]++
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// stopModule has a module hang: the agent finds that, or it ends before.
func (x *torture) stopModule(name string, long time.Duration, _ uint64) error {
	pid, err := x.pid(name)
	if err != nil || pid == 0 || x.stopped != 0 {
		return err
	}
	x.note("SIGSTOP of the module of %s, process %d, for %s", name, pid, long)
	x.count["SIGSTOP of modules"]++
	x.stopped, x.heals["module"] = pid, time.Now().Add(long)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// resume wakes the module that was stopped, if it is still there.
func (x *torture) resume() {
	pid := x.stopped
	x.stopped = 0
	if pid == 0 || gone(pid) {
		return
	}
	pids, err := children(x.dir)
	if err != nil {
		return
	}
	for _, p := range pids {
		if p == pid {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended just now
		}
	}
}

func (x *torture) reset(string, time.Duration, uint64) error {
	x.note("all connections are reset")
	x.count["resets"]++
	x.mqtt.reset()
	return nil
}

func (x *torture) away(_ string, long time.Duration, _ uint64) error {
	x.note("no network for %s", long)
	x.count["network cuts"]++
	x.heals["network"] = time.Now().Add(long)
	x.mqtt.cut(true)
	x.rest.cut(true)
	return nil
}

func (x *torture) halfOpen(_ string, long time.Duration, _ uint64) error {
	long *= 3
	x.note("nothing arrives for %s, and nobody is told", long)
	x.count["half-open links"]++
	x.heals["hole"] = time.Now().Add(long)
	x.mqtt.swallow(true)
	x.rest.swallow(true)
	return nil
}

func (x *torture) slow(_ string, long time.Duration, dice uint64) error {
	d := time.Duration(dice%700) * time.Millisecond
	x.note("each packet takes %s, for %s", d, long)
	x.count["slow links"]++
	x.heals["slow network"] = time.Now().Add(long)
	x.mqtt.slow(d)
	return nil
}

// killHub kills the hub and starts it again with its state. What it has taken until then is known here, since it was asked for
// something after the last packet that the network let through; what it took later, it could tell nobody of.
func (x *torture) killHub(_ string, long time.Duration, _ uint64) error {
	long /= 2
	x.note("kill -9 of the hub, away for %s", long)
	x.count["kill -9 of the hub"]++
	for _, p := range []*proxy{x.mqtt, x.rest} {
		p.swallow(true)
	}
	if err := x.mark(); err != nil {
		return err
	}
	x.stopEvents()
	x.sim.kill()
	for _, p := range []*proxy{x.mqtt, x.rest} {
		p.cut(true)
		p.swallow(false)
	}
	delete(x.heals, "hole")
	delete(x.heals, "network")
	x.pause(long)
	return x.startHub()
}

// mark waits until everything that has happened at the hub until now has been heard of.
func (x *torture) mark() error {
	x.marks++
	mark := fmt.Sprintf("m%d", x.marks)
	if _, err := x.hub.PatchTwin(x.ctx, admin.ID{Device: device}, map[string]any{"tags": map[string]any{"mark": mark}}); err != nil {
		return err
	}
	return x.heard.wait(x.ctx, mark)
}

// hubFault adds a rule. None ends connections so often that a message would be taken for the cause and set aside, and none
// refuses a message for good: that is dropped, and said, which is no loss of the agent's.
func (x *torture) hubFault(name string, long time.Duration, dice uint64) error {
	on := []string{"connect", "subscribe", "publish", "puback", "twin-get", "report", "desired"}[dice%7]
	do := []string{"refuse", "throttle", "drop", "delay", "kick", "freeze"}[dice>>8%6]
	switch {
	case on == "desired" && (do == "refuse" || do == "throttle"):
		do = "drop"
	case on == "publish" && do == "refuse":
		do = "kick"
	case on == "connect" && do == "freeze":
		do = "refuse"
	}
	f := admin.Fault{On: on, Do: do, Who: device + "/" + name, Times: int(1 + dice>>16%2), For: long.String()}
	if do == "delay" {
		f.Delay = (time.Duration(dice>>24%2000) * time.Millisecond).String()
	}
	x.note("fault: %s of %s, %s %s, %d times within %s", on, name, do, f.Delay, f.Times, long)
	x.count["faults of the hub"]++
	return x.hub.AddFault(x.ctx, f)
}

// clock is the file that says how far off the device's clock is.
func (x *torture) clock() string { return filepath.Join(x.dir, "clock") }

func (x *torture) setClock(off time.Duration) error {
	if err := os.WriteFile(x.clock()+".new", []byte(off.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(x.clock()+".new", x.clock())
}

// step sets the device's clock.
func (x *torture) step(_ string, _ time.Duration, dice uint64) error {
	off := []time.Duration{0, 0, 4 * time.Minute, -40 * time.Minute, -3 * time.Hour, 26 * time.Hour}[dice%6]
	x.note("the device's clock is off by %s", off)
	x.count["clock steps"]++
	return x.setClock(off)
}

// order is the file that the agent's disk does the will of.
func (x *torture) order() string { return filepath.Join(x.dir, "disk.order") }

// diskOrder is what it says.
type diskOrder struct {
	Error string `json:",omitempty"`
	Keep  int    `json:",omitempty"`
	Delay string `json:",omitempty"`
	Die   bool   `json:",omitempty"`
}

func (x *torture) orderDisk(o diskOrder) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(x.order()+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(x.order()+".new", x.order())
}

func (x *torture) breakDisk(_ string, long time.Duration, dice uint64) error {
	var o diskOrder
	switch dice % 4 {
	case 0:
		o.Error = "ENOSPC"
	case 1:
		o.Error = "EIO"
	case 2:
		o.Error, o.Keep = "EIO", int(dice>>8%600)
	case 3:
		o.Delay = (time.Duration(dice>>8%400) * time.Millisecond).String()
	}
	x.note("each write and fsync for %s: %s, %d bytes are done; it takes %s", long, cmp.Or(o.Error, "ok"), o.Keep, cmp.Or(o.Delay, "no time"))
	x.count["disk faults"]++
	x.heals["disk"] = time.Now().Add(long)
	return x.orderDisk(o)
}

// allAtOnce takes the network away, then the disk for a while, and then kills the agent: what it accepted meanwhile must be
// somewhere.
func (x *torture) allAtOnce(name string, long time.Duration, dice uint64) error {
	if err := x.away(name, 2*long, dice); err != nil {
		return err
	}
	if err := x.breakDisk(name, long/2, dice); err != nil {
		return err
	}
	x.pause(long / 2)
	x.heal(time.Now())
	x.pause(time.Second) // the outbox tries the disk again
	return x.killAgent(name, long, dice)
}

// dieWriting has the agent die in the middle of a write.
func (x *torture) dieWriting(_ string, _ time.Duration, dice uint64) error {
	s, err := x.local.Status(x.ctx)
	if err != nil {
		return err
	}
	if !x.mayEnd() {
		return nil
	}
	o := diskOrder{Error: "EIO", Keep: int(dice % 600), Die: true}
	x.note("the agent dies in its next write, of which %d bytes are done", o.Keep)
	if err := x.orderDisk(o); err != nil {
		return err
	}
	died := true
	select {
	case <-x.agent.done:
	case <-time.After(3 * time.Second):
		died = false // it has written nothing
	case <-x.ctx.Done():
		return x.ctx.Err()
	}
	if err := os.Remove(x.order()); err != nil {
		return err
	}
	if !died {
		x.note("it has written nothing")
		return nil
	}
	x.count["deaths in a write"]++
	if err := x.modulesGone(s); err != nil {
		return err
	}
	x.kills++
	return x.startAgent()
}

func (x *torture) storm(name string, _ time.Duration, dice uint64) error {
	n := int(1 + dice%40)
	x.note("%d changes of %s's desired properties", n, name)
	x.count["desired changes"] += n
	key := map[string]string{"climate": "interval_ms", "coins": "poll_interval_ms", "door": "open_alarm_s"}[name]
	for i := range uint64(n) {
		doc := map[string]any{key: 200 + (dice+i)%700, "mode": fmt.Sprint("m", i)}
		switch (dice + i) % 7 {
		case 0:
			doc = map[string]any{key: nil}
		case 1:
			doc = map[string]any{key: "fast", "colour": map[string]any{"red": []int{1, 2}}}
		case 2:
			doc = map[string]any{"colour": nil}
		}
		if err := x.desire(x.ctx, name, doc); err != nil {
			return err
		}
	}
	return nil
}

// heal ends what was to end by now.
func (x *torture) heal(now time.Time) {
	for what, at := range x.heals {
		if at.After(now) {
			continue
		}
		delete(x.heals, what)
		switch what {
		case "network":
			x.mqtt.cut(false)
			x.rest.cut(false)
		case "hole":
			x.mqtt.swallow(false)
			x.rest.swallow(false)
		case "slow network":
			x.mqtt.slow(0)
		case "disk":
			_ = os.Remove(x.order())
		case "module":
			x.resume()
		}
		x.note("healed: %s", what)
	}
}

// healAll ends everything.
func (x *torture) healAll() error {
	x.heal(time.Now().Add(time.Hour))
	if err := x.setClock(0); err != nil {
		return err
	}
	return x.hub.ClearFaults(x.ctx, "")
}
