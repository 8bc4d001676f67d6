package modkit

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/twinbay/twinbay/hal"
)

// PluginName is the name that the agent dispenses.
const PluginName = "module"

// Handshake keeps an agent and a module of different contracts apart, and a person from starting a module by hand.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "TWINBAY_MODULE",
	MagicCookieValue: "b1a2d6c0-bay",
}

// Plugins is the agent's plugin set: Dispense(PluginName) answers a *Remote.
func Plugins() plugin.PluginSet {
	return plugin.PluginSet{PluginName: &grpcPlugin{}}
}

// grpcPlugin joins a Service and a Remote to go-plugin.
type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	service *Service // the module's side alone
}

func (p *grpcPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	p.service.Register(s)
	return nil
}

func (p *grpcPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewRemote(conn), nil
}

// How long the end of a process waits: for the module to put its hardware down, and for the agent to read why.
const (
	stopLimit  = 1200 * time.Millisecond
	graceLimit = 300 * time.Millisecond
)

// Serve is a module program's main. It serves m to the agent that started the process, and does not return: the
// process exits with 0 when the agent or SIGTERM ends it or when the agent is gone, and with 1 when m's Run fails,
// so that the agent starts it again.
//
// Logs are JSON lines on standard error, one object each with time, level and msg; a panic's stack goes there too.
//
// Started by a person, without the agent's cookie, it says so and exits with 1.
func Serve(m Module, drivers map[string]hal.Driver) {
	if os.Getenv(Handshake.MagicCookieKey) != Handshake.MagicCookieValue {
		name := m.Describe().Name
		fmt.Fprintf(os.Stderr, "%s is a module of Twinbay: the agent starts it, for a component with use = %q in the device file.\n"+
			"Run `twinbay run --config FILE`; `twinbay status` then shows the component.\n", name, name)
		os.Exit(1)
	}
	// go-plugin replaces os.Stderr by a pipe that nobody reads. The logger keeps the real one.
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	slog.SetDefault(log)

	p := &process{}
	p.service = NewService(m, drivers, log, func(err error) {
		if err != nil {
			log.Error("the module's run failed, the process ends", "module", m.Describe().Name, "error", err)
			go p.end(1)
		}
	})
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM) // before the agent can know of the process, and stop it
	go p.onTerm(term)
	go func() {
		parentGone(os.Getppid())
		log.Warn("the agent is gone, the module ends", "module", m.Describe().Name)
		p.end(0)
	}()

	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins:         plugin.PluginSet{PluginName: &grpcPlugin{service: p.service}},
		GRPCServer:      p.newServer,
		Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr, DisableTime: true}),
	})
	p.served()
}

// process is the one process that a module is.
type process struct {
	service *Service

	mu     sync.Mutex
	server *grpc.Server
}

func (p *process) newServer(opts []grpc.ServerOption) *grpc.Server {
	// Without this policy the server answers an agent's keepalive with GOAWAY "too_many_pings" after some pings.
	opts = append(opts, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = grpc.NewServer(opts...)
	return p.server
}

// served is the end of plugin.Serve: the agent has asked for it, or there never was a socket to serve on.
func (p *process) served() {
	p.mu.Lock()
	serving := p.server != nil
	p.mu.Unlock()
	if !serving {
		p.end(1)
	}
	p.end(0)
}

func (p *process) onTerm(term <-chan os.Signal) {
	<-term
	p.end(0)
}

// end puts the module down, lets the agent read the stream's last word, and exits. The first caller's code counts.
func (p *process) end(code int) {
	p.mu.Lock() // never unlocked: whoever comes second waits for the exit
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	p.service.Stop(ctx)
	cancel()
	if p.server != nil {
		stop := time.AfterFunc(graceLimit, p.server.Stop)
		p.server.GracefulStop()
		stop.Stop()
	}
	os.Exit(code)
}
