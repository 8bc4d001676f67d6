package outbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"
)

// A segment is a file of records, one after the other from its first byte, each at a multiple of 4. All numbers are
// little-endian; "uvarint" and "varint" are those of package encoding/binary, "text" is a uvarint and so many bytes.
//
//	byte   0     0xB7
//	       1     kind
//	       2–3   index in its batch, from 0
//	       4–7   length of the payload
//	       8–11  CRC32C of bytes 0–7, 12–19 and the payload
//	      12–19  batch
//	      20–    payload, by kind
//
// A batch is what lies between two fsyncs. Batches are numbered through all segments and all starts; a record counts
// only if its batch is whole before it, or if a later batch proves that its own was synced. So of what was written and
// never synced, a start finds a beginning and no holes: a module's state never comes back without the messages before it.
//
// Segments are preallocated and used again under a new name, so what follows the last record may be anything; the numbers
// of its batches give it away.
const (
	recordMagic  = 0xB7
	headerSize   = 20
	maxIndex     = math.MaxUint16
	recordAlign  = 4
	maxNameBytes = 255
)

// Kinds of records.
const (
	kindMessage    = 1 // name text, flags byte, epoch 6 bytes, seq uvarint, at varint (ns since 1970), age uvarint (ms, of the log's clock), ttl uvarint (ms), properties (uvarint count, name text, value text), state text (with flag 2), body: the rest
	kindGone       = 2 // name text, reason text, count uvarint, then pairs of uvarints: distance to the next seq that is gone, how many from there
	kindState      = 3 // name text, seq uvarint, state: the rest
	kindCheckpoint = 4 // see checkpoint.go
	kindClock      = 5 // wall varint (ns since 1970), age uvarint (ms): the wall clock was right at that age
	lastKind       = kindClock
)

// Flags of a message.
const (
	flagHigh  = 1
	flagState = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the beginning of a record.
type header struct {
	kind   byte
	index  uint16
	length int
	batch  uint64
}

// recordSize is what a payload takes in a segment.
func recordSize(payload int) int {
	return (headerSize + payload + recordAlign - 1) &^ (recordAlign - 1)
}

// appendRecord adds a record to buf.
func appendRecord(buf []byte, h header, payload []byte) []byte {
	start := len(buf)
	buf = append(buf, recordMagic, h.kind)
	buf = binary.LittleEndian.AppendUint16(buf, h.index)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(payload)))
	buf = append(buf, 0, 0, 0, 0)
	buf = binary.LittleEndian.AppendUint64(buf, h.batch)
	buf = append(buf, payload...)
	binary.LittleEndian.PutUint32(buf[start+8:], checksum(buf[start:]))
	for len(buf)-start < recordSize(len(payload)) {
		buf = append(buf, 0)
	}
	return buf
}

func checksum(record []byte) uint32 {
	sum := crc32.Update(0, castagnoli, record[:8])
	return crc32.Update(sum, castagnoli, record[12:])
}

// parseRecord reads the record at the beginning of b. It answers false for what is none, or damaged.
func parseRecord(b []byte) (h header, payload []byte, ok bool) {
	if len(b) < headerSize || b[0] != recordMagic || b[1] == 0 || b[1] > lastKind {
		return h, nil, false
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if uint64(length) > uint64(len(b)-headerSize) {
		return h, nil, false
	}
	end := headerSize + int(length)
	if binary.LittleEndian.Uint32(b[8:]) != checksum(b[:end:end]) {
		return h, nil, false
	}
	h = header{kind: b[1], index: binary.LittleEndian.Uint16(b[2:]), length: int(length), batch: binary.LittleEndian.Uint64(b[12:])}
	return h, b[headerSize:end:end], true
}

// message is a record of kind 1.
type message struct {
	name  string
	epoch uint64
	seq   uint64
	age   time.Duration // of the log's clock, when it was put
	Record
}

// encodeMessage answers the payload, in which the body is the rest from the answered offset.
func encodeMessage(m message) (payload []byte, body int) {
	size := len(m.Body) + len(m.State) + len(m.name) + 64
	for k, v := range m.Properties {
		size += len(k) + len(v) + 6
	}
	b := appendText(make([]byte, 0, size), m.name)
	var flags byte
	if m.High {
		flags |= flagHigh
	}
	if m.State != nil {
		flags |= flagState
	}
	b = append(b, flags)
	var epoch [8]byte
	binary.LittleEndian.PutUint64(epoch[:], m.epoch)
	b = append(b, epoch[:6]...)
	b = binary.AppendUvarint(b, m.seq)
	b = binary.AppendVarint(b, m.At.UnixNano())
	b = binary.AppendUvarint(b, uint64(m.age/time.Millisecond))
	b = binary.AppendUvarint(b, millis(m.TTL))
	b = binary.AppendUvarint(b, uint64(len(m.Properties)))
	for k, v := range m.Properties {
		b = appendText(appendText(b, k), v)
	}
	if m.State != nil {
		b = appendText(b, m.State)
	}
	return append(b, m.Body...), len(b)
}

// millis rounds up: a time to live never becomes "none".
func millis(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d-1)/time.Millisecond) + 1
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// errPayload is a record whose checksum fits and whose content does not: another version of this program wrote it.
var errPayload = errors.New("outbox: a record that cannot be understood")

// reader takes a payload apart. After the first thing that does not fit, everything is zero and bad is set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte { return r.take(r.uvarint()) }

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) epoch() uint64 {
	var e [8]byte
	copy(e[:6], r.take(6))
	return binary.LittleEndian.Uint64(e[:])
}

// duration reads milliseconds that fit into a time.Duration.
func (r *reader) duration() time.Duration {
	ms := r.uvarint()
	if ms > uint64(math.MaxInt64/time.Millisecond) {
		r.bad = true
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// decodeMessage reads a payload of kind 1. Body and State are parts of it.
func decodeMessage(payload []byte) (m message, err error) {
	r := reader{b: payload}
	m.name = string(r.bytes())
	flags := r.byte()
	m.High = flags&flagHigh != 0
	m.epoch = r.epoch()
	m.seq = r.uvarint()
	m.At = time.Unix(0, r.varint())
	m.age = r.duration()
	m.TTL = r.duration()
	if n := r.uvarint(); n > 0 {
		if n > uint64(len(payload)) {
			return m, errPayload
		}
		m.Properties = make(map[string]string, n)
		for range n {
			k := string(r.bytes())
			m.Properties[k] = string(r.bytes())
			if r.bad {
				return m, errPayload
			}
		}
	}
	if flags&flagState != 0 {
		m.State = r.bytes()
	}
	m.Body = r.b
	if r.bad || m.name == "" || m.seq == 0 {
		return m, errPayload
	}
	m.ID = idOf(m.epoch, m.seq)
	return m, nil
}

// span is seqs that follow each other.
type span struct{ from, n uint64 }

// spans groups sorted seqs.
func spans(seqs []uint64) []span {
	var out []span
	for _, s := range seqs {
		if k := len(out) - 1; k >= 0 && out[k].from+out[k].n == s {
			out[k].n++
			continue
		}
		out = append(out, span{s, 1})
	}
	return out
}

func appendSpans(b []byte, all []span) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	last := uint64(0)
	for _, s := range all {
		b = binary.AppendUvarint(b, s.from-last)
		b = binary.AppendUvarint(b, s.n)
		last = s.from + s.n
	}
	return b
}

func (r *reader) spans() []span {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b))/2 {
		r.bad = true
		return nil
	}
	out := make([]span, 0, n)
	last := uint64(0)
	for range n {
		s := span{last + r.uvarint(), r.uvarint()}
		last = s.from + s.n
		if r.bad || s.from < last-s.n || last < s.from {
			r.bad = true
			return nil
		}
		out = append(out, s)
	}
	return out
}

// minus is what of a is not in b. Both are sorted, and neither overlaps itself.
func minus(a, b []span) []span {
	var out []span
	for _, s := range a {
		for len(b) > 0 && b[0].from < s.from && s.from-b[0].from >= b[0].n {
			b = b[1:]
		}
		for k := 0; s.n > 0; k++ {
			if k == len(b) || b[k].from >= s.from && b[k].from-s.from >= s.n {
				out = append(out, s)
				break
			}
			cut := b[k]
			if cut.from > s.from {
				out = append(out, span{s.from, cut.from - s.from})
				s = span{cut.from, s.n - (cut.from - s.from)}
			}
			gone := min(s.n, cut.n-(s.from-cut.from))
			s = span{s.from + gone, s.n - gone}
		}
	}
	return out
}

// total is how many seqs there are in all spans.
func total(all []span) (n uint64) {
	for _, s := range all {
		n += s.n
	}
	return n
}

// within says whether a sorted list of spans holds seq.
func within(all []span, seq uint64) bool {
	lo, hi := 0, len(all)
	for lo < hi {
		mid := (lo + hi) / 2
		if s := all[mid]; seq < s.from {
			hi = mid
		} else if seq-s.from >= s.n {
			lo = mid + 1
		} else {
			return true
		}
	}
	return false
}

// departure is a record of kind 2.
type departure struct {
	name, reason string
	seqs         []span
}

func encodeGone(d departure) []byte {
	return appendSpans(appendText(appendText(nil, d.name), d.reason), d.seqs)
}

func decodeGone(payload []byte) (d departure, err error) {
	r := reader{b: payload}
	d = departure{name: string(r.bytes()), reason: string(r.bytes()), seqs: r.spans()}
	if r.bad || len(r.b) > 0 {
		return d, errPayload
	}
	return d, nil
}

// savedState is a record of kind 3: a state whose message was never written, because the hub had it before.
type savedState struct {
	name  string
	seq   uint64
	state []byte
}

func encodeState(s savedState) []byte {
	return append(binary.AppendUvarint(appendText(nil, s.name), s.seq), s.state...)
}

func decodeState(payload []byte) (s savedState, err error) {
	r := reader{b: payload}
	s = savedState{name: string(r.bytes()), seq: r.uvarint(), state: r.b}
	if r.bad {
		return s, errPayload
	}
	return s, nil
}

// clockMark is a record of kind 5, and a part of a checkpoint.
type clockMark struct {
	wall int64 // ns since 1970; 0: the wall clock was never known to be right
	age  time.Duration
}

func appendClock(b []byte, c clockMark) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, c.wall), uint64(c.age/time.Millisecond))
}

func (r *reader) clock() clockMark { return clockMark{wall: r.varint(), age: r.duration()} }
