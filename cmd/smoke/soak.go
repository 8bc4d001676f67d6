package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/rig"
)

// What a soak holds the agent and its modules to: the most of the last third of the time is no more than the most of the
// second, since memory rises until the collector comes. In the first third all is new.
const (
	soakLooks = 30
	slackKiB  = 1 << 10
)

// use is what a process has of the machine.
type use struct {
	pid, kib, files, threads int
}

func (u use) String() string {
	return fmt.Sprintf("%6.1f MiB, %3d files, %2d threads", float64(u.kib)/(1<<10), u.files, u.threads)
}

// useOf asks the kernel (proc(5)).
func useOf(pid int) (u use, err error) {
	u.pid = pid
	if u.kib, err = pss(pid); err != nil {
		return u, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	u.files, u.threads = len(files), len(threads)
	return u, err
}

// soaked runs the vending machine for long, with much to do: a reading five times a second, coins, doors, direct
// methods and desired properties one after the other. It fails if a process has
// more memory, open files or threads in the last third of the time than in the one before.
func soaked(long time.Duration) func(*machine, context.Context) error {
	return func(m *machine, ctx context.Context) error {
		if err := m.startHub(ctx); err != nil {
			return err
		}
		if err := m.startAgent("3.1.1"); err != nil {
			return err
		}
		if err := m.desire(ctx, "climate", map[string]any{"interval_ms": 200}); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			if err := m.keepBusy(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		}()
		second, last := map[string]use{}, map[string]use{}
		for n := range soakLooks {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(long / soakLooks):
			}
			now, messages, err := m.uses(ctx)
			if err != nil {
				return err
			}
			for _, name := range append([]string{"agent"}, modules...) {
				fmt.Printf("%5.1f min  %-8s %s\n", (time.Duration(n+1) * long / soakLooks).Minutes(), name, now[name])
			}
			fmt.Printf("%5.1f min  %d messages\n", (time.Duration(n+1) * long / soakLooks).Minutes(), messages)
			switch n * 3 / soakLooks {
			case 1:
				most(second, now)
			case 2:
				most(last, now)
			}
		}
		return grown(second, last)
	}
}

// most takes over what is more.
func most(so, now map[string]use) {
	for name, u := range now {
		was := so[name]
		so[name] = use{u.pid, max(u.kib, was.kib), max(u.files, was.files), max(u.threads, was.threads)}
	}
}

// grown compares the same processes at two times.
func grown(base, now map[string]use) error {
	var more []string
	for name, was := range base {
		is := now[name]
		switch {
		case is.pid != was.pid:
			more = append(more, fmt.Sprintf("%s was started again", name))
		case is.kib > was.kib+slackKiB || is.files > was.files || is.threads > was.threads+2:
			more = append(more, fmt.Sprintf("%s has grown from %v to %v", name, was, is))
		}
	}
	if len(more) > 0 {
		return fmt.Errorf("soak: %s", strings.Join(more, "; "))
	}
	return nil
}

// uses is what agent and modules use, and how many messages the hub has taken.
func (m *machine) uses(ctx context.Context) (all map[string]use, messages uint64, err error) {
	s, err := m.status(ctx)
	if err != nil {
		return nil, 0, err
	}
	all = map[string]use{}
	if all["agent"], err = useOf(m.agent.cmd.Process.Pid); err != nil {
		return nil, 0, err
	}
	for _, c := range s.Components {
		if all[c.Name], err = useOf(c.Process.PID); err != nil {
			return nil, 0, err
		}
		messages += c.Queue.Acked
	}
	return all, messages, nil
}

// keepBusy gives the machine something to do until ctx ends.
func (m *machine) keepBusy(ctx context.Context) error {
	random := rand.New(rand.NewPCG(1, 2))
	hardware := rig.Client{Dir: m.dir}
	open := false
	for n := 0; ctx.Err() == nil; n++ {
		var err error
		switch n % 4 {
		case 0:
			_, err = hardware.Coin(ctx, "EU100A")
		case 1:
			open = !open
			err = hardware.Door(ctx, open)
		case 2:
			_, err = m.hub.Invoke(ctx, admin.ID{Device: device, Module: "climate"}, "readNow", nil, 10*time.Second)
		default:
			err = m.desire(ctx, "door", map[string]any{"debounce_ms": 10 + random.IntN(20)})
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // a contact bounces, and a customer has another coin to find
		}
	}
	return nil
}
