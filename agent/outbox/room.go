package outbox

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
)

func join(dir, name string) string { return filepath.Join(dir, name) }

// room answers the segment that takes the next batch: a new one when the present one is full. Of a victim, what is still
// needed moves along, so that it can be used again.
func (l *Log) room() (fresh bool, seg, victim *segment, err error) {
	l.mu.Lock()
	need := recordSize(64)
	empty := len(l.gone) == 0
	for _, e := range l.pending {
		if e.item.place != gone || e.state != nil {
			need += recordSize(len(e.payload))
			empty = false
			break
		}
	}
	l.mu.Unlock()
	if a := l.active; empty || a != nil && a.tail+need <= a.size && l.index < maxIndex-8 {
		return false, a, nil, nil
	}
	if l.active != nil && len(l.lazy) > 0 {
		if err := l.sync(l.active); err != nil {
			l.active.bad = true
			l.active = nil
			l.batch, l.index = l.batch+1, 0
			return false, nil, nil, err
		}
		l.lazy = nil
	}
	if seg, err = l.newSegment(); err != nil {
		return false, nil, nil, err
	}
	l.batch, l.index = l.batch+1, 0
	if l.free(seg) == nil {
		victim = l.grow(seg)
	}
	return true, seg, victim, nil
}

// free is a segment that can be used again, besides but; nil when there is none.
func (l *Log) free(but *segment) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.live == 0 && !s.bad && s != l.active && s != l.anchor && s != but && s.size == l.cfg.SegmentBytes {
			return s
		}
	}
	return nil
}

// newSegment takes a free segment under a new number, or makes one.
func (l *Log) newSegment() (*segment, error) {
	s := l.free(nil)
	if s == nil {
		made, err := l.create()
		if full(err) == nil {
			return made, err
		}
		l.mu.Lock()
		if len(l.segments) > 1 {
			l.makeRoom(l.capacity())
		}
		l.unlock()
		if s = l.free(nil); s == nil {
			return nil, err
		}
	}
	n := l.nextNumber()
	path := segmentPath(l.cfg.Dir, n)
	if err := l.reuse(s, path); err != nil {
		s.bad = true
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.n, s.path, s.tail = n, path, 0
	l.sortSegments()
	return s, nil
}

func (l *Log) reuse(s *segment, path string) error {
	if !s.writable {
		file, err := l.fs.Open(s.path, true)
		if err != nil {
			return err
		}
		l.mu.Lock()
		s.close()
		s.file, s.writable = file, true
		l.mu.Unlock()
	}
	if err := l.fs.Rename(s.path, path); err != nil {
		return err
	}
	return l.fs.SyncDir(l.cfg.Dir)
}

func (l *Log) sortSegments() {
	slices.SortFunc(l.segments, func(a, b *segment) int { return cmp.Compare(a.n, b.n) })
}

func (l *Log) nextNumber() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint64(1)
	for _, s := range l.segments {
		n = max(n, s.n+1)
	}
	return n
}

// errMinFree is a disk that is not full, but as full as the device file allows.
var errMinFree = errors.New("less is free on the disk than outbox.min_free")

// create makes another segment, and notes when the disk has no room for one.
func (l *Log) create() (*segment, error) {
	s, err := l.makeSegment()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full = full(err); err == nil {
		l.segments = append(l.segments, s)
		l.sortSegments()
	}
	return s, err
}

// makeSegment makes a segment of zeros, so that later syncs have no length to write.
func (l *Log) makeSegment() (*segment, error) {
	if err := l.fs.MkdirAll(l.cfg.Dir); err != nil {
		return nil, err
	}
	if n, err := l.fs.Free(l.cfg.Dir); err == nil && n < l.cfg.MinFree+uint64(l.cfg.SegmentBytes) && l.cfg.MinFree > 0 {
		return nil, errMinFree
	}
	n := l.nextNumber()
	path := segmentPath(l.cfg.Dir, n)
	file, err := l.fs.Create(path)
	for try := 0; errors.Is(err, fs.ErrExist) && try < 1000; try++ { // left by a start that could not read the folder
		n++
		path = segmentPath(l.cfg.Dir, n)
		file, err = l.fs.Create(path)
	}
	if err != nil {
		return nil, err
	}
	s := &segment{n: n, path: path, file: file, writable: true, size: l.cfg.SegmentBytes}
	if err := l.fill(s); err != nil {
		s.close()
		l.fs.Remove(path) // what is left of it takes room; a next start takes it for an unused one
		return nil, err
	}
	return s, nil
}

func (l *Log) fill(s *segment) error {
	zeros := make([]byte, 4<<10) // the page cache keeps what is written at once together, and writes it together later
	for off := 0; off < s.size; off += len(zeros) {
		if _, err := s.file.WriteAt(zeros[:min(len(zeros), s.size-off)], int64(off)); err != nil {
			return err
		}
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	return l.fs.SyncDir(l.cfg.Dir)
}

// grow makes sure that there will be a segment after seg: a spare one, or else the one with the least in it, whose
// messages have to move. When even that one has too much in it, messages are dropped.
func (l *Log) grow(seg *segment) (victim *segment) {
	l.mu.Lock()
	n := len(l.segments)
	l.mu.Unlock()
	if n < l.maxSegments() || n < 2 {
		_, err := l.create()
		if err == nil {
			return nil
		}
		if full(err) == nil { // the next segment that is needed is the next try
			l.log.Warn("the outbox cannot grow now", "error", err)
			return nil
		}
	}
	l.mu.Lock()
	defer l.unlock()
	if victim = l.emptiest(seg); victim == nil || victim.live > l.cfg.SegmentBytes*FillPercent/100 {
		l.makeRoom(l.capacity())
		victim = l.emptiest(seg)
	}
	return victim
}

// emptiest is the segment with the least in it, besides seg.
func (l *Log) emptiest(seg *segment) (least *segment) {
	for _, s := range l.segments {
		if s != seg && !s.bad && s.file != nil && (least == nil || s.live < least.live) {
			least = s
		}
	}
	return least
}

// full says whether a disk has no room, as opposed to being broken.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, errMinFree) {
		return err
	}
	return nil
}

// trim takes out segments that are not needed: what is damaged and empty, and all but two that could be used again. A
// file that comes back with a power cut is older than the checkpoint, and nothing in it counts.
func (l *Log) trim() (useless []*segment) {
	spare := 0
	l.segments = slices.DeleteFunc(l.segments, func(s *segment) bool {
		if s.live != 0 || s == l.active || s == l.anchor {
			return false
		}
		if !s.bad && s.size == l.cfg.SegmentBytes {
			if spare++; spare <= 2 {
				return false
			}
		}
		useless = append(useless, s)
		return true
	})
	return useless
}
