package outbox_test

import (
	"fmt"
	"testing"

	"github.com/twinbay/twinbay/agent/outbox"
	"github.com/twinbay/twinbay/agent/outbox/outboxtest"
)

func open(_ testing.TB, l outboxtest.Limits) outbox.Box {
	return outbox.NewMemory(outbox.MemoryConfig(l))
}

func TestMemory(t *testing.T) { outboxtest.Run(t, open) }

// The bounds hold without any configuration.
func TestMemoryDefaults(t *testing.T) {
	b := outbox.NewMemory(outbox.MemoryConfig{})
	defer b.Close()
	for range 10_001 {
		if _, err := b.Append(outbox.Record{Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if st := b.Stats(); st.Queued != 10_000 || st.Dropped[outbox.DroppedFull] != 1 {
		t.Errorf("%d queued, %v dropped; want 10000 and one", st.Queued, st.Dropped)
	}
	for range 80 {
		b.Append(outbox.Record{Body: make([]byte, 256<<10)})
	}
	if st := b.Stats(); st.Bytes > 16<<20 || st.Queued > 64 {
		t.Errorf("%d bytes in %d records, want at most 16 MiB", st.Bytes, st.Queued)
	}
}

// A record's whole way: appended, sent, acknowledged.
func BenchmarkMemory(b *testing.B) {
	for _, backlog := range []int{0, 9_000} {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			box := outbox.NewMemory(outbox.MemoryConfig{})
			body := []byte(`{"temperature_c":4.25,"humidity_pct":61,"pressure_hpa":1013.2}`)
			for range backlog {
				box.Append(outbox.Record{Body: body})
			}
			b.ReportAllocs()
			for b.Loop() {
				box.Append(outbox.Record{Body: body})
				r, _ := box.Next()
				box.Acked(r.ID)
			}
		})
	}
}

// A box that is full drops one record for each that comes.
func BenchmarkMemoryFull(b *testing.B) {
	box := outbox.NewMemory(outbox.MemoryConfig{DefaultTTL: 1 << 50})
	body := []byte(`{"temperature_c":4.25}`)
	for range 10_000 {
		box.Append(outbox.Record{Body: body})
	}
	b.ReportAllocs()
	for b.Loop() {
		box.Append(outbox.Record{Body: body})
	}
}
