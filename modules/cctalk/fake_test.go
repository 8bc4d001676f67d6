package cctalk

import (
	"context"
	"sync"
	"testing"

	"github.com/twinbay/twinbay/hal/haltest"
)

// fake is an acceptor at the other end of a test's line, no more of one than these tests need.
type fake struct {
	line *haltest.SerialLine
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	serial  int // -1: does not know the command
	counter byte
	events  [depth]event
	mask    uint16
	ids     map[byte]string
	fault   byte
	mute    bool
	echo    bool
	unknown map[byte]bool // headers answered with NAK
	quiet   map[byte]bool // headers not answered
	seen    []byte        // headers
	garble  int           // replies to damage
}

func newFake(t testing.TB) *fake {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fake{
		line: haltest.Serial(t), stop: cancel, done: make(chan struct{}), serial: 123456,
		ids:     map[byte]string{1: "EU200A", 2: "EU100A", 3: "EU050A", 4: "TK001A"},
		unknown: map[byte]bool{}, quiet: map[byte]bool{},
	}
	go f.serve(ctx)
	t.Cleanup(func() { cancel(); <-f.done })
	return f
}

func (f *fake) serve(ctx context.Context) {
	defer close(f.done)
	for {
		head, err := f.line.Sent(ctx, 2)
		if err != nil {
			return
		}
		rest, err := f.line.Sent(ctx, int(head[1])+3)
		if err != nil {
			return
		}
		request := append(head, rest...)
		q, _, err := parse(request, false)
		if err != nil {
			continue
		}
		if reply := f.answer(q); reply != nil {
			f.line.Push(reply...)
		}
	}
}

// answer is the bytes that come back, echo first.
func (f *fake) answer(q frame) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []byte
	if f.echo {
		out = q.encode(false)
	}
	f.seen = append(f.seen, q.header)
	if f.mute || f.quiet[q.header] {
		return out
	}
	r := frame{dest: 1, src: 2, header: replyACK}
	if f.unknown[q.header] {
		r.header = replyNAK
	} else {
		r.header, r.data = f.do(q)
	}
	p := r.encode(false)
	if f.garble > 0 {
		f.garble--
		p[len(p)-1] ^= 0x40
	}
	return append(out, p...)
}

func (f *fake) do(q frame) (header byte, data []byte) {
	switch q.header {
	case simplePoll, masterInhibit:
	case reset:
		f.reset()
	case serialNumber:
		if f.serial < 0 {
			return replyNAK, nil
		}
		return replyACK, []byte{byte(f.serial), byte(f.serial >> 8), byte(f.serial >> 16)}
	case bufferedCredit:
		data = append(data, f.counter)
		for _, e := range f.events {
			data = append(data, e.position, e.code)
		}
	case modifyInhibit:
		f.mask = uint16(q.data[0]) | uint16(q.data[1])<<8
	case requestInhibit:
		return replyACK, []byte{byte(f.mask), byte(f.mask >> 8)}
	case coinID:
		if id, ok := f.ids[q.data[0]]; ok {
			return replyACK, []byte(id)
		}
		return replyACK, []byte("......")
	case selfCheck:
		return replyACK, []byte{f.fault}
	case manufacturer:
		return replyACK, []byte("TST")
	case category:
		return replyACK, []byte("Coin Acceptor")
	case commsCounters:
		return replyACK, []byte{1, 2, 3}
	default:
		return replyNAK, nil
	}
	return replyACK, data
}

func (f *fake) reset() {
	f.counter, f.events, f.mask = 0, [depth]event{}, 0
}

func (f *fake) set(change func(f *fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// coins lets coins in, as far as the mask allows: how many were taken.
func (f *fake) coins(positions ...byte) (taken int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range positions {
		if f.mask&(1<<(p-1)) == 0 {
			continue
		}
		taken++
		f.happen(event{p, 1})
	}
	return taken
}

func (f *fake) happen(e event) {
	copy(f.events[1:], f.events[:])
	f.events[0] = e
	f.counter++
	if f.counter == 0 {
		f.counter = 1
	}
}

func (f *fake) maskNow() uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mask
}

func (f *fake) count(header byte) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.seen {
		if h == header {
			n++
		}
	}
	return n
}
