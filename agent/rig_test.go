package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/disk/disktest"
	"github.com/twinbay/twinbay/agent/host"
	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// TestMain lets the test binary be the program of modules.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Getenv(modkit.Handshake.MagicCookieKey) != "" {
		modkit.Serve(&counter{machine: newMachine()}, map[string]hal.Driver{})
	}
	os.Exit(m.Run())
}

// inMemory is a module in the test's process, behind the real gRPC.
type inMemory struct {
	remote      *modkit.Remote
	description modkit.Description
	service     *modkit.Service
	hangUp      func()
	done        chan struct{}

	mu     sync.Mutex
	reason string
	once   sync.Once
}

// startInMemory starts a module; short leaves out HTTP/2.
func startInMemory(ctx context.Context, m modkit.Module, drivers map[string]hal.Driver, log *slog.Logger, short bool) (*inMemory, error) {
	i := &inMemory{done: make(chan struct{})}
	i.service = modkit.NewService(m, drivers, log, func(err error) {
		if err != nil {
			go i.Kill(err.Error()) // as the process would end
		}
	})
	if short {
		conn := newDirect()
		i.service.Register(conn)
		i.hangUp, i.remote = func() { conn.Close() }, modkit.NewRemote(conn)
	} else {
		server := grpc.NewServer()
		i.service.Register(server)
		listener := bufconn.Listen(64 << 10)
		go server.Serve(listener)
		conn, err := grpc.NewClient("passthrough:module", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			return nil, err
		}
		i.hangUp, i.remote = func() { server.Stop(); conn.Close() }, modkit.NewRemote(conn)
	}
	var err error
	if i.description, err = i.remote.Describe(ctx); err != nil {
		i.Kill("")
		return nil, err
	}
	return i, nil
}

func (i *inMemory) Remote() *modkit.Remote          { return i.remote }
func (i *inMemory) Description() modkit.Description { return i.description }
func (i *inMemory) Limits() []host.Limit            { return nil }
func (i *inMemory) PID() int                        { return 4711 }
func (i *inMemory) Done() <-chan struct{}           { return i.done }

func (i *inMemory) Exit() host.Exit {
	i.mu.Lock()
	defer i.mu.Unlock()
	return host.Exit{Reason: i.reason}
}

func (i *inMemory) Kill(reason string) {
	i.mu.Lock()
	if i.reason == "" {
		i.reason = reason
	}
	i.mu.Unlock()
	i.once.Do(func() {
		i.hangUp()
		close(i.done)
	})
}

func (i *inMemory) Stop(ctx context.Context) {
	i.service.Stop(ctx)
	i.Kill("stopped by the agent")
}

// rig is a hub and a device in one process.
type rig struct {
	t      testing.TB
	hub    *hubtest.Hub
	file   *config.Config
	agent  *Agent
	cancel context.CancelFunc
	ended  chan struct{}
	logs   *local.Logs
	folder string
	disk   disk.FS // in memory, unless a test sets another
	load   func(context.Context) (*config.Config, error)
	quiet  bool                       // logs nothing below a warning
	short  bool                       // modules without HTTP/2 between
	watch  func(component, id string) // of each message that is accepted; nil does not

	modules map[string]func(component string) modkit.Module // by "use"; others are counters
	drivers map[string]hal.Driver                           // of their wires

	machines map[string]*machine
	mu       sync.Mutex
	running  map[string]*inMemory
	lives    map[string]int
}

const deviceID = "vending-1"

// newRig makes a device with a component for each name. extra is added to the device file.
func newRig(t testing.TB, mqtt, extra string, names ...string) *rig {
	t.Helper()
	r := &rig{t: t, hub: hubtest.New(t, hub.Options{ModuleLimit: 50}), machines: map[string]*machine{}, running: map[string]*inMemory{}, lives: map[string]int{}, logs: local.NewLogs(0)}
	r.folder, r.disk = t.TempDir(), &disktest.FS{}
	r.write(r.folder, "device", r.hub.Device(deviceID))
	for _, name := range names {
		r.add(name)
	}
	file, err := r.parse(r.text(mqtt, extra, names...))
	if file == nil { // what is wrong with single components may be the test
		t.Fatal(err)
	}
	r.file = file
	return r
}

// add makes a component's hardware and identity.
func (r *rig) add(name string) {
	r.t.Helper()
	r.mu.Lock()
	r.machines[name] = newMachine()
	r.mu.Unlock()
	r.write(r.folder, name, r.hub.Module(deviceID, name))
}

// text is a device file with a component for each name.
func (r *rig) text(mqtt, extra string, names ...string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "[hub]\nhost = %q\nmqtt = %q\n[agent]\nmodules = %q\n[device]\ncredential = \"file:device.cred\"\n", r.hub.Host(), mqtt, os.Args[0])
	for _, name := range names {
		fmt.Fprintf(&text, "[modules.%s]\nuse = \"counter\"\ncredential = \"file:%s.cred\"\n", name, name)
		if !strings.Contains(extra, "modules."+name+".wiring") {
			fmt.Fprintf(&text, "wiring = { port = \"serial:tty%s\" }\n", name)
		}
	}
	return text.String() + extra
}

// parse reads a device file as the rig's.
func (r *rig) parse(text string) (*config.Config, error) {
	file, err := config.Parse(filepath.Join(r.folder, "device.toml"), []byte(text), nil)
	if file != nil {
		file.Agent.Socket = ""
		file.Agent.RunDir = filepath.Join(r.folder, "run")
		file.Agent.StateDir = filepath.Join(r.folder, "state")
	}
	return file, err
}

func (r *rig) write(folder, name, credential string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name+".cred"), []byte(credential+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// start runs the agent; it ends with the test.
func (r *rig) start(prepare ...func(*Agent)) {
	r.t.Helper()
	over := make(chan struct{})
	level := slog.LevelDebug
	if r.quiet {
		level = slog.LevelWarn
	}
	drivers := map[string]hal.Driver{"stuck": stuckDriver{end: over}}
	r.t.Cleanup(func() { close(over) })
	maps.Copy(drivers, r.drivers)
	a, err := New(Config{
		File: r.file, Version: "1.2.3", Logs: r.logs, Disk: r.disk, Load: r.load,
		Log:  slog.New(promises{r.logs.Handler(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: level})), "", r.watch}),
		Dial: func(identity.ID) iothub.Dial { return r.hub.DialTLS },
		Start: func(ctx context.Context, m config.Module) (host.Instance, error) {
			r.mu.Lock()
			machine := r.machines[m.Name]
			r.lives[m.Name]++
			r.mu.Unlock()
			machine.mu.Lock()
			absent := machine.absent
			machine.mu.Unlock()
			if absent != "" {
				return nil, errors.New(absent)
			}
			var module modkit.Module = &counter{machine: machine}
			if other := r.modules[m.Use]; other != nil {
				module = other(m.Name)
			}
			i, err := startInMemory(ctx, module, drivers, slog.New(slog.DiscardHandler), r.short)
			if err != nil {
				return nil, err
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.running[m.Name] = i
			return i, nil
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range prepare {
		p(a)
	}
	r.run(a)
}

func (r *rig) run(a *Agent) {
	ctx, cancel := context.WithCancel(context.Background())
	r.agent, r.cancel, r.ended = a, cancel, make(chan struct{})
	go func() {
		defer close(r.ended)
		if err := a.Run(ctx); err != nil {
			r.t.Errorf("the agent: %v", err)
		}
	}()
	r.t.Cleanup(r.stop)
}

func (r *rig) stop() {
	r.cancel()
	<-r.ended
}

func (r *rig) kill(name, reason string) {
	r.mu.Lock()
	i := r.running[name]
	r.mu.Unlock()
	i.Kill(reason)
}

// telemetry waits for the next message of a component and answers its body.
func (r *rig) telemetry(name string) string {
	r.t.Helper()
	return string(r.hub.Wait(r.t, func(e hub.Event) bool { return e.Kind == "telemetry" && e.ModuleID == name }).Body)
}

// reported waits until a component has reported all of want (JSON).
func (r *rig) reported(name, want string) {
	r.t.Helper()
	r.hub.WaitReported(r.t, hub.ID{Device: deviceID, Module: name}.String(), want)
}

func (r *rig) desire(name, patch string) {
	r.t.Helper()
	if _, err := r.hub.PatchTwin(hub.ID{Device: deviceID, Module: name}, json.RawMessage(`{"properties":{"desired":`+patch+`}}`), ""); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) invoke(name, method, payload string) hub.MethodResult {
	r.t.Helper()
	request := hub.MethodRequest{Name: method, Connect: 30 * time.Second}
	if payload != "" {
		request.Payload = json.RawMessage(payload)
	}
	result, err := r.hub.Invoke(r.t.Context(), hub.ID{Device: deviceID, Module: name}, request)
	if err != nil {
		r.t.Errorf("%s of %s: %v", method, name, err)
	}
	return result
}

func (r *rig) component(name string) local.Component {
	r.t.Helper()
	for _, c := range r.agent.Status().Components {
		if c.Name == name {
			return c
		}
	}
	r.t.Fatalf("status has no component %s", name)
	return local.Component{}
}

// long leaves a test of hours and many connections, each with its handshakes, to `make test`: the race detector makes it
// ten times as slow, and the shorter tests take the same ways.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("long")
	}
}

// promises is a log that tells of each message that is accepted.
type promises struct {
	slog.Handler
	component string
	watch     func(component, id string)
}

func (p promises) Enabled(ctx context.Context, level slog.Level) bool {
	return p.watch != nil || p.Handler.Enabled(ctx, level)
}

func (p promises) Handle(ctx context.Context, r slog.Record) error {
	if p.watch != nil && r.Message == acceptedLine {
		r.Attrs(func(a slog.Attr) bool { p.watch(p.component, a.Value.String()); return false })
	}
	if !p.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return p.Handler.Handle(ctx, r)
}

func (p promises) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == local.ComponentKey {
			p.component = a.Value.String()
		}
	}
	p.Handler = p.Handler.WithAttrs(attrs)
	return p
}
