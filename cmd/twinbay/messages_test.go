package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

func TestMessagesTable(t *testing.T) {
	messages, err := vendor{}.Messages(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := printMessages(&b, messages, noon.Add(3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"NUMBER  RECEIVED  MESSAGE ID  PROPERTIES  BODY",
		`3       3m00s ago  promo-1    lang=de     {"text":"hello"}`,
		"12 plain",
		"13 base64:AP8=",
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%q", lines)
	}
	for i, w := range want {
		for _, part := range strings.Fields(w) {
			if !strings.Contains(lines[i], part) {
				t.Errorf("%q has no %q", lines[i], part)
			}
		}
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("a message may write to the terminal")
	}
}

func TestDismissNeedsToKnowWhat(t *testing.T) {
	for _, args := range [][]string{{"messages", "dismiss"}, {"messages", "dismiss", "3", "--all"}, {"messages", "x"}} {
		if code, _, stderr := call(t.Context(), "", args...); code != 2 || stderr == "" {
			t.Errorf("%v: code %d, %s", args, code, stderr)
		}
	}
}
