package lives

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestMain lets the test binary be a program that breaks down.
func TestMain(m *testing.M) {
	if path := os.Getenv("TWINBAY_TEST_WORDS"); path != "" {
		if _, err := LastWords(path); err != nil {
			panic(err)
		}
		var none map[string]int
		none["x"] = 1
	}
	os.Exit(m.Run())
}

func TestRow(t *testing.T) {
	type step struct {
		what  string // what becomes of the life that began
		boot  string
		safe  bool // this life
		early int
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"five early ends", []step{{"dies", "a", false, 0}, {"dies", "a", false, 1}, {"dies", "a", false, 2}, {"dies", "a", false, 3}, {"dies", "a", false, 4},
			{"dies", "a", true, 5}, {"dies", "a", true, 6}, {"stops", "a", true, 7}, {"dies", "a", false, 0}}},
		{"a life that lasts breaks the row", []step{{"dies", "a", false, 0}, {"dies", "a", false, 1}, {"lasts", "a", false, 2}, {"dies", "a", false, 0}, {"dies", "a", false, 1}}},
		{"a stop breaks the row", []step{{"dies", "a", false, 0}, {"dies", "a", false, 1}, {"stops", "a", false, 2}, {"dies", "a", false, 0}}},
		{"power cuts", []step{{"dies", "a", false, 0}, {"dies", "b", false, 0}, {"dies", "c", false, 0}, {"dies", "d", false, 0}, {"dies", "e", false, 0}, {"dies", "f", false, 0}}},
		{"a power cut ends safe mode", []step{{"dies", "a", false, 0}, {"dies", "a", false, 1}, {"dies", "a", false, 2}, {"dies", "a", false, 3}, {"dies", "a", false, 4},
			{"dies", "a", true, 5}, {"dies", "b", false, 0}}},
		{"left by itself, one more end leads back", []step{{"dies", "a", false, 0}, {"dies", "a", false, 1}, {"dies", "a", false, 2}, {"dies", "a", false, 3}, {"dies", "a", false, 4},
			{"leaves", "a", true, 5}, {"lasts", "a", true, 5}, {"dies", "a", false, 0}}},
		{"left as asked, it counts anew", []step{{"dies", "a", false, 0}, {"dies", "a", false, 1}, {"dies", "a", false, 2}, {"dies", "a", false, 3}, {"dies", "a", false, 4},
			{"resumes", "a", true, 5}, {"dies", "a", false, 1}}},
	} {
		var r Record
		for n, s := range c.steps {
			var safe bool
			if r, safe = r.Begin(s.boot, "", noon); safe != s.safe || r.Early != s.early {
				t.Errorf("%s, life %d: safe %v after %d early ends, want %v after %d", c.name, n, safe, r.Early, s.safe, s.early)
			}
			switch s.what {
			case "lasts", "stops":
				r = r.Lasted()
			case "leaves":
				r = r.Resumed(false)
			case "resumes":
				r = r.Resumed(true)
			}
			text, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if r, err = Decode(text); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReasons(t *testing.T) {
	r, _ := Record{}.Begin("a", "", noon)
	r, _ = r.Begin("a", "panic: no", noon)
	r, _ = r.Failed(errors.New("no socket")).Begin("a", "", noon)
	r, _ = r.Begin("a", "", noon)
	want := []End{{noon, "panic: no"}, {noon, "no socket"}, {noon, Unknown}}
	if !reflect.DeepEqual(r.Ends, want) {
		t.Errorf("%+v, want %+v", r.Ends, want)
	}
	for range 20 {
		r, _ = r.Begin("a", strings.Repeat("ü", 1000), noon)
	}
	if len(r.Ends) != maxEnds || len(r.Ends[0].Reason) > maxReason+5 || !utf8.ValidString(r.Ends[0].Reason) {
		t.Errorf("%d ends are kept, of %d bytes", len(r.Ends), len(r.Ends[0].Reason))
	}
	if r := (Record{Boot: "a"}).Failed(errors.New("late")); r.Error != "" {
		t.Errorf("an error after a life that lasted: %+v", r)
	}
}

// A real program's panic is there for the next start.
func TestLastWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "crash")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "TWINBAY_TEST_WORDS="+path)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "nil map") {
			t.Fatalf("%v: %s", err, out)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || Headline(text) != "panic: assignment to entry in nil map" {
		t.Errorf("%v: %s", err, text)
	}
	if previous, err := os.ReadFile(path + ".previous"); err != nil || !strings.Contains(string(previous), "goroutine ") {
		t.Errorf("the stacks of before: %v, %s", err, previous)
	}
}

func TestBoot(t *testing.T) {
	if id := Boot(); len(id) != 36 || id != Boot() {
		t.Errorf("the id of the system's start is %q", id)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"boot":"a","early":4,"open":true,"ends":[{"found":"2026-03-01T12:00:00Z","reason":"x"}]}`))
	f.Add([]byte(`{"boot":"a","early":-9223372036854775808,"open":true}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Decode(text)
		if err != nil {
			return
		}
		next, safe := r.Begin("a", "", noon)
		if safe != (next.Early >= Limit) || next.Early < 0 || len(next.Ends) > maxEnds {
			t.Errorf("%+v becomes %+v", r, next)
		}
	})
}

func FuzzHeadline(f *testing.F) {
	f.Add([]byte("panic: no\n\ngoroutine 1 [running]:\n"))
	f.Add([]byte("runtime: x\nfatal error: stack overflow\n"))
	f.Add([]byte("SIGABRT: abort\nPC=0x1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s := Headline(text); !utf8.ValidString(s) || strings.Contains(s, "\n") || len(s) > maxReason+5 {
			t.Errorf("%q", s)
		}
	})
}
