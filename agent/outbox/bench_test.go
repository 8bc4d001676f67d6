package outbox_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/twinbay/twinbay/agent/outbox"
)

func onDisk(b *testing.B, p outbox.Profile) *outbox.Log {
	log := outbox.OpenLog(outbox.LogConfig{Dir: b.TempDir(), Profile: p})
	b.Cleanup(func() { log.Close() })
	return log
}

var body256 = []byte(strings.Repeat("x", 256))

// wrote is what the kernel counts for this process as to be written to disks; 0 where it does not count.
func wrote() (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "write_bytes: %d", &n)
	}
	return n
}

// Durable enqueue on a real disk, by 16 components that each wait for their message, or have some under way.
func BenchmarkEnqueue(b *testing.B) {
	for _, window := range []int{1, 4, 64} {
		b.Run(fmt.Sprintf("components=16/window=%d", window), func(b *testing.B) {
			log := onDisk(b, outbox.Durable)
			var wg sync.WaitGroup
			before := wrote()
			b.ResetTimer()
			for c := range 16 {
				box := log.Box(fmt.Sprint("component", c))
				tokens := make(chan struct{}, window)
				wg.Go(func() {
					for range b.N/16 + 1 {
						tokens <- struct{}{}
						box.Put(outbox.Record{Body: body256}, func(string, error) { <-tokens })
						if r, ok := box.Next(); ok {
							box.Acked(r.ID)
						}
					}
					for range window {
						tokens <- struct{}{}
					}
				})
			}
			wg.Wait()
			s := log.Status()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(s.Written)/float64(b.N)/256, "appended/payload")
			b.ReportMetric(float64(wrote()-before)/float64(b.N), "device-B/msg")
			b.ReportMetric(float64(b.N)/float64(max(s.Syncs, 1)), "msg/sync")
		})
	}
}

// A component that is online with the sd-card profile: nothing is written for it.
func BenchmarkOnlineSDCard(b *testing.B) {
	log := onDisk(b, outbox.SDCard)
	box := log.Box("climate")
	before := wrote()
	for b.Loop() {
		box.Append(outbox.Record{Body: body256})
		r, _ := box.Next()
		box.Acked(r.ID)
	}
	b.ReportMetric(float64(wrote()-before)/float64(b.N), "device-B/msg")
}

// A backlog on a real disk is read and acknowledged.
func BenchmarkDrain(b *testing.B) {
	log := onDisk(b, outbox.Durable)
	box := log.Box("climate")
	var wg sync.WaitGroup
	n := min(b.N, 100_000)
	for range n {
		wg.Add(1)
		box.Put(outbox.Record{Body: body256}, func(string, error) { wg.Done() })
		if n%4096 == 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	b.ResetTimer()
	drained := 0
	for range n {
		if r, ok := box.Next(); ok {
			box.Acked(r.ID)
			drained++
		}
	}
	b.ReportMetric(float64(drained)/b.Elapsed().Seconds(), "msg/s")
}
