package outbox_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

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

// What a device writes: 20 components hand over one message a second each, for five seconds an iteration, with a hub that
// takes them or is away.
func BenchmarkDeviceBytes(b *testing.B) {
	for _, p := range []outbox.Profile{outbox.Durable, outbox.SDCard} {
		for _, online := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/online=%v", p, online), func(b *testing.B) {
				log := onDisk(b, p)
				n := 0
				first0 := log.Box("component0")
				first0.Append(outbox.Record{Body: body256})
				<-time.After(1500 * time.Millisecond) // the first segments are made, in either profile
				r, _ := first0.Next()
				first0.Acked(r.ID)
				<-time.After(1500 * time.Millisecond)
				before, first := wrote(), log.Status()
				b.ResetTimer()
				for b.Loop() {
					for range 5 * 20 {
						box := log.Box(fmt.Sprint("component", n%20))
						box.Append(outbox.Record{Body: body256})
						if online {
							r, _ := box.Next()
							box.Acked(r.ID)
						}
						n++
						<-time.After(50 * time.Millisecond)
					}
				}
				s := log.Status()
				b.ReportMetric(float64(wrote()-before)/float64(n), "device-B/msg")
				b.ReportMetric(float64(s.Written-first.Written)/float64(n), "appended-B/msg")
				b.ReportMetric(float64(s.Syncs-first.Syncs)/float64(n)*20, "syncs/s")
			})
		}
	}
}

// What a backlog costs in memory: messages beyond the first 2 MiB are on disk alone.
func BenchmarkBacklogMemory(b *testing.B) {
	for b.Loop() {
		log := onDisk(b, outbox.Durable)
		box := log.Box("climate")
		const n = 60_000
		var wg sync.WaitGroup
		heap := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		for i := range n {
			wg.Add(1)
			box.Put(outbox.Record{Body: body256}, func(string, error) { wg.Done() })
			if i%2048 == 0 {
				wg.Wait()
			}
		}
		wg.Wait()
		b.ReportMetric(float64(heap()-before)/n, "heap-B/msg")
		log.Close()
	}
}
