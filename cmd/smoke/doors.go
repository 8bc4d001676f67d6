package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/rig"
)

// doors is a device with any number of doors: a component each, with a module identity and simulated hardware of its own,
// which lives in this process. A door says how it stands as soon as it serves.
type doors struct {
	*machine
	names []string
	rigs  []*rig.Rig
	local *local.Client
}

// newDoors starts a hub for n doors, and their hardware. end ends all.
func newDoors(ctx context.Context, of *machine, n int) (d *doors, end func(), err error) {
	dir, err := os.MkdirTemp(of.dir, "doors")
	if err != nil {
		return nil, nil, err
	}
	d = &doors{machine: &machine{bin: of.bin, profile: of.profile, dir: dir}, local: local.Dial(filepath.Join(dir, "twinbay.sock"))}
	end = func() {
		d.local.Close()
		d.down()
		for _, r := range d.rigs {
			_ = r.Close()
		}
	}
	if err := d.prepare(ctx, n); err != nil {
		end()
		return nil, nil, err
	}
	return d, end, nil
}

func (d *doors) prepare(ctx context.Context, n int) error {
	seed := "[devices." + device + "]\n"
	for i := range n {
		name := fmt.Sprintf("door%02d", i)
		r, err := rig.Start(ctx, rig.Config{Dir: filepath.Join(d.dir, name)})
		if err != nil {
			return err
		}
		d.rigs, d.names = append(d.rigs, r), append(d.names, name)
		seed += "[devices." + device + ".modules." + name + "]\n"
	}
	if err := os.WriteFile(filepath.Join(d.dir, "seed.toml"), []byte(seed), 0o600); err != nil {
		return err
	}
	if err := d.startHub(ctx); err != nil {
		return err
	}
	modules, err := filepath.Abs(d.program("twinbay-modules"))
	if err != nil {
		return err
	}
	var file strings.Builder
	fmt.Fprintf(&file, "[hub]\nhost = %q\nca_file = \"ca.pem\"\n[agent]\nsocket = \"twinbay.sock\"\nrun_dir = \"plugins\"\nstate_dir = \"state\"\nmodules = %q\n"+
		"[device]\ncredential = \"file:keys/%s/device.cred\"\n", d.env["HUB_HOST"], modules, device)
	for _, name := range d.names {
		fmt.Fprintf(&file, "[modules.%s]\nuse = \"door\"\ncredential = \"file:keys/%s/modules/%s.cred\"\nwiring = { switch = \"sim:%s/rig.sock#door\" }\n", name, device, name, name)
	}
	return os.WriteFile(filepath.Join(d.dir, "device.toml"), []byte(file.String()), 0o600)
}

// startHub starts the hub, or starts it again on the ports that it had, and listens to its events.
func (d *doors) startHub(ctx context.Context) error {
	args := []string{"--no-rig", "--seed", filepath.Join(d.dir, "seed.toml"), "--state", filepath.Join(d.dir, "hub.state")}
	if d.env != nil {
		args = append(args, "--mqtt-port", d.env["MQTT_PORT"], "--https-port", d.env["HTTPS_PORT"])
	}
	var err error
	if d.sim, d.env, err = startSimulator(d.program("twinbay-sim"), d.dir, args...); err != nil {
		return err
	}
	if d.hub, err = d.client(); err != nil {
		return err
	}
	return d.listen(ctx)
}

// startAgent starts the agent and answers how long it took until the hub had telemetry of each door; without doors, until
// the device was connected.
func (d *doors) startAgent(ctx context.Context) (time.Duration, error) {
	mark, begin := d.events.mark(), time.Now()
	var err error
	d.agent, err = start(nil, d.program("twinbay"), "run", "--config", filepath.Join(d.dir, "device.toml"),
		"--hub-address", d.env["HUB_IP"]+":"+d.env["MQTT_PORT"])
	if err != nil {
		return 0, err
	}
	err = d.events.wait(ctx, "all to serve", mark, func(events []admin.Event) bool {
		if len(d.names) == 0 {
			return slices.ContainsFunc(events, func(e admin.Event) bool { return e.Kind == "connected" })
		}
		return len(firsts(events)) == len(d.names)
	})
	return time.Since(begin), err
}

// firsts are the modules that have sent telemetry, with its time.
func firsts(events []admin.Event) map[string]time.Time {
	first := map[string]time.Time{}
	for _, e := range events {
		if _, seen := first[e.ModuleID]; !seen && e.Kind == "telemetry" {
			first[e.ModuleID] = e.At
		}
	}
	return first
}

// stopAgent ends the agent and makes it forget everything.
func (d *doors) stopAgent() error {
	return errors.Join(d.agent.stop(patient), os.RemoveAll(filepath.Join(d.dir, "state")))
}

// pids are the agent's process and those of its modules.
func (d *doors) pids(ctx context.Context) ([]int, error) {
	s, err := d.local.Status(ctx)
	all := []int{d.agent.cmd.Process.Pid}
	for _, c := range s.Components {
		all = append(all, c.Process.PID)
	}
	return all, err
}

// components measures starts and memory of a device with none, one and ten components, and how fast a component is back.
func (m *machine) components(ctx context.Context) error {
	for _, c := range []struct {
		n           int
		start, most float64 // targets: ms, MB
	}{{0, 0, 15}, {1, 300, 0}, {10, 1000, 75}} {
		if err := m.withDoors(ctx, c.n, c.start, c.most); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) withDoors(ctx context.Context, n int, start, most float64) error {
	d, end, err := newDoors(ctx, m, n)
	if err != nil {
		return err
	}
	defer end()
	const starts = 5
	var took []time.Duration
	for i := range starts {
		if i > 0 {
			if err := d.stopAgent(); err != nil {
				return err
			}
		}
		t, err := d.startAgent(ctx)
		if err != nil {
			return err
		}
		took = append(took, t)
	}
	slices.Sort(took)
	what, note := "agent, exec to connected, no components", fmt.Sprintf("median of %d, worst %.0f ms", starts, ms(took[starts-1]))
	if n > 0 {
		what, note = fmt.Sprintf("agent, exec to telemetry of all at the hub, %d component(s)", n), note+"; doors"
	}
	figure{what: what, value: ms(took[starts/2]), unit: "ms", most: start, note: note}.print()

	pids, err := d.pids(ctx)
	if err != nil {
		return err
	}
	alone, err := settledPSS(ctx, pids[0])
	if err != nil {
		return err
	}
	all, err := settledPSS(ctx, pids...)
	if err != nil {
		return err
	}
	const mb = 1e6 / 1024 // KiB, for the target is in megabytes
	if n == 0 {
		figure{what: "memory (PSS) of the agent, no components, idle", value: float64(alone) / mb, unit: "MB", most: most}.print()
		return nil
	}
	figure{what: fmt.Sprintf("memory (PSS) of agent and %d component(s), idle", n), value: float64(all) / mb, unit: "MB", most: most,
		note: fmt.Sprintf("the agent's process %.1f", float64(alone)/mb)}.print()
	if n > 1 {
		return d.failures(ctx)
	}
	return nil
}

// failures kills each module once, and stops three as if they hung.
func (d *doors) failures(ctx context.Context) error {
	for _, f := range []struct {
		what   string
		signal syscall.Signal
		names  []string
		most   float64 // ms
	}{
		{"kill -9 of a module to serving again", syscall.SIGKILL, d.names[:len(d.names)-3], 100},
		{"hung module (SIGSTOP) to serving again", syscall.SIGSTOP, d.names[len(d.names)-3:], 5000},
	} {
		var took []time.Duration
		for _, name := range f.names {
			t, err := d.recovery(ctx, name, f.signal)
			if err != nil {
				return fmt.Errorf("%s: %w", f.what, err)
			}
			took = append(took, t)
		}
		slices.Sort(took)
		figure{what: f.what, value: ms(took[len(took)/2]), unit: "ms", most: f.most,
			note: fmt.Sprintf("median of %d modules, each for the first time; worst %.0f ms", len(took), ms(took[len(took)-1]))}.print()
	}
	return nil
}

// recovery is how long it takes from a signal to a module's process until another process answers a direct method.
func (d *doors) recovery(ctx context.Context, name string, signal syscall.Signal) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patient)
	defer cancel()
	pid, err := d.running(ctx, name)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := syscall.Kill(pid, signal); err != nil {
		return 0, fmt.Errorf("signal to %s, process %d: %w", name, pid, err)
	}
	look := time.NewTicker(2 * time.Millisecond) // a module does not tell from outside when it serves
	defer look.Stop()
	for {
		if now, err := d.running(ctx, name); err == nil && now != 0 && now != pid {
			if a, err := d.local.Invoke(ctx, name, "readState", nil); err == nil && a.Status == 200 {
				return time.Since(begin), nil
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%s does not serve again: %w", name, ctx.Err())
		}
	}
}

// running is the process of a component that runs, or 0.
func (d *doors) running(ctx context.Context, name string) (int, error) {
	s, err := d.local.Status(ctx)
	for _, c := range s.Components {
		if c.Name == name && c.Process.State == local.Running {
			return c.Process.PID, err
		}
	}
	return 0, err
}
