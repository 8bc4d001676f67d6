package local

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/twinbay/twinbay/agent/exposition"
)

// MetricsHandler answers GET /metrics and nothing else.
func MetricsHandler(a Agent) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		text := Metrics(a.Status(), time.Now())
		w.Header().Set("Content-Type", exposition.ContentType)
		w.Write(text)
	})
	return mux
}

// ServeMetrics answers GET /metrics on l until ctx ends; it closes l. Nil means as asked.
func ServeMetrics(ctx context.Context, l net.Listener, a Agent) error {
	return answerOn(ctx, l, MetricsHandler(a))
}

// Metrics is a status in the Prometheus text format. What a restart of the agent resets is a counter all the same, as
// Prometheus has it.
func Metrics(s Status, now time.Time) []byte {
	x := &exposition.Text{}
	agentMetrics(x, s)
	storageMetrics(x, s.Storage)
	linkMetrics(x, s)
	moduleMetrics(x, s.Components)
	queueMetrics(x, s.Components, now)
	return x.Bytes()
}

func agentMetrics(x *exposition.Text, s Status) {
	x.Family("twinbay_build_info", exposition.Gauge, "Always 1; which agent runs, on which device, for which hub.")
	x.Add(1, "version", s.Version, "device", s.Device, "hub", s.Host, "protocol", s.Protocol)
	x.Family("process_start_time_seconds", exposition.Gauge, "When the agent has started, in seconds since 1970.")
	x.Add(unix(s.Started))
	x.Family("process_cpu_seconds_total", exposition.Counter, "Processor time of the agent's own process.")
	x.Add(s.Self.CPUS)
	x.Family("process_resident_memory_bytes", exposition.Gauge, "Memory of the agent's own process that is in use.")
	x.Add(float64(s.Self.Resident))
	x.Family("process_open_fds", exposition.Gauge, "Open files of the agent's own process.")
	x.Add(float64(s.Self.OpenFiles))
	x.Family("go_goroutines", exposition.Gauge, "Goroutines of the agent.")
	x.Add(float64(s.Self.Goroutines))
	x.Family("twinbay_safe_mode", exposition.Gauge, "1 while the agent is in safe mode and runs no module.")
	x.Add(truth(s.Safe != nil))
	x.Family("twinbay_clock_offset_seconds", exposition.Gauge, "The system's clock less the time that is used.")
	x.Add(s.Clock.OffsetS)
	x.Family("twinbay_clock_trusted", exposition.Gauge, "1 when the system's clock is used, 0 when it cannot be right.")
	x.Add(truth(s.Clock.Source == "system"))
	x.Family("twinbay_cloud_messages", exposition.Gauge, "Cloud-to-device messages that nobody has dismissed.")
	x.Add(float64(s.Messages))
}

func storageMetrics(x *exposition.Text, s Storage) {
	x.Family("twinbay_state_written_bytes_total", exposition.Counter, "Bytes written to all files of the state folder.")
	x.Add(float64(s.StateBytes))
	if s.Profile == "" {
		return // the outbox is not open
	}
	x.Family("twinbay_outbox_writable", exposition.Gauge, "0 while the outbox cannot be written.")
	x.Add(truth(s.Error == ""), "profile", s.Profile)
	x.Family("twinbay_outbox_size_bytes", exposition.Gauge, "Bytes of the messages that wait, all components together.")
	x.Add(float64(s.Bytes))
	x.Family("twinbay_outbox_limit_bytes", exposition.Gauge, "Bytes that the messages that wait may take.")
	x.Add(float64(s.MaxBytes))
	x.Family("twinbay_outbox_disk_bytes", exposition.Gauge, "Bytes that the outbox takes on the disk.")
	x.Add(float64(s.DiskBytes))
	x.Family("twinbay_outbox_written_bytes_total", exposition.Counter, "Bytes written to the outbox.")
	x.Add(float64(s.Written))
	x.Family("twinbay_outbox_damaged_total", exposition.Counter, "Places of the outbox that could not be read at the start.")
	x.Add(float64(s.Damaged))
	x.Family("twinbay_outbox_sync_duration_seconds", exposition.Histogram, "How long an fsync of the outbox takes.")
	buckets := make([]exposition.Bucket, 0, len(s.SyncTimes))
	for _, b := range s.SyncTimes {
		buckets = append(buckets, exposition.Bucket{Le: b.MaxMS / 1000, Count: b.Count})
	}
	x.AddHistogram(buckets, s.SyncSumMS/1000, s.Syncs)
	x.Family("twinbay_outbox_left_messages", exposition.Gauge, "Messages of components that are not in the device file any more.")
	for _, name := range slices.Sorted(maps.Keys(s.Left)) {
		x.Add(float64(s.Left[name]), "component", name)
	}
}

// linkMetrics are of the connections: the device's own has the component "".
func linkMetrics(x *exposition.Text, s Status) {
	each := func(f func(component string, l Link, v Versions)) {
		f("", s.Session, s.Versions)
		for _, c := range s.Components {
			f(c.Name, c.Link, c.Versions)
		}
	}
	x.Family("twinbay_connected", exposition.Gauge, "1 while the identity is connected; the component \"\" is the device itself.")
	each(func(c string, l Link, _ Versions) { x.Add(truth(l.Connected), "component", c) })
	x.Family("twinbay_connection_change_timestamp_seconds", exposition.Gauge, "When it became connected, or ceased to be, in seconds since 1970.")
	each(func(c string, l Link, _ Versions) { x.Add(unix(l.Since), "component", c) })
	x.Family("twinbay_reconnects_total", exposition.Counter, "Connections made after the first one.")
	each(func(c string, l Link, _ Versions) { x.Add(float64(l.Reconnects), "component", c) })
	x.Family("twinbay_token_expiry_timestamp_seconds", exposition.Gauge, "When the token ends, in seconds since 1970.")
	each(func(c string, l Link, _ Versions) {
		if !l.TokenExpires.IsZero() {
			x.Add(unix(l.TokenExpires), "component", c)
		}
	})
	x.Family("twinbay_twin_desired_version", exposition.Gauge, "Version of the desired properties that are in force.")
	each(func(c string, _ Link, v Versions) { x.Add(float64(v.Desired), "component", c) })
	x.Family("twinbay_twin_reported_version", exposition.Gauge, "Version of the reported properties that the hub has acknowledged.")
	each(func(c string, _ Link, v Versions) { x.Add(float64(v.Reported), "component", c) })
}

func moduleMetrics(x *exposition.Text, all []Component) {
	x.Family("twinbay_module_info", exposition.Gauge, "Always 1; which module a component runs, and the state of its process.")
	for _, c := range all {
		x.Add(1, "component", c.Name, "module", c.Module, "module_id", c.ModuleID, "state", c.Process.State)
	}
	x.Family("twinbay_module_up", exposition.Gauge, "1 while the module runs.")
	for _, c := range all {
		x.Add(truth(c.Process.State == Running), "component", c.Name)
	}
	x.Family("twinbay_module_healthy", exposition.Gauge, "1 while the component is ok, 0.5 while it is degraded, 0 while it is faulted.")
	for _, c := range all {
		x.Add(map[string]float64{OK: 1, Degraded: 0.5}[c.Health.State], "component", c.Name)
	}
	x.Family("twinbay_module_restarts_total", exposition.Counter, "Starts of the module after the first one.")
	for _, c := range all {
		x.Add(float64(c.Process.Restarts), "component", c.Name)
	}
	x.Family("twinbay_module_ends_total", exposition.Counter, "How often the module has ended or could not be started, by reason.")
	for _, c := range all {
		for _, reason := range slices.Sorted(maps.Keys(c.Process.Ends)) {
			x.Add(float64(c.Process.Ends[reason]), "component", c.Name, "reason", reason)
		}
	}
	x.Family("twinbay_module_quarantined", exposition.Gauge, "1 while the module has ended too often and is not started again before somebody says so.")
	for _, c := range all {
		x.Add(truth(c.Process.State == Quarantined), "component", c.Name)
	}
	x.Family("twinbay_module_memory_limit_bytes", exposition.Gauge, "Memory that the module may use.")
	for _, c := range all {
		for _, l := range c.Process.Limits {
			if l.Of == "memory" {
				x.Add(float64(l.Value), "component", c.Name)
			}
		}
	}
	x.Family("twinbay_module_limit_in_force", exposition.Gauge, "1 while a limit of the module is in force, 0 when nothing holds it.")
	for _, c := range all {
		for _, l := range c.Process.Limits {
			x.Add(truth(l.By != ""), "component", c.Name, "limit", l.Of)
		}
	}
	x.Family("twinbay_input_known", exposition.Gauge, "1 while a linked input has a value, 0 while it is unknown.")
	for _, c := range all {
		for _, in := range c.Inputs {
			x.Add(truth(in.Known), "component", c.Name, "input", in.Name, "from", in.From)
		}
	}
}

func queueMetrics(x *exposition.Text, all []Component, now time.Time) {
	gauge := func(name, help string, value func(Queue) float64) {
		x.Family(name, exposition.Gauge, help)
		for _, c := range all {
			x.Add(value(c.Queue), "component", c.Name)
		}
	}
	counter := func(name, help string, value func(Queue) uint64) {
		x.Family(name, exposition.Counter, help)
		for _, c := range all {
			x.Add(float64(value(c.Queue)), "component", c.Name)
		}
	}
	gauge("twinbay_outbox_messages", "Messages that wait for the hub, those in flight among them.", func(q Queue) float64 { return float64(q.Queued) })
	gauge("twinbay_outbox_inflight_messages", "Messages that are sent and not acknowledged.", func(q Queue) float64 { return float64(q.InFlight) })
	gauge("twinbay_outbox_held_messages", "Messages that the disk has not taken, so that they are not accepted.", func(q Queue) float64 { return float64(q.Held) })
	gauge("twinbay_outbox_bytes", "Bytes of the messages that wait.", func(q Queue) float64 { return float64(q.Bytes) })
	gauge("twinbay_outbox_oldest_age_seconds", "Age of the oldest message that waits; 0 when none does.", func(q Queue) float64 {
		if q.Oldest.IsZero() {
			return 0
		}
		return max(0, now.Sub(q.Oldest).Seconds())
	})
	counter("twinbay_outbox_accepted_total", "Messages accepted from the module.", func(q Queue) uint64 { return q.Accepted })
	counter("twinbay_outbox_acknowledged_total", "Messages that the hub has acknowledged.", func(q Queue) uint64 { return q.Acked })
	x.Family("twinbay_outbox_dropped_total", exposition.Counter, "Messages that are lost, by reason.")
	for _, c := range all {
		for _, reason := range slices.Sorted(maps.Keys(c.Queue.Dropped)) {
			x.Add(float64(c.Queue.Dropped[reason]), "component", c.Name, "reason", reason)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix is a time in seconds since 1970, to the millisecond; 0 is none.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
