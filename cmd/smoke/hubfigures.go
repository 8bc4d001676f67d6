package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
)

const (
	fleetDevices = 10_000
	fleetModules = 3 // of each
)

func fleetDevice(i int) string { return fmt.Sprintf("d%05d", i) }

// measureHub prints the figures of the simulated hub, as a real process without anything to watch it.
func (m *machine) measureHub(ctx context.Context) error {
	if err := m.sizes(); err != nil {
		return err
	}
	if err := m.startTime(ctx); err != nil {
		return err
	}
	if err := m.sideBySide(ctx); err != nil {
		return err
	}
	for _, n := range []int{1_000, 10_000} {
		if err := m.idle(ctx, n); err != nil {
			return err
		}
	}
	return m.registry(ctx)
}

// startBare starts a hub of its own for one figure, which it fills with devices.
func (m *machine) startBare(ctx context.Context, devices int) (*target, error) {
	var err error
	m.sim, m.env, err = startSimulator(m.program("twinbay-sim"), filepath.Join(m.dir, "bare"), "--no-rig")
	if err != nil {
		return nil, err
	}
	if err := m.createDevices(ctx, devices); err != nil {
		return nil, err
	}
	return simulatedHub(m.sim, m.env)
}

func simulatedHub(p *process, env simulator.Env) (*target, error) {
	conf, err := hubTLS(env)
	if err != nil {
		return nil, err
	}
	host := env["HUB_HOST"]
	token, err := admin.Token(env[simulator.PolicyVariable("device")], "", time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	return &target{
		name: "twinbay-sim", address: env["HUB_IP"] + ":" + env["MQTT_PORT"], pid: p.cmd.Process.Pid, tls: conf,
		user: func(device string) (string, string) {
			return host + "/" + device + "/?api-version=2021-04-12", token
		},
	}, nil
}

func hubTLS(env simulator.Env) (*tls.Config, error) {
	ca, err := os.ReadFile(env["CA_FILE"])
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s is not PEM", env["CA_FILE"])
	}
	return &tls.Config{RootCAs: pool, ServerName: env["HUB_HOST"]}, nil
}

func (m *machine) sizes() error {
	for _, name := range []string{"twinbay", "twinbay-modules", "twinbay-sim"} {
		f, err := os.Stat(m.program(name))
		if err != nil {
			return err
		}
		fmt.Printf("size of %-15s %6d KiB\n", name, f.Size()>>10)
	}
	return nil
}

// startTime measures from exec to the first TLS handshake on the MQTT port: in a new folder, where the hub makes its
// certificate authority, and in one that has been used.
func (m *machine) startTime(ctx context.Context) error {
	const starts = 11
	dir := filepath.Join(m.dir, "starts")
	var took []time.Duration
	for i := range 1 + starts {
		begin := time.Now()
		p, env, err := startSimulator(m.program("twinbay-sim"), dir, "--no-rig")
		if err == nil {
			err = handshake(ctx, env)
		}
		d := time.Since(begin)
		if p != nil {
			p.kill()
		}
		if err != nil {
			return err
		}
		if i == 0 {
			fmt.Printf("twinbay-sim, exec to first TLS handshake, new folder    %6.0f ms\n", float64(d)/1e6)
			continue
		}
		took = append(took, d)
	}
	slices.Sort(took)
	fmt.Printf("twinbay-sim, exec to first TLS handshake, median of %d  %6.0f ms\n", starts, float64(took[starts/2])/1e6)
	return nil
}

func handshake(ctx context.Context, env simulator.Env) error {
	conf, err := hubTLS(env)
	if err != nil {
		return err
	}
	d := tls.Dialer{Config: conf}
	nc, err := d.DialContext(ctx, "tcp", env["HUB_IP"]+":"+env["MQTT_PORT"])
	if err != nil {
		return err
	}
	return nc.Close()
}

// sideBySide gives the hub and a broker the same load, turn about, so that both meet the same neighbours on this machine.
func (m *machine) sideBySide(ctx context.Context) error {
	hub, err := m.startBare(ctx, loadConnections)
	if err != nil {
		return err
	}
	defer m.sim.kill()
	targets := []*target{hub}
	p, broker, err := startBroker(ctx, m.dir)
	switch {
	case errors.Is(err, errNoBroker):
		fmt.Println("telemetry, compared with nothing:", err)
	case err != nil:
		return err
	default:
		defer p.kill()
		targets = append(targets, broker)
	}
	results := make([]throughput, len(targets))
	for round := range 4 {
		for i, t := range targets {
			conns, err := t.connectAll(ctx, fleetDevice, loadConnections)
			if err != nil {
				return err
			}
			r, err := t.load(conns, fleetDevice, 2*time.Second)
			closeAll(conns)
			if err != nil {
				return fmt.Errorf("load on %s: %w", t.name, err)
			}
			if round > 0 { // the first warms up
				results[i] = results[i].plus(r)
			}
		}
	}
	for i, t := range targets {
		fmt.Printf("telemetry, %d TLS connections, QoS 1, %d B, %-16s %6.0f messages/s, %5.1f µs CPU of the server each\n",
			loadConnections, loadBody, t.name, results[i].perSecond(), results[i].cpuPerMessage())
	}
	return nil
}

// idle measures what the server's process grows by for each connection that does nothing.
func (m *machine) idle(ctx context.Context, n int) error {
	hub, err := m.startBare(ctx, n+1)
	if err != nil {
		return err
	}
	defer m.sim.kill()
	warm, err := hub.dial(ctx, fleetDevice(n))
	if err != nil {
		return err
	}
	defer warm.Close()
	before, err := settledPSS(ctx, hub.pid)
	if err != nil {
		return err
	}
	conns, err := hub.connectAll(ctx, fleetDevice, n)
	if err != nil {
		return err
	}
	defer closeAll(conns)
	after, err := settledPSS(ctx, hub.pid)
	if err != nil {
		return err
	}
	fmt.Printf("memory (PSS) per idle TLS connection at %6d           %6.1f KiB\n", n, float64(after-before)/float64(n))
	return nil
}

// settledPSS is a process's memory once it has stayed the same for a second: after a burst of handshakes the runtime gives
// pages back for a while. It answers the lowest value of at most eight seconds.
func settledPSS(ctx context.Context, pid int) (int, error) {
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	least, since := 1<<62, 0
	for range 16 {
		kib, err := pss(pid)
		if err != nil {
			return 0, err
		}
		if since++; kib < least {
			least, since = kib, 0
		}
		if since == 4 {
			break
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return least, nil
}

// cpuTime is what a process has used of the processors, from proc(5), stat, fields 14 and 15, which count 100 a second.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	var user, system int64
	after := text[bytes.LastIndexByte(text, ')')+1:]
	var skip string
	fields := []any{&skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system}
	if _, err := fmt.Sscan(string(after), fields...); err != nil {
		return 0, fmt.Errorf("process %d: stat: %w", pid, err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}
