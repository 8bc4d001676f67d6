package iothub_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/mqtt3"
	"github.com/twinbay/twinbay/agent/iothub/mqtt5"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// benchmark runs f over both wires, over TLS on a socket.
func benchmark(b *testing.B, f func(*testing.B, *iothub.Session)) {
	for name, open := range map[string]iothub.Open{"3.1.1": mqtt3.Open, "5": mqtt5.Open} {
		b.Run(name, func(b *testing.B) {
			h := hubtest.New(b)
			s := iothub.New(iothub.Config{
				Address: h.Listen(), CA: h.CA(), Wire: open, Credential: credential(b, h.Module("d", "m")),
			})
			ctx, cancel := context.WithCancel(context.Background())
			var run sync.WaitGroup
			run.Go(func() { _ = s.Run(ctx) })
			defer run.Wait()
			defer cancel()
			if e, ok := (<-s.Events()).(iothub.Up); !ok {
				b.Fatalf("event %v", e)
			}
			f(b, s)
		})
	}
}

func BenchmarkPublish(b *testing.B) {
	m := iothub.Message{ID: "e-1", Body: []byte(`{"temperature_c":21.5,"humidity_pct":40.1}`), Properties: map[string]string{"component": "climate"}}
	benchmark(b, func(b *testing.B, s *iothub.Session) {
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Publish(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPublish16InFlight(b *testing.B) {
	m := iothub.Message{ID: "e-1", Body: []byte(`{"temperature_c":21.5,"humidity_pct":40.1}`), Properties: map[string]string{"component": "climate"}}
	benchmark(b, func(b *testing.B, s *iothub.Session) {
		b.SetParallelism(8) // times two cores
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if err := s.Publish(b.Context(), m); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkReport(b *testing.B) {
	benchmark(b, func(b *testing.B, s *iothub.Session) {
		for b.Loop() {
			if _, err := s.Report(b.Context(), json.RawMessage(`{"a":1}`)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
