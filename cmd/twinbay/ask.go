package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent/local"
)

func (a *app) statusCommand() *cobra.Command {
	var pid bool
	c := &cobra.Command{
		Use:   "status [NAME]",
		Short: "show the device's components, or one: process, hub link, twin, last reading, queue",
		Args:  exactly(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if pid && len(args) == 0 {
				return fmt.Errorf("--pid is of one component; add its NAME; %w", errUsage)
			}
			client := a.dial()
			defer client.Close()
			s, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				others := func(c local.Component) bool { return c.Name != args[0] }
				if s.Components = slices.DeleteFunc(s.Components, others); len(s.Components) == 0 {
					return next(fmt.Errorf("%s: %w", args[0], local.ErrNoComponent))
				}
			}
			switch {
			case pid && s.Components[0].Process.PID == 0:
				return next(fmt.Errorf("%s: %w", args[0], local.ErrNotRunning))
			case pid:
				_, err = fmt.Fprintln(c.OutOrStdout(), s.Components[0].Process.PID)
				return err
			case a.json:
				return printJSON(c.OutOrStdout(), s)
			}
			if err := printStatus(c.OutOrStdout(), s, time.Now()); err != nil || len(args) == 0 {
				return err
			}
			return printLimits(c.OutOrStdout(), s.Components[0].Process.Limits)
		},
	}
	c.Flags().BoolVar(&pid, "pid", false, "print only the number of the component's process")
	return c
}

func (a *app) twinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "twin NAME",
		Short: "show a component's twin as the agent knows it",
		Args:  exactly(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			client := a.dial()
			defer client.Close()
			t, err := client.Twin(c.Context(), args[0])
			if err != nil {
				return next(err)
			}
			if a.json {
				return printJSON(c.OutOrStdout(), t)
			}
			return printTwin(c.OutOrStdout(), t)
		},
	}
}

func printTwin(w io.Writer, t local.TwinView) error {
	synced := "acknowledged by the hub"
	if !t.Synced {
		synced = "not yet acknowledged by the hub"
	}
	_, err := fmt.Fprintf(w, "%s, module identity %s\n\ndesired, version %d\n%s\n\nsettings in force\n%s\n\nreported, version %d, %s\n%s\n",
		oneLine(t.Component), oneLine(t.ModuleID), t.DesiredVersion, indent(t.Desired), indent(t.Settings),
		t.ReportedVersion, synced, indent(t.Reported))
	return err
}

// maxStdin bounds a payload that comes over standard input; the agent refuses it long before.
const maxStdin = 1 << 20

func (a *app) methodCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "method NAME METHOD [JSON]",
		Short: "call a component's direct method; JSON is the payload, - reads it from standard input",
		Long:  "Call a component's direct method as the hub would. The exit code is 1 when the method's status is 400 or more.",
		Args:  exactly(2, 3),
		RunE: func(c *cobra.Command, args []string) error {
			payload, err := methodPayload(args[2:], c.InOrStdin())
			if err != nil {
				return err
			}
			client := a.dial()
			defer client.Close()
			m, err := client.Invoke(c.Context(), args[0], args[1], payload)
			if err != nil {
				return next(err)
			}
			if a.json {
				err = printJSON(c.OutOrStdout(), m)
			} else if len(m.Payload) > 0 {
				_, err = fmt.Fprintf(c.OutOrStdout(), "status %d\n%s\n", m.Status, indent(m.Payload))
			} else {
				_, err = fmt.Fprintf(c.OutOrStdout(), "status %d\n", m.Status)
			}
			if err == nil && m.Status >= 400 {
				return fmt.Errorf("%s %s: the module answered status %d", args[0], args[1], m.Status)
			}
			return err
		},
	}
}

func methodPayload(args []string, stdin io.Reader) (json.RawMessage, error) {
	if len(args) == 0 {
		return nil, nil
	}
	payload := []byte(args[0])
	if args[0] == "-" {
		var err error
		if payload, err = io.ReadAll(io.LimitReader(stdin, maxStdin)); err != nil {
			return nil, fmt.Errorf("read the payload from standard input: %w", err)
		}
	}
	if !json.Valid(payload) {
		return nil, fmt.Errorf("the payload is not JSON; put it into single quotes: '{\"key\": 1}'; %w", errUsage)
	}
	return payload, nil
}

func (a *app) logsCommand() *cobra.Command {
	var q local.LogQuery
	c := &cobra.Command{
		Use:   "logs [NAME] [-f]",
		Short: "show the last log lines of the agent and its components, or of one component",
		Args:  exactly(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.Component = args[0]
			}
			if q.Lines == 0 && c.Flags().Changed("lines") {
				q.Lines = -1 // the API's none
			}
			client := a.dial()
			defer client.Close()
			return next(client.Logs(c.Context(), q, func(l local.LogLine) error {
				if a.json {
					return json.NewEncoder(c.OutOrStdout()).Encode(l)
				}
				_, err := fmt.Fprintln(c.OutOrStdout(), logText(l))
				return err
			}))
		},
	}
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with the lines that come")
	c.Flags().IntVarP(&q.Lines, "lines", "n", 0, "the last `N` lines of each component (default all that are kept)")
	return c
}

func logText(l local.LogLine) string {
	var b strings.Builder
	b.WriteString(l.At.Local().Format("15:04:05.000 "))
	fmt.Fprintf(&b, "%-5s ", l.Level)
	if l.Component != "" {
		b.WriteString(l.Component + ": ")
	}
	b.WriteString(l.Text)
	for _, k := range slices.Sorted(maps.Keys(l.Attrs)) {
		fmt.Fprintf(&b, " %s=%s", k, l.Attrs[k])
	}
	return oneLine(b.String())
}

// next adds the next step to an error of the agent.
func next(err error) error {
	switch {
	case errors.Is(err, local.ErrNoComponent):
		return fmt.Errorf("%w; `twinbay status` lists the components", err)
	case errors.Is(err, local.ErrNotRunning):
		return fmt.Errorf("%w; `twinbay status` says why", err)
	case errors.Is(err, local.ErrNoMessage):
		return fmt.Errorf("%w; `twinbay messages` lists what there is", err)
	case errors.Is(err, local.ErrTimeout):
		return fmt.Errorf("%w; `twinbay logs` shows what the module does", err)
	}
	return err
}

// indent is JSON for people. Text that is not JSON is shown as it is.
func indent(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "{}"
	}
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return printable(string(raw))
	}
	return printable(b.String())
}
