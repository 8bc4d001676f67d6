package chips

import "time"

// ccTalk frames, from the ccTalk Serial Communication Protocol, Generic Specification 4.7, part 1, section 5:
//
//	simple checksum  [destination][n][source][header][data … n][checksum]   all bytes sum to 0
//	CRC-16           [destination][n][CRC low][header][data … n][CRC high]  CRC-CCITT, initial value 0, over the rest
const (
	ccHost     = 1   // the master's address
	ccMaxData  = 252 // bytes of data in a frame
	ccOverhead = 5
	ccReply    = 0 // header of a reply and of an ACK
	ccNAK      = 5
)

// ccFrame is one frame without its check.
type ccFrame struct {
	dest, src, header byte // src is not on the wire with CRC-16
	data              []byte
}

// append adds the frame's bytes to p.
func (f ccFrame) append(p []byte, crc bool) []byte {
	start := len(p)
	p = append(p, f.dest, byte(len(f.data)), f.src, f.header)
	p = append(p, f.data...)
	if !crc {
		return append(p, -sum(p[start:]))
	}
	c := crcCCITT(p[start:start+2], p[start+3:])
	p[start+2] = byte(c)
	return append(p, byte(c>>8))
}

// parseCCFrame takes one whole frame apart; false means that its check is wrong. p has at least ccOverhead bytes and the
// length that its second byte says.
func parseCCFrame(p []byte, crc bool) (ccFrame, bool) {
	last := len(p) - 1
	f := ccFrame{dest: p[0], src: p[2], header: p[3], data: p[4:last]}
	if !crc {
		return f, sum(p) == 0
	}
	f.src = ccHost
	c := crcCCITT(p[:2], p[3:last])
	return f, p[2] == byte(c) && p[last] == byte(c>>8)
}

func sum(p []byte) (s byte) {
	for _, b := range p {
		s += b
	}
	return s
}

// crcCCITT is polynomial 0x1021, not reflected, initial value 0.
func crcCCITT(parts ...[]byte) (c uint16) {
	for _, p := range parts {
		for _, b := range p {
			c ^= uint16(b) << 8
			for range 8 {
				if c&0x8000 != 0 {
					c = c<<1 ^ 0x1021
				} else {
					c <<= 1
				}
			}
		}
	}
	return c
}

// Times of ccTalk, Generic Specification part 1, section 9, and of 9600 baud with 10 bits to the byte.
const (
	ccByteTime   = 10 * time.Second / 9600
	ccGap        = 50 * time.Millisecond // the receiver forgets a frame that pauses longer
	ccReplyDelay = 5 * time.Millisecond
	ccBoot       = 250 * time.Millisecond
)

// TimedByte is a byte on the line, complete at At.
type TimedByte struct {
	At time.Time
	B  byte
}

// ccLine is the single-wire half-duplex line: it gives bytes their time, echoes them, and cuts the stream into frames.
type ccLine struct {
	crc    bool
	noEcho bool // a USB interface that strips the echo
	free   time.Time
	last   time.Time
	frame  []byte

	timeouts byte // counters of header 2, wrapping
	ignored  byte
	badCheck byte
}

// receive takes bytes that the host sent at now, one after the other, and calls handle with each good frame and its end.
func (l *ccLine) receive(now time.Time, p []byte, handle func(ccFrame, time.Time)) []TimedByte {
	var out []TimedByte
	for _, b := range p {
		if l.free.Before(now) {
			l.free = now
		}
		at := l.free.Add(ccByteTime)
		l.free = at
		if !l.noEcho {
			out = append(out, TimedByte{at, b})
		}
		l.take(at, b, handle)
	}
	return out
}

func (l *ccLine) take(at time.Time, b byte, handle func(ccFrame, time.Time)) {
	if len(l.frame) > 0 && at.Sub(l.last) > ccGap+ccByteTime {
		l.timeouts++
		l.frame = l.frame[:0]
	}
	l.last = at
	l.frame = append(l.frame, b)
	if len(l.frame) < 2 {
		return
	}
	n := int(l.frame[1])
	if n > ccMaxData { // no frame is that long: the receiver waits for silence
		l.ignored++
		l.frame = l.frame[:2]
		return
	}
	if len(l.frame) < n+ccOverhead {
		return
	}
	f, ok := parseCCFrame(l.frame[:n+ccOverhead], l.crc)
	if ok {
		handle(f, at)
	} else {
		l.badCheck++
	}
	l.frame = l.frame[:0]
}

// send gives bytes of the acceptor their time, from start on.
func (l *ccLine) send(start time.Time, p []byte) []TimedByte {
	if start.Before(l.free) {
		start = l.free
	}
	out := make([]TimedByte, len(p))
	for i, b := range p {
		start = start.Add(ccByteTime)
		out[i] = TimedByte{start, b}
	}
	l.free = start
	return out
}
