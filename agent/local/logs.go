package local

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
)

// ComponentKey is the attribute that says whose log line it is.
const ComponentKey = "module"

// defaultLines is how many lines per component a Logs keeps.
const defaultLines = 500

// maxRings bounds the components that a Logs tells apart: the attribute could come from a module.
const maxRings = 128

// Logs keeps the last lines of each component, so that a chatty one cannot push out the others'.
type Logs struct {
	lines int

	mu    sync.Mutex
	seq   uint64
	rings map[string]*ring
	wake  chan struct{} // closed at the next line; nil when nobody waits
}

// ring holds the last lines of one component; next is the oldest once it is full.
type ring struct {
	lines []LogLine
	next  int
}

// NewLogs keeps lines per component; 0 means 500.
func NewLogs(lines int) *Logs {
	if lines <= 0 {
		lines = defaultLines
	}
	return &Logs{lines: lines, rings: map[string]*ring{}}
}

// Handler is a slog.Handler that writes to out and keeps each line as well. The level of out decides which lines there
// are. The component is the attribute "module", wherever it was added.
func (l *Logs) Handler(out slog.Handler) slog.Handler { return &handler{logs: l, out: out} }

func (l *Logs) add(line LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	line.Seq = l.seq
	r, ok := l.rings[line.Component]
	if !ok {
		if len(l.rings) >= maxRings {
			line.Component = ""
			r = l.rings[""]
		}
		if r == nil {
			r = &ring{}
			l.rings[line.Component] = r
		}
	}
	if len(r.lines) < l.lines {
		r.lines = append(r.lines, line)
	} else {
		r.lines[r.next] = line
		r.next = (r.next + 1) % l.lines
	}
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// Query answers the lines that q asks for, in their order, and closes the channel after the last one or when ctx ends.
// A reader that is slower than the log misses what the rings had to drop; Seq shows it.
func (l *Logs) Query(ctx context.Context, q LogQuery) <-chan LogLine {
	out := make(chan LogLine)
	first, seq := l.last(q)
	go func() {
		defer close(out)
		batch := first
		for {
			for _, line := range batch {
				select {
				case out <- line:
				case <-ctx.Done():
					return
				}
			}
			if !q.Follow {
				return
			}
			var wake <-chan struct{}
			if batch, seq, wake = l.after(q, seq); len(batch) > 0 {
				continue
			}
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// last is what stands in the rings now, and the number of the newest line.
func (l *Logs) last(q LogQuery) ([]LogLine, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []LogLine
	for name, r := range l.rings {
		if q.Component != "" && q.Component != name {
			continue
		}
		lines := r.ordered()
		if n := q.Lines; n < 0 {
			lines = nil
		} else if n > 0 && n < len(lines) {
			lines = lines[len(lines)-n:]
		}
		out = append(out, lines...)
	}
	sortLines(out)
	return out, l.seq
}

// after is what came after line seq. When there is nothing, wake closes with the next line.
func (l *Logs) after(q LogQuery, seq uint64) (lines []LogLine, newest uint64, wake <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, r := range l.rings {
		if q.Component != "" && q.Component != name {
			continue
		}
		for _, line := range r.ordered() {
			if line.Seq > seq {
				lines = append(lines, line)
			}
		}
	}
	sortLines(lines)
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return lines, l.seq, l.wake
}

func (r *ring) ordered() []LogLine { return slices.Concat(r.lines[r.next:], r.lines[:r.next]) }

func sortLines(lines []LogLine) {
	slices.SortFunc(lines, func(a, b LogLine) int { return cmp.Compare(a.Seq, b.Seq) })
}

// handler fans out to another handler and to the ring.
type handler struct {
	logs   *Logs
	out    slog.Handler
	attrs  []slog.Attr // with the groups in their keys
	prefix string      // the open groups, each with a dot behind
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.out.Enabled(ctx, level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.out = h.out.WithAttrs(attrs)
	n.attrs = slices.Clip(h.attrs)
	for _, a := range attrs {
		a.Key = h.prefix + a.Key
		n.attrs = append(n.attrs, a)
	}
	return &n
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.out = h.out.WithGroup(name)
	n.prefix = h.prefix + name + "."
	return &n
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	line := LogLine{At: r.Time, Level: r.Level.String(), Text: r.Message}
	for _, a := range h.attrs {
		line.put("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		line.put(h.prefix, a)
		return true
	})
	h.logs.add(line)
	return h.out.Handle(ctx, r)
}

// put adds one attribute, a group by its members.
func (l *LogLine) put(prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, m := range v.Group() {
			l.put(prefix, m)
		}
		return
	}
	if a.Key == "" {
		return
	}
	key := prefix + a.Key
	if key == ComponentKey {
		l.Component = v.String()
		return
	}
	if l.Attrs == nil {
		l.Attrs = map[string]string{}
	}
	l.Attrs[key] = v.String()
}
