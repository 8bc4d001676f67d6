package agent

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/simulator/hub"
)

var (
	tortureSeed = flag.Uint64("torture.seed", 1, "TestTorture's first seed")
	tortureFor  = flag.Duration("torture.for", 0, "how long TestTorture goes on to further seeds; 0: two seeds")
)

// TestTorture does to a device, by a seed, whatever can happen to one in half an hour, several things at once, and then
// heals everything and holds the two sides against each other. It has what real processes cannot be given without root: a
// disk that fills up, tears writes, fails and loses its power, and a clock that jumps. `make torture` runs it for a time.
//
// The seed decides what is done and when. The agent's own dice, for the waits between its tries, are not the seed's.
func TestTorture(t *testing.T) {
	long(t)
	began := time.Now()
	for n := uint64(0); n == 0 || n == 1 && *tortureFor == 0 || time.Since(began) < *tortureFor; n++ {
		seed := *tortureSeed + n
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newTorture(t, seed).run() })
		})
		if t.Failed() {
			t.Logf("to repeat: go test ./agent -run '^TestTorture$' -torture.seed %d -torture.for 1ns", seed)
			return
		}
	}
}

// torture is one device and what is done to it.
type torture struct {
	*rig
	random  *rand.Rand
	network *network
	clock   *wrongClock
	names   []string
	coins   map[string]int                 // thrown in, of each component
	heals   map[string]time.Time           // what goes wrong now, and when it ends
	delay   atomic.Int64                   // of the network, each way
	failing atomic.Pointer[disktest.Fault] // what the disk does to each write and fsync
	broke   time.Time                      // since when the disk may not take everything; zero: it does
	careful bool                           // no agent ends while its disk takes nothing
	unkept  []span                         // when an agent ended whose disk took nothing, and since when it did not
	count   map[string]int                 // of what was done
	began   time.Time

	promises sync.Mutex
	promised map[string]map[string]bool // the ids that were accepted, of each component
}

// span is a time.
type span struct{ from, to time.Time }

func newTorture(t *testing.T, seed uint64) *torture {
	names := []string{"coins", "door", "climate"}
	x := &torture{
		random: rand.New(rand.NewPCG(seed, 0x70727475)), // any second word
		names:  names, coins: map[string]int{}, heals: map[string]time.Time{}, count: map[string]int{}, began: time.Now(),
		clock: &wrongClock{}, careful: seed/2%2 == 0,
	}
	x.rig = newRig(t, []string{"3.1.1", "5"}[seed%2], "", names...)
	x.quiet = true
	x.promised = map[string]map[string]bool{}
	x.watch = func(name, id string) {
		x.promises.Lock()
		defer x.promises.Unlock()
		if x.promised[name] == nil {
			x.promised[name] = map[string]bool{}
		}
		x.promised[name][id] = true
	}
	x.network = newNetwork(x.rig)
	x.network.delay = func() time.Duration { return time.Duration(x.delay.Load()) }
	t.Cleanup(func() { time.Sleep(10 * time.Second) }) // what is still on its way when the agent has ended
	x.disk = x.failingDisk(&disktest.FS{})
	return x
}

// failingDisk has a disk do what failing says.
func (x *torture) failingDisk(d *disktest.FS) *disktest.FS {
	d.Fault = func(op disktest.Op) disktest.Fault {
		f := x.failing.Load()
		if f == nil || !slices.Contains([]string{"write", "sync", "create"}, op.Kind) {
			return disktest.Fault{}
		}
		return *f
	}
	return d
}

func (x *torture) run() {
	x.begin()
	for time.Since(x.began) < 30*time.Minute {
		x.do()
		time.Sleep(time.Duration(x.random.Int64N(int64(15 * time.Second))))
		x.heal(time.Now())
	}
	x.heal(time.Now().Add(time.Hour))
	x.hub.ClearFaults()
	x.note("everything is healed")
	var wrong string
	for range 240 { // two hours: the longest wait between two tries is one
		time.Sleep(30 * time.Second)
		if wrong = x.differs(); wrong == "" {
			break
		}
	}
	if wrong != "" {
		x.t.Errorf("two hours after everything was healed: %s", wrong)
	}
	x.ledger()
}

func (x *torture) begin() { x.start(x.network.use, x.clock.use) }

// note writes the line of time that a failure shows.
func (x *torture) note(format string, args ...any) {
	x.t.Logf("%8.3fs  %s", time.Since(x.began).Seconds(), fmt.Sprintf(format, args...))
}

// do does one thing.
func (x *torture) do() {
	name := x.names[x.random.IntN(len(x.names))]
	long := 1 + time.Duration(x.random.Int64N(int64(90*time.Second)))
	seed := x.random.Uint64()
	kinds := []func(string, time.Duration, uint64){
		x.throw, x.throw, x.throw, x.killModule, x.powerCut, x.restart, x.cut, x.slow, x.hubAway, x.hubFault, x.hubFault, x.hubFault,
		x.halfOpen, x.breakDisk, x.breakDisk, x.step, x.storm, x.storm,
	}
	kinds[x.random.IntN(len(kinds))](name, long, seed)
}

func (x *torture) throw(name string, _ time.Duration, seed uint64) {
	n := int(1 + seed%20)
	x.note("%d coins into %s", n, name)
	x.coins[name] += n
	x.machines[name].insert(n)
}

func (x *torture) killModule(name string, _ time.Duration, _ uint64) {
	x.mu.Lock()
	i := x.running[name]
	x.mu.Unlock()
	if i == nil {
		return
	}
	x.note("kill the module of %s", name)
	x.count["module kills"]++
	i.Kill("killed by signal 9 (SIGKILL)")
}

// ends notes the end of an agent. While its disk takes nothing, a message is accepted when the hub has it, and the next
// agent cannot know of it: the module says it once more, under another id.
func (x *torture) ends() {
	if !x.broke.IsZero() {
		x.unkept = append(x.unkept, span{x.broke, time.Now().Add(10 * time.Second)}) // what is under way comes a little later
	}
}

// spared says whether the agent must not end now: with every second pair of seeds no message comes under two ids.
func (x *torture) spared() bool {
	x.mends()
	return x.careful && !x.broke.IsZero()
}

// mends looks whether the disk has taken everything again.
func (x *torture) mends() {
	d := x.disk.(*disktest.FS)
	full := false
	d.Set(func(d *disktest.FS) { full = d.Capacity > 0 })
	if f := x.failing.Load(); (f == nil || f.Err == nil) && !full && x.agent.Status().Storage.Error == "" {
		x.broke = time.Time{}
	}
}

// powerCut ends everything at once: the network first, so that the dying agent says nothing, then the disk and the modules.
func (x *torture) powerCut(_ string, _ time.Duration, seed uint64) {
	if x.spared() {
		return
	}
	x.note("the power goes, and comes back")
	x.count["power cuts"]++
	x.ends()
	away := x.network.err
	x.network.fail(errors.New("the power is off"))
	old := x.disk.(*disktest.FS)
	old.Cut()
	for _, name := range x.names {
		x.killModule(name, 0, 0)
		x.count["module kills"]--
	}
	x.stop()
	x.disk = x.failingDisk(old.Restart(seed))
	x.broke = time.Time{}
	if f := x.failing.Load(); f != nil && f.Err != nil {
		x.broke = time.Now()
	}
	delete(x.heals, "full disk")
	x.network.fail(away)
	x.begin()
}

func (x *torture) restart(string, time.Duration, uint64) {
	if x.spared() {
		return
	}
	x.note("the agent ends in order, and starts")
	x.count["agent restarts"]++
	x.ends()
	x.stop()
	x.begin()
}

func (x *torture) cut(_ string, long time.Duration, _ uint64) {
	x.note("no network for %v", long)
	x.count["network cuts"]++
	x.heals["network"] = time.Now().Add(long)
	x.network.fail(errors.New("network is unreachable"))
}

func (x *torture) slow(_ string, long time.Duration, seed uint64) {
	d := time.Duration(seed%3000) * time.Millisecond
	x.note("the network takes %v each way, for %v", d, long)
	x.heals["slow network"] = time.Now().Add(long)
	x.delay.Store(int64(d))
}

func (x *torture) hubAway(_ string, long time.Duration, _ uint64) {
	x.note("the hub is away for %v", long)
	x.count["hub restarts"]++
	x.heals["hub"] = time.Now().Add(long)
	x.hub.Down()
}

// hubFault adds a rule. No rule ends connections so often that a message would be taken for the cause and set aside.
func (x *torture) hubFault(name string, long time.Duration, seed uint64) {
	on := []string{"connect", "subscribe", "publish", "puback", "twin-get", "report", "desired"}[seed%7]
	do := []string{"refuse", "throttle", "drop", "delay", "kick"}[seed>>8%5]
	if on == "desired" && (do == "refuse" || do == "throttle") {
		do = "drop"
	}
	if on == "publish" && do == "refuse" {
		do = "kick" // a message that the hub refuses for good is dropped, and said: that is no loss of the agent's
	}
	f := hub.Fault{On: on, Do: do, Who: deviceID + "/" + name, Times: int(1 + seed>>16%3), For: long}
	if do == "delay" {
		f.Delay = time.Duration(seed>>24%5000) * time.Millisecond
	}
	x.note("fault: %s of %s, %s, %d times within %v", on, name, do, f.Times, long)
	x.count["faults"]++
	x.hub.Fault(f)
}

func (x *torture) halfOpen(name string, long time.Duration, seed uint64) {
	on := []string{"publish", "report", "puback"}[seed%3]
	x.note("the connection of %s is half open from its next %s on", name, on)
	x.count["half-open links"]++
	x.hub.Fault(hub.Fault{On: on, Do: "freeze", Who: deviceID + "/" + name, Times: 1, For: long})
}

func (x *torture) breakDisk(_ string, long time.Duration, seed uint64) {
	x.count["disk faults"]++
	x.heals["disk"] = time.Now().Add(long)
	var f disktest.Fault
	if x.broke.IsZero() && seed%5 != 3 {
		x.broke = time.Now()
	}
	switch seed % 5 {
	case 0:
		f.Err = syscall.ENOSPC
	case 1:
		f.Err = syscall.EIO
	case 2:
		f.Err, f.Keep = syscall.EIO, int(seed>>8%600)
	case 3:
		f.Delay = time.Duration(seed>>8%5000) * time.Millisecond
	case 4:
		delete(x.heals, "disk")
		x.heals["full disk"] = time.Now().Add(long)
		x.note("the disk is full for %v", long)
		x.disk.(*disktest.FS).Set(func(d *disktest.FS) { d.Capacity = 1 })
		return
	}
	x.note("each write takes %v, keeps %d bytes, and ends with %v, for %v", f.Delay, f.Keep, f.Err, long)
	x.failing.Store(&f)
}

func (x *torture) step(_ string, _ time.Duration, seed uint64) {
	off := []time.Duration{0, 0, 4 * time.Minute, -40 * time.Minute, -3 * time.Hour, 26 * time.Hour}[seed%6]
	x.note("the device's clock is off by %v", off)
	x.count["clock steps"]++
	x.clock.set(off)
}

func (x *torture) storm(name string, _ time.Duration, seed uint64) {
	n := int(1 + seed%100)
	x.note("%d changes of %s's desired properties", n, name)
	x.count["desired changes"] += n
	for i := range n {
		patch := fmt.Sprintf(`{"interval_ms":%d,"mode":"m%d"}`, 1+(seed+uint64(i))%10000, i)
		switch (seed + uint64(i)) % 7 {
		case 0:
			patch = `{"interval_ms":null}`
		case 1:
			patch = `{"interval_ms":"fast","colour":{"red":[1,2]}}`
		case 2:
			patch = `{"colour":null}`
		}
		x.desire(name, patch)
	}
}

// heal ends what was to end by now.
func (x *torture) heal(now time.Time) {
	defer x.mends()
	for what, at := range x.heals {
		if at.After(now) {
			continue
		}
		delete(x.heals, what)
		switch what {
		case "network":
			x.network.fail(nil)
		case "slow network":
			x.delay.Store(0)
		case "hub":
			x.hub.Up()
		case "disk":
			x.failing.Store(nil)
		case "full disk":
			x.disk.(*disktest.FS).Set(func(d *disktest.FS) { d.Capacity = 0 })
		}
		x.note("healed: %s", what)
	}
}
