package outbox

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

// piece is a record that recovery has found, understood.
type piece struct {
	header
	seg *segment
	off int

	message    message // without its body
	departure  departure
	state      savedState
	checkpoint checkpoint
	clock      clockMark
}

// recover reads the folder.
func (l *Log) recover() {
	l.batch = 1
	names, err := l.fs.Names(l.cfg.Dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.skip = ahead
			l.stats.damaged++
			l.log.Error("the outbox cannot be read; what was in it is not sent", "folder", l.cfg.Dir, "error", err)
		}
		return
	}
	pieces, gaps := l.scanAll(names)
	pieces, torn := l.cut(pieces)
	settled := uint64(0) // what is older, the newest checkpoint has counted
	for _, p := range pieces {
		if p.kind == kindCheckpoint {
			settled = p.batch
		}
	}
	damaged := 0
	for _, g := range gaps {
		// What the last batch lacks was never synced. Anything else has been on the disk, and is not any more.
		if g.batch >= settled && (g.batch < l.batch-1 || g.batch == l.batch-1 && g.index == 0) {
			damaged++
		}
	}
	l.stats.damaged += uint64(damaged)
	if damaged > 0 {
		l.log.Error("the outbox is damaged; what can be read of it is used", "folder", l.cfg.Dir, "places", damaged)
	}
	if torn > 0 {
		l.log.Info("the end of the outbox was being written when the device stopped; nothing accepted is lost", "records", torn)
	}
	r := recovery{log: l, items: map[*box]map[uint64]*item{}, missing: map[*box][]span{}}
	for _, p := range pieces {
		r.apply(p)
	}
	r.finish()
}

// scanAll reads all segments, in their order.
func (l *Log) scanAll(names []string) (pieces []piece, gaps []gap) {
	var old []string
	hollow := uint64(0) // segments without anything readable: the last is one in whose first batch the power went
	for _, name := range names {
		n, ok := segmentNumber(name)
		if !ok {
			if strings.Contains(name, segmentSuffix+".corrupt-") {
				old = append(old, name)
			}
			continue
		}
		seg := &segment{n: n, path: segmentPath(l.cfg.Dir, n)}
		data, err := disk.Read(l.fs, seg.path)
		if err != nil {
			l.skip = ahead
			l.stats.damaged++
			l.log.Error("a part of the outbox cannot be read; it stays where it is", "error", err)
			l.segments = append(l.segments, &segment{n: n, path: seg.path, bad: true, live: 1})
			continue
		}
		seg.size = len(data)
		before := len(pieces)
		var last extent
		found := scan(data, l.batch, func(f found) {
			p := piece{header: f.header, seg: seg, off: f.off}
			if err := p.understand(f.payload); err != nil {
				gaps = append(gaps, gap{f.batch, 0}) // whole, and not ours
				return
			}
			pieces = append(pieces, p)
			if end := f.off + recordSize(f.length); f.batch != last.batch {
				last = extent{f.batch, f.off, end}
			} else {
				last.end = end
			}
		})
		gaps = append(gaps, found...)
		switch {
		case len(pieces) > before:
			l.stats.damaged += hollow // what had no record in it was older
			hollow = 0
			l.unproven = &proof{seg.path, last.off, slices.Clone(data[last.off:min(last.end, len(data))])}
			l.batch = pieces[len(pieces)-1].batch + 1
		case empty(data) || stale(data):
			seg.bad = len(data) != l.cfg.SegmentBytes // of other settings, or made when the power went
		default:
			kept := disk.Quarantine(l.fs, seg.path)
			hollow++
			l.log.Error("a part of the outbox holds nothing that can be read", "file", seg.path, "kept", kept)
			if kept != "" {
				continue
			}
			seg.bad = true
		}
		if seg.file, err = l.fs.Open(seg.path, false); err != nil {
			seg.bad = true
		}
		l.segments = append(l.segments, seg)
	}
	for len(old) > 2 { // their names end with the time only after the number; the lowest numbers are the oldest
		l.fs.Remove(join(l.cfg.Dir, old[0])) // it is there for people alone
		old = old[1:]
	}
	slices.SortFunc(l.segments, func(a, b *segment) int {
		if a.n < b.n {
			return -1
		}
		return 1
	})
	return pieces, gaps
}

// extent is where a batch stands.
type extent struct {
	batch    uint64
	off, end int
}

// proof is the last batch that a start has found. Nothing behind it says that its sync succeeded, and after one that did
// not, Linux gives the next process the bytes from memory as if they were on the disk (fsync(2); Rebello et al., "Can
// Applications Recover from fsync Failures?", USENIX ATC 2020).
type proof struct {
	path string
	off  int
	data []byte
}

// prove writes the last batch once more, in its place, and syncs it: before anybody relies on it. The same bytes on top
// of each other can be torn without harm.
func (l *Log) prove() error {
	p := l.unproven
	if p == nil {
		return nil
	}
	file, err := l.fs.Open(p.path, true)
	if err != nil {
		return err
	}
	defer file.Close() // what matters has been synced
	if _, err := file.WriteAt(p.data, int64(p.off)); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	l.unproven = nil
	return nil
}

// empty says whether a segment was only preallocated.
func empty(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

// stale says whether a segment holds records of an earlier use.
func stale(data []byte) bool {
	any := false
	scan(data, 0, func(found) { any = true })
	return any
}

// understand decodes the payload and keeps no part of it.
func (p *piece) understand(payload []byte) (err error) {
	switch p.kind {
	case kindMessage:
		p.message, err = decodeMessage(payload)
		size := recordSize(len(payload))
		p.length = size
		p.message.Body, p.message.Properties = nil, nil
		p.message.State = slices.Clone(p.message.State)
	case kindGone:
		p.departure, err = decodeGone(payload)
	case kindState:
		p.state, err = decodeState(payload)
		p.state.state = slices.Clone(p.state.state)
	case kindCheckpoint:
		p.checkpoint, err = decodeCheckpoint(payload)
		for i := range p.checkpoint.boxes {
			p.checkpoint.boxes[i].state = slices.Clone(p.checkpoint.boxes[i].state)
		}
	case kindClock:
		r := reader{b: payload}
		p.clock = r.clock()
		if r.bad {
			err = errPayload
		}
	}
	return err
}

// cut leaves out what of the last batch comes behind a hole: it was never synced.
func (l *Log) cut(pieces []piece) (kept []piece, torn int) {
	last := l.batch - 1
	want := uint16(0)
	for i, p := range pieces {
		if p.batch != last {
			continue
		}
		if p.index != want {
			return pieces[:i], len(pieces) - i
		}
		want++
	}
	return pieces, 0
}

// recovery is the state while records are applied.
type recovery struct {
	log     *Log
	age     time.Duration
	items   map[*box]map[uint64]*item
	aside   []*item
	missing map[*box][]span // what the newest checkpoint says is there, and has neither been found nor left since
	anchor  *segment
}

func (r *recovery) of(b *box) map[uint64]*item {
	if r.items[b] == nil {
		r.items[b] = map[uint64]*item{}
	}
	return r.items[b]
}

func (r *recovery) apply(p piece) {
	switch p.kind {
	case kindMessage:
		r.message(p)
	case kindGone:
		r.gone(p.departure)
	case kindState:
		b := r.log.box(p.state.name)
		b.remember(p.state.state, p.state.seq)
		b.next = max(b.next, p.state.seq+1)
	case kindCheckpoint:
		r.checkpoint(p.checkpoint)
		r.anchor = p.seg
	case kindClock:
		r.log.clock = p.clock
		r.age = max(r.age, p.clock.age)
	}
}

// remember takes a state as the newest on disk.
func (b *box) remember(state []byte, seq uint64) {
	if seq >= b.savedSeq {
		b.saved, b.savedSeq = state, seq
		b.state, b.stateSeq = state, seq
	}
}

func (r *recovery) message(p piece) {
	m := p.message
	b := r.log.box(m.name)
	items := r.of(b)
	it := items[m.seq]
	if it != nil && it.epoch == m.epoch { // it was moved
		it.seg.live -= it.length
		if it.place == gone { // a first try to write it, which failed, is older than the last checkpoint
			it.place = pending
			b.shelf.accepted++
		}
	} else {
		if it == nil && !within(r.missing[b], m.seq) {
			b.shelf.accepted++
		}
		r.missing[b] = minus(r.missing[b], []span{{m.seq, 1}})
		it = &item{
			epoch: m.epoch, seq: m.seq, at: m.At.UnixNano(), size: p.length, high: m.High, heapAt: -1,
			expires: lifetime(m.age, m.TTL, r.log.cfg.DefaultTTL, r.log.cfg.MaxAge),
		}
		items[m.seq] = it
	}
	it.seg, it.off, it.length = p.seg, p.off, p.length
	it.seg.live += it.length
	b.next = max(b.next, m.seq+1)
	r.age = max(r.age, m.age)
	if m.State != nil {
		b.remember(m.State, m.seq)
	}
}

func (r *recovery) gone(d departure) {
	b := r.log.box(d.name)
	items := r.of(b)
	for _, s := range d.seqs {
		b.next = max(b.next, s.from+s.n)
		unknown := s.n
		leave := func(it *item) {
			unknown--
			switch {
			case it.place == gone:
			case it.place == aside: // forgotten for newer ones
				it.place = gone
			case d.reason == SetAside:
				it.place = aside
				r.aside = append(r.aside, it)
				b.count(d.reason, 1)
			default:
				it.place = gone
				b.count(d.reason, 1)
			}
		}
		if s.n > uint64(len(items)) {
			for seq, it := range items {
				if within([]span{s}, seq) {
					leave(it)
				}
			}
		} else {
			for seq := s.from; seq < s.from+s.n; seq++ {
				if it := items[seq]; it != nil {
					leave(it)
				}
			}
		}
		// A segment is used again as soon as the last message in it is gone, so a checkpoint may speak of messages that
		// left after it and are nowhere any more. It has counted them as accepted.
		left := minus(r.missing[b], []span{s})
		b.shelf.accepted += unknown - (total(r.missing[b]) - total(left))
		r.missing[b] = left
		b.count(d.reason, unknown)
	}
}

// count counts what has left, by reason.
func (b *box) count(reason string, n uint64) {
	switch {
	case n == 0:
	case reason == "":
		b.shelf.acked += n
	default:
		b.shelf.dropped[reason] += n
	}
}

func (r *recovery) checkpoint(c checkpoint) {
	r.age = max(r.age, c.age)
	r.log.clock = c.clock
	clear(r.missing) // what an older checkpoint missed, this one has counted
	for _, m := range c.boxes {
		b := r.log.box(m.name)
		b.next = max(b.next, m.next)
		b.shelf.accepted, b.shelf.acked, b.shelf.dropped = m.accepted, m.acked, m.dropped
		b.saved, b.savedSeq = m.state, m.stateSeq
		b.state, b.stateSeq = m.state, m.stateSeq
		var found []uint64
		for seq, it := range r.of(b) {
			switch {
			case within(m.aside, seq):
				if it.place != aside {
					it.place = aside
					r.aside = append(r.aside, it)
				}
			case within(m.live, seq):
				it.place = pending
				found = append(found, seq)
			default:
				it.place = gone
			}
		}
		slices.Sort(found)
		r.missing[b] = minus(m.live, spans(found))
	}
}

// finish puts everything where it belongs.
func (r *recovery) finish() {
	l := r.log
	l.base = r.age
	l.anchor = r.anchor
	if l.stats.damaged > 0 {
		l.skip = ahead
	}
	for b, spans := range r.missing {
		if n := total(spans); n > 0 {
			b.shelf.dropped[DroppedDamaged] += n
			l.log.Error("messages are missing from the outbox; they are lost", "component", b.name, "messages", n)
		}
	}
	for _, it := range r.aside {
		if it.place == aside {
			it.place = waiting // keepAside follows below, in the order of setting aside
		}
	}
	for b, items := range r.items {
		b.next += l.skip
		all := make([]*item, 0, len(items))
		for _, it := range items {
			switch it.place {
			case gone:
				it.seg.live -= it.length
			case pending:
				all = append(all, it)
			}
		}
		slices.SortFunc(all, func(a, b *item) int {
			if a.seq < b.seq {
				return -1
			}
			return 1
		})
		for _, it := range all {
			b.shelf.show(it)
		}
		for _, it := range r.aside {
			if it.place == waiting && items[it.seq] == it {
				b.shelf.keepAside(it)
			}
		}
	}
	l.makeRoom(l.cfg.MaxBytes)
}
