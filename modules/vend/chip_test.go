package vend

import (
	"encoding/json"
	"errors"
	"math/bits"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
)

// programmed is registers 0x00 to 0x0d as set-up leaves them.
var programmed = []byte{0x00, 0x7f, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0x40, 0x40, 0, 0x7f}

func at(reg byte, w ...byte) haltest.Op {
	return haltest.Op{Addr: 0x20, W: append([]byte{reg}, w...)}
}

func reads(reg byte, r ...byte) haltest.Op {
	return haltest.Op{Addr: 0x20, W: []byte{reg}, R: r}
}

func bad(op haltest.Op, err error) haltest.Op {
	op.R, op.Err = nil, err
	return op
}

func setUp() []haltest.Op {
	return []haltest.Op{
		at(0x05, 0), at(0x14, 0, 0), at(0x0a, 0x40), at(0x00, 0x00, 0x7f, 0, 0, 0, 0x7f, 0, 0, 0, 0), at(0x0c, 0, 0x7f),
		reads(0x00, programmed...), reads(0x14, 0, 0),
	}
}

func changed(i int, v byte) []byte {
	p := append([]byte(nil), programmed...)
	p[i] = v
	return p
}

func TestSetUpByBytes(t *testing.T) {
	upTo := func(i int, ops ...haltest.Op) []haltest.Op { return append(setUp()[:i:i], ops...) }
	for _, row := range []struct {
		name string
		ops  []haltest.Op
		want error
		say  string
	}{
		{"an MCP23017", setUp(), nil, ""},
		{"nothing", []haltest.Op{bad(at(5, 0), hal.ErrAbsent), bad(at(5, 0), hal.ErrAbsent), bad(at(5, 0), hal.ErrAbsent)}, hal.ErrAbsent, "write register 0x05"},
		{"one nack", append([]haltest.Op{bad(at(5, 0), hal.ErrAbsent)}, setUp()...), nil, ""},
		{"a lost arbitration", upTo(1, append([]haltest.Op{bad(at(0x14, 0, 0), hal.ErrArbitration)}, setUp()[1:]...)...), nil, ""},
		{"unplugged", upTo(2, bad(at(0x0a, 0x40), hal.ErrGone)), hal.ErrGone, "write register 0x0a"},
		{"it stays all inputs", upTo(5, reads(0, changed(0, 0xff)...), reads(0x14, 0, 0), reads(0, changed(0, 0xff)...), reads(0x14, 0, 0)), errForgot, "register 0x00 is 0xff, want 0x00"},
		{"no interrupt", upTo(5, reads(0, changed(5, 0)...), reads(0x14, 0, 0), reads(0, changed(5, 0)...), reads(0x14, 0, 0)), errForgot, "register 0x05 is 0x00, want 0x7f"},
		{"all ones", upTo(5, reads(0, []byte(strings.Repeat("\xff", 14))...), reads(0x14, 0xff, 0xff), reads(0, []byte(strings.Repeat("\xff", 14))...), reads(0x14, 0xff, 0xff)), errForgot, "register 0x00"},
		{"a latch is set", upTo(6, reads(0x14, 4, 0), reads(0x00, programmed...), reads(0x14, 4, 0)), errForgot, "latches are 04 00"},
		{"a bit flips in the read back", upTo(5, reads(0, changed(0, 0x80)...), reads(0x14, 0, 0), reads(0x00, programmed...), reads(0x14, 0, 0)), nil, ""},
		{"no read back", upTo(5, bad(reads(0), hal.ErrTimeout), bad(reads(0), hal.ErrTimeout), bad(reads(0), hal.ErrTimeout)), hal.ErrTimeout, "read register 0x00"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := expander{bus: haltest.I2C(t, row.ops...), addr: 0x20}
				err := e.begin(t.Context())
				if !errors.Is(err, row.want) || err != nil && !strings.Contains(err.Error(), row.say) {
					t.Errorf("err = %v, want %v with %q", err, row.want, row.say)
				}
			})
		})
	}
}

func TestPortsAndDriveByBytes(t *testing.T) {
	twice := func(op haltest.Op) []haltest.Op { return []haltest.Op{op, op} }
	const last = 0x7f
	for _, row := range []struct {
		name  string
		ops   []haltest.Op
		on    byte
		homes byte
		want  error
	}{
		{"all at home, as before", []haltest.Op{reads(0x12, 0, 0x00, 0, 0)}, 0, last, nil},
		{"slot 2 has left", twice(reads(0x12, 4, 0x04, 4, 0)), 4, 0x7b, nil},
		{"a bit of the switches flips", []haltest.Op{reads(0x12, 4, 0x04, 4, 0), reads(0x12, 4, 0x00, 4, 0)}, 4, last, nil},
		{"a bit of the motors flips", []haltest.Op{reads(0x12, 4, 0x00, 6, 0), reads(0x12, 4, 0x00, 4, 0)}, 4, last, nil},
		{"a bit flips in between", []haltest.Op{reads(0x12, 4, 0x04, 4, 0), reads(0x12, 5, 0x04, 4, 0), reads(0x12, 4, 0x04, 4, 0), reads(0x12, 4, 0x04, 4, 0)}, 4, 0x7b, nil},
		{"a switch that bounces", append(twice(reads(0x12, 4, 0x04, 4, 0))[:1], reads(0x12, 4, 0x0c, 4, 0), reads(0x12, 4, 0x04, 4, 0), reads(0x12, 4, 0x0c, 4, 0)), 4, last, nil},
		{"reset on the way", twice(reads(0x12, 0xff, 0x04, 0, 0)), 4, 0x7b, errForgot},
		{"inputs with the latch still set", twice(reads(0x12, 0, 0x04, 4, 0)), 4, 0x7b, errForgot},
		{"another motor", twice(reads(0x12, 8, 0x00, 8, 0)), 4, last, errForgot},
		{"unplugged", []haltest.Op{bad(reads(0x12), hal.ErrGone)}, 0, 0, hal.ErrGone},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := expander{bus: haltest.I2C(t, row.ops...), addr: 0x20}
			homes, err := e.ports(t.Context(), row.on, last)
			if homes != row.homes || !errors.Is(err, row.want) {
				t.Errorf("homes %07b, %v; want %07b, %v", homes, err, row.homes, row.want)
			}
		})
	}
	e := expander{bus: haltest.I2C(t, at(0x14, 8), reads(0x14, 8), at(0x14, 0), reads(0x14, 0), at(0x14, 1), reads(0x14, 0), reads(0x14, 0)), addr: 0x20}
	if err := e.drive(t.Context(), 3); err != nil {
		t.Error(err)
	}
	if err := e.drive(t.Context(), none); err != nil {
		t.Error(err)
	}
	if err := e.drive(t.Context(), 0); !errors.Is(err, errForgot) {
		t.Errorf("a latch that does not keep its bit: %v", err)
	}
}

// A bus that is held is given up after a bounded time.
func TestAHeldBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := expander{bus: haltest.Faulty(haltest.I2C(t), haltest.Fault{Hang: true}), addr: 0x20}
		begin := time.Now()
		if _, err := e.ports(t.Context(), 0, 0); err == nil || time.Since(begin) != tries*txLimit {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestOneMotorAtMost(t *testing.T) {
	for slot := -300; slot < 300; slot++ {
		if b := motorBits(slot); bits.OnesCount8(b) > 1 || b&0x80 != 0 || (b != 0) != (slot >= 0 && slot < maxSlots) {
			t.Errorf("slot %d drives %08b", slot, b)
		}
	}
}

// FuzzRegisters holds that a chip is taken for programmed only when all is as it was written.
func FuzzRegisters(f *testing.F) {
	f.Add(programmed, []byte{0, 0}, byte(0))
	f.Add([]byte{0xff, 0xff}, []byte{4, 0}, byte(4))
	f.Fuzz(func(t *testing.T, p, latch []byte, motors byte) {
		if err := checkRegisters(p, latch, motors); err == nil && (string(p) != string(programmed) || string(latch) != string([]byte{motors, 0})) {
			t.Errorf("% x, % x pass with %02x", p, latch, motors)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"retries":2,"disabled_slots":[1]}`), []byte(`{"bus":"i2c:/dev/i2c-1","interrupt":"gpio:x/1","address":33,"slots":3}`), "vend", []byte(`{"txId":"a","slot":1}`))
	f.Fuzz(func(t *testing.T, set, wire []byte, method string, payload []byte) {
		if s, _, err := decodeSettings(set, defaults); err == nil {
			p := s.plan(0, true)
			if p.leave <= 0 || p.home <= 0 || p.drop <= 0 || p.retries < 0 || p.retries > 3 {
				t.Errorf("in force: %+v", s)
			}
		}
		if w, err := decodeWiring(wire); err == nil && (w.Bus == "" || w.Interrupt == "" || w.Slots < 1 || w.Slots > maxSlots) {
			t.Errorf("wiring %+v passes", w)
		}
		if o, err := parseOrder(method, payload); err == nil && method == "vend" && (o.Slot == nil || motorBits(*o.Slot) == 0 || o.TX == "") {
			t.Errorf("order %+v passes", o)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"recent":[{"txId":"a","slot":1,"result":"ok","durationMs":1,"turns":1},{"txId":"b","slot":2,"durationMs":0,"turns":0}],"blocked":["","jam","","","","",""],"turnMs":[0,0,0,0,0,0,0]}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := parseBook(p)
		if err != nil {
			return
		}
		b.interrupted()
		for _, r := range b.Recent {
			if !r.done() {
				t.Fatalf("%+v is still pending", r)
			}
		}
		b.open("new", 0)
		if b.pending() == nil || b.pending().TX != "new" {
			t.Errorf("a new transaction is not pending: %+v", b)
		}
	})
}

// The state stays within the contract's bound, and knows its transactions, however many there were.
func TestTheBookIsBounded(t *testing.T) {
	var b book
	tx := func(n int) string {
		return strings.Repeat("x", maxTX-4) + string([]byte{byte('a' + n/1000%26), byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)})
	}
	for i := range b.Blocked {
		b.Blocked[i], b.TurnMS[i] = faultStuckHome, maxTurnMS
	}
	t0 := time.Now()
	for n := range 2000 {
		b.open(tx(n), maxSlots-1)
		c := begin(usualPlan, vending, t0, true)
		c.drops, c.dropAt, c.jogs = 999, t0.Add(90*time.Second), 3
		c = c.fail(t0.Add(100*time.Second), faultReset)
		b.close(c)
		p, err := json.Marshal(b)
		if err != nil || len(p) > modkit.MaxState {
			t.Fatalf("after %d transactions the state has %d bytes, %v", n+1, len(p), err)
		}
		if b, err = parseBook(p); err != nil {
			t.Fatal(err)
		}
		for back := range min(n+1, maxRecent+maxOld) {
			_, known, forgotten := b.find(tx(n - back))
			if known != (back < maxRecent) || forgotten == known {
				t.Fatalf("transaction %d of %d: known %v, forgotten %v", n-back, n, known, forgotten)
			}
		}
		if _, known, forgotten := b.find(tx(n + 1)); known || forgotten {
			t.Fatalf("transaction %d is known before it was", n+1)
		}
	}
}
