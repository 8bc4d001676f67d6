package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
)

// restClients is how many clients make identities at once, each with a connection of its own that stays open.
const restClients = 8

// restClient calls the service API with a token made once: a figure of the hub, not of its client.
type restClient struct {
	http  *http.Client
	base  string
	token string
}

func newRESTClient(env simulator.Env) (*restClient, error) {
	conf, err := hubTLS(env)
	if err != nil {
		return nil, err
	}
	token, err := admin.Token(env["HUB_CS"], "", time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	return &restClient{
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig: conf, MaxIdleConnsPerHost: restClients, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		}},
		base: "https://" + env["HUB_IP"] + ":" + env["HTTPS_PORT"], token: token,
	}, nil
}

func (c *restClient) close() { c.http.CloseIdleConnections() }

func (c *restClient) call(ctx context.Context, method, path, body string) ([]byte, error) {
	text, _, err := c.exchange(ctx, method, path, body, "")
	return text, err
}

// exchange is call with a continuation, as paged answers have them.
func (c *restClient) exchange(ctx context.Context, method, path, body, continuation string) (text []byte, next string, err error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path+"?api-version=2021-04-12", strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	r.Header.Set("Authorization", c.token)
	r.Header.Set("Content-Type", "application/json")
	if continuation != "" {
		r.Header.Set("x-ms-continuation", continuation)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s answers %d: %s", method, path, response.StatusCode, text)
	}
	return text, response.Header.Get("x-ms-continuation"), err
}

// each calls do for 0 to n-1, by several clients at once, and answers how long it took.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range restClients {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin), context.Cause(ctx)
}

// registry creates the fleet, one identity a request, gives every module desired properties and asks for them by queries.
func (m *machine) registry(ctx context.Context) error {
	hub, err := m.startBare(ctx, 0)
	if err != nil {
		return err
	}
	defer m.sim.kill()
	c, err := newRESTClient(m.env)
	if err != nil {
		return err
	}
	defer c.close()
	before, err := cpuTime(hub.pid)
	if err != nil {
		return err
	}
	const all = fleetDevices * (1 + fleetModules)
	took, err := each(ctx, fleetDevices, func(ctx context.Context, i int) error {
		device := fleetDevice(i)
		if _, err := c.call(ctx, "PUT", "/devices/"+device, `{"deviceId":"`+device+`"}`); err != nil {
			return err
		}
		for _, module := range modules[:fleetModules] {
			path := "/devices/" + device + "/modules/" + module
			if _, err := c.call(ctx, "PUT", path, `{"deviceId":"`+device+`","moduleId":"`+module+`"}`); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := cpuTime(hub.pid)
	if err != nil {
		return err
	}
	figure{what: fmt.Sprintf("registry, HTTPS, %d clients, %d identities", restClients, all), value: all / took.Seconds(),
		unit: "creates/s", least: 3000, note: fmt.Sprintf("%.0f µs CPU of the server each", float64((after-before).Microseconds())/all)}.print()
	_, err = each(ctx, fleetDevices*fleetModules, func(ctx context.Context, i int) error {
		path := "/twins/" + fleetDevice(i/fleetModules) + "/modules/" + modules[i%fleetModules]
		_, err := c.call(ctx, "PATCH", path, fmt.Sprintf(`{"properties":{"desired":{"interval_ms":%d}}}`, i%1000))
		return err
	})
	if err != nil {
		return err
	}
	return c.queries(ctx)
}

// queries measures queries that look at all modules of the fleet, and checks what they answer.
func (c *restClient) queries(ctx context.Context) error {
	for _, q := range []struct {
		what, text string
		rows       int
		most       float64 // ms
	}{
		{"30 of them", "SELECT * FROM devices.modules WHERE properties.desired.interval_ms = 42", fleetDevices * fleetModules / 1000, 150},
		{"all, by the page", "SELECT * FROM devices.modules", fleetDevices * fleetModules, 0},
	} {
		const times = 5
		var took []time.Duration
		for range times {
			begin := time.Now()
			rows, err := c.query(ctx, q.text)
			took = append(took, time.Since(begin))
			if err != nil {
				return err
			}
			if rows != q.rows {
				return fmt.Errorf("%s answers %d rows, want %d", q.text, rows, q.rows)
			}
		}
		slices.Sort(took)
		figure{what: fmt.Sprintf("query of %d modules, %s", fleetDevices*fleetModules, q.what), value: ms(took[times/2]), unit: "ms", most: q.most,
			note: fmt.Sprintf("median of %d", times)}.print()
	}
	return nil
}

// query answers how many rows a query has, on all its pages.
func (c *restClient) query(ctx context.Context, text string) (int, error) {
	body, err := json.Marshal(map[string]string{"query": text})
	if err != nil {
		return 0, err
	}
	total, next := 0, ""
	for {
		var answer []byte
		if answer, next, err = c.exchange(ctx, "POST", "/devices/query", string(body), next); err != nil {
			return 0, err
		}
		total += bytes.Count(answer, []byte(`"moduleId":`)) // a row has one; to decode them would be the client's time
		if next == "" {
			return total, nil
		}
	}
}

// createDevices makes devices by bulk operations.
func (m *machine) createDevices(ctx context.Context, n int) error {
	c, err := newRESTClient(m.env)
	if err != nil {
		return err
	}
	defer c.close()
	const most = 100 // in one request
	_, err = each(ctx, (n+most-1)/most, func(ctx context.Context, i int) error {
		var all []map[string]string
		for k := i * most; k < min(n, (i+1)*most); k++ {
			all = append(all, map[string]string{"id": fleetDevice(k), "importMode": "create"})
		}
		body, err := json.Marshal(all)
		if err != nil {
			return err
		}
		answer, err := c.call(ctx, "POST", "/devices", string(body))
		if err == nil && !bytes.Contains(answer, []byte(`"isSuccessful":true`)) {
			err = errors.New("creating devices in bulk failed: " + string(answer))
		}
		return err
	})
	return err
}
