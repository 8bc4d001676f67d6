package inbox

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/twinbay/twinbay/agent/disk/disktest"
)

var quiet = slog.New(slog.DiscardHandler)

func message(id string) Message {
	return Message{ID: id, Received: time.Unix(1, 0).UTC(), Body: []byte("body of " + id), Properties: map[string]string{"a": id}}
}

func ids(b *Box) (out []string) {
	for _, m := range b.List() {
		out = append(out, fmt.Sprintf("%d:%s", m.Number, m.ID))
	}
	return out
}

// The power goes at each operation of a day's work. What Put has taken is there afterwards, once; what Dismiss has removed is
// not; and numbers never repeat.
func TestPowerCutAtEveryOperation(t *testing.T) {
	work := func(fs *disktest.FS) (taken, dismissed []string) {
		b := Open(fs, "/state/messages", quiet)
		for _, id := range []string{"a", "b", "c", "a", "d"} {
			if b.Put(message(id), false) == nil {
				taken = append(taken, id)
			}
			if id == "c" {
				for _, gone := range []string{"a", "2"} {
					if b.Dismiss(gone) == nil {
						dismissed = append(dismissed, gone)
					}
				}
			}
		}
		return taken, dismissed
	}
	whole := &disktest.FS{}
	work(whole)
	for at := 1; at <= whole.Ops()+1; at++ {
		for seed := range uint64(4) {
			fs := &disktest.FS{CutAt: at}
			taken, dismissed := work(fs)
			b := Open(fs.Restart(seed), "/state/messages", quiet)
			count := map[string]int{}
			for _, m := range b.List() {
				count[m.ID]++
				if string(m.Body) != "body of "+m.ID || m.Properties["a"] != m.ID {
					t.Errorf("cut at %d: %+v", at, m)
				}
			}
			removed := map[string]bool{}
			for _, d := range dismissed {
				removed[map[string]string{"a": "a", "2": "b"}[d]] = true
			}
			for _, id := range taken {
				switch n := count[id]; {
				case n > 1:
					t.Errorf("cut at %d: %s is there %d times", at, id, n)
				case removed[id] && n != 0:
					t.Errorf("cut at %d: %s was dismissed and is there again", at, id)
				case !removed[id] && n == 0 && id != "a" && id != "b": // the power may have gone in the middle of their dismissal
					t.Errorf("cut at %d: %s was taken and is lost", at, id)
				}
			}
			if err := b.Put(message("new"), false); err != nil {
				t.Fatalf("cut at %d: %v", at, err)
			}
			list := b.List()
			if n := list[len(list)-1].Number; n <= uint64(len(dismissed)) {
				t.Errorf("cut at %d: the number %d of a dismissed message is used again", at, n)
			}
		}
	}
}

func TestComesTwice(t *testing.T) {
	b := Open(&disktest.FS{}, "/m", quiet)
	for range 3 {
		if err := b.Put(message("a"), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Dismiss("a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(message("a"), true); err != nil || b.Len() != 0 {
		t.Errorf("a dismissed one came back: %v, %v", ids(b), err)
	}
	for range 2 { // without an id, two that are the same are two, unless the hub says that one comes again
		if err := b.Put(message(""), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(message(""), true); err != nil || b.Len() != 2 {
		t.Errorf("%v, %v", ids(b), err)
	}
	for n := range 2 * maxGone {
		id := fmt.Sprint("x", n)
		if err := errors.Join(b.Put(message(id), false), b.Dismiss(id)); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.gone.Last) != maxGone {
		t.Errorf("%d dismissed ones are remembered", len(b.gone.Last))
	}
	if err := b.Dismiss("99999"); !errors.Is(err, ErrUnknown) {
		t.Errorf("dismissing nothing: %v", err)
	}
}

func TestBounds(t *testing.T) {
	b := Open(&disktest.FS{}, "/m", quiet)
	for n := range MaxMessages {
		if err := b.Put(message(fmt.Sprint(n)), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(message("more"), false); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if err := b.Put(message("3"), false); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
	b = Open(&disktest.FS{}, "/m", quiet)
	big := message("big")
	big.Body = make([]byte, 64<<10)
	taken := 0
	for n := range MaxMessages {
		big.ID = fmt.Sprint(n)
		if b.Put(big, false) == nil {
			taken++
		}
	}
	if taken < 60 || taken > 64 {
		t.Errorf("%d messages of 64 KiB were taken", taken)
	}
}

func TestDiskFails(t *testing.T) {
	fs := &disktest.FS{}
	b := Open(fs, "/m", quiet)
	if err := b.Put(message("a"), false); err != nil {
		t.Fatal(err)
	}
	fs.Set(func(f *disktest.FS) { f.Fault = disktest.OfKind("sync", "", syscall.ENOSPC) })
	if err := b.Put(message("b"), false); !errors.Is(err, syscall.ENOSPC) || b.Len() != 1 {
		t.Errorf("a full disk: %v, %v", err, ids(b))
	}
	if err := b.Dismiss("a"); err == nil || b.Len() != 1 {
		t.Errorf("dismissed without a disk: %v, %v", err, ids(b))
	}
	fs.Set(func(f *disktest.FS) { f.Fault = nil })
	if err := b.Put(message("b"), false); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	fs.Edit("/m/0000000001", func([]byte) []byte { return []byte("garbage") })
	b = Open(fs, "/m", quiet)
	if got := fmt.Sprint(ids(b)); got != "[2:b]" {
		t.Errorf("beside a damaged file: %s", got)
	}
}
