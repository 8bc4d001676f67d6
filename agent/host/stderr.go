//go:build linux

package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds on what a module may make the agent read, log and keep.
const (
	maxLine   = 8 << 10  // bytes of one line; the rest of a longer one is cut
	maxTail   = 16 << 10 // bytes kept for Exit
	lineRate  = 50       // log lines a second, after a burst
	lineBurst = 300
)

// lines takes what a module writes to its standard error. A line in the module's log format (JSON with time, level and
// msg; see modkit.Serve) becomes a log record with the same level and attributes; any other line is logged as it is.
// What a Go program writes when it dies is kept for Exit instead.
type lines struct {
	log *slog.Logger

	mu      sync.Mutex
	line    []byte
	cut     bool
	tokens  float64
	filled  time.Time
	skipped int    // lines not logged since the last one that was
	last    string // the last line's text
	raw     []string
	rawSize int
	dying   bool // raw begins with a panic
}

func newLines(log *slog.Logger) *lines {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &lines{log: log, tokens: lineBurst, filled: time.Now()}
}

// Write takes any piece of the stream. It never fails and never blocks for long.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := b; len(rest) > 0; {
		piece, after, whole := bytes.Cut(rest, []byte{'\n'})
		room := maxLine - len(l.line)
		if len(piece) > room {
			piece, l.cut = piece[:room], true
		}
		l.line = append(l.line, piece...)
		if whole {
			l.end()
		}
		rest = after
	}
	return len(b), nil
}

// Close takes an unfinished last line and says what was not logged.
func (l *lines) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		l.end()
	}
	l.saySkipped()
	return nil
}

// tail answers the last words for one line, and what stood beside the log at the end: a panic with its stack.
func (l *lines) tail() (last, stack string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, strings.Join(l.raw, "\n")
}

// end handles the line that has come to its end.
func (l *lines) end() {
	text := strings.ToValidUTF8(string(bytes.TrimRight(l.line, "\r")), "\uFFFD")
	if l.cut {
		text += " … (cut)"
	}
	l.line, l.cut = l.line[:0], false
	if strings.TrimSpace(text) == "" && !l.dying {
		return
	}
	if level, msg, attrs, ok := parseLine(text); ok {
		l.raw, l.rawSize, l.dying = nil, 0, false
		l.last = lastWords(msg, attrs)
		l.emit(level, msg, attrs)
		return
	}
	l.keep(text)
	if !l.dying {
		l.last = text
		l.emit(slog.LevelInfo, text, nil)
	}
}

// keep remembers a line that is not in the log's format: from the first line of a panic on the beginning, where the
// reason stands; else the end.
func (l *lines) keep(text string) {
	if !l.dying && (strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")) {
		l.raw, l.rawSize, l.dying = nil, 0, true
		l.last = text
	}
	if l.dying && l.rawSize+len(text) > maxTail {
		return
	}
	l.raw = append(l.raw, text)
	l.rawSize += len(text) + 1
	for l.rawSize > maxTail {
		l.rawSize -= len(l.raw[0]) + 1
		l.raw = l.raw[1:]
	}
}

// emit logs, within the rate.
func (l *lines) emit(level slog.Level, msg string, attrs []slog.Attr) {
	now := time.Now()
	l.tokens = min(lineBurst, l.tokens+lineRate*now.Sub(l.filled).Seconds())
	l.filled = now
	if l.tokens < 1 {
		l.skipped++
		return
	}
	l.tokens--
	l.saySkipped()
	l.log.LogAttrs(context.Background(), level, msg, attrs...)
}

func (l *lines) saySkipped() {
	if l.skipped > 0 {
		l.log.Warn(fmt.Sprintf("the module writes more than %d log lines a second; some were left out", lineRate), "lines", l.skipped)
		l.skipped = 0
	}
}

// parseLine reads a line of the module's log.
func parseLine(text string) (level slog.Level, msg string, attrs []slog.Attr, ok bool) {
	if !strings.HasPrefix(text, "{") {
		return 0, "", nil, false
	}
	var fields map[string]any
	if json.Unmarshal([]byte(text), &fields) != nil {
		return 0, "", nil, false
	}
	msg, ok = fields["msg"].(string)
	if !ok {
		return 0, "", nil, false
	}
	if name, isText := fields["level"].(string); isText {
		level.UnmarshalText([]byte(name)) // an unknown level stays info
	}
	// The agent's logger names the component; the time is now.
	for _, k := range []string{"time", "level", "msg", "module"} {
		delete(fields, k)
	}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		attrs = append(attrs, slog.Any(k, fields[k]))
	}
	return level, msg, attrs, true
}

// lastWords is a log line in one phrase: the message and its error.
func lastWords(msg string, attrs []slog.Attr) string {
	for _, a := range attrs {
		if a.Key == "error" || a.Key == "err" {
			return msg + ": " + a.Value.String()
		}
	}
	return msg
}
