// Package modtest runs a module in a test as the agent would: through the real gRPC service of modkit, over a
// connection in memory, in one process. It works inside a testing/synctest bubble, so that an hour of polls takes no
// time. [Contract] is the suite that every module has to pass.
package modtest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// patience is how long the harness waits for anything. Inside a bubble it is virtual time.
const patience = 30 * time.Second

// Config is what a module is run with. The zero value is a module with its defaults and no wires.
type Config struct {
	Drivers  map[string]hal.Driver // by URI scheme, as for modkit.Serve
	Wiring   map[string]any        // over the schema's defaults
	Settings map[string]any        // over the schema's defaults
	State    []byte                // the last durable state
	Linked   []modkit.Input        // inputs that are linked, as they stand; Bench.Input brings what comes later
	Hold     bool                  // don't accept messages: the test does it, by Bench.Accept and Bench.Refuse
	Log      slog.Handler          // where the module logs; nil means the test's log
}

// Run starts m and returns the agent's end of it. The module is stopped at the test's end, if not before. Whatever
// goes wrong on the way fails the test.
func Run(t testing.TB, m modkit.Module, cfg Config) *Bench {
	t.Helper()
	b := Dial(t, m, cfg)
	b.Start(cfg)
	return b
}

// Dial connects to m without starting it: for Describe, and for tests that start it themselves.
func Dial(t testing.TB, m modkit.Module, cfg Config) *Bench {
	t.Helper()
	handler := cfg.Log
	if handler == nil {
		handler = slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	over := make(chan error, 1)
	service := modkit.NewService(m, cfg.Drivers, slog.New(handler), func(err error) { over <- err })
	server := grpc.NewServer()
	service.Register(server)
	listener := bufconn.Listen(64 << 10)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // its error is the connection's, which the test sees at the other end
	}()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	conn, err := grpc.NewClient("passthrough:module", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatalf("modtest: connect: %v", err)
	}
	b := &Bench{t: t, module: m, over: over, Remote: modkit.NewRemote(conn)}
	t.Cleanup(func() {
		b.cleanup()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		service.Stop(ctx)
		conn.Close()
		server.Stop()
		<-served
	})
	return b
}

// Start runs the module again after Stop, or for the first time after Dial. Drivers and Log of cfg have no effect.
func (b *Bench) Start(cfg Config) {
	b.t.Helper()
	d := b.module.Describe()
	ctx, cancel := context.WithCancel(context.Background())
	running, err := b.Remote.Run(ctx, modkit.Start{
		Wiring:   document(b.t, "wiring", d.Wiring, cfg.Wiring),
		Settings: modkit.Settings{Doc: document(b.t, "settings", d.Settings, cfg.Settings), Version: 1},
		State:    cfg.State,
		Inputs:   cfg.Linked,
	})
	if err != nil {
		cancel()
		b.t.Fatalf("modtest: start the module: %v", err)
	}
	b.begin(running, cfg, cancel)
}

// Defaults is the document of a schema's defaults: what the agent starts from.
func Defaults(schema json.RawMessage) (map[string]json.RawMessage, error) {
	var s struct {
		Properties map[string]struct {
			Default json.RawMessage `json:"default"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(schema, &s); err != nil {
		return nil, fmt.Errorf("the schema is not a JSON object: %w", err)
	}
	doc := make(map[string]json.RawMessage, len(s.Properties))
	for name, p := range s.Properties {
		if p.Default != nil {
			doc[name] = p.Default
		}
	}
	return doc, nil
}

// document is a schema's defaults under the given values, as JSON.
func document(t testing.TB, what string, schema json.RawMessage, over map[string]any) json.RawMessage {
	t.Helper()
	defaults, err := Defaults(schema)
	if err != nil {
		t.Fatalf("modtest: %s: %v", what, err)
	}
	doc := make(map[string]any, len(defaults)+len(over))
	for name, v := range defaults {
		doc[name] = v
	}
	maps.Copy(doc, over)
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatalf("modtest: %s: %v", what, err)
	}
	return raw
}
