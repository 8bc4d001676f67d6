package iothub

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// contents is the queue in short: U, D, p7 for a patch, m for a method.
func (b *mailbox) contents() string {
	var s []string
	for {
		e, ok := b.take()
		if !ok {
			return strings.Join(s, " ")
		}
		switch e := e.(type) {
		case Up:
			s = append(s, "U")
		case Down:
			s = append(s, "D:"+e.Err.Error())
		case DesiredPatch:
			s = append(s, fmt.Sprint("p", e.Version))
		case MethodCall:
			s = append(s, "m:"+e.Name)
		}
	}
}

func TestMailboxKeepsOnlyWhatCounts(t *testing.T) {
	down := func(s string) Event { return Down{Err: errors.New(s)} }
	patch := func(v int64) Event { return DesiredPatch{Version: v} }
	call := func(s string) Event { return MethodCall{Name: s} }
	for _, test := range []struct {
		name string
		put  []Event
		want string
	}{
		{"in order", []Event{Up{}, patch(2), call("a"), patch(3)}, "U p2 m:a p3"},
		{"patches before the first Up are part of the twin", []Event{patch(2), Up{}, patch(3)}, "U p3"},
		{"a loss makes older states and patches void", []Event{Up{}, patch(2), call("a"), down("1")}, "m:a D:1"},
		{"many losses", []Event{down("1"), down("2"), Up{}, down("3")}, "D:3"},
		{"a loss and a new connection", []Event{down("1"), Up{}, patch(4)}, "D:1 U p4"},
		{"a new connection asks for the twin anyway", []Event{Up{}, patch(4), down("1"), Up{}}, "D:1 U"},
		{"a patch that comes late from the old connection", []Event{down("1"), patch(4), Up{}}, "D:1 U"},
	} {
		b := newMailbox()
		for _, e := range test.put {
			b.put(e)
		}
		if got := b.contents(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestMailboxIsBounded(t *testing.T) {
	b := newMailbox()
	b.put(Up{})
	var refused []int
	for i := range 10 * maxPatches {
		if fits := b.put(DesiredPatch{Version: int64(i)}); fits != (i%(maxPatches+1) != maxPatches) {
			t.Fatalf("patch %d: fits = %v", i, fits)
		}
		if len(b.queue) > maxPatches+MaxMethods+2 {
			t.Fatalf("%d events wait", len(b.queue))
		}
	}
	for range 2 * MaxMethods {
		b.put(MethodCall{Answer: func(status int, _ json.RawMessage) { refused = append(refused, status) }})
	}
	if len(refused) != MaxMethods || refused[0] != 429 {
		t.Errorf("%d methods were refused: %v", len(refused), refused)
	}
	got := b.contents()
	if !strings.Contains(got, "U") || b.patches != 0 || b.methods != 0 {
		t.Errorf("after overflow: %q, %d patches and %d methods counted", got, b.patches, b.methods)
	}
}

func TestDeliverKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMailbox()
		out := make(chan Event)
		go b.deliver(t.Context(), out)
		b.put(Up{})
		synctest.Wait() // held for the owner: a later Up may not take it back
		for v := range int64(10) {
			b.put(DesiredPatch{Version: v})
		}
		if _, ok := (<-out).(Up); !ok {
			t.Fatal("the first event is not Up")
		}
		for v := range int64(10) {
			if p := (<-out).(DesiredPatch); p.Version != v {
				t.Fatalf("patch %d, want %d", p.Version, v)
			}
		}
	})
}

func TestMailboxLeavesMessagesToTheHub(t *testing.T) {
	b := newMailbox()
	b.put(Up{})
	for n := range maxClouds + 3 {
		if fits := b.put(CloudMessage{ID: string(rune('a' + n))}); fits != (n < maxClouds) {
			t.Errorf("message %d fits: %v", n+1, fits)
		}
	}
	b.put(Down{})
	if e, ok := b.take(); !ok {
		t.Error("nothing is left")
	} else if _, down := e.(Down); !down {
		t.Errorf("after the end of the connection there is %#v", e)
	}
	if !b.put(CloudMessage{}) {
		t.Error("the room is not free again")
	}
}
