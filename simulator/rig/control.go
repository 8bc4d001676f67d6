package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/chips"
)

// maxLine bounds a request or an answer on the control socket.
const maxLine = 16 << 10

// request is one line to the rig.
type request struct {
	Op     string `json:"op"` // one of the ops
	Part   string `json:"part,omitempty"`
	Coin   string `json:"coin,omitempty"`
	Open   *bool  `json:"open,omitempty"`
	Set    *Air   `json:"set,omitempty"`
	Fault  string `json:"fault,omitempty"`
	Count  int    `json:"count,omitempty"`
	MilliS int64  `json:"ms,omitempty"`
}

// answer is one line back. Exactly one of its members is there, or none.
type answer struct {
	Error   string        `json:"error,omitempty"`
	Outcome chips.Outcome `json:"outcome,omitempty"`
	Status  *Status       `json:"status,omitempty"`
}

// Air is what to change about the air in the cabinet; nil leaves a value as it is.
type Air struct {
	Celsius  *float64 `json:"celsius,omitempty"`
	KPa      *float64 `json:"kpa,omitempty"`
	Humidity *float64 `json:"humidity,omitempty"` // relative, per cent
}

// Status is the state of a rig.
type Status struct {
	World bool `json:"world"` // things happen by themselves
	Coins struct {
		Plugged   bool `json:"plugged"`
		Accepting bool `json:"accepting"`
		Counter   int  `json:"counter"` // of ccTalk header 229
		chips.CoinCount
	} `json:"coins"`
	Climate struct {
		Plugged  bool    `json:"plugged"`
		Celsius  float64 `json:"celsius"`
		KPa      float64 `json:"kpa"`
		Humidity float64 `json:"humidity"`
	} `json:"climate"`
	Door struct {
		Plugged bool `json:"plugged"`
		Open    bool `json:"open"`
	} `json:"door"`
	Beam struct {
		Plugged    bool `json:"plugged"`
		Deliveries int  `json:"deliveries"`
	} `json:"beam"`
	Locked  bool `json:"locked"`
	Cooling struct {
		Plugged    bool `json:"plugged"`
		Compressor bool `json:"compressor"` // it runs
	} `json:"cooling"`
	Vend struct {
		Plugged bool       `json:"plugged"`
		Stock   [Slots]int `json:"stock"` // products in each slot
	} `json:"vend"`
	Power struct {
		Plugged bool    `json:"plugged"`
		Volts   float64 `json:"volts"`
		Amperes float64 `json:"amperes"`
	} `json:"power"`
}

// Parts are the names of what can be unplugged.
var Parts = []string{"beam", "climate", "coins", "cooling", "door", "power", "vend"}

// onBus are the parts on an I²C bus.
var onBus = map[string]struct {
	bus  string
	addr uint16
	on   func(*Rig) // power again
}{
	"climate": {"climate", ClimateAddr, func(r *Rig) { r.climate.PowerOn() }},
	"cooling": {"machine", CoolingAddr, func(r *Rig) { r.cooling.PowerOn() }},
	"power":   {"machine", SupplyAddr, func(r *Rig) { r.supply.PowerOn() }},
	"vend":    {"machine", ExpanderAddr, func(r *Rig) { r.vending.expander.PowerOn() }},
}

func parseRequest(line []byte) (request, error) {
	var q request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, fmt.Errorf("the request is no JSON object of this protocol: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, errors.New("something follows the request's JSON object")
	}
	return q, nil
}

// serveControl answers requests, a line each, until the client goes.
func (r *Rig) serveControl(ctx context.Context, c net.Conn) {
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		q, err := parseRequest(lines.Bytes())
		var a answer
		if err == nil {
			a, err = r.do(ctx, q)
		}
		if err != nil {
			a = answer{Error: err.Error()}
		}
		p, err := json.Marshal(a)
		if err != nil {
			r.log.Error("cannot encode an answer", "err", err)
			return
		}
		c.SetWriteDeadline(time.Now().Add(writeLimit))
		if _, err := c.Write(append(p, '\n')); err != nil {
			return
		}
	}
}

func (r *Rig) do(ctx context.Context, q request) (answer, error) {
	switch q.Op {
	case "status":
		s := r.status()
		return answer{Status: &s}, nil
	case "coin":
		o, err := r.insert(q.Coin)
		return answer{Outcome: o}, err
	case "door":
		if q.Open == nil {
			return answer{}, errors.New("door needs open: true or false")
		}
		r.world.moveDoor(*q.Open)
	case "beam":
		r.world.deliver()
	case "air":
		if q.Set == nil {
			return answer{}, errors.New("air needs set: what to change")
		}
		return answer{}, r.world.setAir(*q.Set)
	case "plug", "unplug":
		return answer{}, r.plug(ctx, q.Part, q.Op == "plug")
	case "fault":
		return answer{}, r.fault(q)
	default:
		return answer{}, fmt.Errorf("no op %q; there are air, beam, coin, door, fault, plug, status and unplug", q.Op)
	}
	return answer{}, nil
}

// insert throws in a coin; "slug" is one that no acceptor knows.
func (r *Rig) insert(id string) (chips.Outcome, error) {
	if id != slug && !slices.Contains(r.coins.Coins(), id) {
		return "", fmt.Errorf("no coin %q; there are %s, and %s for one that is refused", id, strings.Join(r.coins.Coins(), ", "), slug)
	}
	return r.coins.Insert(id), nil
}

func (r *Rig) plug(ctx context.Context, part string, in bool) error {
	switch part {
	case "coins":
		if in {
			return r.plugCoins(ctx)
		}
		return r.unplugCoins()
	case "climate", "cooling", "power", "vend":
		p := onBus[part]
		r.mu.Lock()
		defer r.mu.Unlock()
		if in && r.off[part] {
			p.on(r)
		}
		r.off[part] = !in
		r.buses[p.bus].Unplug(p.addr, !in)
	case "door", "beam":
		r.wires[part].plug(in)
	default:
		return fmt.Errorf("no part %q; there are %s", part, strings.Join(Parts, ", "))
	}
	return nil
}

// faults is what can go wrong, by part. n is how often or, for codes, which; d is how long.
var faults = map[string]map[string]func(r *Rig, n int, d time.Duration){
	"coins": {
		"silence":   func(r *Rig, n int, _ time.Duration) { r.coins.Silence(n) },
		"garble":    func(r *Rig, n int, _ time.Duration) { r.coins.Garble(n) },
		"truncate":  func(r *Rig, n int, _ time.Duration) { r.coins.Truncate(n) },
		"nak":       func(r *Rig, n int, _ time.Duration) { r.coins.Refuse(n) },
		"noise":     func(r *Rig, n int, _ time.Duration) { r.noise(n) },
		"event":     func(r *Rig, n int, _ time.Duration) { r.coins.Event(byte(n)) },
		"selfcheck": func(r *Rig, n int, _ time.Duration) { r.coins.SelfCheckFault(byte(n)) },
		"reset":     func(r *Rig, _ int, _ time.Duration) { r.coins.PowerOn() },
	},
	"climate": {
		"nack":    func(r *Rig, n int, _ time.Duration) { r.buses["climate"].Nack(n) },
		"hang":    func(r *Rig, _ int, d time.Duration) { r.buses["climate"].Hang(d) },
		"bitflip": func(r *Rig, n int, _ time.Duration) { r.climate.Flip(byte(n)) },
		"poison":  func(r *Rig, _ int, _ time.Duration) { r.climate.Poison() },
		"reset":   func(r *Rig, _ int, _ time.Duration) { r.climate.PowerOn() },
		"stuck":   func(r *Rig, n int, _ time.Duration) { r.climate.Stick(0xD0, byte(n)) },
		"unstuck": func(r *Rig, _ int, _ time.Duration) { r.climate.Unstick() },
	},
	"cooling": {
		"nack":    func(r *Rig, n int, _ time.Duration) { r.buses["machine"].Nack(n) },
		"hang":    func(r *Rig, _ int, d time.Duration) { r.buses["machine"].Hang(d) },
		"bitflip": func(r *Rig, n int, _ time.Duration) { r.cooling.Flip(byte(n)) },
		"reset":   func(r *Rig, _ int, _ time.Duration) { r.cooling.PowerOn() },
		"stuck":   func(r *Rig, n int, _ time.Duration) { r.cooling.Stick(5, uint16(n)) }, // the ambient register
		"unstuck": func(r *Rig, _ int, _ time.Duration) { r.cooling.Unstick() },
	},
	"vend": {
		"nack":    func(r *Rig, n int, _ time.Duration) { r.buses["machine"].Nack(n) },
		"bitflip": func(r *Rig, n int, _ time.Duration) { r.vending.expander.Flip(byte(n)) },
		"reset":   func(r *Rig, _ int, _ time.Duration) { r.vending.expander.PowerOn() },
		"intlow":  func(r *Rig, n int, _ time.Duration) { r.vending.expander.HoldInt(0, n > 0) },
		"jam":     func(r *Rig, n int, _ time.Duration) { r.vending.jam(n, true) },
		"unjam":   func(r *Rig, n int, _ time.Duration) { r.vending.jam(n, false) },
		"weld":    func(r *Rig, n int, _ time.Duration) { r.vending.weld(n, true) },
		"unweld":  func(r *Rig, n int, _ time.Duration) { r.vending.weld(n, false) },
		"empty":   func(r *Rig, n int, _ time.Duration) { r.vending.fill(n, 0) },
		"refill":  func(r *Rig, n int, _ time.Duration) { r.vending.fill(n, slotStock) },
	},
	"power": {
		"nack":     func(r *Rig, n int, _ time.Duration) { r.buses["machine"].Nack(n) },
		"bitflip":  func(r *Rig, n int, _ time.Duration) { r.supply.Flip(byte(n)) },
		"brownout": func(r *Rig, _ int, _ time.Duration) { r.supply.PowerOn() },
		"stuck":    func(r *Rig, n int, _ time.Duration) { r.supply.Stick(2, uint16(n)) }, // the bus voltage register
		"unstuck":  func(r *Rig, _ int, _ time.Duration) { r.supply.Unstick() },
	},
	"door": {
		"storm": func(r *Rig, n int, _ time.Duration) { r.world.storm(n) },
	},
	"beam": {
		"block": func(r *Rig, _ int, d time.Duration) { r.wires["beam"].line.Pulse(false, d) },
	},
}

func (r *Rig) fault(q request) error {
	of, ok := faults[q.Part]
	if !ok {
		return fmt.Errorf("no part %q; there are %s", q.Part, strings.Join(Parts, ", "))
	}
	f, ok := of[q.Fault]
	if !ok {
		return fmt.Errorf("%s has no fault %q; there are %s", q.Part, q.Fault, strings.Join(slices.Sorted(maps.Keys(of)), ", "))
	}
	if q.Count < 0 || q.Count > maxFault || q.MilliS < 0 || q.MilliS > maxFaultTime.Milliseconds() {
		return fmt.Errorf("count %d, ms %d: at most %d times or %s", q.Count, q.MilliS, maxFault, maxFaultTime)
	}
	f(r, q.Count, time.Duration(q.MilliS)*time.Millisecond)
	r.log.Info("fault", "part", q.Part, "fault", q.Fault, "count", q.Count, "ms", q.MilliS)
	return nil
}

// Limits of a fault.
const (
	maxFault     = 1000
	maxFaultTime = time.Hour
)

// noise puts n bytes on the acceptor's line that nobody sent, as a bad ground does.
func (r *Rig) noise(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tty != nil {
		r.tty.inject(r.world.bytes(n))
	}
}

func (r *Rig) status() Status {
	var s Status
	r.mu.Lock()
	s.Coins.Plugged = r.tty != nil
	s.Climate.Plugged = !r.off["climate"]
	s.Cooling.Plugged, s.Vend.Plugged, s.Power.Plugged = !r.off["cooling"], !r.off["vend"], !r.off["power"]
	r.mu.Unlock()
	s.Cooling.Compressor = r.world.compressing()
	s.Vend.Stock = r.vending.stock()
	load := r.load()
	s.Power.Volts, s.Power.Amperes = load.Volts, load.Amperes
	s.World = r.cfg.World
	s.Coins.Accepting = s.Coins.Plugged && r.coins.Accepting()
	s.Coins.Counter = r.coins.EventCounter()
	s.Coins.CoinCount = r.coins.Count()
	air := r.world.air()
	s.Climate.Celsius, s.Climate.KPa, s.Climate.Humidity = air.Celsius, air.KPa, air.Humidity
	_, s.Door.Plugged = r.wires["door"].in()
	_, s.Beam.Plugged = r.wires["beam"].in()
	s.Door.Open, s.Beam.Deliveries = r.world.seen()
	s.Locked = r.wires["lock"].line.Level()
	return s
}
