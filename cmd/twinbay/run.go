package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent"
	"github.com/twinbay/twinbay/agent/clock"
	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/lives"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/agent/netlink"
)

// How long the agent may take to end: what is promised to whoever sends SIGTERM, less the time to exit; and after the second
// signal, which ends modules by force.
const (
	stopLimit  = agent.StopBudget - 100*time.Millisecond
	hurryLimit = 300 * time.Millisecond
)

func (a *app) runCommand() *cobra.Command {
	var file, address, ca string
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "run the agent",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			frugal()
			// What is wrong with one component alone is that component's: the agent logs it and runs the others.
			load := func(ctx context.Context) (*config.Config, error) {
				cfg, err := loadFile(ctx, file)
				if cfg == nil {
					return nil, err
				}
				return cfg, errors.Join(err, override(cfg, address, ca))
			}
			cfg, err := load(c.Context())
			if cfg == nil || errors.Is(err, errUsage) {
				return err
			}
			logs := local.NewLogs(0)
			log := slog.New(logs.Handler(a.logTo(c.ErrOrStderr(), cfg.Agent.LogLevel)))
			hurry, calm := onSecondSignal(log)
			defer calm()
			tell, watchdog := serviceManager(log)
			g, err := agent.New(agent.Config{
				File: cfg, Logs: logs, Log: log, Disk: stateDisk(), Version: programVersion(), Network: netlink.Watch, Load: load,
				Clock: clock.Options{Now: systemTime, Floor: clock.Built(), Elapsed: clock.Uptime, Watch: clock.Watch},
				Tell:  tell, Watchdog: watchdog, Hurry: hurry, Boot: lives.Boot(), LastWords: lives.LastWords,
			})
			if err != nil {
				return err
			}
			stop := reloadOnHangup(c.Context(), g, log)
			defer stop()
			return untilStopped(c.Context(), hurry, g.Run)
		},
	}
	configFlag(c, &file)
	c.Flags().StringVar(&address, "hub-address", "", "`ip:port` to connect to instead of the hub's host")
	c.Flags().StringVar(&ca, "hub-ca", "", "PEM `file` with the hub's certificate authority")
	return c
}

// gcPercent is how much garbage may lie beside what is in use: the agent holds a megabyte, and at 100 the collector would
// wait for three more.
const gcPercent = 50

// frugal makes the agent small, unless the environment says otherwise.
func frugal() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// reloadOnHangup has the agent read its device file again at each SIGHUP, as daemons do. The agent logs what came of it.
func reloadOnHangup(ctx context.Context, g *agent.Agent, log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hangups:
				if _, err := g.Reload(ctx); err != nil {
					log.Debug("SIGHUP changed nothing", "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		cancel()
		<-done
	}
}

// logTo writes log lines for people, or with --json for machines.
func (a *app) logTo(w io.Writer, level slog.Level) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if a.json {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVarP(file, "config", "c", "", "the device `file` (TOML)")
}

// override puts the command line's hub over the device file's.
func override(cfg *config.Config, address, ca string) error {
	if address != "" {
		if !config.IsAddress(address) {
			return fmt.Errorf("--hub-address: %q is not an address with a port; write it like 127.0.0.1:8883; %w", address, errUsage)
		}
		cfg.Hub.Address = address
	}
	if ca != "" {
		cfg.Hub.CAFile = ca
	}
	return nil
}

// errLate is an agent that does not end. The program ends all the same, and the kernel ends the modules with it.
var errLate = errors.New("the agent did not end in time: ending without it; its log says what it waited for")

// untilStopped runs the agent until it ends, but not for longer than stopLimit after the end of ctx, nor than hurryLimit after
// that of hurry.
func untilStopped(ctx context.Context, hurry <-chan struct{}, run func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(stopLimit)
	defer late.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-late.C:
			return errLate
		case <-hurry:
			hurry = nil
			late.Reset(hurryLimit)
		}
	}
}
