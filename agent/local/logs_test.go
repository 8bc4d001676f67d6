package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

func collect(l *Logs, q LogQuery) []LogLine {
	var out []LogLine
	for line := range l.Query(context.Background(), q) {
		out = append(out, line)
	}
	return out
}

func texts(lines []LogLine) string {
	var out []string
	for _, l := range lines {
		out = append(out, l.Component+":"+l.Text)
	}
	return strings.Join(out, " ")
}

func TestLogsKeepsTheLastOfEach(t *testing.T) {
	l := NewLogs(3)
	var out bytes.Buffer
	log := slog.New(l.Handler(slog.NewTextHandler(&out, nil)))
	climate, door := log.With("module", "climate"), log.With("module", "door")
	door.Info("quiet")
	log.Info("agent")
	for i := range 10 {
		climate.Warn(fmt.Sprint(i))
	}
	log.Info("by line", "module", "door")
	log.Debug("below the handler's level")
	for _, c := range []struct {
		q    LogQuery
		want string
	}{
		{LogQuery{}, "door:quiet :agent climate:7 climate:8 climate:9 door:by line"},
		{LogQuery{Component: "climate"}, "climate:7 climate:8 climate:9"},
		{LogQuery{Lines: 1}, ":agent climate:9 door:by line"},
		{LogQuery{Lines: 99, Component: "door"}, "door:quiet door:by line"},
		{LogQuery{Lines: -1}, ""},
		{LogQuery{Component: "nobody"}, ""},
	} {
		if got := texts(collect(l, c.q)); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 13 || !strings.Contains(out.String(), "module=climate") {
		t.Errorf("the other handler has %d lines, want all 13:\n%s", n, out.String())
	}
}

type secret struct{}

func (secret) LogValue() slog.Value { return slog.StringValue("hidden") }

func TestLogsAttributes(t *testing.T) {
	l := NewLogs(0)
	log := slog.New(l.Handler(slog.NewTextHandler(io.Discard, nil)))
	log.With("module", "m", "a", 1).WithGroup("g").With("b", true).WithGroup("").Error("text",
		"c", errors.New("broken"), "module", "not the component", slog.Group("h", "d", 2.5), slog.Group("", "e", "inline"), "key", secret{})
	got := collect(l, LogQuery{})[0]
	want := map[string]string{"a": "1", "g.b": "true", "g.c": "broken", "g.module": "not the component", "g.h.d": "2.5",
		"g.e": "inline", "g.key": "hidden"}
	if got.Component != "m" || got.Level != "ERROR" || got.Text != "text" || got.At.IsZero() || !reflect.DeepEqual(got.Attrs, want) {
		t.Errorf("%+v, want component m and %v", got, want)
	}
}

func TestLogsFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLogs(3)
		log := slog.New(l.Handler(slog.NewTextHandler(io.Discard, nil)))
		log.Info("old")
		ctx, cancel := context.WithCancel(t.Context())
		lines := l.Query(ctx, LogQuery{Lines: 1, Follow: true})
		for _, want := range []string{"old", "new", "newer"} {
			if got := <-lines; got.Text != want {
				t.Errorf("line %q, want %q", got.Text, want)
			}
			log.Info(map[string]string{"old": "new", "new": "newer", "newer": "for others"}[want])
		}
		<-lines
		// A reader that is slower than the log loses the oldest, and the numbers show it.
		synctest.Wait()
		for i := range 10 {
			log.Info(fmt.Sprint(i))
		}
		first, second := <-lines, <-lines
		if second.Seq-first.Seq < 1 || first.Seq < 5 {
			t.Errorf("lines %d and %d", first.Seq, second.Seq)
		}
		cancel()
		synctest.Wait()
		for range lines {
			// closed, perhaps after one more
		}
	})
}

// Names of components come from modules too: they must not fill the memory.
func TestLogsBoundsComponents(t *testing.T) {
	l := NewLogs(2)
	log := slog.New(l.Handler(slog.NewTextHandler(io.Discard, nil)))
	for i := range 3 * maxRings {
		log.Info("x", "module", fmt.Sprintf("m%d", i))
	}
	if n := len(l.rings); n > maxRings+1 {
		t.Errorf("%d rings, the bound is %d", n, maxRings)
	}
	if n := len(collect(l, LogQuery{Component: "m0"})); n != 1 {
		t.Errorf("the first component has %d lines, want 1", n)
	}
}

func TestLogsConcurrently(t *testing.T) {
	l := NewLogs(10)
	log := slog.New(l.Handler(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var last uint64
			for line := range l.Query(ctx, LogQuery{Follow: true}) {
				if line.Seq <= last {
					t.Errorf("line %d after %d", line.Seq, last)
				}
				last = line.Seq
			}
		})
	}
	for i := range 3 {
		writers.Go(func() {
			for range 200 {
				log.Info("x", "module", fmt.Sprint(i))
			}
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
	if l.seq != 600 {
		t.Errorf("%d lines, want 600", l.seq)
	}
}
