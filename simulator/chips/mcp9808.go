package chips

import (
	"math"
	"time"
)

// Registers of the MCP9808: DS25095A, section 5.1, register 5-1.
const (
	mcpConfig     = 1
	mcpUpper      = 2
	mcpLower      = 3
	mcpCritical   = 4
	mcpAmbient    = 5
	mcpMaker      = 6
	mcpDevice     = 7
	mcpResolution = 8 // the only one of 8 bits
)

// Bits of the configuration, register 5-2.
const (
	mcpShutdown   = 1 << 8
	mcpCritLock   = 1 << 7
	mcpWindowLock = 1 << 6
	mcpIntClear   = 1 << 5 // reads as 0
	mcpAlertStat  = 1 << 4 // read only; the model has no alert output, so it stays 0
	mcpConfigMask = 0x07FF
	// While one of the locks is set, these bits keep their values: section 5.1.1.
	mcpLocked = 3<<9 | mcpShutdown | 1<<3 | 1<<2 | 1<<1 | 1<<0
)

// MCP9808 is a Microchip MCP9808 temperature sensor on I²C.
//
// Datasheet: DS25095A, https://www.microchip.com/en-us/product/mcp9808
type MCP9808 struct {
	words
	celsius func() float64

	regs    [9]uint16
	since   time.Time // a conversion has begun here, and others back to back
	sampled time.Time // the end of the conversion that ambient is of
	ambient int       // sixteenths of a degree
}

// NewMCP9808 returns a sensor that has just been powered, where it is as warm as celsius says.
func NewMCP9808(celsius func() float64) *MCP9808 {
	m := &MCP9808{celsius: celsius}
	m.words = words{get: m.read, set: m.write, size: func(reg byte) int {
		switch {
		case reg == mcpResolution:
			return 1
		case reg >= mcpConfig && reg < mcpResolution:
			return 2
		}
		return 0
	}}
	m.PowerOn()
	return m
}

// PowerOn is a power cycle: section 5.3. It is the only thing that clears the locks.
func (m *MCP9808) PowerOn() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.regs = [9]uint16{mcpMaker: 0x0054, mcpDevice: 0x0400, mcpResolution: 3}
	m.since, m.ambient = time.Now(), 0 // 0 °C until the first conversion
	m.sampled = m.since
}

func (m *MCP9808) write(reg byte, v uint16) {
	m.settle(time.Now())
	locks := m.regs[mcpConfig] & (mcpCritLock | mcpWindowLock)
	switch reg {
	case mcpConfig:
		v &= mcpConfigMask &^ (mcpIntClear | mcpAlertStat)
		if locks != 0 {
			v = v&^mcpLocked | m.regs[mcpConfig]&mcpLocked
		}
		v |= locks
		if was := m.regs[mcpConfig] & mcpShutdown; was != 0 && v&mcpShutdown == 0 {
			m.since = time.Now()
		}
		m.regs[mcpConfig] = v
	case mcpUpper, mcpLower:
		if locks&mcpWindowLock == 0 {
			m.regs[reg] = v & 0x1FFC // quarters of a degree: register 5-3
		}
	case mcpCritical:
		if locks&mcpCritLock == 0 {
			m.regs[reg] = v & 0x1FFC
		}
	case mcpResolution:
		m.regs[reg] = v & 3
		m.since = time.Now()
	}
}

func (m *MCP9808) read(reg byte) uint16 {
	if reg != mcpAmbient {
		return m.regs[reg]
	}
	m.settle(time.Now())
	v := uint16(m.ambient) & 0x1FFF // the sign is bit 12: register 5-4
	if m.ambient >= m.limit(mcpCritical) {
		v |= 1 << 15
	}
	if m.ambient > m.limit(mcpUpper) {
		v |= 1 << 14
	}
	if m.ambient < m.limit(mcpLower) {
		v |= 1 << 13
	}
	return v
}

// limit is a boundary in sixteenths of a degree.
func (m *MCP9808) limit(reg byte) int { return int(int16(m.regs[reg]<<3)) >> 3 }

// conversion is how long one takes: section 5.2.4, table 5-1.
func (m *MCP9808) conversion() time.Duration {
	return [4]time.Duration{30, 65, 130, 250}[m.regs[mcpResolution]] * time.Millisecond
}

// settle brings the ambient register up to now. What is measured is the temperature at the moment of asking: nobody has
// asked since the last conversion's end, so nobody can tell.
func (m *MCP9808) settle(now time.Time) {
	took := m.conversion()
	if m.regs[mcpConfig]&mcpShutdown != 0 || now.Sub(m.since) < took {
		return
	}
	ended := m.since.Add(now.Sub(m.since) / took * took)
	if !ended.After(m.sampled) {
		return
	}
	m.sampled = ended
	step := 8 >> m.regs[mcpResolution] // in sixteenths: 0.5, 0.25, 0.125 or 0.0625 °C
	c := max(-40, min(m.celsius(), 125))
	m.ambient = int(math.Floor(c*16/float64(step))) * step
}
