// Command twinbay-sim is a local IoT Hub with fake hardware, and the operator's tool for any IoT Hub.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// gcPercent is how much garbage may lie beside what is in use. A hub's memory is that of its connections, and with so
// little garbage from messages collecting more often costs no time that could be measured (`make bench`).
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errUsage is a command line that makes no sense: exit code 2.
var errUsage = errors.New("see --help")

// Main is the program. It answers the exit code: 0 done, 1 failed, 2 wrong usage; `serve -- COMMAND` answers the
// command's own.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "twinbay-sim",
		Short:         "a local IoT Hub with fake hardware, and the operator's tool for any IoT Hub",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, errUsage) })
	root.AddCommand(serveCommand(), rigCommand(), versionCommand())
	addHubCommands(root)

	err := root.ExecuteContext(ctx)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(stderr, "twinbay-sim:", err)
		if errors.Is(err, errUsage) {
			return 2
		}
		return 1
	}
	return 0
}

// exactly is a check of the number of arguments that names what is wanted.
func exactly(low, high int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return fmt.Errorf("usage: %s; %w", c.UseLine(), errUsage)
		}
		return nil
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "the program's version",
		Args:  exactly(0, 0),
		Run: func(c *cobra.Command, _ []string) {
			version := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				version = info.Main.Version
			}
			fmt.Fprintln(c.OutOrStdout(), "twinbay-sim", version)
		},
	}
}
