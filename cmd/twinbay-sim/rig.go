package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator/rig"
)

// rigFlags say which rig a command speaks to.
type rigFlags struct {
	dir  string
	json bool
}

func (f *rigFlags) client() rig.Client {
	if f.dir != "" {
		return rig.Client{Dir: f.dir}
	}
	if dir := os.Getenv("RIG_DIR"); dir != "" {
		return rig.Client{Dir: dir}
	}
	return rig.Client{Dir: ".run"}
}

func rigCommand() *cobra.Command {
	f := &rigFlags{}
	c := &cobra.Command{Use: "rig", Short: "the fake hardware: throw in a coin, open the door, warm the air, pull a plug"}
	c.PersistentFlags().StringVar(&f.dir, "dir", "", "the simulator's folder (default $RIG_DIR, or .run)")
	c.PersistentFlags().BoolVar(&f.json, "json", false, "JSON")
	parts := strings.Join(rig.Parts, "|")

	do := func(use, short string, low, high int, run func(context.Context, io.Writer, rig.Client, []string) error) {
		c.AddCommand(&cobra.Command{Use: use, Short: short, Args: exactly(low, high),
			RunE: func(c *cobra.Command, args []string) error {
				return run(c.Context(), c.OutOrStdout(), f.client(), args)
			}})
	}
	do("coin ID", "throw in a coin, as EU100A, or slug", 1, 1,
		func(ctx context.Context, w io.Writer, r rig.Client, args []string) error {
			outcome, err := r.Coin(ctx, args[0])
			if err != nil {
				return err
			}
			if f.json {
				return json.NewEncoder(w).Encode(map[string]any{"coin": args[0], "outcome": outcome})
			}
			_, err = fmt.Fprintln(w, args[0], outcome)
			return err
		})
	do("door open|close", "move the door; its contact bounces", 1, 1,
		func(ctx context.Context, _ io.Writer, r rig.Client, args []string) error {
			switch args[0] {
			case "open", "close":
				return r.Door(ctx, args[0] == "open")
			}
			return fmt.Errorf("door %q: want open or close; %w", args[0], errUsage)
		})
	do("beam", "let a product fall through the delivery beam", 0, 0,
		func(ctx context.Context, _ io.Writer, r rig.Client, _ []string) error { return r.Beam(ctx) })
	do("temperature CELSIUS", "set the cabinet's temperature", 1, 1,
		func(ctx context.Context, _ io.Writer, r rig.Client, args []string) error {
			return air(args[0], "degrees Celsius", func(v float64) error { return r.SetAir(ctx, rig.Air{Celsius: &v}) })
		})
	do("humidity PERCENT", "set the cabinet's relative humidity", 1, 1,
		func(ctx context.Context, _ io.Writer, r rig.Client, args []string) error {
			return air(args[0], "per cent", func(v float64) error { return r.SetAir(ctx, rig.Air{Humidity: &v}) })
		})
	do("pressure KPA", "set the air pressure", 1, 1,
		func(ctx context.Context, _ io.Writer, r rig.Client, args []string) error {
			return air(args[0], "kilopascal", func(v float64) error { return r.SetAir(ctx, rig.Air{KPa: &v}) })
		})
	do("unplug "+parts, "pull a part out", 1, 1,
		func(ctx context.Context, _ io.Writer, r rig.Client, args []string) error {
			return r.Unplug(ctx, args[0])
		})
	do("plug "+parts, "put it in again", 1, 1,
		func(ctx context.Context, _ io.Writer, r rig.Client, args []string) error { return r.Plug(ctx, args[0]) })
	do("status", "the state of the hardware and its world", 0, 0,
		func(ctx context.Context, w io.Writer, r rig.Client, _ []string) error {
			s, err := r.Status(ctx)
			if err != nil {
				return err
			}
			e := json.NewEncoder(w)
			if !f.json {
				e.SetIndent("", "  ")
			}
			return e.Encode(s)
		})
	c.AddCommand(faultCommand(f, parts))
	return c
}

func air(text, unit string, set func(float64) error) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("%q is no number of %s; %w", text, unit, errUsage)
	}
	return set(v)
}

func faultCommand(f *rigFlags, parts string) *cobra.Command {
	var count int
	var d time.Duration
	c := &cobra.Command{
		Use:   "fault " + parts + " FAULT",
		Short: "make something go wrong; an unknown FAULT names those of the part",
		Args:  exactly(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return f.client().Fault(c.Context(), args[0], args[1], count, d)
		},
	}
	c.Flags().IntVar(&count, "count", 0, "how many times, for a fault that counts")
	c.Flags().DurationVar(&d, "for", 0, "how long, for a fault that lasts")
	return c
}
