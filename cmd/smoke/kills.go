package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
)

func (m *machine) killModule(ctx context.Context) error {
	before, err := m.component(ctx, "coins")
	if err != nil {
		return err
	}
	taken, err := m.credited(ctx)
	if err != nil {
		return err
	}
	mark := m.events.mark()
	if err := m.coins(ctx, 2); err != nil {
		return err
	}
	killed := time.Now()
	if err := syscall.Kill(before.Process.PID, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the coins module, process %d: %w", before.Process.PID, err)
	}
	if err := m.coins(ctx, 2); err != nil { // the acceptor keeps them while nobody asks
		return err
	}
	first, err := m.credited(ctx)
	if err != nil {
		return err
	}
	if err := m.waitCredits(ctx, mark, first-taken); err != nil {
		return err
	}
	if took := time.Since(killed); took > 2*time.Second {
		return fmt.Errorf("the coins came after %s", took)
	}
	after, err := m.component(ctx, "coins")
	if err != nil {
		return err
	}
	if after.Process.PID == before.Process.PID || after.Process.Restarts != before.Process.Restarts+1 {
		return fmt.Errorf("process %d, %d restarts; before %d, %d", after.Process.PID, after.Process.Restarts,
			before.Process.PID, before.Process.Restarts)
	}
	// One coin more shows that nothing is still on its way, and that none came twice.
	if err := m.coins(ctx, 1); err != nil {
		return err
	}
	if err := m.waitCredits(ctx, mark, first-taken+1); err != nil {
		return err
	}
	now, err := m.credited(ctx)
	if err != nil {
		return err
	}
	events, _ := m.events.since(mark)
	if got := credits(events); now-taken < 3 || len(got) != now-taken {
		return fmt.Errorf("the acceptor took %d coins of 5, the hub has credits %v", now-taken, got)
	}
	return nil
}

// coins throws coins in. The acceptor takes them as long as the last poll is less than a second ago: on a busy machine it
// may let one fall through that is thrown while nobody polls, and nobody owes a credit for that one.
func (m *machine) coins(ctx context.Context, n int) error {
	for range n {
		if err := m.rig(ctx, "coin", "EU050A"); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) waitCredits(ctx context.Context, mark, n int) error {
	return m.events.wait(ctx, fmt.Sprint(n, " coins"), mark, func(events []admin.Event) bool { return len(credits(events)) >= n })
}

// credits are the event counters of the credits that came.
func credits(events []admin.Event) []any {
	var all []any
	for _, e := range events {
		if body := fields(e.Body); e.ModuleID == "coins" && body["event"] == "credit" {
			all = append(all, body["counter"])
		}
	}
	return all
}

// killAgent kills the agent while coins fall, again and again. What it had accepted is on the disk, with the state of the
// module: each coin reaches the hub, and none under two ids.
func (m *machine) killAgent(ctx context.Context) error {
	before, err := m.credited(ctx)
	if err != nil {
		return err
	}
	mark := m.events.mark()
	const rounds, each = 3, 4
	for round := range rounds {
		if err := m.coins(ctx, each/2); err != nil {
			return err
		}
		s, err := m.status(ctx)
		if err != nil {
			return err
		}
		m.agent.kill()
		for _, c := range s.Components {
			if err := waitGone(ctx, c.Process.PID); err != nil {
				return fmt.Errorf("module %s: %w", c.Name, err)
			}
		}
		if err := m.coins(ctx, each/2); err != nil { // the acceptor keeps them while nobody asks
			return err
		}
		if err := up("3.1.1")(m, ctx); err != nil {
			return err
		}
		taken, err := m.credited(ctx)
		if err != nil {
			return err
		}
		if taken-before < (round+1)*each/2 {
			return fmt.Errorf("the acceptor took %d coins in round %d: too few to show anything", taken-before, round+1)
		}
		if err := m.counted(ctx, mark, taken-before); err != nil {
			return err
		}
		if ids := m.newCredits(mark); len(ids) != taken-before {
			return fmt.Errorf("the acceptor took %d coins, the hub has %d credits: %v", taken-before, len(ids), ids)
		}
	}
	return m.cleanStop(ctx)
}

// counted waits for n different coins.
func (m *machine) counted(ctx context.Context, mark, n int) error {
	return m.events.wait(ctx, fmt.Sprint(n, " different coins"), mark, func([]admin.Event) bool {
		counters := map[any]bool{}
		for _, c := range m.newCredits(mark) {
			counters[c] = true
		}
		return len(counters) >= n
	})
}

// newCredits are the ids of the credits that came after a mark for the first time. A killed agent sends again what it had
// not yet noted as acknowledged, under the same id, and that may be a coin of before the mark.
func (m *machine) newCredits(mark int) map[string]any {
	all, _ := m.events.since(0)
	ids := creditIDs(all[mark:])
	for id := range creditIDs(all[:mark]) {
		delete(ids, id)
	}
	return ids
}

// creditIDs are the ids of the credits that came: a message that comes again does so under its own.
func creditIDs(events []admin.Event) map[string]any {
	ids := map[string]any{}
	for _, e := range events {
		if body := fields(e.Body); e.ModuleID == "coins" && body["event"] == "credit" {
			ids[e.System["message-id"]] = body["counter"]
		}
	}
	return ids
}
