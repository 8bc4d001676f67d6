package agent

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twinbay/twinbay/agent/clock"
	"github.com/twinbay/twinbay/agent/disk"
)

// clockFile keeps the last time known, RFC 3339 in UTC, in the state folder.
const clockFile = "clock"

// newClock makes the agent's clock: it asks the hub for its Date, and keeps the time in the state folder.
func (a *Agent) newClock(o clock.Options) *clock.Clock {
	if o.Log == nil {
		o.Log = a.log
	}
	if o.Ask == nil && a.dial == nil {
		o.Ask = a.askHub
	}
	if o.Save == nil {
		o.Save = a.saveClock
	}
	return clock.New(o)
}

// askHub asks the device file's server for its Date.
func (a *Agent) askHub(ctx context.Context) (time.Time, error) {
	u, err := url.Parse(a.file().Hub.TimeURL)
	if err != nil {
		return time.Time{}, fmt.Errorf("hub.time_url: %w", err)
	}
	var roots *x509.CertPool
	if file := a.file().Hub.CAFile; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return time.Time{}, fmt.Errorf("hub.ca_file: %w", err)
		}
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
	}
	return clock.DateOf(u, roots)(ctx)
}

func (a *Agent) saveClock(now time.Time) {
	text := now.UTC().Format(time.RFC3339) + "\n"
	if err := disk.Save(a.disk, filepath.Join(a.file().Agent.StateDir, clockFile), []byte(text)); err != nil {
		a.log.Warn("the time could not be kept for the next start", "error", err)
	}
}

// loadClock takes the time that was kept. Without it nothing is lost but the best guess.
func (a *Agent) loadClock() {
	var saved time.Time
	_, damage := disk.Load(a.disk, filepath.Join(a.file().Agent.StateDir, clockFile), func(text []byte) (err error) {
		saved, err = time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
		return err
	})
	if damage != nil {
		a.log.Warn("the time of the last run could not be read", "error", damage)
	}
	if !saved.IsZero() {
		a.clock.Remember(saved)
	}
}
