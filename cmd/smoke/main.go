// Command smoke starts the built programs as a user would and checks from outside what the README promises: real
// processes, real TLS, real MQTT, kill -9 included. It prints a line for each check and fails if one does.
//
// With -bench it measures instead, beside the targets of docs/figures.md: the agent (starts, memory, direct methods, failing
// modules, outbox, outages) and the simulated hub (throughput beside mosquitto where that is installed, memory per connection,
// registry, queries, start), and the sizes of all programs.
//
// With -soak it lets a vending machine work for a while, and looks whether a process grows.
//
// With -torture it does to all of them, by a seed, what docs/torture.md says.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "folder of the programs")
	profile := flag.String("profile", filepath.Join("firmware-configs", "vending-machine"), "folder of demo.toml and seed.toml")
	bench := flag.Bool("bench", false, "measure instead of checking")
	only := flag.String("only", "", "with -bench: the parts whose name has this in it")
	var seed *uint64
	flag.Func("torture", "torture by this `seed` instead; twinbay is built with -tags torture then", func(text string) error {
		n, err := strconv.ParseUint(text, 10, 64)
		seed = &n
		return err
	})
	long := flag.Duration("for", time.Minute, "with -torture: how long things go wrong")
	soak := flag.Duration("soak", 0, "run under load for so `long` instead, and fail if a process grows")
	verbose := flag.Bool("v", false, "with -torture: show what was done and when, and keep the folder, even if all is well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute+*long+*soak)
	defer cancel()

	what := (*machine).check
	if *bench {
		what = measure(*only)
	}
	if seed != nil {
		what = tortured(*seed, *long, *verbose)
	}
	if *soak != 0 {
		what = soaked(*soak)
	}
	if err := with(ctx, *bin, *profile, what); err != nil {
		fmt.Fprintln(os.Stderr, "smoke:", err)
		os.Exit(1)
	}
}

// with does something with a machine in a folder of its own, and leaves nothing behind unless it says so.
func with(ctx context.Context, bin, profile string, do func(*machine, context.Context) error) error {
	dir, err := os.MkdirTemp("", "twinbay-smoke-")
	if err != nil {
		return err
	}
	m := &machine{bin: bin, profile: profile, dir: dir}
	defer func() {
		m.down()
		if !m.keep {
			os.RemoveAll(dir)
		}
	}()
	err = do(m, ctx)
	if err == nil {
		return nil
	}
	for _, p := range []*process{m.agent, m.sim} {
		if p != nil {
			fmt.Printf("\n-- the last words of %s\n%s\n", p.name, p.log)
		}
	}
	return err
}
