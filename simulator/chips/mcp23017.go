package chips

import (
	"slices"
	"sync"
	"time"
)

// Registers of the MCP23017, each once for port A and once for port B: DS20001952D, section 3.5, table 3-1.
const (
	expIODir = iota // 1: input
	expIPol
	expIntEn
	expDefVal
	expIntCon
	expIOCon // one for both ports
	expPullUp
	expIntF
	expIntCap
	expGPIO
	expOLat
	expRegs
)

// Bits of IOCON, register 3-6.
const (
	expBank   = 1 << 7
	expMirror = 1 << 6
	expSeqOp  = 1 << 5 // set: byte mode
	expODR    = 1 << 2
	expIntPol = 1 << 1
)

// expInputs are the pins that can be inputs: GPA7 and GPB7 are outputs only (DS20001952D, table 1-1).
const expInputs = 0x7F

// MCP23017 is a Microchip MCP23017 port expander on I²C: two ports of eight pins, A in the low byte of what is said of all
// pins together, B in the high one.
//
// Datasheet: DS20001952D, https://www.microchip.com/en-us/product/mcp23017
type MCP23017 struct {
	changed func(driven, level uint16)
	ints    [2]Line
	pins    [16]Line

	mu      sync.Mutex
	pointer byte
	regs    [expRegs][2]byte
	before  [2]byte   // what an interrupt on change compares with: the pins when the last one was cleared
	settled time.Time // interrupts are known up to here
	stuck   map[byte]byte
	flip    byte
	held    [2]bool // an INT line is held low by a fault
}

// NewMCP23017 returns an expander that has just been powered, all pins high as with pull-ups. It calls changed, unless nil,
// when what it drives at its pins has changed; changed must not call the expander.
func NewMCP23017(changed func(driven, level uint16)) *MCP23017 {
	m := &MCP23017{stuck: make(map[byte]byte)}
	for i := range m.pins {
		m.pins[i].Set(true)
	}
	m.PowerOn()
	m.changed = changed
	return m
}

// PowerOn is a power cycle, or noise on the reset line: all pins are inputs, and no interrupt is enabled.
func (m *MCP23017) PowerOn() {
	m.mu.Lock()
	was := m.regs
	m.regs = [expRegs][2]byte{expIODir: {0xFF, 0xFF}}
	m.pointer, m.settled = 0, time.Now()
	m.before = [2]byte{m.levels(0, m.settled), m.levels(1, m.settled)}
	m.replan(m.settled)
	m.mu.Unlock()
	m.tell(was)
}

// Int is the interrupt output of port A (0) or B (1), at its pin.
func (m *MCP23017) Int(port int) *Line { return &m.ints[port] }

// Drive moves an input pin as a contact does: see [Line.Bounce].
func (m *MCP23017) Drive(pin int, level bool, gaps ...time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.settle(now)
	m.pins[pin].Bounce(level, gaps...)
	m.settleAt(now)
	m.replan(now)
}

// Outputs is what the expander drives: the pins that are outputs, and their levels.
func (m *MCP23017) Outputs() (driven, level uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return outputs(m.regs)
}

func outputs(regs [expRegs][2]byte) (driven, level uint16) {
	driven = ^(uint16(regs[expIODir][0]) | uint16(regs[expIODir][1])<<8)
	return driven, (uint16(regs[expOLat][0]) | uint16(regs[expOLat][1])<<8) & driven
}

// HoldInt holds an INT line low, or lets it go.
func (m *MCP23017) HoldInt(port int, low bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[port] = low
	m.replan(time.Now())
}

// Stick makes a register, by its address with IOCON.BANK 0, read as v whatever is written.
func (m *MCP23017) Stick(reg, v byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stuck[reg] = v
}

// Unstick ends Stick, for all registers.
func (m *MCP23017) Unstick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.stuck)
}

// Flip inverts bits in each byte of the next transaction that reads.
func (m *MCP23017) Flip(bits byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flip = bits
}

// Transfer implements Target, sections 3.2.1 to 3.3.3: the first byte written is the pointer, and it moves on with each byte
// that is read or written.
func (m *MCP23017) Transfer(w, r []byte) bool {
	m.mu.Lock()
	was, now := m.regs, time.Now()
	m.settle(now)
	if len(w) > 0 {
		m.pointer = w[0]
		for _, v := range w[1:] {
			m.write(v)
			m.advance()
		}
	}
	for i := range r {
		r[i] = m.read(now) ^ m.flip
		m.advance()
	}
	if len(r) > 0 {
		m.flip = 0
	}
	m.settleAt(now)
	m.replan(now)
	m.mu.Unlock()
	m.tell(was)
	return true
}

// tell calls changed when what is driven is not what it was.
func (m *MCP23017) tell(was [expRegs][2]byte) {
	wasDriven, wasLevel := outputs(was)
	if driven, level := m.Outputs(); m.changed != nil && (driven != wasDriven || level != wasLevel) {
		m.changed(driven, level)
	}
}

// at is the register that an address means: table 3-1 with IOCON.BANK 1, table 3-3 with 0.
func (m *MCP23017) at(addr byte) (reg, port int, ok bool) {
	if m.regs[expIOCon][0]&expBank != 0 {
		reg, port = int(addr&0x0F), int(addr>>4)
	} else {
		reg, port = int(addr/2), int(addr%2)
	}
	return reg, port, reg < expRegs && port < 2
}

// advance moves the pointer on: section 3.2.1.
func (m *MCP23017) advance() {
	con := m.regs[expIOCon][0]
	switch {
	case con&expSeqOp == 0 && con&expBank == 0:
		m.pointer = (m.pointer + 1) % (2 * expRegs)
	case con&expSeqOp == 0: // through port A, then through port B
		if m.pointer++; m.pointer&0x0F >= expRegs {
			m.pointer = (m.pointer&0xF0 + 0x10) & 0x10
		}
	case con&expBank == 0:
		m.pointer ^= 1
	}
}

func (m *MCP23017) write(v byte) {
	reg, port, ok := m.at(m.pointer)
	if !ok {
		return
	}
	switch reg {
	case expIntF, expIntCap: // read only
	case expGPIO:
		m.regs[expOLat][port] = v
	case expIOCon:
		v &^= 1 // unimplemented
		m.regs[expIOCon] = [2]byte{v, v}
	default:
		m.regs[reg][port] = v
	}
}

func (m *MCP23017) read(now time.Time) byte {
	reg, port, ok := m.at(m.pointer)
	if !ok {
		return 0 // unimplemented: section 3.5
	}
	v := m.regs[reg][port]
	switch reg {
	case expGPIO:
		v = m.port(port, now)
		m.clearInt(port, now)
	case expIntCap:
		m.clearInt(port, now)
	}
	if s, ok := m.stuck[byte(2*reg+port)]; ok {
		return s
	}
	return v
}

// levels are a port's pins at a time, as they are outside.
func (m *MCP23017) levels(port int, at time.Time) (v byte) {
	for i := range 8 {
		l := &m.pins[8*port+i]
		l.mu.Lock()
		if l.at(at) && expInputs&(1<<i) != 0 {
			v |= 1 << i
		}
		l.mu.Unlock()
	}
	dir := m.regs[expIODir][port]
	return v&dir | m.regs[expOLat][port]&^dir
}

// port is what the GPIO register reads as.
func (m *MCP23017) port(port int, at time.Time) byte {
	return m.levels(port, at) ^ m.regs[expIPol][port]&m.regs[expIODir][port]
}

// clearInt ends an interrupt, section 3.6.4. One whose condition is that a pin differs from DEFVAL begins again as long as it
// does: 3.6.5.
func (m *MCP23017) clearInt(port int, now time.Time) {
	m.regs[expIntF][port] = 0
	m.before[port] = m.levels(port, now)
}

// causes are the pins of a port that ask for an interrupt at a time.
func (m *MCP23017) causes(port int, at time.Time) byte {
	con := m.regs[expIntCon][port]
	against := m.before[port]&^con | m.regs[expDefVal][port]&con
	return (m.levels(port, at) ^ against) & m.regs[expIntEn][port] & m.regs[expIODir][port] & expInputs
}

// settleAt takes the pins as they are at a time: the first cause makes an interrupt, and further ones make none until it is
// cleared.
func (m *MCP23017) settleAt(at time.Time) {
	for port := range 2 {
		if m.regs[expIntF][port] != 0 {
			continue
		}
		if c := m.causes(port, at); c != 0 {
			m.regs[expIntF][port], m.regs[expIntCap][port] = c, m.levels(port, at)
		}
	}
	m.settled = at
}

// settle goes through all changes at the pins up to now.
func (m *MCP23017) settle(now time.Time) {
	for _, at := range m.moves(m.settled) {
		if at.After(now) {
			break
		}
		m.settleAt(at)
	}
	m.settled = now
}

// moves are the times after since at which some pin changes, those to come included.
func (m *MCP23017) moves(since time.Time) (list []time.Time) {
	for i := range m.pins {
		l := &m.pins[i]
		l.mu.Lock()
		for j := len(l.changes) - 1; j >= 0 && l.changes[j].at.After(since); j-- {
			list = append(list, l.changes[j].at)
		}
		l.mu.Unlock()
	}
	slices.SortFunc(list, time.Time.Compare)
	return list
}

// replan sets the INT lines as they are now, and as they will be when the next interrupt comes.
func (m *MCP23017) replan(now time.Time) {
	con := m.regs[expIOCon][0]
	for port := range 2 {
		ports := []int{port}
		if con&expMirror != 0 {
			ports = []int{0, 1}
		}
		// Open drain: the model's board has a pull-up. ODR overrides INTPOL.
		active := con&expIntPol != 0 && con&expODR == 0
		on := slices.ContainsFunc(ports, func(p int) bool { return m.regs[expIntF][p] != 0 })
		train := []change{{now, on == active}}
		if !on {
			for _, at := range m.moves(now) {
				if slices.ContainsFunc(ports, func(p int) bool { return m.causes(p, at) != 0 }) {
					train = append(train, change{at, active})
					break
				}
			}
		}
		if m.held[port] {
			train = []change{{now, false}}
		}
		m.ints[port].follow(train)
	}
}
