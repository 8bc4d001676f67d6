package agent

import (
	"bytes"
	"context"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/local"
)

const (
	slowCall     = 5 * time.Second  // a call on the disk that takes longer is shown
	metricsRetry = 30 * time.Second // an address that cannot be had now may come with its network
	userHZ       = 100              // clock ticks a second in /proc (proc(5): sysconf(_SC_CLK_TCK), 100 on every Linux that Go knows)
)

// endpoint is the metrics' TCP address.
type endpoint struct {
	mu  sync.Mutex
	err error
}

// fail keeps why nobody is answered; false when it is known.
func (e *endpoint) fail(err error) (news bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	news = err != nil && (e.err == nil || e.err.Error() != err.Error())
	e.err = err
	return news
}

func (e *endpoint) show(address string) *local.Endpoint {
	if address == "" {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	shown := &local.Endpoint{Address: address}
	if e.err != nil {
		shown.Error = e.err.Error()
	}
	return shown
}

// serveMetrics answers Prometheus at the device file's address until ctx ends. An address that cannot be had is said, and tried
// again: a device does without its metrics rather than without its components.
func (a *Agent) serveMetrics(ctx context.Context) {
	address := a.file().Agent.Metrics
	host, _, _ := net.SplitHostPort(address) // the device file's reader has looked at it
	if ip := net.ParseIP(host); host != "localhost" && !ip.IsLoopback() {
		a.log.Warn("everybody who reaches this address can read the metrics; they hold names and figures, no credential and no reading", "address", address)
	}
	for ctx.Err() == nil {
		l, err := net.Listen("tcp", address)
		if err == nil {
			a.endpoint.fail(nil)
			a.log.Info("metrics are served", "address", l.Addr().String())
			err = local.ServeMetrics(ctx, l, a)
		}
		if a.endpoint.fail(err) {
			a.log.Error("metrics are not served; trying again", "address", address, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(metricsRetry):
		}
	}
}

// self is the agent's own process, from /proc/self (proc(5)). What cannot be read is 0.
func self() local.Self {
	s := local.Self{Goroutines: runtime.NumGoroutine()}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		s.OpenFiles = len(files) - 1 // without the one that reads
	}
	if text, err := os.ReadFile("/proc/self/stat"); err == nil {
		s.CPUS, s.Resident = parseStat(text)
	}
	return s
}

// parseStat reads /proc/PID/stat: processor time in seconds, and memory in use in bytes.
func parseStat(text []byte) (cpu float64, resident int64) {
	// The second field is the program's name in parentheses, which may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	number := func(n int) int64 { // of proc(5), which counts from 1; what is left begins with the third
		if n-3 >= len(fields) {
			return 0
		}
		v, err := strconv.ParseInt(string(fields[n-3]), 10, 64)
		if err != nil || v < 0 || v > 1<<50 {
			return 0 // no machine has run for so long, or has so much
		}
		return v
	}
	return float64(number(14)+number(15)) / userHZ, number(24) * int64(os.Getpagesize())
}
