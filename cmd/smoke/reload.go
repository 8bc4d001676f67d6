package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/admin"
)

// reload changes the device file under the running agent: with an error, with another setting of one component, and back
// again by SIGHUP.
func (m *machine) reload(ctx context.Context) error {
	path := filepath.Join(m.dir, "device.toml")
	good, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, err := m.status(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(good), "[modules.door]", "[module.door]", 1)), 0o600); err != nil {
		return err
	}
	out, err := run(ctx, m.program("twinbay"), "--socket", filepath.Join(m.dir, "twinbay.sock"), "reload")
	if err == nil || !strings.Contains(err.Error(), "device.toml:") {
		return fmt.Errorf("a file with an unknown table: %q, %v; want its line", out, err)
	}
	other := strings.Replace(string(good), "interval_ms = 5000", "interval_ms = 4000", 1)
	if other == string(good) {
		return fmt.Errorf("demo.toml has changed: smoke no longer finds climate's settings")
	}
	if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
		return err
	}
	mark := m.events.mark()
	var r local.Reloaded
	if err := m.twinbay(ctx, &r, "reload", "--json"); err != nil {
		return err
	}
	if !slices.Equal(r.Changed, []string{"climate"}) || len(r.Added)+len(r.Removed)+len(r.Later) > 0 || r.Device {
		return fmt.Errorf("%+v; want climate changed and nothing else", r)
	}
	connected := func(events []admin.Event) bool {
		return slices.ContainsFunc(events, func(e admin.Event) bool { return e.Kind == "connected" && e.ModuleID == "climate" })
	}
	if err := m.events.wait(ctx, "climate to connect again", mark, connected); err != nil {
		return err
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		return err
	}
	mark = m.events.mark()
	m.agent.cmd.Process.Signal(syscall.SIGHUP)
	if err := m.events.wait(ctx, "climate to connect after SIGHUP", mark, connected); err != nil {
		return err
	}
	after, err := m.status(ctx)
	if err != nil {
		return err
	}
	for i, c := range after.Components {
		same := c.Process.PID == before.Components[i].Process.PID
		if same != (c.Name != "climate") {
			return fmt.Errorf("%s: process %d, before %d; only climate has changed", c.Name, c.Process.PID, before.Components[i].Process.PID)
		}
	}
	return nil
}
