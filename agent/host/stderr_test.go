//go:build linux

package host

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
		{"a signal", "SIGSEGV: segmentation violation\nPC=0x1 m=0\ngs     0x0\n", "", "SIGSEGV: segmentation violation", "SIGSEGV: segmentation violation\nPC=0x1 m=0\ngs     0x0"},
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

// What comes again is counted, and said: by the next line, by the end, and now and then if neither comes.
func TestRepeatedLinesAreCollapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := newLines(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		for n := range 1235 {
			fmt.Fprintf(l, `{"time":"2026-01-02T03:04:%02dZ","level":"WARN","msg":"no answer"}`+"\n", n%60)
		}
		fmt.Fprint(l, "another\nanother\nthe third\n")
		fmt.Fprint(l, "the fourth\nthe fourth\nthe fourth\n")
		time.Sleep(sayEvery)
		synctest.Wait()
		fmt.Fprint(l, "the fourth\n")
		l.Close()
		const want = "level=WARN msg=\"no answer\"\nlevel=INFO msg=\"the last line repeated 1,234 times\"\n" +
			"level=INFO msg=another\nlevel=INFO msg=\"the last line repeated once\"\nlevel=INFO msg=\"the third\"\n" +
			"level=INFO msg=\"the fourth\"\nlevel=INFO msg=\"the last line repeated 2 times\"\nlevel=INFO msg=\"the last line repeated once\"\n"
		if log.String() != want {
			t.Errorf("log:\n%s\nwant\n%s", log.String(), want)
		}
		if last, _ := l.tail(); last != "the fourth" {
			t.Errorf("last words %q", last)
		}
	})
}

// A flood may be clever: no two equal lines, pairs of equal lines, a panic at its end. Its log stays within the rate, it
// says what was left out, and its last words are heard.
func TestFloodsStayWithinTheRate(t *testing.T) {
	for name, line := range map[string]func(int) string{
		"all different": func(n int) string { return fmt.Sprintf(`{"time":"t","level":"INFO","msg":"m","n":%d}`, n) },
		"pairs":         func(n int) string { return fmt.Sprint("line ", n/2) },
		"not JSON":      func(n int) string { return fmt.Sprint("{", n) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				l := newLines(slog.New(slog.NewTextHandler(&log, nil)))
				const seconds, each = 60, 1000
				for n := range seconds * each {
					fmt.Fprintln(l, line(n))
					if n%each == 0 {
						time.Sleep(time.Second)
					}
				}
				fmt.Fprintln(l, `{"level":"ERROR","msg":"read failed","error":"nothing answers"}`)
				if last, _ := l.tail(); last != "read failed: nothing answers" {
					t.Errorf("last words %q", last)
				}
				fmt.Fprint(l, "panic: boom\n\ngoroutine 1 [running]:\n")
				l.Close()
				if last, stack := l.tail(); last != "panic: boom" || !strings.Contains(stack, "goroutine 1") {
					t.Errorf("last words %q, stack %q", last, stack)
				}
				n := strings.Count(log.String(), "\n")
				if most := lineBurst + seconds*lineRate + 10; n < lineBurst || n > most {
					t.Errorf("%d log lines, want %d to %d", n, lineBurst, most)
				}
				if !strings.Contains(log.String(), "some were left out") {
					t.Error("the log does not say that lines were left out")
				}
			})
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
