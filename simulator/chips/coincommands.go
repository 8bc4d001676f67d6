package chips

import (
	"slices"
	"time"
)

// command carries out one frame. False means that the acceptor does not know the header and stays silent, as makers'
// parts do.
//
// Headers: ccTalk Generic Specification part 2.
func (c *CoinAcceptor) command(at time.Time, f ccFrame) (ccFrame, bool) {
	if slices.Contains(c.cfg.Without, f.header) {
		return ccFrame{}, false
	}
	n, known := ccDataLength[f.header]
	if !known {
		return ccFrame{}, false
	}
	if c.naks > 0 {
		c.naks--
		return ccFrame{header: ccNAK}, true
	}
	if len(f.data) != n {
		return ccFrame{header: ccNAK}, true
	}
	data, ok := c.settings(f)
	if !ok {
		data, ok = c.report(at, f)
	}
	if !ok {
		return ccFrame{header: ccNAK}, true
	}
	return ccFrame{header: ccReply, data: data}, true
}

// ccDataLength is how many data bytes each command has.
var ccDataLength = map[byte]int{
	254: 0, // simple poll
	249: 0, // request polling priority
	246: 0, // request manufacturer id
	245: 0, // request equipment category id
	244: 0, // request product code
	242: 0, // request serial number
	241: 0, // request software revision
	232: 0, // perform self-check
	231: 2, // modify inhibit status
	230: 0, // request inhibit status
	229: 0, // read buffered credit or error codes
	228: 1, // modify master inhibit status
	227: 0, // request master inhibit status
	210: 2, // modify sorter paths
	209: 1, // request sorter paths
	192: 0, // request build code
	184: 1, // request coin id
	4:   0, // request comms revision
	3:   0, // clear comms status variables
	2:   0, // request comms status variables
	1:   0, // reset device
}

// settings carries out the commands that change something and answer ACK.
func (c *CoinAcceptor) settings(f ccFrame) ([]byte, bool) {
	switch f.header {
	case 231: // least significant byte first, a 1 accepts
		c.mask = uint16(f.data[0]) | uint16(f.data[1])<<8
	case 228:
		c.master = f.data[0] & 1
	case 210:
		if !validPosition(f.data[0]) {
			return nil, false
		}
		c.paths[f.data[0]-1] = f.data[1]
	case 3:
		c.line.timeouts, c.line.ignored, c.line.badCheck = 0, 0, 0
	default:
		return nil, false
	}
	return nil, true
}

// report answers the questions; poll and reset too, whose effect lies in the time.
func (c *CoinAcceptor) report(at time.Time, f ccFrame) ([]byte, bool) {
	switch f.header {
	case 254:
		return nil, true
	case 249: // unit 2 is 10 ms: poll every 200 ms
		return []byte{2, 20}, true
	case 246:
		return []byte("TWB"), true
	case 245:
		return []byte("Coin Acceptor"), true
	case 244:
		return []byte("SIM5"), true
	case 242: // least significant byte first
		return []byte{byte(c.cfg.Serial), byte(c.cfg.Serial >> 8), byte(c.cfg.Serial >> 16)}, true
	case 241:
		return []byte("SIM5-1.0"), true
	case 232:
		return c.selfCheck(), true
	case 230:
		return []byte{byte(c.mask), byte(c.mask >> 8)}, true
	case 229:
		return c.credits(at), true
	case 227:
		return []byte{c.master}, true
	case 209:
		if !validPosition(f.data[0]) {
			return nil, false
		}
		return []byte{c.paths[f.data[0]-1]}, true
	case 192:
		return []byte("EU1"), true
	case 184:
		if !validPosition(f.data[0]) {
			return nil, false
		}
		return []byte(c.cfg.Coins[f.data[0]-1]), true
	case 4: // release 1 of specification 4.7
		return []byte{1, 4, 7}, true
	case 2:
		return []byte{c.line.timeouts, c.line.ignored, c.line.badCheck}, true
	case 1: // the ACK comes before the reset
		c.reset(at)
		return nil, true
	}
	return nil, false
}

// credits is the reply to 229: the counter, then the events, newest first. The question itself keeps the acceptor from
// inhibiting all coins.
func (c *CoinAcceptor) credits(at time.Time) []byte {
	c.polled = at
	p := []byte{c.counter}
	for _, e := range c.events {
		p = append(p, e[0], e[1])
	}
	return p
}

// selfCheck is one byte when all is well, and has the optional second one with a fault.
func (c *CoinAcceptor) selfCheck() []byte {
	if c.fault == 0 {
		return []byte{0}
	}
	return []byte{c.fault, 0}
}

func validPosition(p byte) bool { return p >= 1 && p <= ccPositions }
