package vend

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

func TestContract(t *testing.T) { modtest.Contract(t, func() modkit.Module { return New() }, Sample) }

// answer is what vend answers.
type answer struct {
	record
	Repeated bool
	Error    string
}

func (p *plant) vend(tx string, slot, status int) answer {
	p.t.Helper()
	a := p.Invoke("vend", fmt.Sprintf(`{"txId":%q,"slot":%d}`, tx, slot))
	var v answer
	if err := json.Unmarshal(a.Payload, &v); err != nil || a.Status != status {
		p.t.Errorf("vend %s of slot %d answers %d %s, want %d", tx, slot, a.Status, a.Payload, status)
	}
	return v
}

// told is the next message, which has to be of an event.
func (p *plant) told(event string) map[string]any {
	p.t.Helper()
	var doc map[string]any
	s := p.NextBody(&doc)
	if doc["event"] != event || s.Message.Priority != modkit.High || s.Message.State == nil {
		p.t.Errorf("message %s, want %s of high priority with a state", s.Message.Body, event)
	}
	return doc
}

func TestVend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, nil)
		for n := range 4 {
			tx := fmt.Sprint("tx-", n)
			a := p.vend(tx, 2, 200)
			if a.Result != resultOK || a.Fault != "" || a.Turns != 1 || a.Drops != 1 || a.Drop == nil || a.Duration < 1400 || a.Duration > 1700 {
				t.Errorf("%+v", a)
			}
			p.told("vend_started")
			if doc := p.told("vend"); doc["txId"] != tx || doc["slot"] != 2.0 || doc["result"] != "ok" {
				t.Errorf("message %v", doc)
			}
			if got := p.given(2); got != n+1 {
				t.Errorf("%d products after %d vends", got, n+1)
			}
		}
		p.still()
	})
}

// A transaction is answered as it ended, however often and after whatever restart it is asked for.
func TestATransactionIsDoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, nil)
		both := make(chan modkit.Answer, 2)
		for range 2 {
			go func() { both <- p.Invoke("vend", `{"txId":"a","slot":0}`) }()
		}
		x, y := <-both, <-both
		if x.Status != 200 || string(x.Payload) != string(y.Payload) {
			t.Errorf("asked twice at once: %d %s and %d %s", x.Status, x.Payload, y.Status, y.Payload)
		}
		first := p.vend("a", 0, 200)
		if !first.Repeated || first.Result != resultOK {
			t.Errorf("asked again: %+v", first)
		}
		p.vend("a", 1, 409)
		p.Stop()
		p.again()
		if a := p.vend("a", 0, 200); a.Duration != first.Duration || !a.Repeated {
			t.Errorf("after a restart %+v, want %+v", a, first)
		}
		for n := range 2 * maxRecent {
			p.vend(fmt.Sprint("b", n), 1, 200)
		}
		p.vend("a", 0, 410)
		p.Stop()
		p.again()
		p.vend("a", 0, 410)
		if p.given(0) != 1 || p.given(1) != 2*maxRecent {
			t.Errorf("%d and %d products, want 1 and %d", p.given(0), p.given(1), 2*maxRecent)
		}
		p.still()
	})
}

// No motor turns before the agent has the transaction on disk.
func TestWrittenDownFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, nil)
		p.cfg.Hold = true
		p.Bench = modtest.Run(t, New(), p.cfg)
		p.WaitHealth(modkit.OK)
		synctest.Wait()
		got := make(chan modkit.Answer, 1)
		go func() { got <- p.Invoke("vend", `{"txId":"a","slot":0}`) }()
		started := p.Next()
		time.Sleep(time.Second)
		p.still()
		p.Accept(started)
		p.Accept(p.Next())
		if a := <-got; a.Status != 200 {
			t.Errorf("%d %s", a.Status, a.Payload)
		}
		go func() { got <- p.Invoke("vend", `{"txId":"b","slot":0}`) }()
		p.Refuse(p.Next(), "the disk is full")
		if a := <-got; a.Status != 502 || !strings.Contains(string(a.Payload), faultNotBegun) {
			t.Errorf("refused by the agent: %d %s", a.Status, a.Payload)
		}
		go func() { got <- p.Invoke("vend", `{"txId":"c","slot":0}`) }()
		if a := <-got; a.Status != 502 || !strings.Contains(string(a.Payload), faultNotBegun) { // never accepted
			t.Errorf("not accepted by the agent: %d %s", a.Status, a.Payload)
		}
		if p.given(0) != 1 {
			t.Errorf("%d products, want 1", p.given(0))
		}
		p.still()
	})
}

// The module dies at any moment of a vend: the next run answers that nobody knows, or the result, and turns nothing again.
func TestDeathOnTheWay(t *testing.T) {
	for d := time.Duration(0); d < 3*time.Second; d += 130 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			p := start(t, nil)
			done := make(chan modkit.Answer, 1)
			go func() {
				a, _ := p.Remote.Invoke(t.Context(), "vend", json.RawMessage(`{"txId":"a","slot":3}`))
				done <- a
			}()
			synctest.Wait()
			time.Sleep(d)
			state := p.State() // durable at the moment of death
			p.Stop()
			<-done
			p.still()
			given, ups := p.given(3), p.ups[3]
			p.cfg.State = state
			p.Bench = modtest.Run(t, New(), p.cfg)
			p.WaitReported(func(map[string]any) bool { return true })
			time.Sleep(time.Second)
			a := p.Invoke("vend", `{"txId":"a","slot":3}`)
			var v answer
			if err := json.Unmarshal(a.Payload, &v); err != nil || !v.Repeated || v.Result != resultOK && v.Result != resultUnknown {
				t.Errorf("after %v: %d %s", d, a.Status, a.Payload)
			}
			if v.Result == resultUnknown {
				p.vend("b", 3, 409) // until somebody has looked
			}
			if p.given(3) != given || p.ups[3] != ups {
				t.Errorf("after %v: the motor turned again", d)
			}
			p.still()
		})
	}
}

func TestTroubles(t *testing.T) {
	for _, row := range []struct {
		name          string
		before        func(*plant)
		after         func(*plant) // 500 ms into the turn
		status        int
		result, fault string
		state         string // of the slot then
		given         int
	}{
		{"jammed at home", func(p *plant) { p.spirals[0].jamAt = 0.001 }, nil, 502, resultFailed, faultStuckHome, "blocked", 0},
		{"jammed on the way", func(p *plant) { p.spirals[0].jamAt = 0.5 }, nil, 502, resultFailed, faultJam, "blocked", 0},
		{"welded", func(p *plant) { p.spirals[0].welded = true }, nil, 502, resultFailed, faultStuckHome, "blocked", 0},
		{"nothing falls", func(p *plant) { p.spirals[0].blind = true }, nil, 502, resultNoDrop, "", "blocked", 1},
		{"reset by noise", nil, func(p *plant) { p.reset() }, 502, resultFailed, faultReset, "blocked", 0},
		{"the bus goes", nil, func(p *plant) { p.do(func() { p.err = hal.ErrGone }) }, 200, resultOK, faultBus, "blocked", 1},
		{"a nack now and then", nil, func(p *plant) {
			p.do(func() { p.err = hal.ErrAbsent })
			p.do(func() { p.err = nil })
		}, 200, resultOK, "", "ready", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := start(t, nil)
				if row.before != nil {
					p.do(func() { row.before(p) })
				}
				if row.after != nil {
					time.AfterFunc(500*time.Millisecond, func() { row.after(p) })
				}
				a := p.vend("a", 0, row.status)
				gone := false
				p.do(func() { gone = p.err != nil })
				if gone { // the motor goes on until the bus is there again
					if h := p.WaitHealth(modkit.Faulted); !strings.Contains(h.Detail, "cut its supply") {
						t.Errorf("health %q", h.Detail)
					}
					p.do(func() { p.err = nil })
					time.Sleep(20 * time.Second)
				}
				if a.Result != row.result || a.Fault != row.fault {
					t.Errorf("%+v, want %s %q", a, row.result, row.fault)
				}
				if !gone && p.given(0) != row.given {
					t.Errorf("%d products, want %d", p.given(0), row.given)
				}
				p.still()
				p.WaitReported(func(doc map[string]any) bool {
					slots, _ := doc["slots"].([]any)
					return len(slots) == 7 && slots[0].(map[string]any)["state"] == row.state
				})
				ups := p.ups[0]
				p.vend("a", 0, row.status)
				if row.state == "blocked" {
					p.vend("b", 0, 409)
				}
				if p.ups[0] != ups {
					t.Error("the motor turned again")
				}
				p.vend("c", 1, 200) // the others go on
			})
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, map[string]any{"disabled_slots": []int{4}})
		for _, payload := range []string{``, `{}`, `{"txId":"a"}`, `{"slot":1}`, `{"txId":"a","slot":7}`, `{"txId":"a b","slot":1}`, `{"txId":"a","slot":1,"x":2}`} {
			if a := p.Invoke("vend", payload); a.Status != 400 {
				t.Errorf("vend %s answers %d %s", payload, a.Status, a.Payload)
			}
		}
		p.vend("a", 4, 409)
		p.Apply(map[string]any{"enabled": false})
		p.vend("a", 1, 409)
		p.Apply(nil)
		go p.Invoke("vend", `{"txId":"x","slot":0}`)
		time.Sleep(300 * time.Millisecond)
		p.vend("a", 1, 409) // one motor at a time
		if a := p.Invoke("homeAll", ""); a.Status != 409 {
			t.Errorf("homeAll beside a vend answers %d %s", a.Status, a.Payload)
		}
		time.Sleep(5 * time.Second)
		p.beam.Push(true) // blocked at rest
		time.Sleep(3 * time.Second)
		if h := p.WaitHealth(modkit.Degraded); !strings.Contains(h.Detail, "interrupted at rest") {
			t.Errorf("health %q", h.Detail)
		}
		p.vend("a", 1, 409)
		p.beam.Push(false)
		p.WaitHealth(modkit.OK)
		p.vend("a", 1, 200)
		p.beam.Unplug()
		p.WaitHealth(modkit.Degraded)
		p.vend("b", 1, 409)
		p.Apply(map[string]any{"drop_sensor_required": false})
		if a := p.vend("b", 1, 200); a.Drops != 0 || a.Turns != 1 {
			t.Errorf("without a beam: %+v", a)
		}
		p.still()
	})
}

// The chip loses its configuration at rest: it is programmed anew before the next vend, or sooner.
func TestResetAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, nil)
		p.reset()
		p.vend("a", 0, 200)
		p.reset()
		time.Sleep(2 * checkEvery)
		p.WaitReported(func(doc map[string]any) bool {
			e, _ := doc["expander"].(map[string]any)
			return e["resets"] == 2.0
		})
		p.do(func() { p.reg[0x14] = 0x55 }) // noise in the latch: motors turn
		time.Sleep(2 * checkEvery)
		p.still()
	})
}

func TestInterruptStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, nil)
		p.int.Push(true)
		if h := p.WaitHealth(modkit.Degraded); !strings.Contains(h.Detail, "interrupt line stays low") {
			t.Errorf("health %q", h.Detail)
		}
		p.vend("a", 0, 200)
		p.int.Push(false)
		p.WaitHealth(modkit.OK)
		p.int.Push(true) // the ports are read, and it is released
		time.Sleep(30 * time.Millisecond)
		p.int.Push(false)
		p.vend("b", 0, 200)
		p.int.Unplug()
		p.WaitHealth(modkit.Degraded)
		p.vend("c", 0, 200)
		p.int.Plug()
		time.Sleep(time.Minute)
		p.WaitHealth(modkit.OK)
	})
}

func TestTechniciansMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, nil)
		p.do(func() { p.spirals[5].angle, p.spirals[0].jamAt = 0.4, 0.5 })
		p.vend("a", 0, 502)
		if a := p.Invoke("homeAll", ""); a.Status != 502 || !strings.Contains(string(a.Payload), `{"slot":0,"result":"failed","fault":"jam"}`) {
			t.Errorf("homeAll answers %d %s", a.Status, a.Payload)
		}
		if h := p.spirals[5].home(); !h {
			t.Error("slot 5 is not at home")
		}
		p.do(func() { p.spirals[0].jamAt = 0 })
		if a := p.Invoke("homeAll", ""); a.Status != 200 {
			t.Errorf("homeAll answers %d %s", a.Status, a.Payload)
		}
		p.vend("b", 0, 200)
		if a := p.Invoke("testMotor", `{"slot":6}`); a.Status != 200 || !strings.Contains(string(a.Payload), `"turnMs":15`) {
			t.Errorf("testMotor answers %d %s", a.Status, a.Payload)
		}
		p.do(func() { p.spirals[6].welded = true })
		p.vend("c", 6, 502)
		p.Invoke("homeAll", "")
		p.vend("d", 6, 409) // a closed switch is no proof
		p.do(func() { p.spirals[6].welded = false; p.spirals[6].angle = 0 })
		if a := p.Invoke("testMotor", `{"slot":6}`); a.Status != 200 {
			t.Errorf("testMotor answers %d %s", a.Status, a.Payload)
		}
		p.vend("d", 6, 200)
		time.AfterFunc(time.Second, func() { p.beam.Push(true); p.beam.Push(false) })
		if a := p.Invoke("testBeam", ""); string(a.Payload) != `{"interruptions":1,"ok":true}` {
			t.Errorf("testBeam answers %d %s", a.Status, a.Payload)
		}
		synctest.Wait()
		if a := p.Invoke("testBeam", ""); string(a.Payload) != `{"interruptions":0,"ok":false}` {
			t.Errorf("testBeam without anything answers %d %s", a.Status, a.Payload)
		}
		p.still()
	})
}

func TestNoExpander(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, nil)
		p.err = hal.ErrAbsent
		p.Bench = modtest.Run(t, New(), p.cfg)
		if h := p.WaitHealth(modkit.Faulted); !strings.Contains(h.Detail, "check wiring, power and address") {
			t.Errorf("health %q", h.Detail)
		}
		p.vend("a", 0, 409)
		p.do(func() { p.err, p.reg[0x14] = nil, 0x7f }) // and its motors on, as after a kill
		p.WaitHealth(modkit.OK)
		p.still()
		p.vend("a", 0, 200)
	})
}

func TestAStateThatIsUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, nil)
		p.cfg.State = []byte("{")
		p.Bench = modtest.Run(t, New(), p.cfg)
		p.told("state_lost")
		p.WaitHealth(modkit.OK)
		synctest.Wait()
		p.vend("a", 0, 200)
	})
}

func TestErrorsAreAdvice(t *testing.T) {
	seen := map[string]bool{}
	for _, err := range []error{hal.ErrAbsent, hal.ErrGone, hal.ErrTimeout, hal.ErrDenied, hal.ErrBusy, hal.ErrBadURI, errForgot, errors.New("x")} {
		seen[nextStep(err)] = true
	}
	if len(seen) != 8 {
		t.Errorf("the next steps are not of their own: %v", seen)
	}
}
