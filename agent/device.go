package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
)

// deviceMethods are the direct methods of the device itself.
var deviceMethods = []string{"ping", "status"}

// device is the device's own identity: its session, its twin and its direct methods.
//
// It reports {"agent": {"version"}, "components": {name: {"module"}}}: which agent runs, and which module each
// component is; in safe mode also {"agent": {"safe_mode": {"reason", "until"}}}. Its direct methods are "ping" ({"pong": true, "time": …}) and "status", whose answer is what
// `twinbay status --json` prints.
type device struct {
	agent *Agent
	log   *slog.Logger
	shown *view
	memo  memory
	mail  mail
	task  task

	mu   sync.Mutex
	loop *loop  // of the life that runs; nil while there is none
	tell func() // reports anew; nil likewise
}

// refresh reports anew: the device's components are others.
func (d *device) refresh() {
	d.mu.Lock()
	tell := d.tell
	d.mu.Unlock()
	if tell != nil {
		tell()
	}
}

func (d *device) setLife(l *loop, tell func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loop, d.tell = l, tell
}

func (d *device) run(ctx context.Context) {
	d.memo.note = func(text string) { d.shown.note(aboutDisk, text) }
	d.memo.load(d.agent.disk, d.agent.twinFile(deviceTwin), d.log)
	d.memo.show(d.shown)
	d.openInbox()
	keep(ctx, d.log, d.shown, d.live)
}

func (d *device) live(stop context.Context) (err error) {
	l := newLoop(context.WithoutCancel(stop))
	defer d.memo.flush()
	defer l.close()
	defer func() {
		if v := recover(); v != nil {
			err = newCrash(v)
		}
	}()
	hub := &contact{
		loop: l, log: d.log, memo: &d.memo, shown: d.shown, host: d.agent.file().Hub.Host,
		open: func() (*iothub.Session, error) {
			return d.agent.open("", []string{"device", "credential"}, d.agent.file().Device.Credential, d.log, d.shown)
		},
		changed: d.onDesired, method: d.onMethod, moved: func() {},
	}
	arrivals := make(chan iothub.CloudMessage, maxArrivals)
	hub.message = func(m iothub.CloudMessage) {
		select {
		case arrivals <- m:
		default: // the disk is slow; the hub hands it out again
		}
	}
	l.away(func(ctx context.Context) func() { return d.keepMessages(ctx, arrivals) })
	hub.want(d.reported())
	d.setLife(l, func() { l.call(stop, func() { hub.want(d.reported()) }) })
	defer d.setLife(nil, nil)
	hub.start()
	for {
		select {
		case <-stop.Done():
			return nil
		case f := <-l.calls:
			f()
		case c := <-l.crash:
			return c
		}
	}
}

// reported is the device's whole reported document.
func (d *device) reported() map[string]any {
	components := map[string]any{}
	for _, p := range d.agent.all() {
		components[p.cfg.Name] = map[string]any{"module": p.cfg.Use}
	}
	agent := map[string]any{"version": d.agent.version}
	if s := d.agent.safeMode(); s != nil {
		agent["safe_mode"] = map[string]any{"reason": safeReason(s), "until": s.Until.UTC().Format(time.RFC3339)}
	}
	return map[string]any{"agent": agent, "components": components}
}

// onDesired shows the desired properties. The device has no settings.
func (d *device) onDesired() {
	desired := d.memo.desired
	d.shown.set(func(v *view) {
		v.desired, v.desiredVersion, v.applied = desired.Doc, desired.Version, desired.Version
	})
}

func (d *device) onMethod(c iothub.MethodCall) {
	switch c.Name {
	case "ping":
		c.Answer(http.StatusOK, errorBody(map[string]any{"pong": true, "time": time.Now().UTC().Format(time.RFC3339Nano)}))
	case "status":
		raw, err := json.Marshal(d.agent.Status())
		if err != nil || len(raw) > maxAnswer {
			r := refusal(http.StatusInternalServerError, nil, "the status has %d bytes, %d are allowed; use twinbay status on the device", len(raw), maxAnswer)
			c.Answer(r.status, r.payload)
			return
		}
		c.Answer(http.StatusOK, raw)
	default:
		r := noSuchMethod(c.Name, deviceMethods)
		c.Answer(r.status, r.payload)
	}
}
