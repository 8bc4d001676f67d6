// Package agent is Twinbay's agent: it gives each component of a device a module identity of its own at the hub.
//
// Each component has a bay: one goroutine that owns the component's state, with the module's process, the identity's
// session, its twin and its outbox around it. Bays run beside each other and know nothing of each other: what goes wrong
// in one is shown in its status, and a panic in one bay restarts that bay alone. See docs/design/architecture.md.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbay/twinbay/agent/clock"
	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/host"
	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/mqtt3"
	"github.com/twinbay/twinbay/agent/iothub/mqtt5"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/agent/systemd"
)

// Config is what an agent is made of.
type Config struct {
	File    *config.Config // the device file
	Version string         // of the agent, as status and the device's twin show it
	Log     *slog.Logger   // nil discards
	Logs    *local.Logs    // the ring behind Log, for `twinbay logs`; nil means that there is none

	// Dial makes the connection of one identity; nil means TCP with TLS by the device file.
	Dial func(id identity.ID) iothub.Dial
	// Network calls its function when a network link comes up, until ctx ends; nil means that nobody tells, and each
	// session finds out by its next try. It is netlink.Watch in a program.
	Network func(ctx context.Context, up func()) error
	// Clock is what the agent's clock is made of; the agent adds whom to ask and where to keep the time. The zero value
	// is the system's clock as it is, with a memory.
	Clock clock.Options
	// Start starts a component's module; nil means a process of its own.
	Start func(ctx context.Context, m config.Module) (host.Instance, error)
	// Load reads the device file anew, for Reload; nil means that there is none to read.
	Load func(context.Context) (*config.Config, error)
	// Disk is where state is kept; nil means the real one.
	Disk disk.FS

	// Tell tells the service manager how the agent is, by the states of package systemd; nil means that there is none.
	Tell func(states ...string)
	// Watchdog is how long the service manager waits for the next [systemd.Alive]; 0 means for ever.
	Watchdog time.Duration
	// Boot is the id of the system's start, [lives.Boot], by which early ends of the agent are counted; "" means that they are not.
	Boot string
	// LastWords is [lives.LastWords]; nil means that a breakdown leaves no words to the next start.
	LastWords func(path string) (before string, err error)
	// Hurry is closed when the end must not take time any more: modules are killed, and nothing more is sent. What was
	// accepted is on the disk. nil means never.
	Hurry <-chan struct{}
}

// Agent is one device. It is also what the technician's API shows: see [local.Agent].
type Agent struct {
	current atomic.Pointer[config.Config] // the device file in force
	load    func(context.Context) (*config.Config, error)
	reloads chan reload
	version string
	log     *slog.Logger
	logs    *local.Logs
	dial    func(identity.ID) iothub.Dial
	network func(context.Context, func()) error
	link    iothub.Signal // raised by network
	pace    iothub.Pace   // of the connects of all identities
	clock   *clock.Clock
	speak   iothub.Open // a test's own MQTT; nil means that of the device file
	start   func(context.Context, config.Module) (host.Instance, error)
	began   time.Time
	disk    *disk.Observed
	tell    func(states ...string)
	every   time.Duration // the watchdog's; 0 when there is none
	hurry   <-chan struct{}
	calls   chan func() // to Run's goroutine
	resumes chan chan error

	boot      string // "" when lives are not counted
	lastWords func(string) (string, error)
	life      life
	endpoint  endpoint

	host   *host.Host // nil unless modules are processes
	places []*place   // in the device file's order; replaced as a whole, guarded by mu
	device *device
	outbox atomic.Pointer[outbox.Log] // nil before Run
	links  *links

	mu     sync.Mutex
	safe   *local.SafeMode        // nil: not in safe mode
	owners map[identity.ID]string // whose session an identity is
	parts  map[string]string      // whose a piece of hardware is

	probe func(component, at string) // where a test makes something go wrong
}

var _ local.Agent = (*Agent)(nil)

// New puts an agent together. It does nothing until Run.
func New(c Config) (*Agent, error) {
	if c.File == nil {
		return nil, errors.New("agent: no device file")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Disk == nil {
		c.Disk = disk.OS{}
	}
	if c.Tell == nil {
		c.Tell = func(...string) {}
	}
	a := &Agent{
		load: c.Load, reloads: make(chan reload), version: c.Version, log: c.Log, logs: c.Logs, dial: c.Dial, network: c.Network, start: c.Start,
		began: time.Now(), disk: disk.Observe(c.Disk), tell: c.Tell, every: c.Watchdog, hurry: c.Hurry, calls: make(chan func()),
		links: newLinks(), resumes: make(chan chan error), boot: c.Boot, lastWords: c.LastWords,
		owners: map[identity.ID]string{}, parts: map[string]string{}, probe: func(string, string) {},
	}
	a.current.Store(c.File)
	if _, err := a.wire(); err != nil {
		return nil, err
	}
	a.clock = a.newClock(c.Clock)
	for _, m := range c.File.Modules {
		a.places = append(a.places, newPlace(a, m))
	}
	a.device = &device{agent: a, log: a.log, shown: newView()}
	return a, nil
}

// wire is the MQTT version of the device file.
func (a *Agent) wire() (iothub.Open, error) {
	switch a.file().Hub.MQTT {
	case "3.1.1":
		return mqtt3.Open, nil
	case "5":
		return mqtt5.Open, nil
	}
	return nil, a.file().Error([]string{"hub", "mqtt"}, fmt.Sprintf("MQTT %q is not known", a.file().Hub.MQTT), `write "3.1.1" or "5"`)
}

// StopBudget is how long an agent may take from the end of Run's context to its own. A service manager should wait for longer
// before it kills.
const StopBudget = 2 * time.Second

// Run runs the device until ctx ends, and then returns, within [StopBudget], when nothing is left running: the modules are
// asked to stop and what they still say is sent. It fails at once when another agent runs this device already.
func (a *Agent) Run(ctx context.Context) (err error) {
	if a.start == nil {
		h, err := host.Open(a.file().Agent.RunDir, a.file().Agent.Cgroup)
		if err != nil {
			return err
		}
		defer h.Close()
		if n := h.Leftovers(); n > 0 {
			a.log.Warn("the modules of an agent that was killed had left processes behind; they are ended", "processes", n)
		}
		a.host = h
	}
	defer func() { a.failed(err) }()
	safe := a.beginLife()
	if safe {
		holdPlaces(a.places)
	} else {
		a.openOutbox()
	}
	defer a.closeOutbox()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	api := make(chan error, 1)
	if a.file().Agent.Socket != "" {
		l, err := local.Listen(a.file().Agent.Socket, a.log)
		if err != nil {
			return err
		}
		wg.Go(func() { api <- local.Serve(ctx, l, a) })
	}
	a.claimInOrder()
	a.log.Info("the agent starts", "version", a.version, "components", len(a.places), "hub", a.file().Hub.Host)
	a.loadClock()
	wg.Go(func() { a.clock.Run(ctx) })
	if a.file().Agent.Metrics != "" {
		wg.Go(func() { a.serveMetrics(ctx) })
	}
	if a.network != nil {
		wg.Go(func() { a.watchNetwork(ctx) })
	}
	a.device.task.start(ctx, &wg, a.device.run)
	if !safe {
		a.startPlaces(ctx, &wg)
	}
	a.tell(systemd.Ready, systemd.Status(a.summary()))
	if a.every > 0 {
		wg.Go(func() { a.watch(ctx) })
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case f := <-a.calls:
			f()
		case err := <-api:
			// The components are what the device is for: they run on without their technician.
			a.log.Error("the technician's socket is closed", "error", err)
		case <-a.lifeOver():
			a.onLifeOver(ctx, &wg)
		case answer := <-a.resumes:
			answer <- a.resume(ctx, &wg)
		case r := <-a.reloads:
			r.answer <- a.apply(ctx, &wg, r.file)
		}
	}
	a.lasted(&wg) // as asked
	a.log.Info("the agent stops")
	a.tell(systemd.Stopping, systemd.Status("stopping"))
	return nil
}

// file is the device file in force.
func (a *Agent) file() *config.Config { return a.current.Load() }

// all are the components' places, in the device file's order.
func (a *Agent) all() []*place {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.places
}

// watchNetwork has sessions that wait for their next try connect at once when a network link comes up.
func (a *Agent) watchNetwork(ctx context.Context) {
	err := a.network(ctx, func() {
		a.log.Debug("a network link has come up")
		a.link.Raise()
	})
	if err != nil {
		a.log.Debug("nobody tells when a network link comes up: each connection waits for its next try", "error", err)
	}
}

// open makes the session of one identity. Its errors are for the person who can mend what they name.
func (a *Agent) open(owner string, key []string, ref string, log *slog.Logger, shown *view) (*iothub.Session, error) {
	cred, err := identity.Load(ref)
	if err != nil {
		return nil, a.file().Error(key, err.Error(), "")
	}
	shown.set(func(v *view) { v.id = cred.ID })
	switch {
	case cred.Host != a.file().Hub.Host:
		return nil, a.file().Error(key, fmt.Sprintf("the credential is for hub %s, hub.host is %s", cred.Host, a.file().Hub.Host), "the two have to agree")
	case owner != "" && cred.ID.Module == "":
		return nil, a.file().Error(key, fmt.Sprintf("the credential of device %s, not of a module", cred.ID), "give the component a module identity of its own")
	case owner == "" && cred.ID.Module != "":
		return nil, a.file().Error(key, fmt.Sprintf("the credential of module %s, not of the device", cred.ID), "name the device's own credential")
	}
	if other, ok := a.claim(cred.ID, owner); !ok {
		return nil, a.file().Error(key, fmt.Sprintf("%s is the identity of component %s already", cred.ID, other), "give each component a module identity of its own")
	}
	var ca []byte
	if file := a.file().Hub.CAFile; file != "" {
		if ca, err = os.ReadFile(file); err != nil {
			return nil, a.file().Error([]string{"hub", "ca_file"}, err.Error(), "name the hub's CA, or leave the key out for Azure")
		}
	}
	wire, err := a.wire()
	if err != nil {
		return nil, err
	}
	if a.speak != nil {
		wire = a.speak
	}
	c := iothub.Config{Host: a.file().Hub.Host, Address: a.file().Hub.Address, CA: ca, Credential: cred, Wire: wire, Messages: owner == "", Log: log,
		Reload: func() (identity.Credential, error) { return identity.Load(ref) },
		Pace:   &a.pace, Network: &a.link, Clock: a.clock}
	if a.dial != nil {
		c.Dial = a.dial(cred.ID)
	}
	return iothub.New(c), nil
}

// claim gives an identity to one component: two with the same one would throw each other off the hub for ever.
func (a *Agent) claim(id identity.ID, owner string) (other string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for known, who := range a.owners {
		if who == owner {
			delete(a.owners, known)
		}
	}
	if other, taken := a.owners[id]; taken {
		return other, false
	}
	a.owners[id] = owner
	return "", true
}

// claimInOrder settles which of two components with the same credential gets the identity: the first by name, at every
// start. What cannot be read yet is complained of, and claimed, when its session is opened.
func (a *Agent) claimInOrder() {
	for _, p := range a.all() {
		if len(p.cfg.Problems) > 0 {
			continue
		}
		if cred, err := identity.Load(p.cfg.Credential); err == nil {
			a.claim(cred.ID, p.cfg.Name)
		}
	}
}

// Status implements [local.Agent].
func (a *Agent) Status() local.Status {
	own := a.device.shown.component()
	a.device.shown.mu.Lock()
	id := a.device.shown.id.Device
	a.device.shown.mu.Unlock()
	s := local.Status{
		Version: a.version, Device: id, Host: a.file().Hub.Host, Address: a.file().Hub.Address, Protocol: "mqtt " + a.file().Hub.MQTT,
		Started: a.began, Session: own.Link, Versions: own.Versions, Components: []local.Component{},
	}
	s.Safe, s.Self, s.Metrics = a.safeMode(), self(), a.endpoint.show(a.file().Agent.Metrics)
	if box := a.outbox.Load(); box != nil {
		s.Storage = local.StorageOf(box.Status())
	}
	s.Storage.StateBytes = a.disk.Written()
	if oldest := a.disk.Oldest(); !oldest.IsZero() && time.Since(oldest) > slowCall {
		s.Storage.Busy = oldest
	}
	t := a.clock.Status()
	s.Messages = a.device.messages()
	s.Clock = local.Clock{Source: string(t.Source), OffsetS: t.Offset.Seconds(), Note: t.Note}
	for _, p := range a.all() {
		c := p.shown.component()
		c.Name, c.Module, c.Queue = p.cfg.Name, p.cfg.Use, p.queue()
		c.Inputs = a.links.status(p.cfg.Links)
		s.Components = append(s.Components, c)
	}
	return s
}

func (a *Agent) place(name string) (*place, error) {
	for _, p := range a.all() {
		if p.cfg.Name == name {
			return p, nil
		}
	}
	return nil, local.ErrNoComponent
}

// Twin implements [local.Agent].
func (a *Agent) Twin(_ context.Context, component string) (local.TwinView, error) {
	p, err := a.place(component)
	if err != nil {
		return local.TwinView{}, err
	}
	t := p.shown.twin()
	t.Component = component
	return t, nil
}

// Invoke implements [local.Agent]. It needs no hub.
func (a *Agent) Invoke(ctx context.Context, component, method string, payload json.RawMessage) (int, json.RawMessage, error) {
	p, err := a.place(component)
	if err != nil {
		return 0, nil, err
	}
	r, err := p.invoke(ctx, method, payload)
	return r.status, r.payload, err
}

// Restart implements [local.Agent].
func (a *Agent) Restart(_ context.Context, component string) (local.Restarted, error) {
	p, err := a.place(component)
	if err != nil {
		return local.Restarted{}, err
	}
	was, err := p.restart()
	return local.Restarted{Component: component, Was: was}, err
}

// Logs implements [local.Agent].
func (a *Agent) Logs(ctx context.Context, q local.LogQuery) (<-chan local.LogLine, error) {
	if _, err := a.place(q.Component); err != nil && q.Component != "" {
		return nil, err
	}
	if a.logs == nil {
		none := make(chan local.LogLine)
		close(none)
		return none, nil
	}
	return a.logs.Query(ctx, q), nil
}
