//go:build linux

package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bounds on what a module may make the agent read, log and keep.
const (
	maxLine   = 8 << 10  // bytes of one line; the rest of a longer one is cut
	maxTail   = 16 << 10 // bytes kept for Exit
	lineRate  = 10       // log lines a second, after a burst: of an endless flood less than 200 MB a day
	lineBurst = 500

	sayEvery = 10 * time.Second // how often a flood is spoken of
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
	skipped int       // lines not logged since that was said
	said    time.Time // when it was

	before   []byte // the line before this one, as far as it counts for being the same again
	repeated int    // how often it has come again since that was said
	timer    *time.Timer

	last    string // the last line's text
	unread  []byte // the last line, when nobody has read it yet
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
	l.sayRepeated()
	l.saySkipped()
	if l.timer != nil {
		l.timer.Stop()
	}
	return nil
}

// tail answers the last words for one line, and what stood beside the log at the end: a panic with its stack.
func (l *lines) tail() (last, stack string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unread != nil {
		text := l.text(l.unread, false)
		l.last, l.unread = text, nil
		if _, msg, attrs, ok := parseLine(text); ok {
			l.last = lastWords(msg, attrs)
		}
	}
	return l.last, strings.Join(l.raw, "\n")
}

// end handles the line that has come to its end.
func (l *lines) end() {
	line, cut := bytes.TrimRight(l.line, "\r"), l.cut
	l.line, l.cut = l.line[:0], false
	if len(bytes.TrimSpace(line)) == 0 && !l.dying {
		return
	}
	if l.same(line) {
		return
	}
	// A flood is not even parsed: it may be a gigabyte. What a dying program says is.
	if !l.allowed() && !l.dying && !dies(line) {
		l.skipped++
		l.unread = append(l.unread[:0], line...)
		l.later()
		return
	}
	l.unread = nil
	text := l.text(line, cut)
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

func (l *lines) text(line []byte, cut bool) string {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	if cut {
		text += " … (cut)"
	}
	return text
}

// same says whether a line is the one before again, but for its time: then it is counted and not logged. A dying program
// may say the same twice.
func (l *lines) same(line []byte) bool {
	if l.dying || dies(line) {
		l.before = l.before[:0]
		return false
	}
	line = timeless(line)
	if len(l.before) > 0 && bytes.Equal(line, l.before) {
		l.repeated++
		l.later()
		return true
	}
	if l.repeated > 0 {
		if l.allowed() {
			l.sayRepeated()
		} else {
			l.skipped, l.repeated = l.skipped+l.repeated, 0
		}
	}
	l.before = append(l.before[:0], line...)
	return false
}

// timeless is a line of the module's log without its time, which stands first; another line is as it was.
func timeless(line []byte) []byte {
	const start = `{"time":"`
	if rest, ok := bytes.CutPrefix(line, []byte(start)); ok {
		if _, after, ok := bytes.Cut(rest, []byte(`",`)); ok {
			return after
		}
	}
	return line
}

// signalLine is the first of what Go's runtime writes about a signal that it cannot turn into a panic.
var signalLine = regexp.MustCompile(`^SIG[A-Z]+: `)

// dies says whether a line is the first of what a Go program writes when it dies.
func dies(line []byte) bool {
	return bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: ")) || signalLine.Match(line)
}

// keep remembers a line that is not in the log's format: from the first line of a panic on the beginning, where the
// reason stands; else the end.
func (l *lines) keep(text string) {
	if !l.dying && dies([]byte(text)) {
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

// allowed says whether a line may be logged now, within the rate.
func (l *lines) allowed() bool {
	now := time.Now()
	l.tokens = min(lineBurst, l.tokens+lineRate*now.Sub(l.filled).Seconds())
	l.filled = now
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// emit logs. The first line after a flood says what was left out, but not at each line that a flood is allowed.
func (l *lines) emit(level slog.Level, msg string, attrs []slog.Attr) {
	if time.Since(l.said) >= sayEvery {
		l.saySkipped()
	}
	l.log.LogAttrs(context.Background(), level, msg, attrs...)
}

// later has it said in a while what was left out, if nothing else comes to say it.
func (l *lines) later() {
	if l.timer == nil {
		l.timer = time.AfterFunc(sayEvery, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.timer = nil
			l.sayRepeated()
			l.saySkipped()
		})
	}
}

func (l *lines) sayRepeated() {
	switch {
	case l.repeated == 1:
		l.log.Info("the last line repeated once")
	case l.repeated > 1:
		l.log.Info("the last line repeated " + thousands(l.repeated) + " times")
	}
	l.repeated = 0
}

func (l *lines) saySkipped() {
	if l.skipped > 0 {
		l.log.Warn(fmt.Sprintf("the module writes more than %d log lines a second; some were left out", lineRate), "lines", l.skipped)
		l.skipped, l.said = 0, time.Now()
	}
}

// thousands is a number for people: 1,234.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
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
