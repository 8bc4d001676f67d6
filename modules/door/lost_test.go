package door

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modtest"
)

// lossy is a line whose newest edges were dropped: the last edge that it shows is not where it stands.
type lossy struct {
	edges chan hal.Edge
	level chan bool // of the reads, in order; the last stays
}

func (l *lossy) Read(context.Context) (bool, error) {
	v := <-l.level
	if len(l.level) == 0 {
		l.level <- v
	}
	return v, nil
}

func (l *lossy) Next(ctx context.Context) (hal.Edge, error) {
	select {
	case e := <-l.edges:
		return e, nil
	case <-ctx.Done():
		return hal.Edge{}, ctx.Err()
	}
}

func (l *lossy) Close() error { return nil }

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

func TestAfterLostEdgesTheLineIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lossy{edges: make(chan hal.Edge, 4), level: make(chan bool, 4)}
		l.level <- false // at the start
		l.level <- true  // after the loss: it was opened again, and that edge is gone
		b := modtest.Run(t, New(), modtest.Config{
			Drivers: map[string]hal.Driver{"test": haltest.Wires(map[string]any{"door": l})},
			Wiring:  map[string]any{"switch": "test:door"},
		})
		b.Next() // closed
		l.edges <- hal.Edge{Level: true, At: time.Now(), Seq: 1}
		b.Next() // opened
		time.Sleep(time.Second)
		l.edges <- hal.Edge{Level: false, At: time.Now(), Seq: 4}
		time.Sleep(time.Second)
		synctest.Wait()
		for _, s := range b.Pending() {
			t.Errorf("said %s, and the door is still open", s.Message.Body)
		}
		if a := b.Invoke("readState", ""); !containsAll(string(a.Payload), `"open":true`, `"missed_edges":2`) {
			t.Errorf("readState answers %s", a.Payload)
		}
	})
}
