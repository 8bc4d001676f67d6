package chips

import "sync"

// words is what parts with a pointer and registers of 16 bits have in common, and what can go wrong with them. The first
// byte that is written sets the pointer; two more are the register's new value, the high byte first; reading answers the
// register at the pointer, again and again, since the pointer stays where it is.
type words struct {
	mu      sync.Mutex
	pointer byte
	size    func(reg byte) int       // bytes of a register: 1 or 2; 0 for one that there is not
	get     func(reg byte) uint16    // called with mu held
	set     func(reg byte, v uint16) // likewise
	flip    byte                     // XORed into each byte read, once
	stuck   map[byte]uint16          // what registers read as, whatever is written or measured
}

// Transfer implements Target.
func (c *words) Transfer(w, r []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) > 0 {
		c.pointer = w[0]
	}
	n := c.size(c.pointer)
	for body := w[min(1, len(w)):]; n > 0 && len(body) >= n; body = body[n:] {
		v := uint16(body[0])
		if n == 2 {
			v = v<<8 | uint16(body[1])
		}
		c.set(c.pointer, v)
	}
	v := c.read()
	for i := range r {
		b := byte(v)
		if n == 2 && i%2 == 0 {
			b = byte(v >> 8)
		}
		if n == 0 {
			b = 0xFF // nobody pulls the line down
		}
		r[i] = b ^ c.flip
	}
	if len(r) > 0 {
		c.flip = 0
	}
	return true
}

func (c *words) read() uint16 {
	if v, ok := c.stuck[c.pointer]; ok {
		return v
	}
	if c.size(c.pointer) == 0 {
		return 0xFFFF
	}
	return c.get(c.pointer)
}

// Stick makes a register read as v whatever is written or measured.
func (c *words) Stick(reg byte, v uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stuck == nil {
		c.stuck = make(map[byte]uint16)
	}
	c.stuck[reg] = v
}

// Unstick ends Stick, for all registers.
func (c *words) Unstick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.stuck)
}

// Flip inverts bits in each byte of the next transaction that reads.
func (c *words) Flip(bits byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flip = bits
}
