package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hub"
)

// serveFlags are what serve can be told beyond the simulator's own configuration.
type serveFlags struct {
	conf        simulator.Config
	printKeys   bool
	printEvents bool
	hint        string
	verbose     bool
}

func serveCommand() *cobra.Command {
	f := serveFlags{}
	c := &cobra.Command{
		Use:   "serve [flags] [-- COMMAND [ARG…]]",
		Short: "a local IoT Hub with fake hardware; with COMMAND it lives as long as the command, which finds it by its environment",
		Example: `  twinbay-sim serve --seed seed.toml --keys keys
  twinbay-sim serve --mqtt-port 0 --https-port 0 --no-rig --env-file hub.env
  twinbay-sim serve --mqtt-port 0 --https-port 0 -- go test ./...`,
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 0 && len(args) > 0 {
				return fmt.Errorf("unknown argument %q (a command comes after --); %w", args[0], errUsage)
			}
			return f.serve(c.Context(), args, c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	p := c.Flags()
	p.StringVar(&f.conf.Dir, "dir", ".run", "folder for the certificate authority, credentials, the env file and the rig")
	p.StringVar(&f.conf.Listen, "listen", "127.0.0.1", "IP address to listen on")
	p.StringVar(&f.conf.HostName, "host-name", "localhost", "the hub's name in connection strings, tokens and its certificate")
	p.IntVar(&f.conf.MQTTPort, "mqtt-port", 8883, "MQTT over TLS; 0 picks a free port")
	p.IntVar(&f.conf.HTTPSPort, "https-port", 8443, "service REST; 0 picks a free port")
	p.StringVar(&f.conf.SeedFile, "seed", "", "TOML file of identities to start with")
	p.StringVar(&f.conf.KeysDir, "keys", "", "folder for one credential file per seeded identity (default DIR/keys)")
	p.StringVar(&f.conf.EnvFile, "env-file", "", "written once the hub serves, to be sourced by a shell (default DIR/hub.env)")
	p.StringVar(&f.conf.StateFile, "state", "", "file that keeps identities, keys, twins, queues and jobs from run to run (default: memory alone)")
	p.IntVar(&f.conf.ModuleLimit, "module-limit", 20, "module identities per device; Azure's limit of today is 50")
	p.StringVar(&f.conf.Storage, "storage", os.Getenv("TWINBAY_SIM_STORAGE"),
		"connection string of an Azure storage account, or Azurite's, for file uploads by devices (default $TWINBAY_SIM_STORAGE)")
	p.StringVar(&f.conf.Container, "storage-container", "", "blob container for file uploads")
	p.StringVar(&f.conf.Tier, "tier", "", "throttles and daily quota of F1, S1, S2 or S3 (default: no limits)")
	p.IntVar(&f.conf.Units, "units", 1, "units of the tier")
	p.DurationVar(&f.conf.ClockOffset, "clock-offset", 0, "how far the hub's clock is ahead of yours when it checks tokens; may be negative")
	p.StringArrayVar(&f.conf.Choices, "choose", nil, "NAME=VALUE: what to do where the sources about IoT Hub differ (docs/choices.md); may be repeated")
	p.Uint64Var(&f.conf.FaultSeed, "fault-seed", 1, "makes faults with a probability repeatable")
	p.StringVar(&f.conf.DeviceCA, "device-ca", "", "PEM file of the authorities whose certificates devices and modules may show")
	p.BoolVar(&f.conf.NoRig, "no-rig", false, "no fake hardware")
	p.BoolVar(&f.conf.Still, "still", false, "fake hardware in which nothing happens by itself")
	p.Uint64Var(&f.conf.RigSeed, "rig-seed", 1, "makes the fake hardware's world repeatable")
	p.BoolVar(&f.printKeys, "print-connection-strings", false, "print the owner's and every seeded identity's connection string")
	p.BoolVar(&f.printEvents, "print-events", false, "print what happens at the hub")
	p.StringVar(&f.hint, "hint", "", "file to print once every seeded module has sent telemetry")
	p.BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	return c
}

func (f *serveFlags) serve(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if f.conf.KeysDir == "" && f.conf.SeedFile != "" {
		f.conf.KeysDir = filepath.Join(f.conf.Dir, "keys")
	}
	if f.conf.EnvFile == "" {
		f.conf.EnvFile = filepath.Join(f.conf.Dir, "hub.env")
	}
	level := slog.LevelWarn // what happens is seen by --print-events
	if f.verbose {
		level = slog.LevelDebug
	}
	f.conf.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Hub and hardware outlive the command, so that the command can say goodbye to the one and put down the other.
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	s, err := simulator.Start(hubCtx, f.conf)
	if err != nil {
		return err
	}
	f.greet(s, stdout)
	var events <-chan hub.Event
	if f.printEvents || f.hint != "" { // a hub that nobody watches has less to do
		events = s.Hub.Watch(hubCtx)
	}
	var g errgroup.Group
	g.Go(func() error {
		defer cancel()
		return s.Run(hubCtx)
	})
	if events != nil {
		g.Go(func() error {
			err := f.print(s, events, stdout)
			if err != nil {
				cancel()
			}
			return err
		})
	}
	if len(command) == 0 {
		context.AfterFunc(ctx, stopHub)
		return g.Wait()
	}
	g.Go(func() error {
		defer stopHub()
		return runCommand(ctx, command, s.Env, stdin, stdout, stderr)
	})
	return g.Wait()
}

func (f *serveFlags) greet(s *simulator.Simulator, out io.Writer) {
	e := s.Env
	fmt.Fprintf(out, "twinbay-sim: hub %s serves MQTT on %s:%s and REST on %s:%s; CA %s\n",
		e["HUB_HOST"], e["HUB_IP"], e["MQTT_PORT"], e["HUB_IP"], e["HTTPS_PORT"], e["CA_FILE"])
	if !f.printKeys {
		return
	}
	fmt.Fprintf(out, "owner\t%s\n", e["HUB_CS"])
	for _, id := range s.Seed {
		text, err := s.Hub.ConnectionString(id)
		if err != nil {
			text = err.Error()
		}
		fmt.Fprintf(out, "%s\t%s\n", id, text)
	}
}

// print shows the hub's events, and the hint once every seeded module has been heard of.
func (f *serveFlags) print(s *simulator.Simulator, events <-chan hub.Event, out io.Writer) error {
	silent := map[hub.ID]bool{}
	for _, id := range s.Seed {
		if id.Module != "" {
			silent[id] = true
		}
	}
	hinted := f.hint == ""
	for e := range events {
		if f.printEvents {
			fmt.Fprintln(out, simulator.EventLine(admin.Event(e)))
		}
		if e.Kind == "telemetry" {
			delete(silent, hub.ID{Device: e.DeviceID, Module: e.ModuleID})
		}
		if !hinted && len(silent) == 0 {
			hinted = true
			text, err := os.ReadFile(f.hint)
			if err != nil {
				return fmt.Errorf("hint: %w", err)
			}
			fmt.Fprintf(out, "\n%s\n", text)
		}
	}
	return nil
}

// runCommand runs a command that finds the hub in its environment. When ctx ends it is asked to end, and waited for.
func runCommand(ctx context.Context, command []string, env simulator.Env, stdin io.Reader, stdout, stderr io.Writer) error {
	const patience = 10 * time.Second
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	c.Env = os.Environ()
	for name, value := range env {
		c.Env = append(c.Env, name+"="+value)
	}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = patience
	err := c.Run()
	exit, exited := errors.AsType[*exec.ExitError](err)
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err()) || exited && !exit.Exited()) {
		return nil // it ended because it was asked to
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}
