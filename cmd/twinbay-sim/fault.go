package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator/admin"
)

// hubFaultCommand is `twinbay-sim fault`: what goes wrong at a simulated hub.
func hubFaultCommand(f *hubFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "fault",
		Short: "make things go wrong at a simulated hub",
		Example: `  twinbay-sim fault add --on publish --who 'vending-1/*' --do drop --probability 0.1
  twinbay-sim fault add --on connect --do kick --for 30s
  twinbay-sim fault add --on connect --do refuse --connack 3 --times 1
  twinbay-sim fault add --on puback --who vending-1/coins --times 1 --do kick
  twinbay-sim fault list
  twinbay-sim fault clear`,
	}
	c.AddCommand(faultAdd(f), faultList(f), faultClear(f))
	return c
}

func faultAdd(f *hubFlags) *cobra.Command {
	var rule admin.Fault
	var delay, lasts time.Duration
	c := &cobra.Command{
		Use:   "add --on EVENT --do ACTION",
		Short: "add a rule; the first one that is due acts",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if rule.On == "" || rule.Do == "" {
				return fmt.Errorf("a rule needs --on and --do; %w", errUsage)
			}
			if delay > 0 {
				rule.Delay = delay.String()
			}
			if lasts > 0 {
				rule.For = lasts.String()
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			return client.AddFault(c.Context(), rule)
		},
	}
	p := c.Flags()
	p.StringVar(&rule.On, "on", "", "event: connect, subscribe, publish, puback, twin-get, report, desired, method, c2d or rest")
	p.StringVar(&rule.Do, "do", "", "action: kick, refuse, throttle, quota, drop, delay or freeze (half open)")
	p.StringVar(&rule.Who, "who", "", "DEVICE or DEVICE/MODULE, where * stands for any text (default: everybody)")
	p.IntVar(&rule.After, "after", 0, "let so many events pass first")
	p.IntVar(&rule.Times, "times", 0, "act so many times (default: always)")
	p.Float64Var(&rule.P, "probability", 0, "act with this probability, repeatable by serve --fault-seed (default: 1)")
	p.DurationVar(&delay, "delay", 0, "how long, with --do delay")
	p.DurationVar(&lasts, "for", 0, "the rule ends after this time (default: never)")
	p.IntVar(&rule.Connack, "connack", 0, "with --on connect --do refuse: the CONNACK's code, 1 to 5 for MQTT 3.1.1 or 128 and more for MQTT 5 (default: the hub's, 5 and 135)")
	p.StringVar(&rule.ID, "id", "", "a name for the rule; replaces the rule of that name (default: a number)")
	return c
}

func faultList(f *hubFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "the rules in force and how often each has acted",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			all, err := client.Faults(c.Context())
			if err != nil {
				return err
			}
			if f.json {
				text, err := json.Marshal(all)
				return show(c, text, err)
			}
			return printFaults(c, all)
		},
	}
}

func printFaults(c *cobra.Command, all []admin.FaultState) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tON\tWHO\tDO\tWHEN\tPASSED\tACTED")
	for _, r := range all {
		when := ""
		for _, part := range []struct {
			name string
			is   bool
			text string
		}{
			{"after", r.After > 0, fmt.Sprint(r.After)},
			{"times", r.Times > 0, fmt.Sprint(r.Times)},
			{"probability", r.P > 0, fmt.Sprint(r.P)},
			{"delay", r.Delay != "", r.Delay},
			{"for", r.For != "", r.For},
			{"connack", r.Connack > 0, fmt.Sprint(r.Connack)},
		} {
			if part.is {
				when += " " + part.name + " " + part.text
			}
		}
		who := r.Who
		if who == "" {
			who = "everybody"
		}
		if when == "" {
			when = " always"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\n", r.ID, r.On, who, r.Do, when[1:], r.Passed, r.Acted)
	}
	return w.Flush()
}

func faultClear(f *hubFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "clear [ID…]",
		Short: "remove these rules, or all",
		RunE: func(c *cobra.Command, ids []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				ids = []string{""}
			}
			for _, id := range ids {
				if err := client.ClearFaults(c.Context(), id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
