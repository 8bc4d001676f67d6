//go:build linux

package host

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		log      string // one phrase of the log
		last     string
		stack    string
	}{
		{"the module's log", `{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"coin jammed","tube":2,"module":"x"}` + "\n", "level=WARN msg=\"coin jammed\" tube=2\n", "coin jammed", ""},
		{"an error attribute", `{"level":"ERROR","msg":"read failed","error":"bme280: nothing answers"}` + "\n", "level=ERROR", "read failed: bme280: nothing answers", ""},
		{"not JSON", "hello\n", "level=INFO msg=hello", "hello", "hello"},
		{"JSON of another kind", `{"@message":1}` + "\n", "@message", `{"@message":1}`, `{"@message":1}`},
		{"level of another kind", `{"level":7,"msg":"m"}` + "\n", "level=INFO msg=m", "m", ""},
		{"no end", "half a li", "msg=\"half a li\"", "half a li", "half a li"},
		{"a panic", "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n", "", "panic: boom", "panic: boom\n\ngoroutine 1 [running]:\nmain.main()"},
		{"not UTF-8", "a\xff\n", "\uFFFD", "a\uFFFD", "a\uFFFD"},
		{"too long", strings.Repeat("y", 3*maxLine) + "\n", "… (cut)", strings.Repeat("y", maxLine) + " … (cut)", strings.Repeat("y", maxLine) + " … (cut)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			l := newLines(slog.New(slog.NewTextHandler(&log, nil)))
			for i := range len(tt.in) { // byte by byte
				l.Write([]byte{tt.in[i]})
			}
			l.Close()
			if !strings.Contains(log.String(), tt.log) {
				t.Errorf("log = %q, want %q in it", log.String(), tt.log)
			}
			if last, stack := l.tail(); last != tt.last || stack != tt.stack {
				t.Errorf("last %q, stack %q; want %q, %q", last, stack, tt.last, tt.stack)
			}
		})
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"time":"t","level":"INFO","msg":"m","a":{"b":[1]}}`+"\nx\n"), 3)
	f.Add([]byte(`{"@message":1}`+"\n"), 1)
	f.Add([]byte("panic: \n\xff"), 2)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		l := newLines(slog.New(slog.DiscardHandler))
		step = max(step, 1)
		for i := 0; i < len(in); i += step {
			piece := in[i:min(len(in), i+step)]
			if n, err := l.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			if i+step <= 0 {
				break
			}
		}
		l.Close()
		last, stack := l.tail()
		if len(last) > 4*maxLine || len(stack) > maxTail+4*maxLine {
			t.Errorf("kept %d and %d bytes", len(last), len(stack))
		}
	})
}
