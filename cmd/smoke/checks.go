package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/rig"
)

// step is one check: what is promised, and how it is looked into.
type step struct {
	promise string
	look    func(*machine, context.Context) error
}

// check goes through all promises and stops at the first that is broken.
func (m *machine) check(ctx context.Context) error {
	steps := []step{
		{"the hub comes up on free ports, with an env file for scripts", (*machine).startHub},
		{"MQTT 5: three module identities and the device on four connections at once", up("5")},
		{"MQTT 5: telemetry of each component under its own identity", (*machine).telemetry},
		{"a desired change is applied, acknowledged, and not seen by the others", (*machine).desiredChange},
		{"a refused bad value keeps the last good one", (*machine).refusedValue},
		{"a direct method reaches only its module", (*machine).methods},
		{"a module's token is refused for another module", (*machine).foreignToken},
		{"kill -9 of a module: back within 2 s, no coin lost or doubled", (*machine).killModule},
		{"the 21st module identity of a device is refused", (*machine).moduleLimit},
		{"ids that differ only in case are two identities", (*machine).caseOfIDs},
		{"a device unknown to the registry is refused", (*machine).unknownDevice},
		{"SIGTERM ends the agent within 2 s, and nothing stays", (*machine).cleanStop},
		{"MQTT 3.1.1: three module identities and the device on four connections at once", up("3.1.1")},
		{"MQTT 3.1.1: telemetry of each component under its own identity", (*machine).telemetry},
		{"MQTT 3.1.1: a desired change is applied, acknowledged, and not seen by the others", (*machine).desiredChange},
		{"MQTT 3.1.1: a refused bad value keeps the last good one", (*machine).refusedValue},
		{"MQTT 3.1.1: a direct method reaches only its module", (*machine).methods},
		{"MQTT 3.1.1: kill -9 of a module: back within 2 s, no coin lost or doubled", (*machine).killModule},
		{"a device file with an error changes nothing; one without touches only what changed", (*machine).reload},
		{"kill -9 of the agent, three times while coins fall: no process stays, no coin lost or doubled", (*machine).killAgent},
		{"the simulator ends cleanly", (*machine).stopHub},
	}
	for _, s := range steps {
		begin := time.Now()
		err := s.look(m, ctx)
		took := time.Since(begin).Seconds()
		if err != nil {
			fmt.Printf("FAIL  %5.2f s  %s\n", took, s.promise)
			return err
		}
		fmt.Printf("ok    %5.2f s  %s\n", took, s.promise)
	}
	fmt.Printf("%d passed, 0 failed\n", len(steps))
	return nil
}

func up(mqtt string) func(*machine, context.Context) error {
	return func(m *machine, ctx context.Context) error {
		mark := m.events.mark()
		if err := m.startAgent(mqtt); err != nil {
			return err
		}
		err := m.events.wait(ctx, "four connections", mark, func(events []admin.Event) bool {
			open := map[string]bool{}
			for _, e := range events {
				who := admin.ID{Device: e.DeviceID, Module: e.ModuleID}.String()
				switch e.Kind {
				case "connected":
					open[who] = strings.Contains(e.Detail, mqtt)
				case "disconnected":
					open[who] = false
				}
			}
			return open[device] && open[device+"/climate"] && open[device+"/coins"] && open[device+"/door"]
		})
		if err != nil {
			return err
		}
		if err := m.connected(ctx); err != nil {
			return err
		}
		return m.ready(ctx, mark)
	}
}

// ready waits until each component runs, the first reading of its hardware has come, and coins are taken. A module that
// starts again with the state that it had says nothing new of its own, so it is the agent that is asked.
func (m *machine) ready(ctx context.Context, mark int) error {
	err := m.events.wait(ctx, "first telemetry of climate", mark, func(events []admin.Event) bool {
		return slices.ContainsFunc(events, func(e admin.Event) bool { return e.Kind == "telemetry" && e.ModuleID == "climate" })
	})
	if err != nil {
		return err
	}
	look := time.NewTicker(20 * time.Millisecond) // neither the agent nor the acceptor tells when it is ready
	defer look.Stop()
	limit := time.After(patient)
	for {
		s, err := m.status(ctx)
		if err != nil {
			return err
		}
		waits := slices.ContainsFunc(s.Components, func(c local.Component) bool { return c.Process.State != local.Running })
		if !waits {
			if s, err := (rig.Client{Dir: m.dir}).Status(ctx); err != nil || s.Coins.Accepting {
				return err
			}
		}
		select {
		case <-look.C:
		case <-limit:
			return errors.New("a module does not run, or the coin acceptor takes no coins")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connected asks the hub's registry, too.
func (m *machine) connected(ctx context.Context) error {
	ids := []admin.ID{{Device: device}}
	for _, name := range modules {
		ids = append(ids, admin.ID{Device: device, Module: name})
	}
	for _, id := range ids {
		answer, err := m.hub.Show(ctx, id)
		if err != nil {
			return err
		}
		var identity struct{ ConnectionState string }
		if err := json.Unmarshal(answer, &identity); err != nil || identity.ConnectionState != "Connected" {
			return fmt.Errorf("the registry shows %s as %q, %v", id, identity.ConnectionState, err)
		}
	}
	return nil
}

func (m *machine) telemetry(ctx context.Context) error {
	mark := m.events.mark()
	if err := errors.Join(m.rig(ctx, "coin", "EU100A"), m.rig(ctx, "door", "open")); err != nil {
		return err
	}
	defer m.rig(ctx, "door", "close")
	return m.events.wait(ctx, "telemetry of each", mark, func(events []admin.Event) bool {
		var coin, climate, door bool
		for _, e := range events {
			if e.Kind != "telemetry" {
				continue
			}
			body := fields(e.Body)
			coin = coin || e.ModuleID == "coins" && body["coin"] == "EU100A"
			climate = climate || e.ModuleID == "climate" && body["temperature_c"] != nil
			door = door || e.ModuleID == "door" && body["event"] == "opened"
		}
		return coin && climate && door
	})
}

func fields(body json.RawMessage) map[string]any {
	var m map[string]any
	if json.Unmarshal(body, &m) != nil {
		return nil
	}
	return m
}

// ack is what is reported of one setting.
type ack struct {
	Value any
	AC    int
	AV    int64
}

// acknowledged waits until the hub's twin of a module says something about a setting.
func (m *machine) acknowledged(ctx context.Context, module, setting string, mark int, ok func(ack) bool) error {
	return m.events.wait(ctx, module+" to acknowledge "+setting, mark, func(events []admin.Event) bool {
		if !slices.ContainsFunc(events, func(e admin.Event) bool { return e.Kind == "reported" && e.ModuleID == module }) {
			return false
		}
		t, err := m.hubTwin(ctx, module)
		if err != nil {
			return false
		}
		var a ack
		return json.Unmarshal(t.Properties.Reported[setting], &a) == nil && ok(a)
	})
}

type hubTwin struct {
	Properties struct {
		Desired, Reported map[string]json.RawMessage
	}
}

func (m *machine) hubTwin(ctx context.Context, module string) (hubTwin, error) {
	var t hubTwin
	answer, err := m.hub.Twin(ctx, admin.ID{Device: device, Module: module})
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(answer, &t)
}

func (m *machine) desire(ctx context.Context, module string, doc map[string]any) error {
	_, err := m.hub.PatchTwin(ctx, admin.ID{Device: device, Module: module},
		map[string]any{"properties": map[string]any{"desired": doc}})
	return err
}

func (m *machine) desiredChange(ctx context.Context) error {
	mark := m.events.mark()
	interval := float64(700 + mark%100) // never the value that is in force already
	if err := m.desire(ctx, "climate", map[string]any{"interval_ms": interval}); err != nil {
		return err
	}
	err := m.acknowledged(ctx, "climate", "interval_ms", mark, func(a ack) bool { return a.AC == 200 && a.Value == interval })
	if err != nil {
		return err
	}
	for _, other := range []string{"coins", "door"} {
		t, err := m.hubTwin(ctx, other)
		if err != nil {
			return err
		}
		if v, ok := t.Properties.Reported["interval_ms"]; ok {
			return fmt.Errorf("%s acknowledges climate's setting: %s", other, v)
		}
	}
	events, _ := m.events.since(mark)
	for _, e := range events {
		if e.Kind == "desired" && e.ModuleID != "climate" {
			return fmt.Errorf("%s was sent climate's change", e.ModuleID)
		}
	}
	return nil
}

func (m *machine) refusedValue(ctx context.Context) error {
	before, err := m.hubTwin(ctx, "climate")
	if err != nil {
		return err
	}
	var good ack
	if err := json.Unmarshal(before.Properties.Reported["interval_ms"], &good); err != nil {
		return err
	}
	mark := m.events.mark()
	if err := m.desire(ctx, "climate", map[string]any{"interval_ms": "soon"}); err != nil {
		return err
	}
	err = m.acknowledged(ctx, "climate", "interval_ms", mark, func(a ack) bool { return a.AC == 400 && a.Value == good.Value })
	if err != nil {
		return err
	}
	mark = m.events.mark()
	if err := m.desire(ctx, "climate", map[string]any{"interval_ms": good.Value}); err != nil {
		return err
	}
	return m.acknowledged(ctx, "climate", "interval_ms", mark, func(a ack) bool { return a.AC == 200 && a.Value == good.Value })
}

func (m *machine) methods(ctx context.Context) error {
	mark := m.events.mark()
	r, err := m.hub.Invoke(ctx, admin.ID{Device: device, Module: "climate"}, "readNow", nil, 10*time.Second)
	if err != nil {
		return err
	}
	if r.Status != 200 || fields(r.Payload)["temperature_c"] == nil {
		return fmt.Errorf("readNow answers %d %s", r.Status, r.Payload)
	}
	r, err = m.hub.Invoke(ctx, admin.ID{Device: device, Module: "door"}, "readNow", nil, 10*time.Second)
	if err != nil || r.Status != 404 {
		return fmt.Errorf("door answers climate's method with %d %s, %v; want 404", r.Status, r.Payload, err)
	}
	events, _ := m.events.since(mark)
	for _, e := range events {
		if e.Kind == "method" && e.ModuleID == "coins" {
			return errors.New("coins was called too")
		}
	}
	return nil
}

func (m *machine) foreignToken(context.Context) error {
	climate, coins := admin.ID{Device: device, Module: "climate"}, admin.ID{Device: device, Module: "coins"}
	key, err := m.keyOf(filepath.Join(m.dir, "keys", device, "modules", "climate.cred"))
	if err != nil {
		return err
	}
	if err := m.knock(coins, climate, key); !errors.Is(err, errRefused) {
		return fmt.Errorf("as coins with climate's token: %v", err)
	}
	if err := m.knock(coins, coins, key); !errors.Is(err, errRefused) {
		return fmt.Errorf("as coins with a token signed by climate's key: %v", err)
	}
	return nil
}

func (m *machine) moduleLimit(ctx context.Context) error {
	for i := len(modules); i < 20; i++ {
		if _, err := m.hub.Create(ctx, admin.ID{Device: device, Module: fmt.Sprintf("spare-%d", i)}, nil); err != nil {
			return err
		}
	}
	_, err := m.hub.Create(ctx, admin.ID{Device: device, Module: "one-too-many"}, nil)
	if e, ok := errors.AsType[*admin.Error](err); !ok || e.Status != 413 || e.Code != "TooManyModulesOnDevice" {
		return fmt.Errorf("the 21st module: %v; want 413 TooManyModulesOnDevice", err)
	}
	return nil
}

func (m *machine) caseOfIDs(ctx context.Context) error {
	upper := admin.ID{Device: strings.ToUpper(device)}
	if _, err := m.hub.Create(ctx, upper, nil); err != nil {
		return err
	}
	answer, err := m.hub.Modules(ctx, upper.Device)
	if err != nil || strings.TrimSpace(string(answer)) != "[]" {
		return fmt.Errorf("%s has modules %s, %v", upper, answer, err)
	}
	key, err := m.keyOf(filepath.Join(m.dir, "keys", device, "device.cred"))
	if err != nil {
		return err
	}
	if err := m.knock(upper, upper, key); !errors.Is(err, errRefused) {
		return fmt.Errorf("as %s with the key of %s: %v", upper, device, err)
	}
	return nil
}

func (m *machine) unknownDevice(context.Context) error {
	ghost := admin.ID{Device: "not-in-the-registry"}
	if err := m.knock(ghost, ghost, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="); !errors.Is(err, errRefused) {
		return fmt.Errorf("an unknown device: %v", err)
	}
	return nil
}

func (m *machine) cleanStop(ctx context.Context) error {
	mark := m.events.mark()
	if err := m.agent.stop(2 * time.Second); err != nil {
		return err
	}
	err := m.events.wait(ctx, "four goodbyes", mark, func(events []admin.Event) bool {
		n := 0
		for _, e := range events {
			if e.Kind == "disconnected" {
				n++
			}
		}
		return n >= 4
	})
	if err != nil {
		return err
	}
	return m.nothingLeft()
}

// nothingLeft looks for processes and sockets of the agent.
func (m *machine) nothingLeft() error {
	pids, err := children(m.dir)
	if err != nil {
		return err
	}
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == m.sim.cmd.Process.Pid })
	if len(pids) > 0 {
		return fmt.Errorf("processes still run: %v", pids)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "twinbay.sock")); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the agent's socket: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(m.dir, "plugins", "*", "*"))
	if err != nil || len(left) > 0 {
		return fmt.Errorf("the agent left %v, %v", left, err)
	}
	return nil
}

func (m *machine) stopHub(context.Context) error {
	m.stopEvents()
	if err := m.sim.stop(patient); err != nil {
		return err
	}
	for _, name := range []string{"hub.env", "rig.sock", "ttyCOIN"} {
		if _, err := os.Lstat(filepath.Join(m.dir, name)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there (%v)", name, err)
		}
	}
	return nil
}
