package cctalk

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

func TestContract(t *testing.T) {
	modtest.Contract(t, func() modkit.Module { return New() }, Sample)
}

func config(f *fake) modtest.Config {
	return modtest.Config{
		Drivers: map[string]hal.Driver{"test": haltest.Wires(map[string]any{"coin": f.line})},
		Wiring:  map[string]any{"port": "test:coin"},
	}
}

// up runs the module until the acceptor takes coins.
func up(t *testing.T, f *fake, cfg modtest.Config) *modtest.Bench {
	t.Helper()
	b := modtest.Run(t, New(), cfg)
	b.WaitHealth(modkit.OK)
	time.Sleep(time.Second)
	if f.maskNow() == 0 {
		t.Fatal("the acceptor takes no coins")
	}
	return b
}

func (m message) String() string {
	s := m.Event
	if m.Seq > 0 {
		s += fmt.Sprintf(" #%d", m.Seq)
	}
	if m.Coin != "" {
		s += " " + m.Coin
	}
	if m.Cents != nil {
		s += fmt.Sprintf("=%d", *m.Cents)
	}
	if m.Name != "" {
		s += " " + m.Name
	}
	if m.Lost > 0 {
		s += fmt.Sprintf(" %d", m.Lost)
	}
	if m.Reason != "" {
		s += ": " + m.Reason
	}
	return s + fmt.Sprintf(" @%d", m.Counter)
}

// said is what came since the last call, a second later.
func said(t *testing.T, b *modtest.Bench) string {
	t.Helper()
	time.Sleep(time.Second)
	var all []string
	for len(b.Pending()) > 0 {
		var m message
		b.NextBody(&m)
		all = append(all, m.String())
	}
	return strings.Join(all, ", ")
}

func expect(t *testing.T, b *modtest.Bench, want string) {
	t.Helper()
	if got := said(t, b); got != want {
		t.Errorf("said %q\nwant %q", got, want)
	}
}

func TestCreditsAndErrors(t *testing.T) {
	for _, echo := range []bool{false, true} {
		t.Run(fmt.Sprintf("echo %v", echo), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.echo = echo
				b := up(t, f, config(f))
				expect(t, b, "baseline @0")
				f.coins(2)
				expect(t, b, "credit #1 EU100A=100 @1")
				f.coins(3, 1, 2)
				expect(t, b, "credit #2 EU050A=50 @2, credit #3 EU200A=200 @3, credit #4 EU100A=100 @4")
				f.set(func(f *fake) { f.happen(event{0, 20}); f.happen(event{0, 254}) })
				expect(t, b, "error coin-on-string mechanism activated @5, error coin return lever @6")
				f.coins(9) // a coin that the table does not name
				expect(t, b, "credit #5 @7")
			})
		})
	}
}

func TestWhatACreditCarries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		b.Next()
		f.coins(2)
		s := b.Next()
		if want := `{"event":"credit","seq":1,"coin":"EU100A","value_cents":100,"position":2,"path":1,"counter":1}`; string(s.Message.Body) != want {
			t.Errorf("body %s\nwant %s", s.Message.Body, want)
		}
		if want := `{"serial":123456,"counter":1,"credits":1}`; string(s.Message.State) != want {
			t.Errorf("state %s\nwant %s", s.Message.State, want)
		}
		if s.Message.Priority != modkit.High {
			t.Error("a credit is not high priority")
		}
	})
}

func TestBurstsAndWraps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.counter, f.events = 250, [depth]event{{1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}
		b := up(t, f, config(f))
		expect(t, b, "baseline @250")
		f.coins(2, 2, 2, 2)
		expect(t, b, "credit #1 EU100A=100 @251, credit #2 EU100A=100 @252, credit #3 EU100A=100 @253, credit #4 EU100A=100 @254")
		f.coins(1, 2, 3)
		expect(t, b, "credit #5 EU200A=200 @255, credit #6 EU100A=100 @1, credit #7 EU050A=50 @2")
		f.coins(1, 1, 2, 2, 2, 2, 3) // two more than the acceptor keeps
		expect(t, b, "events_lost 2: more events between two polls than the acceptor keeps @4, "+
			"credit #8 EU100A=100 @5, credit #9 EU100A=100 @6, credit #10 EU100A=100 @7, credit #11 EU100A=100 @8, credit #12 EU050A=50 @9")
	})
}

// Nothing may be credited that a crash before the first durable record would lose.
func TestNoCoinsBeforeTheFirstRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.mask = 0xffff
		cfg := config(f)
		cfg.Hold = true
		b := modtest.Run(t, New(), cfg)
		first := b.Next()
		time.Sleep(5 * time.Second)
		if f.coins(2) != 0 {
			t.Error("the acceptor takes coins before the record is durable")
		}
		b.Accept(first)
		time.Sleep(time.Second)
		if f.coins(2) != 1 {
			t.Error("the acceptor takes no coins")
		}
	})
}

func TestRestarts(t *testing.T) {
	const before = `{"serial":123456,"counter":7,"credits":41}`
	full := [depth]event{{2, 1}, {3, 1}, {1, 1}, {1, 1}, {1, 1}}
	for _, row := range []struct {
		name  string
		state string
		set   func(f *fake)
		want  string
	}{
		{"nothing happened", before, func(f *fake) { f.counter, f.events = 7, full }, ""},
		{"two coins meanwhile", before, func(f *fake) { f.counter, f.events = 9, full }, "credit #42 EU050A=50 @8, credit #43 EU100A=100 @9"},
		{"switched off", before, func(*fake) {}, "credit_gap_unknown: the acceptor was reset @0"},
		{"exchanged", before, func(f *fake) { f.counter, f.events, f.serial = 9, full, 5 }, "credit_gap_unknown: another acceptor @9"},
		{"far away", before, func(f *fake) { f.counter, f.events = 20, full }, "credit_gap_unknown: more events than the acceptor keeps @20"},
		{"no serial number, as before", `{"serial":-1,"counter":7,"credits":41}`, func(f *fake) { f.counter, f.events, f.serial = 8, full, -1 }, "credit #42 EU100A=100 @8"},
		{"unreadable record", `{"serial":`, func(f *fake) { f.counter, f.events = 9, full }, "credit_gap_unknown: the state record is unreadable @9"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				row.set(f)
				cfg := config(f)
				cfg.State = []byte(row.state)
				b := up(t, f, cfg)
				expect(t, b, row.want)
				f.coins(2)
				if got := said(t, b); !strings.HasPrefix(got, "credit") || strings.Contains(got, ",") {
					t.Errorf("the next coin is %q, want one credit", got)
				}
			})
		})
	}
}

// A process that dies at any message begins again from the last accepted record: each coin counts once.
func TestEachCoinCountsOnceWhereverTheProcessDies(t *testing.T) {
	for accepted := range 6 {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			cfg := config(f)
			cfg.Hold = true
			b := modtest.Run(t, New(), cfg)
			b.Accept(b.Next())
			time.Sleep(2 * time.Second)
			if n := f.coins(1, 2, 3, 1, 2); n != 5 {
				t.Fatalf("%d coins taken, want 5", n)
			}
			time.Sleep(time.Second)
			total := 0
			for i := range 5 {
				s := b.Next()
				if i < accepted {
					total += cents1(t, s)
					b.Accept(s)
				}
			}
			state := b.State()
			b.Stop()
			f.set(func(f *fake) { f.mask = 0 })

			cfg = config(f)
			cfg.State = state
			b2 := up(t, f, cfg)
			time.Sleep(time.Second)
			for len(b2.Pending()) > 0 {
				total += cents1(t, b2.Next())
			}
			if total != 200+100+50+200+100 {
				t.Errorf("with %d messages accepted, %d cents arrived, want 650", accepted, total)
			}
		})
	}
}

func cents1(t *testing.T, s modkit.Sent) int {
	t.Helper()
	var m message
	if err := json.Unmarshal(s.Message.Body, &m); err != nil {
		t.Fatal(err)
	}
	if m.Event != "credit" {
		t.Fatalf("%s instead of a credit", s.Message.Body)
	}
	return *m.Cents
}

// An agent that accepts nothing for minutes costs no poll and no coin.
func TestASlowAgentNeverStopsThePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		cfg := config(f)
		cfg.Hold = true
		b := modtest.Run(t, New(), cfg)
		b.Accept(b.Next())
		time.Sleep(2 * time.Second)
		const coins = 900 // more than wait one by one
		polls := f.count(bufferedCredit)
		for range coins {
			f.coins(2)
			time.Sleep(200 * time.Millisecond)
		}
		if n := f.count(bufferedCredit) - polls; n < coins*9/10 {
			t.Errorf("%d polls in %d intervals", n, coins)
		}
		total := 0
		for total < coins {
			s := b.Next()
			b.Accept(s)
			var m message
			if err := json.Unmarshal(s.Message.Body, &m); err != nil {
				t.Fatal(err)
			}
			switch m.Event {
			case "credit":
				total++
			case "summary":
				total += m.Coins["EU100A"].Count
				if m.Seq != coins {
					t.Errorf("the summary ends with credit %d, want %d", m.Seq, coins)
				}
			default:
				t.Fatalf("unexpected %s", s.Message.Body)
			}
		}
		time.Sleep(time.Second)
		if total != coins || len(b.Pending()) != 0 {
			t.Errorf("%d coins arrived of %d, and %d messages more", total, coins, len(b.Pending()))
		}
	})
}

func TestSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		b.Apply(map[string]any{"inhibit_mask": 0b0010})
		if f.maskNow() != 2 {
			t.Errorf("mask %#x at the answer, want 2", f.maskNow())
		}
		b.Apply(map[string]any{"enabled": false})
		if f.maskNow() != 0 {
			t.Error("it takes coins while not enabled")
		}
		b.Apply(map[string]any{"coin_values": map[string]int{"TK001A": 70, "EU100A": 90}})
		f.coins(4, 2)
		expect(t, b, "baseline @0, credit #1 TK001A=70 @1, credit #2 EU100A=90 @2")

		a := b.Apply(map[string]any{"poll_interval_ms": 1000, "inhibit_mask": 1})
		if s := a["poll_interval_ms"]; !s.Refused || string(s.Value) != "200" || s.Reason == "" {
			t.Errorf("poll_interval_ms: %+v", s)
		}
		if f.maskNow() != 1 {
			t.Error("a refused setting kept another from being set")
		}
		f.set(func(f *fake) { f.unknown[modifyInhibit] = true })
		a = b.Apply(map[string]any{"inhibit_mask": 3})
		if s := a["inhibit_mask"]; !s.Refused || string(s.Value) != "1" {
			t.Errorf("inhibit_mask that the acceptor refuses: %+v", s)
		}
	})
}

func TestPollInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		b.Apply(map[string]any{"poll_interval_ms": 500})
		before := f.count(bufferedCredit)
		time.Sleep(10 * time.Second)
		if n := f.count(bufferedCredit) - before; n < 19 || n > 21 {
			t.Errorf("%d polls in 10 s, want 20", n)
		}
	})
}

func TestMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		expect(t, b, "baseline @0")
		if a := b.Invoke("selfTest", "{}"); a.Status != 200 || string(a.Payload) != `{"fault":"none","fault_code":0,"ok":true}` {
			t.Errorf("selfTest: %d %s", a.Status, a.Payload)
		}
		f.set(func(f *fake) { f.fault = 3 })
		if a := b.Invoke("selfTest", ""); !strings.Contains(string(a.Payload), `"fault":"credit sensor"`) {
			t.Errorf("selfTest: %s", a.Payload)
		}
		if h := b.WaitHealth(modkit.Degraded); !strings.Contains(h.Detail, "credit sensor") {
			t.Errorf("health %q", h.Detail)
		}
		if a := b.Invoke("selfTest", `{"x":1}`); a.Status != 400 {
			t.Errorf("arguments where none belong: %d", a.Status)
		}
		f.set(func(f *fake) { f.ids[2] = "GB100A" })
		if a := b.Invoke("readCoinTable", ""); a.Status != 200 || !strings.Contains(string(a.Payload), `"position_2":{"coin":"GB100A","value_cents":100}`) {
			t.Errorf("readCoinTable: %d %s", a.Status, a.Payload)
		}
		f.coins(2)
		if a := b.Invoke("reset", ""); a.Status != 200 {
			t.Errorf("reset: %d %s", a.Status, a.Payload)
		}
		f.coins(3)
		expect(t, b, "credit #1 GB100A=100 @1, reset: asked for @0, credit #2 EU050A=50 @1")
	})
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.echo = true
		b := up(t, f, config(f))
		doc := b.WaitReported(func(doc map[string]any) bool { return doc["coins"] != nil })
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		want := `{"coins":{"position_1":{"coin":"EU200A","value_cents":200},"position_2":{"coin":"EU100A","value_cents":100},` +
			`"position_3":{"coin":"EU050A","value_cents":50},"position_4":{"coin":"TK001A","value_cents":1}},"echo":true,` +
			`"identity":{"category":"Coin Acceptor","manufacturer":"TST"},"self_check":{"fault":"none","fault_code":0},"serial_number":"123456"}`
		if string(raw) != want {
			t.Errorf("reported %s\nwant     %s", raw, want)
		}
	})
}

func TestTheAcceptorIsClosedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		b := up(t, f, config(f))
		b.Stop()
		if f.maskNow() != 0 {
			t.Error("coins are still taken, and nobody counts them")
		}
	})
}

func TestBadWiring(t *testing.T) {
	for _, wiring := range []string{`{}`, `{"port":"x","address":1}`, `{"port":"x","checksum":"md5"}`, `{"port":"x","echo":"maybe"}`, `{"prot":"x"}`} {
		if _, err := decodeWiring(json.RawMessage(wiring)); err == nil || !strings.HasPrefix(err.Error(), "cctalk: wiring: ") {
			t.Errorf("%s: %v", wiring, err)
		}
	}
}
