// Package simbus is the client of the simulator's buses: hal.I2C, hal.DigitalIn and hal.DigitalOut over a unix
// socket. This comment is where the protocol is written; simulator/rig serves it.
//
// # Protocol
//
// Each open wire has a stream connection of its own. Both sides send frames:
//
//	length  uint32  of what follows, 1 to MaxFrame
//	type    uint8   one of the Type constants
//	payload …
//
// All integers are big endian, booleans are 0 or 1, times are Unix nanoseconds. The client's first frame is Open:
//
//	Open  version uint8 (Version), kind uint8 (a Kind constant), mode uint8, debounce uint32 (µs), name (the rest, UTF-8)
//
// where mode is a sum of the Mode bits. The server answers with a Result of id 0, and hangs up if it refused. Then the
// client may send requests, each with an id of its own choice other than 0:
//
//	Transfer  id uint32, addr uint16, rlen uint16, bytes to write (the rest)   I²C
//	Read      id uint32                                                        both digital kinds
//	Set       id uint32, level uint8                                           digital output
//
// The server carries them out in order and answers each with
//
//	Result  id uint32, code uint8 (a Code constant), data (the rest)
//
// where data is the bytes read, or the level as one byte, or nothing; with a code other than CodeOK it is a text for
// a person. To a digital input the server also sends, unasked and in order,
//
//	EdgeSeen  level uint8, at int64, seq uint32 (from 1; a gap means lost edges)
//
// A wire that is unplugged is a closed connection. A frame that breaks these rules ends the connection too. There is no
// reconnection here: the wire is hal.ErrGone, and its owner opens it again.
package simbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/twinbay/twinbay/hal"
)

// Version is the version of the protocol.
const Version = 1

// Limits of the protocol.
const (
	MaxData  = 8192 // bytes written or read in one transfer, as in Linux's i2c-dev
	MaxFrame = MaxData + 64
)

// Types of frames.
const (
	TypeOpen     = 1
	TypeTransfer = 2
	TypeRead     = 3
	TypeSet      = 4
	TypeResult   = 0x81
	TypeEdgeSeen = 0x82
)

// Kinds of wires.
const (
	KindI2C        = 1
	KindDigitalIn  = 2
	KindDigitalOut = 3
)

// Bits of Open's mode. Bias is hal.Bias, shifted.
const (
	ModeActiveLow = 1 << 0
	ModeInitial   = 1 << 1
	ModeBiasShift = 4
)

// Codes of results, each one of hal's error kinds.
const (
	CodeOK          = 0
	CodeAbsent      = 1
	CodeTimeout     = 2
	CodeArbitration = 3
	CodeGone        = 4
	CodeBusy        = 5
	CodeUnsupported = 6
	CodeDenied      = 7
	CodeBadURI      = 8
	CodeFailed      = 255 // none of them
)

var kinds = []struct {
	code byte
	err  error
}{
	{CodeAbsent, hal.ErrAbsent},
	{CodeTimeout, hal.ErrTimeout},
	{CodeArbitration, hal.ErrArbitration},
	{CodeGone, hal.ErrGone},
	{CodeBusy, hal.ErrBusy},
	{CodeUnsupported, hal.ErrUnsupported},
	{CodeDenied, hal.ErrDenied},
	{CodeBadURI, hal.ErrBadURI},
}

// CodeOf is the code of an error: CodeOK for nil, CodeFailed for what is none of hal's kinds.
func CodeOf(err error) byte {
	if err == nil {
		return CodeOK
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.code
		}
	}
	return CodeFailed
}

// errorOf is the error of a result.
func errorOf(code byte, text string) error {
	if code == CodeOK {
		return nil
	}
	for _, k := range kinds {
		if k.code != code {
			continue
		}
		if text == "" || text == k.err.Error() {
			return k.err
		}
		return fmt.Errorf("%s: %w", text, k.err)
	}
	return fmt.Errorf("the simulator failed with code %d: %s", code, text)
}

// ReadFrame reads one frame's type and payload.
func ReadFrame(r io.Reader) (typ byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || n > MaxFrame {
		return 0, nil, fmt.Errorf("simbus: a frame says it has %d bytes; 1 to %d are allowed", n, MaxFrame)
	}
	payload = make([]byte, n-1)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("simbus: a frame of %d bytes broke off: %w", n, err)
	}
	return head[4], payload, nil
}

// WriteFrame writes one frame in one call of w.Write.
func WriteFrame(w io.Writer, typ byte, payload []byte) error {
	if len(payload)+1 > MaxFrame {
		return fmt.Errorf("simbus: %d bytes are too many for a frame of %d", len(payload)+1, MaxFrame)
	}
	f := make([]byte, 0, 5+len(payload))
	f = binary.BigEndian.AppendUint32(f, uint32(len(payload)+1))
	f = append(f, typ)
	f = append(f, payload...)
	_, err := w.Write(f)
	return err
}
