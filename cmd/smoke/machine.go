package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/rig"
)

const (
	device  = "vending-1"
	patient = 15 * time.Second // for anything that has no limit of its own: a slow machine is no failure
)

var modules = []string{"climate", "coins", "door"}

// machine is a vending machine under test: the simulator and, once started, the agent.
type machine struct {
	bin, profile, dir string
	keep              bool // leave the folder: somebody wants to look into it

	sim, agent *process
	env        simulator.Env
	hub        *admin.Client
	events     *journal
	stopEvents context.CancelFunc
}

func (m *machine) program(name string) string { return filepath.Join(m.bin, name) }

// startHub starts the simulator, whose world stands still, and listens to its events.
func (m *machine) startHub(ctx context.Context) error {
	var err error
	m.sim, m.env, err = startSimulator(m.program("twinbay-sim"), m.dir, "--still", "--seed", filepath.Join(m.profile, "seed.toml"))
	if err != nil {
		return err
	}
	if m.hub, err = m.client(); err != nil {
		return err
	}
	return m.listen(ctx)
}

// startSimulator starts twinbay-sim on free ports and returns once it serves.
func startSimulator(program, dir string, args ...string) (*process, simulator.Env, error) {
	ready := make(chan struct{})
	var once sync.Once
	out := lines(func([]byte) { once.Do(func() { close(ready) }) })
	p, err := start(out, program, append([]string{"serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0"}, args...)...)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-ready:
	case <-p.done:
		return p, nil, fmt.Errorf("twinbay-sim ended: %w", p.err)
	case <-time.After(patient):
		return p, nil, errors.New("twinbay-sim does not come up")
	}
	text, err := os.ReadFile(filepath.Join(dir, "hub.env"))
	if err != nil {
		return p, nil, err
	}
	env, err := simulator.ParseEnv(text)
	return p, env, err
}

func (m *machine) client() (*admin.Client, error) {
	ca, err := os.ReadFile(m.env["CA_FILE"])
	if err != nil {
		return nil, err
	}
	return admin.New(admin.Config{ConnectionString: m.env["HUB_CS"], Address: m.env["HUB_IP"] + ":" + m.env["HTTPS_PORT"], CA: ca})
}

func (m *machine) listen(ctx context.Context) error {
	ctx, m.stopEvents = context.WithCancel(ctx)
	m.events = &journal{changed: make(chan struct{})}
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		failed <- m.hub.Events(ctx, func() { close(ready) }, func(e admin.Event) error {
			m.events.add(e)
			return nil
		})
	}()
	select {
	case <-ready:
		return nil
	case err := <-failed:
		return fmt.Errorf("event stream: %w", err)
	}
}

// startAgent starts the agent with the profile's device file, speaking the given MQTT version.
func (m *machine) startAgent(mqtt string) error {
	text, err := os.ReadFile(filepath.Join(m.profile, "demo.toml"))
	if err != nil {
		return err
	}
	program, err := filepath.Abs(m.program("twinbay-modules"))
	if err != nil {
		return err
	}
	file := strings.NewReplacer(`mqtt    = "5"`, `mqtt = "`+mqtt+`"`, "../bin/twinbay-modules", program).Replace(string(text))
	if !strings.Contains(file, `mqtt = "`+mqtt+`"`) || !strings.Contains(file, program) {
		return errors.New("demo.toml has changed: smoke no longer finds its mqtt and modules lines")
	}
	path := filepath.Join(m.dir, "device.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		return err
	}
	m.agent, err = start(nil, m.program("twinbay"), "run", "--config", path,
		"--hub-address", m.env["HUB_IP"]+":"+m.env["MQTT_PORT"])
	return err
}

// twinbay runs the technician's CLI and reads its JSON.
func (m *machine) twinbay(ctx context.Context, answer any, args ...string) error {
	out, err := run(ctx, m.program("twinbay"), append([]string{"--socket", filepath.Join(m.dir, "twinbay.sock")}, args...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, answer)
}

func (m *machine) status(ctx context.Context) (local.Status, error) {
	var s local.Status
	return s, m.twinbay(ctx, &s, "status", "--json")
}

func (m *machine) component(ctx context.Context, name string) (local.Component, error) {
	s, err := m.status(ctx)
	if err != nil {
		return local.Component{}, err
	}
	for _, c := range s.Components {
		if c.Name == name {
			return c, nil
		}
	}
	return local.Component{}, fmt.Errorf("status shows no component %s", name)
}

// rig tells the fake hardware something, by the command a tester would use.
func (m *machine) rig(ctx context.Context, args ...string) error {
	_, err := run(ctx, m.program("twinbay-sim"), append([]string{"rig", "--dir", m.dir}, args...)...)
	return err
}

// credited is how many coins the acceptor has taken since it was plugged in.
func (m *machine) credited(ctx context.Context) (int, error) {
	s, err := rig.Client{Dir: m.dir}.Status(ctx)
	return s.Coins.Credited, err
}

// down ends whatever still runs.
func (m *machine) down() {
	if m.stopEvents != nil {
		m.stopEvents()
	}
	for _, p := range []*process{m.agent, m.sim} {
		if p != nil {
			p.kill()
		}
	}
	m.agent, m.sim, m.stopEvents = nil, nil, nil
}

// journal keeps the hub's events in their order.
type journal struct {
	mu      sync.Mutex
	all     []admin.Event
	changed chan struct{} // closed and replaced at each change
}

func (j *journal) add(e admin.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all = append(j.all, e)
	close(j.changed)
	j.changed = make(chan struct{})
}

// mark is the place after the newest event: what comes later has to do with what is done next.
func (j *journal) mark() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.all)
}

// since answers the events after a mark, and a channel that is closed when there are more.
func (j *journal) since(mark int) ([]admin.Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all[mark:], j.changed
}

// wait answers when enough says that the events after a mark are what was hoped for.
func (j *journal) wait(ctx context.Context, what string, mark int, enough func([]admin.Event) bool) error {
	limit := time.After(patient)
	for {
		events, more := j.since(mark)
		if enough(events) {
			return nil
		}
		select {
		case <-more:
		case <-limit:
			return fmt.Errorf("waited %s for %s; what came: %s", patient, what, digest(events))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func digest(events []admin.Event) string {
	var b strings.Builder
	for _, e := range events[max(0, len(events)-10):] {
		b.WriteString("\n    " + simulator.EventLine(e))
	}
	return b.String()
}
