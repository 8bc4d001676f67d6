package haltest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/twinbay/twinbay/hal"
)

// maxUnread bounds the bytes that wait for the driver, as a tty does (4096 in the kernel's line discipline).
const maxUnread = 4096

// SerialLine is a serial line with a test at the other end. Make it with Serial.
type SerialLine struct {
	t testing.TB

	mu      sync.Mutex
	mode    hal.SerialMode
	script  []Exchange
	unread  []byte // for the driver
	sent    []byte // by the driver, not yet taken by the script or the test
	stall   bool
	gone    bool
	closed  bool
	changed chan struct{} // closed and replaced at each change
}

// Exchange is one question and answer: once the driver has written W, it may read R.
type Exchange struct {
	W, R []byte
	Echo bool // W comes back before R, as on a single-wire bus
}

// Serial returns a line. With exchanges the driver has to write exactly their W, in order: another byte fails the
// test at once, what did not happen fails it at cleanup. Without, the test plays the other end by Push and Sent.
func Serial(t testing.TB, script ...Exchange) *SerialLine {
	l := &SerialLine{t: t, script: script, changed: make(chan struct{})}
	if len(script) > 0 {
		t.Cleanup(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.script) > 0 && !t.Failed() {
				t.Errorf("haltest: %d exchanges did not happen; the next would be write %s", len(l.script), literal(l.script[0].W))
			}
		})
	}
	return l
}

// Push makes p arrive at the driver.
func (l *SerialLine) Push(p ...byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.push(p)
	l.notify()
}

// Sent takes the next n bytes that the driver wrote, waiting for them until ctx ends.
func (l *SerialLine) Sent(ctx context.Context, n int) ([]byte, error) {
	for {
		l.mu.Lock()
		if len(l.sent) >= n {
			p := bytes.Clone(l.sent[:n])
			l.sent = l.sent[n:]
			l.mu.Unlock()
			return p, nil
		}
		changed, have := l.changed, len(l.sent)
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the driver wrote %d of %d bytes: %w", have, n, ctx.Err())
		case <-changed:
		}
	}
}

// Mode is how the driver opened the line last, through Wires.
func (l *SerialLine) Mode() hal.SerialMode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode
}

// Stall makes Write block, as a peer that holds the line does, until Stall(false).
func (l *SerialLine) Stall(on bool) { l.set(func() { l.stall = on }) }

// Unplug makes every call ErrGone until Plug and a new open. Bytes not yet read are lost.
func (l *SerialLine) Unplug() { l.set(func() { l.gone, l.closed, l.unread = true, true, nil }) }

// Plug ends Unplug.
func (l *SerialLine) Plug() { l.set(func() { l.gone = false }) }

func (l *SerialLine) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.notify()
}

// Read implements hal.Serial.
func (l *SerialLine) Read(ctx context.Context, p []byte) (int, error) {
	n := 0
	err := l.wait(ctx, func() bool {
		n = copy(p, l.unread)
		l.unread = l.unread[n:]
		return n > 0 || len(p) == 0
	})
	return n, err
}

// Write implements hal.Serial.
func (l *SerialLine) Write(ctx context.Context, p []byte) error {
	return l.wait(ctx, func() bool {
		if l.stall {
			return false
		}
		l.sent = append(l.sent, p...)
		l.play()
		l.notify()
		return true
	})
}

// Flush implements hal.Serial.
func (l *SerialLine) Flush(ctx context.Context) error {
	return l.wait(ctx, func() bool {
		l.unread = nil
		return true
	})
}

// Close implements hal.Serial.
func (l *SerialLine) Close() error {
	l.set(func() { l.closed = true })
	return nil
}

// wait runs try under the lock, again after each change, until it is true.
func (l *SerialLine) wait(ctx context.Context, try func() bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.mu.Lock()
		if l.gone || l.closed {
			defer l.mu.Unlock()
			if l.gone {
				return hal.ErrGone
			}
			return hal.ErrClosed
		}
		if try() {
			l.mu.Unlock()
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// play takes what the driver wrote through the script. The lock is held.
func (l *SerialLine) play() {
	l.t.Helper()
	for len(l.script) > 0 {
		x := l.script[0]
		n := min(len(x.W), len(l.sent))
		if !bytes.Equal(x.W[:n], l.sent[:n]) {
			l.t.Errorf("haltest: the driver wrote %s; the script has %s", literal(l.sent), literal(x.W))
			l.script = nil
			return
		}
		if n < len(x.W) {
			return
		}
		l.sent, l.script = l.sent[n:], l.script[1:]
		if x.Echo {
			l.push(x.W)
		}
		l.push(x.R)
		if len(l.script) == 0 && len(l.sent) > 0 {
			l.t.Errorf("haltest: the driver wrote %s after the end of the script", literal(l.sent))
		}
	}
}

// push and notify need the lock.
func (l *SerialLine) push(p []byte) {
	if l.gone {
		return
	}
	l.unread = append(l.unread, p...)
	if len(l.unread) > maxUnread {
		l.unread = l.unread[:maxUnread]
	}
}

func (l *SerialLine) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *SerialLine) reopen(mode any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return hal.ErrGone
	}
	l.closed = false
	l.mode, _ = mode.(hal.SerialMode)
	return nil
}
