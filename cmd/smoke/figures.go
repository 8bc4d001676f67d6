package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/admin"
)

// calls is how many direct methods a figure is taken from; the first few warm up.
const (
	calls  = 500
	warmUp = 50
)

// part is some of the figures, from processes of its own.
type part struct {
	name    string
	measure func(*machine, context.Context) error
}

var parts = []part{
	{"sizes", (*machine).sizes},
	{"agent", (*machine).measureAgent},
	{"components", (*machine).components},
	{"queue", (*machine).queue},
	{"outage", (*machine).outages},
	{"start", (*machine).startTime},
	{"load", (*machine).loads},
	{"idle", (*machine).idles},
	{"registry", (*machine).registry},
}

// measure prints the figures of docs/figures.md whose part's name has only in it: each is of this machine and this run.
func measure(only string) func(*machine, context.Context) error {
	return func(m *machine, ctx context.Context) error {
		for _, p := range parts {
			if !strings.Contains(p.name, only) {
				continue
			}
			if err := p.measure(m, ctx); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			m.down()
		}
		return nil
	}
}

func (m *machine) measureAgent(ctx context.Context) error {
	if err := m.startHub(ctx); err != nil {
		return err
	}
	if err := m.firstTelemetry(ctx); err != nil {
		return err
	}
	if err := m.methodsThroughAgent(ctx); err != nil {
		return err
	}
	if err := m.methodsThroughHub(ctx); err != nil {
		return err
	}
	return m.memory(ctx)
}

// firstTelemetry measures from the start of the agent to the hub having telemetry of all three components.
func (m *machine) firstTelemetry(ctx context.Context) error {
	mark := m.events.mark()
	begin := time.Now()
	if err := m.startAgent("5"); err != nil {
		return err
	}
	first := map[string]time.Duration{}
	err := m.events.wait(ctx, "telemetry of all three", mark, func(events []admin.Event) bool {
		for _, e := range events {
			if _, seen := first[e.ModuleID]; !seen && e.Kind == "telemetry" {
				first[e.ModuleID] = time.Since(begin)
			}
		}
		return len(first) >= len(modules)
	})
	if err != nil {
		return err
	}
	for _, name := range modules {
		figure{what: "agent, exec to first telemetry at the hub, " + name, value: ms(first[name]), unit: "ms"}.print()
	}
	return nil
}

// methodsThroughAgent measures local socket → agent → plugin and back.
func (m *machine) methodsThroughAgent(ctx context.Context) error {
	c := local.Dial(filepath.Join(m.dir, "twinbay.sock"))
	defer c.Close()
	return roundTrips("local socket, agent, plugin", 0.4, 2, func() error {
		r, err := c.Invoke(ctx, "door", "readState", nil)
		if err == nil && r.Status != 200 {
			err = fmt.Errorf("readState answers %d %s", r.Status, r.Payload)
		}
		return err
	})
}

// methodsThroughHub measures REST → hub → MQTT → agent → plugin and back.
func (m *machine) methodsThroughHub(ctx context.Context) error {
	return roundTrips("REST, hub, MQTT, agent, plugin", 0, 0, func() error {
		r, err := m.hub.Invoke(ctx, admin.ID{Device: device, Module: "door"}, "readState", nil, 10*time.Second)
		if err == nil && r.Status != 200 {
			err = fmt.Errorf("readState answers %d %s", r.Status, r.Payload)
		}
		return err
	})
}

func roundTrips(path string, most50, most99 float64, call func() error) error {
	took := make([]time.Duration, 0, calls)
	for i := range warmUp + calls {
		begin := time.Now()
		if err := call(); err != nil {
			return fmt.Errorf("direct method by %s: %w", path, err)
		}
		if i >= warmUp {
			took = append(took, time.Since(begin))
		}
	}
	slices.Sort(took)
	figure{what: "direct method, " + path + ", p50", value: ms(took[calls/2]), unit: "ms", most: most50, note: fmt.Sprintf("of %d calls", calls)}.print()
	figure{what: "direct method, " + path + ", p99", value: ms(took[calls*99/100]), unit: "ms", most: most99}.print()
	return nil
}

// memory prints the proportional set size of each process: shared pages count once over all of them.
func (m *machine) memory(ctx context.Context) error {
	s, err := m.status(ctx)
	if err != nil {
		return err
	}
	total, err := pss(m.agent.cmd.Process.Pid)
	if err != nil {
		return err
	}
	kib := map[string]int{"agent": total}
	for _, c := range s.Components {
		if kib[c.Name], err = pss(c.Process.PID); err != nil {
			return err
		}
		total += kib[c.Name]
	}
	kib["agent and all"] = total
	for _, name := range slices.Sorted(maps.Keys(kib)) {
		figure{what: "memory (PSS) of the vending machine's " + name, value: float64(kib[name]) / (1 << 10), unit: "MiB"}.print()
	}
	return nil
}

// pss is a process's proportional set size in KiB (proc(5), smaps_rollup).
func pss(pid int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var kib int
		if n, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			_, err := fmt.Sscan(n, &kib)
			return kib, err
		}
	}
	return 0, fmt.Errorf("process %d: no Pss in smaps_rollup", pid)
}
