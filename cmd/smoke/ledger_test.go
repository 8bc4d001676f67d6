package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/admin"
)

// A torture whose ledger finds nothing would be none.
func TestLedger(t *testing.T) {
	message := func(id, body string) admin.Event {
		return admin.Event{Kind: "telemetry", ModuleID: "coins", Body: json.RawMessage(body), System: map[string]string{"message-id": id}}
	}
	begin := message("e-0", `{"event":"baseline","counter":2}`)
	one := message("e-1", `{"event":"credit","seq":1,"counter":3}`)
	for _, c := range []struct {
		what           string
		happened       int
		accepted       []string
		events         []admin.Event
		missing, wrong string
	}{
		{"all came", 3, []string{"e-0", "e-1"}, []admin.Event{begin, one}, "", ""},
		{"twice, under one id", 3, []string{"e-0", "e-1"}, []admin.Event{begin, one, one}, "", ""},
		{"came and was not said to be accepted", 3, nil, []admin.Event{begin, one}, "", ""},
		{"accepted and lost", 3, []string{"e-0", "e-1", "e-2"}, []admin.Event{begin, one}, "1 messages were accepted and have not come: coins e-2", ""},
		{"a coin that nobody tells of", 4, nil, []admin.Event{begin, one}, "told of 1", ""},
		{"a coin that nobody threw in", 2, nil, []admin.Event{begin, one}, "", "told of 1"},
		{"under two ids", 3, nil, []admin.Event{begin, one, message("e-2", `{"event":"credit","seq":1,"counter":3}`)}, "", "coin 1 came under 2 ids"},
		{"two messages under one id", 3, nil, []admin.Event{begin, one, message("e-1", `{"event":"error"}`)}, "", "came as 2 different messages"},
		{"an error of the acceptor", 4, nil, []admin.Event{begin, one, message("e-2", `{"event":"error","code":2}`)}, "", ""},
		{"fell out of the acceptor's memory", 5, nil, []admin.Event{begin, one, message("e-2", `{"event":"events_lost","lost":2}`)}, "", ""},
		{"a gap over the counter's end", 9, nil, []admin.Event{begin, one, message("e-2", `{"event":"credit_gap_unknown","last_counter":252,"counter":3}`)}, "", ""},
		{"counted by kind", 7, nil, []admin.Event{begin, message("e-2", `{"event":"summary","coins":{"EU100A":{"count":3}},"errors":{"2":1},"lost":1}`)}, "", ""},
	} {
		l := newLedger()
		l.happened = c.happened
		for _, id := range c.accepted {
			l.accepted["coins "+id] = true
		}
		l.read(c.events)
		for _, side := range []struct {
			err  error
			want string
		}{{l.missing(), c.missing}, {l.wrong(), c.wrong}} {
			if got := side.err != nil; got != (side.want != "") || got && !strings.Contains(side.err.Error(), side.want) {
				t.Errorf("%s: %v; want %q", c.what, side.err, side.want)
			}
		}
	}
}

func TestAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	text := `{"level":"DEBUG","msg":"accepted","module":"coins","id":"a-1"}
SIGABRT: abort
{"level":"INFO","msg":"connected","module":"coins"}
{"level":"DEBUG","msg":"accepted","module":"door","id":"a-1"}
{"level":"DEBUG","msg":"accep`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, err := accepted(path)
	var got []string
	for id := range ids {
		got = append(got, id)
	}
	slices.Sort(got)
	if want := []string{"coins a-1", "door a-1"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
