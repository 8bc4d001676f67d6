package chips

import (
	"fmt"
	"strconv"
	"sync"
	"time"
)

// Outcome is what became of an inserted coin.
type Outcome string

const (
	Credited  Outcome = "credited"
	Inhibited Outcome = "inhibited" // this coin, or all, by command: an event tells the host
	Rejected  Outcome = "rejected"  // not recognized as a coin: an event tells the host
	Refused   Outcome = "refused"   // nobody polls, or the part has no power: falls through without an event
)

// Error codes of events, ccTalk Generic Specification part 3, table 2. Makers differ above 20.
const (
	EventReject       = 1
	EventInhibited    = 2
	EventSensorBlock  = 14
	EventCoinOnString = 20
	EventReturnLever  = 254
)

const (
	ccAutoInhibit = time.Second // without a poll of header 229 for this long, no coin is taken
	ccEvents      = 5           // kept for header 229
	ccPositions   = 16
	ccUnused      = "......"
)

// DefaultCoins is the coin table of an acceptor for euros.
var DefaultCoins = [ccPositions]string{"EU200A", "EU100A", "EU050A", "EU020A", "EU010A", "EU005A"}

// CoinConfig is how an acceptor left the factory. The zero value is a euro acceptor with address 2 and simple checksums.
type CoinConfig struct {
	Address byte // 0 means 2
	Serial  uint32
	Coins   [ccPositions]string // all empty means DefaultCoins
	CRC     bool                // CRC-16 instead of the simple checksum
	NoEcho  bool                // the interface strips the echo of the single wire
	Without []byte              // headers that this make does not know
}

// CoinAcceptor is a ccTalk coin acceptor of the kind of Money Controls' SR5, at the far end of a 9600 baud line.
//
// Sources: ccTalk Generic Specification 4.7 (money-controls.com); Money Controls SR5 technical manual TSP073; Alberici AL66
// manual, section 6 (times).
type CoinAcceptor struct {
	cfg CoinConfig

	mu      sync.Mutex
	line    ccLine
	off     bool
	bootEnd time.Time
	polled  time.Time // last read of the events; zero since the reset
	mask    uint16    // bit n: coin n+1 is accepted
	master  byte      // bit 0: coins are accepted
	paths   [ccPositions]byte
	counter byte
	events  [ccEvents][2]byte // newest first
	fault   byte              // self-check
	count   CoinCount

	silent  int // replies that will not come
	garble  int // replies with inverted bits
	cut     int // replies that break off
	naks    int // commands answered by NAK
	blocked time.Time
}

// CoinCount is what happened to coins since the model was made. A reset does not clear it.
type CoinCount struct {
	Credited      int `json:"credited"`
	CreditedCents int `json:"credited_cents"`
	Inhibited     int `json:"inhibited"`
	Rejected      int `json:"rejected"`
	Refused       int `json:"refused"`
}

// NewCoinAcceptor returns an acceptor that has just been powered.
func NewCoinAcceptor(cfg CoinConfig) *CoinAcceptor {
	if cfg.Address == 0 {
		cfg.Address = 2
	}
	if cfg.Coins == ([ccPositions]string{}) {
		cfg.Coins = DefaultCoins
	}
	for i, c := range cfg.Coins {
		if c == "" {
			cfg.Coins[i] = ccUnused
		}
	}
	c := &CoinAcceptor{cfg: cfg}
	c.PowerOn()
	return c
}

// PowerOn is a power cycle: events and inhibits are gone, and the part says nothing while it starts.
func (c *CoinAcceptor) PowerOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = false
	c.line = ccLine{crc: c.cfg.CRC, noEcho: c.cfg.NoEcho}
	c.reset(time.Now())
}

// PowerOff is the acceptor without supply: coins fall through, bytes are lost.
func (c *CoinAcceptor) PowerOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
}

// Coins is the coin table by position, unused places left out.
func (c *CoinAcceptor) Coins() []string {
	var ids []string
	for _, id := range c.cfg.Coins {
		if id != ccUnused {
			ids = append(ids, id)
		}
	}
	return ids
}

// Insert throws in a coin. An id that is not in the table is a coin that the acceptor does not recognize.
func (c *CoinAcceptor) Insert(id string) Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	position := 0
	for i, x := range c.cfg.Coins {
		if x == id && x != ccUnused {
			position = i + 1
		}
	}
	switch {
	case !c.listening(now):
		c.count.Refused++
		return Refused
	case position == 0:
		c.event(0, EventReject)
		c.count.Rejected++
		return Rejected
	case c.master&1 == 0 || c.mask>>(position-1)&1 == 0:
		c.event(0, EventInhibited)
		c.count.Inhibited++
		return Inhibited
	}
	c.event(byte(position), c.paths[position-1])
	c.count.Credited++
	c.count.CreditedCents += cents(id)
	return Credited
}

// cents is the value that stands in a coin's id: EU100A is 100.
func cents(id string) int {
	if len(id) < 5 {
		return 0
	}
	n, err := strconv.Atoi(id[2:5])
	if err != nil {
		return 0
	}
	return n
}

// Event puts an error event into the buffer, one of the Event codes or another.
func (c *CoinAcceptor) Event(code byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.event(0, code)
}

// Accepting says whether some coin would be credited now.
func (c *CoinAcceptor) Accepting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listening(time.Now()) && c.master&1 == 1 && c.mask != 0
}

// Count is what happened to coins so far.
func (c *CoinAcceptor) Count() CoinCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// EventCounter is the counter of header 229.
func (c *CoinAcceptor) EventCounter() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.counter)
}

// Faults of the line. Each takes the number of replies that it spoils.
func (c *CoinAcceptor) Silence(n int) { c.spoil(func() { c.silent = n }) }

// Garble inverts a bit in each of the next n replies, so that the check fails.
func (c *CoinAcceptor) Garble(n int) { c.spoil(func() { c.garble = n }) }

// Truncate breaks off the next n replies in the middle.
func (c *CoinAcceptor) Truncate(n int) { c.spoil(func() { c.cut = n }) }

// Refuse answers the next n commands by NAK.
func (c *CoinAcceptor) Refuse(n int) { c.spoil(func() { c.naks = n }) }

// SelfCheckFault makes header 232 report a fault code; 0 is none (Money Controls: 3 credit sensor, 2 inductive coils).
func (c *CoinAcceptor) SelfCheckFault(code byte) { c.spoil(func() { c.fault = code }) }

func (c *CoinAcceptor) spoil(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Receive takes bytes that the host sent now, and returns what comes back on the wire: the echo and the reply, each
// byte with its time. The line is one wire: an acceptor does not hear the host while it talks, so a host that sends
// early only delays itself.
func (c *CoinAcceptor) Receive(p []byte) []TimedByte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return nil
	}
	var replies []TimedByte
	echo := c.line.receive(time.Now(), p, func(f ccFrame, at time.Time) {
		replies = append(replies, c.answer(f, at)...)
	})
	return append(echo, replies...)
}

// answer is the reply to one good frame that ended at at. The lock is held.
func (c *CoinAcceptor) answer(f ccFrame, at time.Time) []TimedByte {
	if f.dest != c.cfg.Address && f.dest != 0 || at.Before(c.bootEnd) {
		return nil
	}
	r, ok := c.command(at, f)
	if !ok {
		return nil
	}
	r.src = c.cfg.Address
	r.dest = f.src
	p := r.append(nil, c.cfg.CRC)
	switch {
	case c.silent > 0:
		c.silent--
		return nil
	case c.garble > 0:
		c.garble--
		p[len(p)-1] ^= 0x20
	case c.cut > 0:
		c.cut--
		p = p[:len(p)/2]
	}
	return c.line.send(at.Add(ccReplyDelay), p)
}

func (c *CoinAcceptor) listening(now time.Time) bool {
	return !c.off && !now.Before(c.bootEnd) && !c.polled.IsZero() && now.Sub(c.polled) <= ccAutoInhibit
}

func (c *CoinAcceptor) reset(now time.Time) {
	c.bootEnd = now.Add(ccBoot)
	c.polled = time.Time{}
	c.mask, c.master, c.counter = 0, 1, 0
	c.events = [ccEvents][2]byte{}
	for i := range c.paths {
		c.paths[i] = 1
	}
}

// event counts from 1, and from 255 on to 1: 0 is left for "reset".
func (c *CoinAcceptor) event(a, b byte) {
	copy(c.events[1:], c.events[:ccEvents-1])
	c.events[0] = [2]byte{a, b}
	if c.counter++; c.counter == 0 {
		c.counter = 1
	}
}

// String is for logs.
func (c *CoinAcceptor) String() string {
	return fmt.Sprintf("ccTalk coin acceptor %d, serial %d", c.cfg.Address, c.cfg.Serial)
}
