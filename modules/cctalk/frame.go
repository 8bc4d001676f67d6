package cctalk

import (
	"errors"
	"fmt"
)

// Addresses and headers of ccTalk Serial Communication Protocol, Generic Specification 4.7, parts 1 and 2.
const (
	hostAddress = 1
	maxData     = 252 // part 1, section 7.4

	replyACK  = 0
	replyNAK  = 5
	replyBusy = 6
)

// Headers that the host sends; part 2, core and coin acceptor commands. The comment is the reply's data.
const (
	reset          = 1   // none
	commsCounters  = 2   // 3: receive time-outs, bytes ignored, bad checksums
	coinID         = 184 // 6 characters; sends the position 1 to 16
	buildCode      = 192 // text
	masterInhibit  = 228 // none; sends 1 byte, bit 0 set accepts
	bufferedCredit = 229 // 11: the event counter and five pairs, newest first
	requestInhibit = 230 // 2, low byte first, a bit set accepts
	modifyInhibit  = 231 // none; sends 2 as above
	selfCheck      = 232 // 1 or 2: fault code, extra
	softwareRev    = 241 // text
	serialNumber   = 242 // 3, low byte first
	product        = 244 // text
	category       = 245 // text
	manufacturer   = 246 // text
	simplePoll     = 254 // none
)

// What can be wrong with bytes from the line.
var (
	errShort    = errors.New("the frame is not complete")
	errChecksum = errors.New("wrong checksum")
	errForeign  = errors.New("not a reply to the host")
)

// frame is one ccTalk message. In the CRC mode src does not cross the wire.
type frame struct {
	dest   byte
	src    byte
	header byte
	data   []byte
}

// encode is the frame's bytes: [dest][n][src][header][data][sum], or with crc [dest][n][crc low][header][data][crc high].
func (f frame) encode(crc bool) []byte {
	p := make([]byte, 0, 5+len(f.data))
	p = append(p, f.dest, byte(len(f.data)), f.src, f.header)
	p = append(p, f.data...)
	if crc {
		sum := crc16(p)
		p[2] = byte(sum)
		return append(p, byte(sum>>8))
	}
	return append(p, -sum8(p))
}

// parse reads the frame at the start of p, and how many bytes it takes. errShort asks for more bytes.
func parse(p []byte, crc bool) (frame, int, error) {
	if len(p) < 2 {
		return frame{}, 0, errShort
	}
	n := int(p[1])
	if n > maxData {
		return frame{}, 0, fmt.Errorf("%d bytes of data, at most %d are allowed: %w", n, maxData, errForeign)
	}
	size := n + 5
	if len(p) < size {
		return frame{}, 0, errShort
	}
	p = p[:size]
	f := frame{dest: p[0], src: p[2], header: p[3], data: p[4 : size-1]}
	if crc {
		sum := crc16(p[:size-1])
		if p[2] != byte(sum) || p[size-1] != byte(sum>>8) {
			return frame{}, 0, errChecksum
		}
		f.src = 0
	} else if sum8(p) != 0 {
		return frame{}, 0, errChecksum
	}
	return f, size, nil
}

// sum8 is zero over a whole frame, part 1, section 7.6.
func sum8(p []byte) byte {
	var s byte
	for _, b := range p {
		s += b
	}
	return s
}

// crc16 is the CRC-CCITT of part 1, section 7.6 and appendix 9: polynomial 0x1021, start 0, most significant bit
// first, over dest, n, header and data. It leaves out p[2], where its own low byte goes.
func crc16(p []byte) uint16 {
	var sum uint16
	for i, b := range p {
		if i == 2 {
			continue
		}
		sum ^= uint16(b) << 8
		for range 8 {
			if sum&0x8000 != 0 {
				sum = sum<<1 ^ 0x1021
			} else {
				sum <<= 1
			}
		}
	}
	return sum
}
