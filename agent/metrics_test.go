package agent

import (
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/exposition/expositiontest"
	"github.com/twinbay/twinbay/agent/local"
)

// A running agent's metrics are well formed, and tell of what has happened.
func TestMetricsOfARunningAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "5", "", "coins", "door")
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		r.machines["coins"].insert(2)
		r.telemetry("coins")
		r.telemetry("coins")
		r.kill("coins", "killed by signal 9 (SIGKILL)")
		time.Sleep(10 * time.Second)
		r.kill("coins", "hung: no heartbeat for 3s")
		time.Sleep(10 * time.Second)
		r.hub.Down()
		time.Sleep(time.Second)
		r.machines["coins"].insert(3)
		time.Sleep(time.Minute)
		text := local.Metrics(r.agent.Status(), time.Now())
		families, err := expositiontest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []struct {
			name   string
			value  float64
			labels []string
		}{
			{"twinbay_module_restarts_total", 2, []string{"component", "coins"}},
			{"twinbay_module_ends_total", 1, []string{"component", "coins", "reason", "signal"}},
			{"twinbay_module_ends_total", 1, []string{"component", "coins", "reason", "hung"}},
			{"twinbay_outbox_messages", 3, []string{"component", "coins"}},
			{"twinbay_outbox_accepted_total", 5, []string{"component", "coins"}},
			{"twinbay_outbox_acknowledged_total", 2, []string{"component", "coins"}},
			{"twinbay_outbox_oldest_age_seconds", 60, []string{"component", "coins"}},
			{"twinbay_connected", 0, []string{"component", "door"}},
			{"twinbay_module_up", 1, []string{"component", "door"}},
			{"twinbay_safe_mode", 0, nil},
			{"twinbay_clock_trusted", 1, nil},
		} {
			if v, ok := families[want.name].Value(want.labels...); !ok || v != want.value {
				t.Errorf("%s%v is %v, %v; want %v", want.name, want.labels, v, ok, want.value)
			}
		}
		for _, name := range []string{"twinbay_state_written_bytes_total", "twinbay_outbox_written_bytes_total", "process_resident_memory_bytes", "go_goroutines", "process_open_fds"} {
			if v, ok := families[name].Value(); !ok || v <= 0 {
				t.Errorf("%s is %v, %v", name, v, ok)
			}
		}
		syncs := r.agent.Status().Storage
		if last := syncs.SyncTimes[len(syncs.SyncTimes)-1]; syncs.Syncs == 0 || last.Count != syncs.Syncs {
			t.Errorf("%d syncs, and in the last bucket %+v", syncs.Syncs, last)
		}
	})
}

// Prometheus asks over TCP; an address that cannot be had is said, and harms nothing else.
func TestMetricsOverTCP(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for _, l := range []net.Listener{taken, free} {
		r := newRig(t, "5", "", "coins")
		r.file.Agent.Metrics = l.Addr().String()
		r.start()
		r.reported("coins", `{"mode":{"ac":203}}`)
		m := r.agent.Status().Metrics
		if m == nil || m.Address != l.Addr().String() || (m.Error != "") != (l == taken) {
			t.Errorf("status of the metrics = %+v", m)
		}
		if l == free {
			res, err := http.Get("http://" + m.Address + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if families, parse := expositiontest.Parse(text); err != nil || parse != nil || len(families) < 30 {
				t.Errorf("%d families, %v, %v", len(families), err, parse)
			}
			http.DefaultClient.CloseIdleConnections()
		}
		r.stop()
	}
}

func TestEndKind(t *testing.T) {
	for reason, want := range map[string]string{
		"hung: no heartbeat for 3s":                                               local.EndHung,
		"hung: write is 1.2s beyond its deadline":                                 local.EndHung,
		"killed by signal 9 (SIGKILL)":                                            local.EndSignal,
		"killed by signal 11 (SIGSEGV): last words":                               local.EndSignal,
		"exit status 2: panic: x":                                                 local.EndExit,
		"ended by itself with exit status 0":                                      local.EndExit,
		"killed: it used 130.0 MiB of memory, 128 MiB are allowed":                local.EndLimit,
		"killed: it used more than 128 MiB of memory":                             local.EndLimit,
		"exit status 2: fatal error: runtime: out of memory (64 MiB are allowed)": local.EndLimit,
		"it did not apply its settings within 10s":                                local.EndMisbehaved,
		"its run ended without being asked to":                                    local.EndMisbehaved,
		"something new":                                                           local.EndOther,
	} {
		if got := endKind(reason, true); got != want {
			t.Errorf("%q is %s, want %s", reason, got, want)
		}
		if got := endKind(reason, false); got != local.EndStart {
			t.Errorf("%q at the start is %s", reason, got)
		}
	}
}

func FuzzStat(f *testing.F) {
	if text, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(text)
	}
	f.Add([]byte("1 (a) b) S 0"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		if cpu, resident := parseStat(text); cpu < 0 || resident < 0 {
			t.Errorf("%v, %v", cpu, resident)
		}
	})
}
