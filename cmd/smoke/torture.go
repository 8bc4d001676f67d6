package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/rig"
)

const (
	settleLimit = 2 * time.Minute        // for the two sides to agree, once everything is healed
	upLimit     = 20 * time.Second       // for a program to be there, on a machine that is busy
	lookEvery   = 200 * time.Millisecond // at what does not tell when it changes
)

// torture does to a device, by a seed, what can happen to one, and holds the two sides against each other in the end: the
// agent, its modules and the hub are processes, the network is a proxy. The machine's hardware lives in this process.
//
// The seed decides what is done and in which order. The machine that it runs on decides what that meets.
type torture struct {
	*machine
	seed   uint64
	random *rand.Rand
	began  time.Time
	ctx    context.Context

	mqtt, rest *proxy // the ways to the hub; the agent asks the second for the time alone
	local      *local.Client
	agentLog   *os.File
	kills      int // ends of the agent in a row that were not asked for
	marks      int
	heals      map[string]time.Time // what goes wrong now, and when it ends
	stopped    int                  // the module that SIGSTOP holds; 0: none
	count      map[string]int       // of what was done

	mu    sync.Mutex
	lines []string // of time
	heard *heard
}

// tortured is torture for so long, as something to do with a machine.
func tortured(seed uint64, long time.Duration, verbose bool) func(*machine, context.Context) error {
	return func(m *machine, ctx context.Context) error {
		x := &torture{
			machine: m, seed: seed, random: rand.New(rand.NewPCG(seed, 0x746f7274)), began: time.Now(), ctx: ctx, // any second word
			heals: map[string]time.Time{}, count: map[string]int{}, heard: &heard{changed: make(chan struct{})},
		}
		fmt.Printf("torture of real processes: seed %d, for %s\n", seed, long)
		err := x.run(long)
		if err == nil && !verbose {
			return nil
		}
		slices.Sort(x.lines) // by their times
		for _, line := range x.lines {
			fmt.Println(line)
		}
		m.keep = true
		fmt.Printf("the agent's log and its state are in %s\nto repeat: make torture-processes SEED=%d FOR=%s\n", m.dir, seed, long)
		return err
	}
}

func (x *torture) run(long time.Duration) (err error) {
	end, err := x.prepare()
	defer end()
	if err != nil {
		return err
	}
	over, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	x.ctx = over
	customers, leave := context.WithCancel(over)
	gone := make(chan struct{})
	defer func() { leave(); <-gone }()
	go func() {
		defer close(gone)
		if err := x.customers(customers); err != nil {
			cancel(err)
		}
	}()
	for time.Since(x.began) < long {
		if err := x.do(); err != nil {
			return errors.Join(err, context.Cause(over))
		}
		x.pause(time.Duration(100+x.random.IntN(800)) * time.Millisecond)
		x.heal(time.Now())
	}
	leave()
	<-gone
	if err := x.healAll(); err != nil {
		return errors.Join(err, context.Cause(over))
	}
	if err := x.settle(); err != nil {
		return err
	}
	if err := x.agent.stop(patient); err != nil {
		return fmt.Errorf("the agent's end: %w", err)
	}
	return x.nothingLeft()
}

// prepare starts everything. end ends what down does not.
func (x *torture) prepare() (end func(), err error) {
	var ends []func()
	end = func() {
		for _, f := range slices.Backward(ends) {
			f()
		}
	}
	machine, err := rig.Start(x.ctx, rig.Config{Dir: x.hardware()})
	if err != nil {
		return end, err
	}
	ends = append(ends, func() { _ = machine.Close() })
	for _, p := range []**proxy{&x.mqtt, &x.rest} {
		if *p, err = newProxy(); err != nil {
			return end, err
		}
		ends = append(ends, (*p).close)
	}
	if err := x.startHub(); err != nil {
		return end, err
	}
	if err := x.deviceFile(); err != nil {
		return end, err
	}
	if err := x.desire(x.ctx, "climate", map[string]any{"interval_ms": 250}); err != nil { // something is always on its way
		return end, err
	}
	if x.agentLog, err = os.Create(filepath.Join(x.dir, "agent.log")); err != nil {
		return end, err
	}
	x.local = local.Dial(filepath.Join(x.dir, "twinbay.sock"))
	ends = append(ends, x.local.Close, func() { _ = x.agentLog.Close() })
	ends = append(ends, func() { // before all that it needs
		if x.agent != nil {
			x.agent.kill()
		}
	})
	if err := x.startAgent(); err != nil {
		return end, err
	}
	// What the acceptor has counted before the first baseline is nobody's.
	return end, x.until(upLimit, func() error {
		l, err := x.ledger()
		if err == nil && l.baseline < 0 {
			err = errors.New("the coins module has not begun to count")
		}
		return err
	})
}

func (x *torture) hardware() string { return filepath.Join(x.dir, "rig") }

// deviceFile is the profile's, with the hardware in its own folder, the proxies, and a log that tells of each accepted id.
func (x *torture) deviceFile() error {
	text, err := os.ReadFile(filepath.Join(x.profile, "demo.toml"))
	if err != nil {
		return err
	}
	modules, err := filepath.Abs(x.program("twinbay-modules"))
	if err != nil {
		return err
	}
	file := string(text)
	mqtt := []string{"3.1.1", "5"}[x.seed%2]
	for _, change := range [][2]string{
		{`mqtt    = "5"`, fmt.Sprintf("mqtt = %q\ntime_url = \"https://localhost:%s/\"", mqtt, port(x.rest.address()))},
		{`state_dir = "state"`, "state_dir = \"state\"\nlog_level = \"debug\""},
		{"../bin/twinbay-modules", modules},
		{"serial:ttyCOIN", "serial:rig/ttyCOIN"},
		{"sim:rig.sock", "sim:rig/rig.sock"},
	} {
		if !strings.Contains(file, change[0]) {
			return fmt.Errorf("demo.toml has changed: the torture no longer finds %s", change[0])
		}
		file = strings.ReplaceAll(file, change[0], change[1])
	}
	return os.WriteFile(filepath.Join(x.dir, "device.toml"), []byte(file), 0o600)
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// startHub starts the hub, which knows what it knew, and lets the agent to it once its events are heard.
func (x *torture) startHub() error {
	var err error
	x.sim, x.env, err = startSimulator(x.program("twinbay-sim"), x.dir, "--no-rig", "--state", filepath.Join(x.dir, "hub.state"),
		"--seed", filepath.Join(x.profile, "seed.toml"))
	if err != nil {
		return err
	}
	if x.hub, err = x.client(); err != nil {
		return err
	}
	if x.stopEvents, err = x.heard.listen(x.ctx, x.hub); err != nil {
		return err
	}
	for p, name := range map[*proxy]string{x.mqtt: "MQTT_PORT", x.rest: "HTTPS_PORT"} {
		p.aim(x.env["HUB_IP"] + ":" + x.env[name])
		p.cut(false)
	}
	return nil
}

// startAgent starts the agent and waits until it answers. After five ends in a row that nobody asked for it is in safe mode,
// which this leaves as a technician would.
func (x *torture) startAgent() error {
	p := prepare(x.program("twinbay"), "run", "--json", "--config", filepath.Join(x.dir, "device.toml"), "--hub-address", x.mqtt.address())
	p.cmd.Env = append(os.Environ(), "TWINBAY_TORTURE_DISK="+x.order(), "TWINBAY_TORTURE_CLOCK="+x.clock())
	p.cmd.Stderr = x.agentLog
	if err := p.start(); err != nil {
		return err
	}
	x.agent = p
	var s local.Status
	err := x.until(upLimit, func() error {
		select {
		case <-p.done:
			return &final{fmt.Errorf("the agent ended: %w", p.err)}
		default:
		}
		var err error
		s, err = x.local.Status(x.ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("the agent does not answer: %w", err)
	}
	if s.Safe == nil {
		return nil
	}
	x.note("safe mode after %d early ends: resume", s.Safe.EarlyEnds)
	x.count["safe modes"]++
	x.kills = 0
	return x.local.Resume(x.ctx)
}

// final is an error that no further look mends.
type final struct{ error }

func (f *final) Unwrap() error { return f.error }

// until looks again and again until there is no error.
func (x *torture) until(limit time.Duration, look func() error) error {
	end := time.Now().Add(limit)
	last := ""
	for {
		err := look()
		if err != nil && fmt.Sprintf("%.80s", err) != last { // the rest are times and numbers
			last = fmt.Sprintf("%.80s", err)
			x.note("not yet: %s", err)
		}
		if _, ok := errors.AsType[*final](err); err == nil || ok {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s: %w", limit, err)
		}
		if x.pause(lookEvery); x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
	}
}

func (x *torture) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-x.ctx.Done():
	}
}

// note writes the line of time that a failure shows.
func (x *torture) note(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lines = append(x.lines, fmt.Sprintf("%8.3fs  %s", time.Since(x.began).Seconds(), fmt.Sprintf(format, args...)))
}

// customers throw coins in, open the door and take products. Dice of their own: what they do must not depend on how often
// the others are thrown.
func (x *torture) customers(ctx context.Context) error {
	random := rand.New(rand.NewPCG(x.seed, 0x636f696e))
	machine := rig.Client{Dir: x.hardware()}
	open := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(250+random.IntN(600)) * time.Millisecond):
		}
		var err error
		switch n := random.IntN(10); {
		case n < 7:
			_, err = machine.Coin(ctx, []string{"EU050A", "EU100A", "EU200A"}[random.IntN(3)])
		case n < 9:
			open = !open
			err = machine.Door(ctx, open)
		default:
			err = machine.Beam(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// settle waits until the two sides agree, and says what was done and what came of it.
func (x *torture) settle() error {
	x.note("everything is healed")
	healed := time.Now()
	for _, name := range modules { // climate would else say something new all the time
		doc := map[string]any{"interval_ms": nil, "poll_interval_ms": nil, "open_alarm_s": nil, "colour": "last"}
		if name == "climate" {
			doc["interval_ms"] = 3_600_000
		}
		if err := x.desire(x.ctx, name, doc); err != nil {
			return err
		}
	}
	var l *ledger
	err := x.until(settleLimit, func() error {
		if err := x.differs(); err != nil {
			return err
		}
		var err error
		if l, err = x.ledger(); err != nil {
			return &final{err}
		}
		return l.missing()
	})
	if err != nil {
		return fmt.Errorf("once everything was healed: %w", err)
	}
	if err := l.wrong(); err != nil {
		return err
	}
	for _, at := range l.again {
		x.lines = append(x.lines, fmt.Sprintf("%8.3fs  something came again", at.Sub(x.began).Seconds()))
	}
	var done []string
	for what, n := range x.count {
		done = append(done, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(done)
	fmt.Printf("done: %s\n%s\ntwins equal on both sides; all of it %.1f s after the last fault\n", strings.Join(done, ", "), l, time.Since(healed).Seconds())
	return nil
}

// differs says what the two sides do not agree on yet.
func (x *torture) differs() error {
	s, err := x.local.Status(x.ctx)
	if err != nil {
		return err
	}
	if len(s.Components) != len(modules) || s.Storage.Error != "" {
		return fmt.Errorf("%d components; the outbox: %s", len(s.Components), s.Storage.Error)
	}
	for _, c := range s.Components {
		if c.Process.State != local.Running || !c.Link.Connected || c.Queue.Queued+c.Queue.InFlight+c.Queue.Held > 0 {
			return fmt.Errorf("%s is %s (%s), connected: %v (%s); %d messages wait, %d in flight, %d held", c.Name, c.Process.State,
				c.Process.LastExit, c.Link.Connected, c.Link.LastError, c.Queue.Queued, c.Queue.InFlight, c.Queue.Held)
		}
		for reason, n := range c.Queue.Dropped {
			return &final{fmt.Errorf("%s has dropped %d messages: %s", c.Name, n, reason)}
		}
		v, err := x.local.Twin(x.ctx, c.Name)
		if err != nil {
			return err
		}
		t, err := x.hubTwin(x.ctx, c.Name)
		if err != nil {
			return err
		}
		for _, side := range []struct {
			what  string
			hub   map[string]json.RawMessage
			agent json.RawMessage
		}{{"desired", t.Properties.Desired, v.Desired}, {"reported", t.Properties.Reported, v.Reported}} {
			hub, err := plain(side.hub)
			if err != nil {
				return err
			}
			agent, err := plain(side.agent)
			if err != nil {
				return err
			}
			if hub != agent {
				return fmt.Errorf("%s properties of %s: %s at the hub, %s at the agent", side.what, c.Name, hub, agent)
			}
		}
	}
	return nil
}

// plain is a twin's section without what the hub adds, in one order.
func plain(section any) (string, error) {
	raw, err := json.Marshal(section)
	if err != nil {
		return "", err
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", err
	}
	delete(doc, "$metadata")
	delete(doc, "$version")
	raw, err = json.Marshal(doc)
	return string(raw), err
}
