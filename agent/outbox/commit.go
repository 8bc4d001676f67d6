package outbox

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

// run is the writer. It writes when there is something to write, and sleeps otherwise.
func (l *Log) run() {
	defer close(l.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, sync, some := l.due()
		if some {
			if wait := time.Until(due); wait <= 0 {
				l.commit(sync)
				continue
			} else {
				timer.Reset(wait)
			}
		} else {
			timer.Stop()
		}
		select {
		case <-l.wake:
		case <-l.beat: // and l.due, which needs the lock, next
		case <-timer.C:
		case <-l.quit:
			l.finalCommit()
			return
		}
	}
}

// due is when to write next, and whether with an fsync.
func (l *Log) due() (at time.Time, sync, some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.gone) > 0 {
		at, some = l.since.Add(goneAfter), true
		if l.cfg.Profile == SDCard {
			at = l.since.Add(spillAfter)
		}
	}
	l.forgetNeedless()
	if len(l.pending) > 0 {
		first := l.last.Add(l.cfg.Delay)
		if l.cfg.Profile == SDCard {
			first = l.pending[0].put.Add(spillAfter)
			if l.waits > spillBytes {
				first = time.Time{}
			}
		}
		if !some || first.Before(at) {
			at = first
		}
		sync, some = true, true
	}
	if l.broken != nil && l.retryAt.After(at) {
		at = l.retryAt
	}
	return at, sync, some
}

// forgetNeedless leaves out what the hub had before it was time to write it.
func (l *Log) forgetNeedless() {
	n := 0
	for _, e := range l.pending {
		if e.item.place != gone || e.state != nil {
			break
		}
		e.box.waits -= e.item.size
		l.waits -= e.item.size
		n++
	}
	l.pending = slices.Delete(l.pending, 0, n)
}

// finalCommit writes what is left.
func (l *Log) finalCommit() {
	for before := -1; ; {
		l.mu.Lock()
		left := len(l.pending) + len(l.gone)
		l.mu.Unlock()
		if left == 0 || left == before {
			break
		}
		before = left
		if l.commit(true) != nil {
			return
		}
	}
	if len(l.lazy) > 0 && l.active != nil && l.sync(l.active) != nil {
		return // acknowledgements: those messages may be sent once more
	}
}

// batchOf is what one write takes.
type batchOf struct {
	buf     []byte
	seg     *segment
	fresh   bool
	placed  []placed
	moved   []placed
	states  []*entry
	gone    []departed
	taken   int // entries at the beginning of pending that are in it or need not be
	records int
	marked  bool
}

type placed struct {
	entry       *entry // nil: moved from another segment
	box         *box
	item        *item
	off, length int
}

// commit writes one batch, and with sync makes it durable.
func (l *Log) commit(sync bool) error {
	var fresh bool
	var seg, victim *segment
	var b *batchOf
	err := l.prove()
	if err != nil && l.retry >= longestRetry { // it may be that one place; what is new goes elsewhere
		l.log.Error("what an earlier start wrote last cannot be written again: a power cut may cost it", "error", err)
		l.unproven, err = nil, nil
	}
	if err == nil {
		fresh, seg, victim, err = l.room()
	}
	if err == nil {
		b = l.build(seg, fresh, victim, sync)
		if b.records > 0 {
			err = l.write(b, sync)
		}
	}
	l.mu.Lock()
	if err != nil {
		l.failed(b, err)
	} else {
		l.succeeded(b, sync)
	}
	useless := l.trim()
	l.unlock()
	for _, s := range useless {
		s.close()
		if e := l.fs.Remove(s.path); e != nil && err == nil {
			l.log.Warn("a part of the outbox that is not needed any more cannot be removed", "error", e)
		}
	}
	return err
}

// build makes a batch for seg.
func (l *Log) build(seg *segment, fresh bool, victim *segment, sync bool) *batchOf {
	b := &batchOf{seg: seg, fresh: fresh}
	if seg == nil { // nothing but what need not be written
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, e := range l.pending {
			if e.item.place != gone || e.state != nil {
				break
			}
			b.taken++
		}
		return b
	}
	var old []byte
	if victim != nil {
		var err error
		if old, err = disk.Read(l.fs, victim.path); err != nil {
			victim.bad, victim, old = true, nil, nil
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if fresh {
		if victim != nil {
			l.move(b, victim, old)
		}
		l.add(b, kindCheckpoint, l.checkpoint()) // it counts on what has moved
	}
	if l.marked && !fresh {
		l.add(b, kindClock, appendClock(nil, l.clock))
	}
	b.marked = l.marked
	orphans := map[*box]*entry{}
	newest := map[*box]uint64{}
	if sync {
		for _, e := range l.pending {
			if e.item.place == gone { // the hub has it
				if e.state != nil {
					orphans[e.box] = e
				}
				b.taken++
				continue
			}
			at := seg.tail + len(b.buf)
			if at+recordSize(len(e.payload))+recordSize(64) > seg.size || l.index+b.records >= maxIndex-4 || len(b.placed) > 0 && len(b.buf) > seg.size/2 {
				break
			}
			e.item.writing = true
			b.placed = append(b.placed, placed{e, e.box, e.item, at, recordSize(len(e.payload))})
			if e.state != nil {
				newest[e.box] = e.item.seq
			}
			l.add(b, kindMessage, e.payload)
			b.taken++
		}
	}
	for bx, e := range orphans {
		if newest[bx] < e.item.seq && bx.savedSeq < e.item.seq {
			b.states = append(b.states, e)
			l.add(b, kindState, encodeState(savedState{bx.name, e.item.seq, e.state}))
		}
	}
	l.addGone(b)
	return b
}

func (l *Log) add(b *batchOf, kind byte, payload []byte) {
	b.buf = appendRecord(b.buf, header{kind: kind, index: uint16(l.index + b.records), batch: l.batch}, payload)
	b.records++
}

// addGone adds what has left, grouped, as far as it fits.
func (l *Log) addGone(b *batchOf) {
	type key struct {
		box    *box
		reason string
	}
	groups := map[key][]uint64{}
	var order []key
	var later []departed
	for _, d := range l.gone {
		if d.reason == SetAside && d.item.seg == nil && d.item.place == aside {
			later = append(later, d) // after its message
			continue
		}
		k := key{d.box, d.reason}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], d.item.seq)
		b.gone = append(b.gone, d)
	}
	for i, k := range order {
		slices.Sort(groups[k])
		payload := encodeGone(departure{k.box.name, k.reason, spans(groups[k])})
		if b.seg.tail+len(b.buf)+recordSize(len(payload)) > b.seg.size {
			var fit []departed
			rest := map[key]bool{}
			for _, k := range order[i:] {
				rest[k] = true
			}
			for _, d := range b.gone {
				if rest[key{d.box, d.reason}] {
					later = append(later, d)
				} else {
					fit = append(fit, d)
				}
			}
			b.gone = fit
			if i == 0 {
				l.index = maxIndex // the next batch begins a new segment, whose checkpoint says it all
			}
			break
		}
		l.add(b, kindGone, payload)
	}
	l.gone = later
}

// maxSpans bounds a checkpoint's list; what lies between the last ones is sent once more after a restart.
func (l *Log) maxSpans() int { return max(16, l.cfg.SegmentBytes/16/max(1, len(l.boxes))/6) }

// checkpoint is everything that is on the disk, and what has left counts as gone.
func (l *Log) checkpoint() []byte {
	c := checkpoint{age: l.now(), clock: l.clock}
	for name, b := range l.boxes {
		m := boxMark{
			name: name, next: b.next, accepted: b.shelf.accepted, acked: b.shelf.acked, dropped: b.shelf.dropped,
			stateSeq: b.savedSeq, state: b.saved,
		}
		m.dropped = maps.Clone(m.dropped)
		var live, set []uint64
		for seq, it := range b.shelf.items {
			if it.seg != nil {
				live = append(live, seq)
			} else if it.done == nil {
				m.accepted-- // it counts when its message is found
			}
		}
		for _, it := range b.shelf.aside {
			if it.seg != nil {
				set = append(set, it.seq)
			} else if it.done == nil { // it counts when its message and its departure are found
				m.accepted--
				m.dropped[SetAside]--
			}
		}
		slices.Sort(live)
		slices.Sort(set)
		m.live, m.aside = shorten(spans(live), l.maxSpans()), spans(set)
		c.boxes = append(c.boxes, m)
	}
	l.gone = slices.DeleteFunc(l.gone, func(d departed) bool { return d.reason != SetAside || d.item.seg != nil || d.item.place != aside })
	return encodeCheckpoint(c)
}

// move copies what is needed of a segment.
func (l *Log) move(b *batchOf, victim *segment, old []byte) {
	one := func(bx *box, it *item) {
		if it.seg != victim || it.off+it.length > len(old) {
			return
		}
		h, payload, ok := parseRecord(old[it.off : it.off+it.length])
		if !ok || h.kind != kindMessage || b.seg.tail+len(b.buf)+it.length > b.seg.size || l.index+b.records >= maxIndex-4 {
			return // damaged: Next counts it
		}
		b.moved = append(b.moved, placed{nil, bx, it, b.seg.tail + len(b.buf), it.length})
		l.add(b, kindMessage, payload)
	}
	for _, bx := range l.boxes {
		for _, it := range bx.shelf.items {
			one(bx, it)
		}
		for _, it := range bx.shelf.aside {
			one(bx, it)
		}
	}
}

// write puts a batch into its segment.
func (l *Log) write(b *batchOf, sync bool) error {
	if n, err := b.seg.file.WriteAt(b.buf, int64(b.seg.tail)); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, len(b.buf), err)
	}
	if sync || b.fresh {
		return l.sync(b.seg)
	}
	return nil
}

func (l *Log) sync(s *segment) error {
	began := time.Now()
	err := s.file.Sync()
	l.last = time.Now()
	took := l.last.Sub(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.took.add(took)
	l.stats.lastSync = took
	l.stats.slowest = max(l.stats.slowest, took)
	return err
}

// succeeded takes a batch as written.
func (l *Log) succeeded(b *batchOf, sync bool) {
	if l.broken != nil && b.records > 0 {
		l.log.Info("the outbox is written again", "folder", l.cfg.Dir)
		l.broken, l.retry = nil, 0
	}
	l.stats.written += uint64(len(b.buf))
	if b.seg != nil && b.records > 0 {
		b.seg.tail += len(b.buf)
		l.index += b.records
		l.active = b.seg
		if b.marked {
			l.marked = false
		}
		if b.fresh {
			l.anchor = b.seg
		}
		if sync || b.fresh {
			l.batch, l.index = l.batch+1, 0
			l.lazy = nil
		} else {
			l.lazy = append(l.lazy, b.gone...)
		}
	}
	for _, p := range slices.Concat(b.moved, b.placed) {
		it := p.item
		it.writing = false
		if it.place == gone {
			continue
		}
		if it.seg != nil {
			it.seg.live -= it.length
		}
		it.seg, it.off, it.length = b.seg, p.off, p.length
		b.seg.live += p.length
	}
	for _, p := range b.placed {
		if p.entry.state != nil && p.item.seq > p.box.savedSeq {
			p.box.saved, p.box.savedSeq = p.entry.state, p.item.seq
		}
	}
	for _, e := range b.states {
		e.box.saved, e.box.savedSeq = e.state, e.item.seq
	}
	done := l.pending[:b.taken]
	for _, e := range done {
		it := e.item
		e.box.waits -= it.size
		l.waits -= it.size
		if it.place == pending {
			e.box.shelf.show(it)
		}
		if it.place != gone {
			e.box.accept(it)
			if l.cached > cacheBytes {
				e.box.uncache(it)
			}
		}
	}
	l.pending = slices.Delete(l.pending, 0, b.taken)
	if len(done) > 0 {
		l.makeRoom(l.cfg.MaxBytes)
	}
}

// failed keeps everything for a later try, in another segment: what is in this one now, nobody knows. Until then the hub
// is given what the disk does not take.
func (l *Log) failed(b *batchOf, err error) {
	if b != nil {
		if b.seg != nil {
			b.seg.bad = true
		}
		for _, p := range b.placed {
			p.item.writing = false
		}
		l.gone = slices.Concat(l.lazy, b.gone, l.gone)
		l.active = nil
		l.batch, l.index = l.batch+1, 0
		l.lazy = nil
	}
	if l.broken == nil {
		l.stats.brokenAt = time.Now()
		l.log.Error("the outbox cannot be written; messages are held in memory, and accepted when the hub has them",
			"folder", l.cfg.Dir, "error", err)
	}
	l.broken = err
	l.retry = min(max(2*l.retry, firstRetry), longestRetry)
	l.retryAt = time.Now().Add(l.retry)
	for _, e := range l.pending {
		if e.item.place == pending {
			e.box.shelf.show(e.item)
		}
	}
	l.makeRoom(l.cfg.MaxBytes)
}
