package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/local"
)

// Where the socket is looked for, after --socket.
const (
	socketEnv  = "TWINBAY_SOCKET"
	socketHere = ".run/twinbay.sock" // of `make run`
)

// errUsage is a command line that makes no sense: exit code 2.
var errUsage = errors.New("see --help")

// Main is the program. It answers the exit code; the end of ctx ends it.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := app{}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(stderr, "twinbay:", printable(strings.TrimSuffix(line, "\n")))
	}
	if errors.Is(err, errUsage) || !a.ran {
		return 2
	}
	return 1
}

// app is what the commands share.
type app struct {
	socket string
	json   bool
	ran    bool // a command was reached: what fails from here on is no misuse
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "twinbay",
		Short:         "every component of a device as a module identity of its own",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				return fmt.Errorf("there is no command %q; did you mean %q? %w", args[0], near[0], errUsage)
			}
			return fmt.Errorf("there is no command %q; %w", args[0], errUsage)
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, errUsage) })
	root.PersistentFlags().StringVar(&a.socket, "socket", "",
		"the agent's socket (default $"+socketEnv+", ./"+socketHere+", "+config.DefaultSocket+")")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.runCommand(), a.checkCommand(), a.statusCommand(), a.twinCommand(), a.methodCommand(), a.messagesCommand(), a.reloadCommand(), a.restartCommand(), a.resumeCommand(), a.metricsCommand(),
		a.logsCommand(), a.versionCommand())
	for _, c := range root.Commands() {
		run := c.RunE
		c.RunE = func(c *cobra.Command, args []string) error {
			a.ran = true
			return run(c, args)
		}
	}
	return root
}

// exactly is a check of the number of arguments that says what is wanted.
func exactly(low, high int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return fmt.Errorf("usage: %s; %w", c.UseLine(), errUsage)
		}
		return nil
	}
}

// dial is a client of the agent's socket.
func (a *app) dial() *local.Client {
	path := a.socket
	if path == "" {
		path = os.Getenv(socketEnv)
	}
	if path == "" {
		path = config.DefaultSocket
		if _, err := os.Stat(socketHere); err == nil {
			path = socketHere
		}
	}
	return local.Dial(path)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// version is set by a release: -ldflags "-X main.version=1.2.3".
var version string

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "the program's version",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if a.json {
				return printJSON(c.OutOrStdout(), map[string]string{"version": programVersion()})
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "twinbay", programVersion())
			return err
		},
	}
}
