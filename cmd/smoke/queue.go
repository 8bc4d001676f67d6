package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/simulator/admin"
)

const (
	queueBody  = 256    // bytes of a message
	queueCount = 50_000 // messages that one component hands over as fast as it may
	drainCount = 20_000 // messages that wait for the hub
)

// queue measures the outbox on this disk, in this process, and then an agent that finds a backlog and sends it.
func (m *machine) queue(ctx context.Context) error {
	if err := m.enqueue(); err != nil {
		return err
	}
	for _, p := range []outbox.Profile{outbox.Durable, outbox.SDCard} {
		for _, online := range []bool{true, false} {
			if err := m.deviceBytes(p, online); err != nil {
				return err
			}
		}
	}
	return m.drain(ctx)
}

// enqueue measures one component with 64 messages that wait to be accepted.
func (m *machine) enqueue() error {
	log := outbox.OpenLog(outbox.LogConfig{Dir: filepath.Join(m.dir, "enqueue")})
	begin := time.Now()
	refused := fill(log.Box("door"), queueCount, func(box outbox.Box) {
		if r, ok := box.Next(); ok {
			box.Acked(r.ID)
		}
	})
	took, s := time.Since(begin), log.Status()
	if err := log.Close(); err != nil {
		return err
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d messages are not accepted", refused, queueCount)
	}
	figure{what: "durable enqueue, one component, 64 under way, 256 B", value: queueCount / took.Seconds(), unit: "messages/s", least: 5000,
		note: fmt.Sprintf("%.0f messages an fsync; nothing refused", queueCount/float64(max(s.Syncs, 1)))}.print()
	figure{what: "bytes appended per payload byte, 64 under way, 256 B", value: float64(s.Written) / queueCount / queueBody, unit: "", most: 1.3}.print()
	return nil
}

// fill hands n messages to a box, at most 64 of which wait to be accepted, and answers how many are not. after is called
// after each.
func fill(box outbox.Box, n int, after func(outbox.Box)) (refused int) {
	body := []byte(strings.Repeat("x", queueBody))
	var mu sync.Mutex
	tokens := make(chan struct{}, 64)
	for range n {
		tokens <- struct{}{}
		box.Put(outbox.Record{Body: body}, func(_ string, err error) {
			if err != nil {
				mu.Lock()
				refused++
				mu.Unlock()
			}
			<-tokens
		})
		after(box)
	}
	for range cap(tokens) {
		tokens <- struct{}{}
	}
	return refused
}

// deviceBytes measures what 20 components, each with a message a second, make a device write, with a hub and without one.
func (m *machine) deviceBytes(p outbox.Profile, online bool) error {
	const components, seconds = 20, 5
	log := outbox.OpenLog(outbox.LogConfig{Dir: filepath.Join(m.dir, fmt.Sprint("bytes-", p, online)), Profile: p})
	body := []byte(strings.Repeat("x", queueBody))
	take := func(box outbox.Box) {
		if r, ok := box.Next(); ok {
			box.Acked(r.ID)
		}
	}
	pace := time.NewTicker(time.Second / components)
	defer pace.Stop()
	var before int64
	var start outbox.Status
	first := log.Box("component0")
	first.Append(outbox.Record{Body: body})
	const warm, n = 3 * components, seconds * components
	for i := range warm + n {
		if i == warm { // the first message has waited so long that the first segments are made, in either profile
			take(first)
			before, start = written(), log.Status()
		}
		box := log.Box(fmt.Sprint("component", 1+i%components))
		box.Append(outbox.Record{Body: body})
		if online || i < warm {
			take(box)
		}
		<-pace.C
	}
	after, last := written(), log.Status()
	if err := log.Close(); err != nil {
		return err
	}
	hub := "hub away"
	if online {
		hub = "hub there"
	}
	figure{what: fmt.Sprintf("device bytes per message of 256 B, %s, %s", p, hub), value: float64(after-before) / n, unit: "B",
		note: fmt.Sprintf("%d components, a message a second each; %.0f B appended a message, %.1f fsyncs/s", components,
			float64(last.Written-start.Written)/n, float64(last.Syncs-start.Syncs)/seconds)}.print()
	return nil
}

// written is what the kernel counts for this process as to be written to disks (proc(5), io); 0 where it does not count.
func written() (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "write_bytes: %d", &n)
	}
	return n
}

// drain has an agent find a backlog on its disk, and measures from its connection to the hub until the hub has acknowledged
// the last message.
func (m *machine) drain(ctx context.Context) error {
	d, end, err := newDoors(ctx, m, 1)
	if err != nil {
		return err
	}
	defer end()
	log := outbox.OpenLog(outbox.LogConfig{Dir: filepath.Join(d.dir, "state", "outbox")})
	refused := fill(log.Box(d.names[0]), drainCount, func(outbox.Box) {})
	if err := log.Close(); err != nil || refused > 0 {
		return fmt.Errorf("%d of %d messages are not accepted, %w", refused, drainCount, err)
	}
	if _, err := d.startAgent(ctx); err != nil {
		return err
	}
	events, _ := d.events.since(0)
	at := slices.IndexFunc(events, func(e admin.Event) bool { return e.Kind == "connected" && e.ModuleID == d.names[0] })
	if at < 0 {
		return fmt.Errorf("%s has sent telemetry without a connection", d.names[0])
	}
	d.stopEvents()                                // a stream of 20,000 events would be a part of the figure
	look := time.NewTicker(10 * time.Millisecond) // the agent does not tell when its queue is empty
	defer look.Stop()
	for {
		s, err := d.local.Status(ctx)
		if err != nil {
			return err
		}
		if q := s.Components[0].Queue; q.Acked >= drainCount {
			break
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	figure{what: "drain of a backlog, agent to hub, TLS, QoS 1, 256 B", value: drainCount / time.Since(events[at].At).Seconds(), unit: "messages/s", least: 2000,
		note: fmt.Sprintf("%d messages of one component", drainCount)}.print()
	return nil
}
