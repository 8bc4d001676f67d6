package cctalk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinbay/twinbay/hal"
)

// Times of ccTalk Generic Specification 4.7, part 1, section 10: replies come within 10 to 50 ms on most makes; a
// receiver drops an incomplete frame after a gap of 50 ms.
const (
	replyLimit = 250 * time.Millisecond // generous: USB adapters add up to 16 ms each way, some makes are slow
	slowLimit  = 600 * time.Millisecond // the self-check; below the second after which an acceptor refuses coins
	gapLimit   = 50 * time.Millisecond
	quietLimit = 500 * time.Millisecond // a line that is never quiet has another problem
	writeLimit = 500 * time.Millisecond
)

// What can be wrong with a question. hal's errors stand beside them.
var (
	errSilent = errors.New("no reply")
	errNAK    = errors.New("the acceptor does not know this command")
	errBusy   = errors.New("the acceptor is busy")
	errEcho   = errors.New("the echo differs from what was sent")
	errNoise  = errors.New("the line is never quiet")
)

// stats counts what went over the line, for the commsStats method.
type stats struct {
	Questions  uint64 `json:"questions"`
	Timeouts   uint64 `json:"timeouts"`
	Cut        uint64 `json:"cut_frames"`
	Checksums  uint64 `json:"checksum_errors"`
	Garbage    uint64 `json:"garbage"`
	EchoErrors uint64 `json:"echo_errors"`
	NAKs       uint64 `json:"naks"`
	Busies     uint64 `json:"busy"`
	Resyncs    uint64 `json:"resyncs"`
}

// Values of the wiring's echo.
const (
	echoAuto = "auto"
	echoOn   = "on"
	echoOff  = "off"
)

// bus asks one device on a ccTalk line. It is used by one goroutine.
type bus struct {
	line    hal.Serial
	address byte
	crc     bool
	echo    string
	stats   *stats

	echoes bool // the line has echoed
	dirty  bool // something unexpected came: be quiet before the next question
}

// ask sends a command and answers the reply's data, trying up to tries times. Only what the acceptor does not mind
// hearing twice may have more than one. NAK and the line's own errors are not tried again.
func (b *bus) ask(ctx context.Context, tries int, header byte, data ...byte) ([]byte, error) {
	limit := replyLimit
	if header == selfCheck {
		limit = slowLimit
	}
	var err error
	for range tries {
		var reply []byte
		reply, err = b.once(ctx, limit, frame{dest: b.address, src: hostAddress, header: header, data: data})
		if err == nil {
			return reply, nil
		}
		if !onWire(err) || errors.Is(err, errNAK) || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("command %d: %w", header, err)
}

// onWire is whether err is about bytes, and not about the serial device itself.
func onWire(err error) bool {
	for _, e := range []error{errSilent, errShort, errChecksum, errForeign, errEcho, errNAK, errBusy, errNoise} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (b *bus) once(ctx context.Context, limit time.Duration, f frame) ([]byte, error) {
	b.stats.Questions++
	if err := b.settle(ctx); err != nil {
		return nil, err
	}
	request := f.encode(b.crc)
	if err := b.write(ctx, request); err != nil {
		return nil, err
	}
	reply, err := b.receive(ctx, limit, request)
	if err != nil {
		b.count(err)
		return nil, err
	}
	switch reply.header {
	case replyACK:
		return reply.data, nil
	case replyNAK:
		b.stats.NAKs++
		return nil, errNAK
	case replyBusy:
		b.stats.Busies++
		return nil, errBusy
	}
	b.dirty = true
	b.stats.Garbage++
	return nil, fmt.Errorf("reply header %d: %w", reply.header, errForeign)
}

func (b *bus) write(ctx context.Context, p []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return b.line.Write(ctx, p)
}

// settle makes sure that what comes next belongs to the next question: replies carry no number, so a late one would
// be taken for the answer to something else.
func (b *bus) settle(ctx context.Context) error {
	if b.dirty {
		b.stats.Resyncs++
		if err := b.quiet(ctx); err != nil {
			return err
		}
		b.dirty = false
	}
	return b.line.Flush(ctx)
}

// quiet reads until nothing has come for the gap of section 10.
func (b *bus) quiet(ctx context.Context) error {
	var p [64]byte
	for end := time.Now().Add(quietLimit); time.Now().Before(end); {
		_, err := b.read(ctx, p[:], gapLimit)
		if errors.Is(err, errSilent) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errNoise
}

// read is one Read with a limit; errSilent when nothing came.
func (b *bus) read(ctx context.Context, p []byte, limit time.Duration) (int, error) {
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	n, err := b.line.Read(inner, p)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return 0, errSilent
	}
	return n, err
}

// receive reads until the reply to request is complete.
func (b *bus) receive(ctx context.Context, limit time.Duration, request []byte) (frame, error) {
	var got []byte
	var p [64]byte
	for wait := limit; ; {
		n, err := b.read(ctx, p[:], wait)
		if errors.Is(err, errSilent) && len(b.afterEcho(got, request)) > 0 {
			return frame{}, fmt.Errorf("%d bytes, then silence: %w", len(got), errShort)
		}
		if err != nil {
			return frame{}, err
		}
		got = append(got, p[:n]...)
		f, err := b.reply(got, request)
		if !errors.Is(err, errShort) {
			return f, err
		}
		// An echo comes at once; the reply after it may take its time.
		if len(b.afterEcho(got, request)) > 0 {
			wait = gapLimit
		}
	}
}

// afterEcho is what of got is no echo of request, or may turn out to be none.
func (b *bus) afterEcho(got, request []byte) []byte {
	if b.echo != echoOff && bytes.HasPrefix(got, request) {
		return got[len(request):]
	}
	return got
}

// reply finds the reply in what has come so far. errShort asks for more. A reply never looks like an echo: it goes
// to the host's address, the question does not.
func (b *bus) reply(got, request []byte) (frame, error) {
	switch {
	case b.echo != echoOff && got[0] == request[0]:
		n := min(len(got), len(request))
		if !bytes.Equal(got[:n], request[:n]) {
			return frame{}, errEcho
		}
		if n < len(request) {
			return frame{}, errShort
		}
		b.echoes = true
		got = got[n:]
	case b.echo == echoOn:
		return frame{}, fmt.Errorf("none came, where echo = \"on\" (does the adapter drop it? then set echo = \"auto\"): %w", errEcho)
	}
	if len(got) == 0 {
		return frame{}, errShort
	}
	if b.echo == echoOff && got[0] == request[0] {
		return frame{}, fmt.Errorf("the line echoes, and the wiring says echo = \"off\" (set it to \"auto\"): %w", errEcho)
	}
	if got[0] != hostAddress {
		return frame{}, fmt.Errorf("first byte %#02x: %w", got[0], errForeign)
	}
	f, n, err := parse(got, b.crc)
	if err != nil {
		return frame{}, err
	}
	if !b.crc && f.src != b.address {
		return frame{}, fmt.Errorf("from address %d: %w", f.src, errForeign)
	}
	b.dirty = n < len(got)
	return f, nil
}

func (b *bus) count(err error) {
	b.dirty = true
	switch {
	case errors.Is(err, errSilent):
		b.stats.Timeouts++
	case errors.Is(err, errShort):
		b.stats.Cut++
	case errors.Is(err, errChecksum):
		b.stats.Checksums++
	case errors.Is(err, errEcho):
		b.stats.EchoErrors++
	case errors.Is(err, errForeign):
		b.stats.Garbage++
	}
}
