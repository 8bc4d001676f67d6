package vend

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// TestNeverTwiceForOneTransaction is a shop that asks again until it has an answer, of a machine whose expander is reset, does not
// answer for a moment, whose spirals jam and whose module is restarted at any time with what was durable then. No transaction
// gives out two products, each has one answer for ever, and ok says that there was a product.
func TestNeverTwiceForOneTransaction(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 5
	}
	ended := map[string]int{}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 3))
			p := start(t, map[string]any{"drop_wait_ms": 500})
			answers := map[string]string{}
			for n := range 12 {
				tx, slot := fmt.Sprint("tx", n), rng.IntN(maxSlots)
				before := p.given(slot)
				result := p.insist(rng, tx, slot)
				ended[result.Result+" "+result.Fault]++
				given := p.given(slot) - before
				if given > 1 || result.Result == resultOK && given != 1 {
					t.Fatalf("seed %d: %d products for %s: %+v", seed, given, tx, result)
				}
				answers[tx] = fmt.Sprint(result.Slot, result.Result, result.Fault, result.Duration)
				for old, want := range answers {
					if r, known, _ := p.ask(old, result.Slot); known && fmt.Sprint(r.Slot, r.Result, r.Fault, r.Duration) != want {
						t.Fatalf("seed %d: %s was %s and is now %+v", seed, old, want, r)
					}
				}
				if p.given(slot)-before != given {
					t.Fatalf("seed %d: asking for what there was moved a spiral", seed)
				}
				p.do(func() { // the technician comes
					for i := range p.spirals {
						p.spirals[i].jamAt = 0
					}
				})
				time.Sleep(time.Second) // the bus is opened again
				p.Invoke("homeAll", "")
				p.Invoke("testMotor", fmt.Sprintf(`{"slot":%d}`, slot))
				p.still()
			}
		})
	}
	t.Log(ended)
	for _, want := range []string{"ok ", "failed expander_reset", "unknown interrupted"} {
		if ended[want] == 0 {
			t.Errorf("the property has not met %q: %v", want, ended)
		}
	}
}

// ask asks for a transaction once. known is that there is a result.
func (p *plant) ask(tx string, slot int) (a answer, known bool, status int) {
	got, err := p.Remote.Invoke(p.t.Context(), "vend", json.RawMessage(fmt.Sprintf(`{"txId":%q,"slot":%d}`, tx, slot)))
	if err != nil {
		return answer{}, false, 0
	}
	if err := json.Unmarshal(got.Payload, &a); err != nil {
		p.t.Errorf("vend answers %d %s", got.Status, got.Payload)
	}
	return a, a.Result != "", got.Status
}

// insist asks until there is a result, while things go wrong.
func (p *plant) insist(rng *rand.Rand, tx string, slot int) answer {
	p.t.Helper()
	for range 100 {
		type reply struct {
			a     answer
			known bool
		}
		got := make(chan reply, 1)
		go func() {
			a, known, _ := p.ask(tx, slot)
			got <- reply{a, known}
		}()
		wait := time.Duration(rng.Int64N(int64(2500 * time.Millisecond)))
		time.Sleep(wait)
		switch rng.IntN(6) {
		case 0:
			p.reset()
		case 1:
			p.do(func() { p.err = hal.ErrTimeout })
			time.Sleep(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
			p.do(func() { p.err = nil })
		case 2:
			state := p.State()
			p.Stop()
			<-got
			p.cfg.State = state
			p.restart()
			continue
		case 3:
			p.do(func() {
				if s := &p.spirals[slot]; s.jamAt == 0 && rng.IntN(2) == 0 {
					s.jamAt = s.angle + 0.001
					p.drop()
				}
			})
		}
		if r := <-got; r.known {
			return r.a
		}
		time.Sleep(time.Second)
	}
	p.t.Fatalf("no result of %s", tx)
	return answer{}
}
