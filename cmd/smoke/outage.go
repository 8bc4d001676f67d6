package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/rig"
)

const outageFor = time.Minute

// outages kills the hub for a minute, in which each of ten doors opens, and measures how long after its return it has the
// first message of each identity: once with nothing else to tell the agent that the hub is back, and once with a network
// link that comes up at that moment.
func (m *machine) outages(ctx context.Context) error {
	d, end, err := newDoors(ctx, m, 10)
	if err != nil {
		return err
	}
	defer end()
	if _, err := d.startAgent(ctx); err != nil {
		return err
	}
	for open, c := range []struct {
		what string
		most float64 // ms
		link bool
	}{
		{"first message after an outage of 60 s", 15_000, false},
		{"first message after an outage of 60 s, with a link event", 2_000, true},
	} {
		if c.link {
			raise, gone, err := newLink(ctx)
			if err != nil {
				fmt.Printf("%s: not measured: %v\n", c.what, err)
				continue
			}
			defer gone()
			err = d.outage(ctx, c.what, c.most, open == 0, raise)
			if err != nil {
				return err
			}
			continue
		}
		if err := d.outage(ctx, c.what, c.most, open == 0, func() error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

func (d *doors) outage(ctx context.Context, what string, most float64, open bool, back func() error) error {
	d.stopEvents()
	d.sim.kill()
	select {
	case <-time.After(outageFor / 2):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, name := range d.names {
		if err := (rig.Client{Dir: d.dir + "/" + name}).Door(ctx, open); err != nil {
			return err
		}
	}
	select {
	case <-time.After(outageFor / 2):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := d.startHub(ctx); err != nil {
		return err
	}
	begin := time.Now()
	if err := back(); err != nil {
		return err
	}
	var took []time.Duration
	err := d.events.wait(ctx, "the first message of each door", 0, func(events []admin.Event) bool {
		first := firsts(events)
		if len(first) < len(d.names) {
			return false
		}
		for _, at := range first {
			took = append(took, max(0, at.Sub(begin)))
		}
		return true
	})
	if err != nil {
		return err
	}
	slices.Sort(took)
	n := len(took)
	figure{what: what, value: ms(took[n-1]), unit: "ms", most: most,
		note: fmt.Sprintf("worst of %d identities; median %.0f ms, first %.0f ms", n, ms(took[n/2]), ms(took[0]))}.print()
	return nil
}

// newLink makes a pair of network interfaces that lead nowhere, whose link raise brings up and gone removes. Only root may.
func newLink(ctx context.Context) (raise func() error, gone func(), err error) {
	const a, b = "twinbay-bench0", "twinbay-bench1" // at most 15 bytes: if(4), IFNAMSIZ
	ip := func(args ...string) error {
		out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
		return nil
	}
	if err := ip("link", "add", a, "type", "veth", "peer", "name", b); err != nil {
		return nil, nil, fmt.Errorf("a link event needs a network interface to bring up, which root may make: %w", err)
	}
	raise = func() error {
		if err := ip("link", "set", b, "up"); err != nil {
			return err
		}
		return ip("link", "set", a, "up")
	}
	return raise, func() { _ = exec.Command("ip", "link", "del", a).Run() }, nil
}
