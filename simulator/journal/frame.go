package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/twinbay/twinbay/simulator/hub"
)

// header begins a file; the number is the format's version.
const header = "twinbay state 1\n"

// A frame is mark, length of the records in bytes (4, little-endian), CRC-32C of length and records (4), records. The
// mark finds frames behind a damaged place.
var mark = []byte("\xf7TWB")

const frameHead = 4 + 4 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame encodes records: for each kind, key and data, their lengths before them; the length of data is 0 for none, and
// else one more than it is.
func frame(records []hub.Record) []byte {
	n := frameHead
	for _, r := range records {
		n += 3*binary.MaxVarintLen32 + len(r.Kind) + len(r.Key) + len(r.Data)
	}
	b := make([]byte, frameHead, n)
	for _, r := range records {
		b = binary.AppendUvarint(b, uint64(len(r.Kind)))
		b = append(b, r.Kind...)
		b = binary.AppendUvarint(b, uint64(len(r.Key)))
		b = append(b, r.Key...)
		if r.Data == nil {
			b = binary.AppendUvarint(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(r.Data))+1)
		b = append(b, r.Data...)
	}
	copy(b, mark)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-frameHead))
	binary.LittleEndian.PutUint32(b[8:], checksum(b[4:8], b[frameHead:]))
	return b
}

func checksum(length, records []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, records)
}

var errRecords = errors.New("its records make no sense")

// records decodes what frame encodes. What it answers shares memory with b.
func records(b []byte) ([]hub.Record, error) {
	var all []hub.Record
	text := func(less uint64) (part []byte, none, ok bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return nil, false, false
		}
		b = b[size:]
		if n < less {
			return nil, true, true
		}
		if n -= less; n > uint64(len(b)) {
			return nil, false, false
		}
		part, b = b[:n:n], b[n:]
		return part, false, true
	}
	for len(b) > 0 {
		kind, _, ok1 := text(0)
		key, _, ok2 := text(0)
		if !ok1 || !ok2 {
			return nil, errRecords
		}
		data, none, ok := text(1)
		if !ok {
			return nil, errRecords
		}
		r := hub.Record{Kind: string(kind), Key: string(key)}
		if !none {
			r.Data = data
		}
		all = append(all, r)
	}
	return all, nil
}

// read reads a file of so many bytes. The answer's whole is where it ends without a last frame that is torn: frames are
// made safe one after the other, so one alone can be. A damaged place with a good frame behind it is an error.
func read(f io.ReaderAt, size int64) (all []hub.Record, whole int64, err error) {
	head := make([]byte, min(size, int64(len(header))))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, 0, err
	}
	switch {
	case string(head) == header:
	case len(head) < len(header) && string(head) == header[:len(head)]:
		return nil, 0, nil // begun, and no more
	case bytes.HasPrefix(head, []byte(header[:len(header)-2])):
		return nil, 0, errors.New("another version of twinbay-sim wrote it; use that one")
	default:
		return nil, 0, errors.New("it does not begin as a state file does; if it was one, restore a copy, else name another file")
	}
	at := int64(len(header))
	for at < size {
		body, err := frameAt(f, at, size)
		if err != nil && err != errTorn {
			return nil, 0, err
		}
		var some []hub.Record
		if err == nil {
			some, err = records(body)
		}
		if err != nil {
			next, scanErr := nextFrame(f, at+1, size)
			if scanErr != nil {
				return nil, 0, scanErr
			}
			if next < size {
				return nil, 0, fmt.Errorf("bytes %d to %d are damaged and what follows is not; nothing was loaded or changed: "+
					"restore a copy of the file, or move it away to begin with an empty hub", at, next)
			}
			return all, at, nil
		}
		all = append(all, some...)
		at += int64(frameHead + len(body))
	}
	return all, at, nil
}

// errTorn is no good frame.
var errTorn = errors.New("journal: no good frame")

// frameAt reads the records of the frame at a place.
func frameAt(f io.ReaderAt, at, size int64) ([]byte, error) {
	if size-at < frameHead {
		return nil, errTorn
	}
	var head [frameHead]byte
	if _, err := f.ReadAt(head[:], at); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[4:]))
	if !bytes.Equal(head[:4], mark) || n > size-at-frameHead {
		return nil, errTorn
	}
	body := make([]byte, n)
	if _, err := f.ReadAt(body, at+frameHead); err != nil {
		return nil, err
	}
	if checksum(head[4:8], body) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, errTorn
	}
	return body, nil
}

// nextFrame finds the first good frame from a place on; size means that there is none.
func nextFrame(f io.ReaderAt, at, size int64) (int64, error) {
	const step = 1 << 20
	buf := make([]byte, step+len(mark)-1)
	for ; at < size; at += step {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && err != io.EOF {
			return 0, err
		}
		for i := 0; i < min(n, step); {
			found := bytes.Index(buf[i:n], mark)
			if found < 0 {
				break
			}
			i += found
			switch _, err := frameAt(f, at+int64(i), size); {
			case err == nil:
				return at + int64(i), nil
			case err != errTorn:
				return 0, err
			}
			i++
		}
	}
	return size, nil
}
