package outbox

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/twinbay/twinbay/agent/disk"
)

const segmentSuffix = ".log"

// segment is one file of a Log.
type segment struct {
	n        uint64
	path     string
	file     disk.File
	writable bool // file is open for writing
	size     int
	live     int  // bytes of records in it that are still needed
	bad      bool // not to be used again: the disk has failed in it, or it is damaged

	tail int // the writer's own: where the next record goes
}

func segmentPath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", n, segmentSuffix))
}

// segmentNumber reads a file's name.
func segmentNumber(name string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, err == nil
}

func (s *segment) close() {
	if s.file != nil {
		s.file.Close() // what matters has been synced
		s.file = nil
	}
}

func readMessage(file disk.File, off, length int) (message, error) {
	if file == nil {
		return message{}, ErrClosed
	}
	buf := make([]byte, length)
	if _, err := file.ReadAt(buf, int64(off)); err != nil && !errors.Is(err, io.EOF) {
		return message{}, err
	}
	h, payload, ok := parseRecord(buf)
	if !ok || h.kind != kindMessage {
		return message{}, errors.New("outbox: its checksum does not fit")
	}
	return decodeMessage(payload)
}

// found is a record in a segment.
type found struct {
	header
	off     int
	payload []byte
}

// gap is a place in a segment that holds no record, with records of the same age or younger behind it.
type gap struct {
	batch uint64 // of the record behind it
	index uint16
}

// scan finds the records in a segment's bytes that are of batch floor or later: what is older was left there when the
// segment was used before. Behind a damaged place it goes on with the next record.
func scan(b []byte, floor uint64, each func(found)) (gaps []gap) {
	broken := false
	for off := 0; off+headerSize <= len(b); {
		h, payload, ok := parseRecord(b[off:])
		switch {
		case !ok:
			broken = true
			off = nextMagic(b, off+recordAlign)
			continue
		case h.batch < floor:
			broken = true
		default:
			if broken {
				gaps = append(gaps, gap{h.batch, h.index})
			}
			broken, floor = false, h.batch
			each(found{h, off, payload})
		}
		off += recordSize(h.length)
	}
	return gaps
}

// nextMagic is the next place at which a record could begin.
func nextMagic(b []byte, off int) int {
	for off < len(b) && b[off] != recordMagic {
		off += recordAlign
	}
	return off
}
