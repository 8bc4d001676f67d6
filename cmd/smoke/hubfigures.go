package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
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

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func fleetDevice(i int) string { return fmt.Sprintf("d%05d", i) }

func (m *machine) loads(ctx context.Context) error {
	for _, n := range []int{100, 16} {
		if err := m.sideBySide(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) idles(ctx context.Context) error {
	for _, n := range []int{1_000, 10_000} {
		if err := m.idle(ctx, n); err != nil {
			return err
		}
	}
	return nil
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

func (m *machine) sizes(context.Context) error {
	for _, name := range []string{"twinbay", "twinbay-modules", "twinbay-sim"} {
		f, err := os.Stat(m.program(name))
		if err != nil {
			return err
		}
		figure{what: "size of " + name, value: float64(f.Size()) / (1 << 20), unit: "MiB"}.print()
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
			figure{what: "twinbay-sim, exec to first TLS handshake, new folder", value: ms(d), unit: "ms"}.print()
			continue
		}
		took = append(took, d)
	}
	slices.Sort(took)
	figure{what: "twinbay-sim, exec to first TLS handshake", value: ms(took[starts/2]), unit: "ms", most: 100,
		note: fmt.Sprintf("median of %d", starts)}.print()
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
func (m *machine) sideBySide(ctx context.Context, connections int) error {
	hub, err := m.startBare(ctx, connections)
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
			conns, err := t.connectAll(ctx, fleetDevice, connections)
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
		f := figure{
			what:  fmt.Sprintf("telemetry, %d TLS connections, QoS 1, %d B, %s", connections, loadBody, t.name),
			value: results[i].perSecond(), unit: "messages/s",
			note: fmt.Sprintf("%.1f µs CPU of the server each", results[i].cpuPerMessage()),
		}
		if i == 0 && len(results) > 1 {
			f.least = results[1].perSecond()
		}
		f.print()
	}
	return nil
}

// idle measures what the server's process grows by for each connection that has subscribed and does nothing.
func (m *machine) idle(ctx context.Context, n int) error {
	what := fmt.Sprintf("memory (PSS) per idle TLS connection at %d", n)
	if err := raiseOpenFiles(uint64(n) + 200); err != nil {
		fmt.Printf("%s: not measured: %v\n", what, err)
		return nil
	}
	hub, err := m.startBare(ctx, n+1)
	if err != nil {
		return err
	}
	defer m.sim.kill()
	connect := func(first, n int) ([]net.Conn, error) {
		conns, err := hub.connectAll(ctx, func(i int) string { return fleetDevice(first + i) }, n)
		for i, nc := range conns {
			if err := behave(nc, fleetDevice(first+i)); err != nil {
				closeAll(conns)
				return nil, err
			}
		}
		return conns, err
	}
	warm, err := connect(n, 1)
	if err != nil {
		return err
	}
	defer closeAll(warm)
	before, err := settledPSS(ctx, hub.pid)
	if err != nil {
		return err
	}
	conns, err := connect(0, n)
	if err != nil {
		return err
	}
	defer closeAll(conns)
	after, err := settledPSS(ctx, hub.pid)
	if err != nil {
		return err
	}
	figure{what: what, value: float64(after-before) / float64(n), unit: "KiB", most: 20, note: "each has subscribed, got its twin and sent a message"}.print()
	return nil
}

// settledPSS is the memory of processes once it has stayed the same for two seconds: after a burst of work the runtime
// gives pages back for a while. It answers the lowest value of at most eight seconds, in KiB.
func settledPSS(ctx context.Context, pids ...int) (int, error) {
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	least, since := math.MaxInt, 0
	for range 16 {
		sum := 0
		for _, pid := range pids {
			kib, err := pss(pid)
			if err != nil {
				return 0, err
			}
			sum += kib
		}
		if since++; sum < least {
			least, since = sum, 0
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
