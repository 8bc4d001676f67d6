package mqttd

import (
	"errors"
	"fmt"
	"io"
)

// MQTT control packet types: MQTT 3.1.1 and 5, section 2.1.2 (table 2.1).
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

const (
	// maxMessage is the largest message that the hub takes, 256 KB: Microsoft Learn, "IoT Hub quotas and throttling".
	maxMessage = 256 * 1024
	// maxHeader is room for what stands before the message in a frame: a topic of full length, a packet id, lengths.
	maxHeader = 64*1024 + 16
	maxFrame  = maxMessage + maxHeader
	// maxConnect is the longest CONNECT, which comes from somebody unknown: ours. A token, a user name and ids have some
	// 12 KiB at most; the rest is for a will.
	maxConnect = 64 * 1024

	firstRead = 512  // enough for most packets: the buffer of a connection that does little
	busyRead  = 4096 // what a connection that fills its buffer comes to; a larger frame's buffer goes with the frame
)

var (
	errTooLarge  = errors.New("packet is longer than one may be: 256 KiB and a header, or 64 KiB for CONNECT")
	errMalformed = errors.New("malformed packet")
)

// frame is one whole MQTT packet. raw is valid until the next call of frameReader.next.
type frame struct {
	raw  []byte
	head int // length of the fixed header
}

func (f frame) kind() byte   { return f.raw[0] >> 4 }
func (f frame) flags() byte  { return f.raw[0] & 0x0f }
func (f frame) body() []byte { return f.raw[f.head:] }

// frameReader cuts a stream into MQTT packets. Its buffer grows only as bytes arrive, and never past one frame: a
// length alone, sent by somebody unknown, reserves nothing.
type frameReader struct {
	src   io.Reader
	idle  func() error // called before each read from src, which may block
	limit int          // the longest packet that is taken, without its header
	want  byte         // the first byte that the next packet must have, so that no more of another is waited for; 0: any
	buf   []byte
	r, w  int
}

func newFrameReader(src io.Reader, idle func() error) *frameReader {
	return &frameReader{src: src, idle: idle, limit: maxFrame}
}

// next returns the next packet. io.EOF means that the stream ended between two packets.
func (f *frameReader) next() (frame, error) {
	if f.r == f.w {
		f.r, f.w = 0, 0
		if cap(f.buf) > busyRead {
			f.buf = nil
		}
	}
	for {
		if f.want != 0 && f.w > f.r && f.buf[f.r] != f.want {
			return frame{}, fmt.Errorf("%w: it begins with %#x and not with %#x", errMalformed, f.buf[f.r], f.want)
		}
		size, head, err := frameSize(f.buf[f.r:f.w])
		if err != nil {
			return frame{}, err
		}
		if size-head > f.limit {
			return frame{}, fmt.Errorf("%w: %d bytes", errTooLarge, size-head)
		}
		if size > 0 && f.w-f.r >= size {
			raw := f.buf[f.r : f.r+size : f.r+size]
			f.r += size
			return frame{raw, head}, nil
		}
		if err := f.fill(size); err != nil {
			return frame{}, err
		}
	}
}

// fill reads once more, after making room for a frame of this size (0: not known yet).
func (f *frameReader) fill(size int) error {
	if f.w == len(f.buf) {
		have := f.w - f.r
		grown := max(firstRead, min(2*have, size), min(2*len(f.buf), busyRead))
		if f.r > 0 && have < len(f.buf)/2 {
			grown = len(f.buf) // moving what is left to the front makes enough room
		}
		next := make([]byte, grown)
		f.w = copy(next, f.buf[f.r:f.w])
		f.buf, f.r = next, 0
	}
	if err := f.idle(); err != nil {
		return err
	}
	n, err := f.src.Read(f.buf[f.w:])
	f.w += n
	if n > 0 {
		return nil
	}
	if err == io.EOF && f.w > f.r {
		return io.ErrUnexpectedEOF
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// frameSize is the length of the packet at the start of b and of its fixed header; size 0 means that b is too short to
// tell.
func frameSize(b []byte) (size, head int, err error) {
	var rest int
	for i := range 4 {
		if len(b) < i+2 {
			return 0, 0, nil
		}
		rest |= int(b[i+1]&0x7f) << (7 * i)
		if rest > maxFrame {
			return 0, 0, fmt.Errorf("%w: %d bytes", errTooLarge, rest)
		}
		if b[i+1] < 0x80 {
			return i + 2 + rest, i + 2, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: remaining length has more than four bytes", errMalformed)
}

// appendLength writes a variable byte integer (MQTT 3.1.1, section 2.2.3).
func appendLength(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}
