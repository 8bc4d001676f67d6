package mqttd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	writeTimeout = 10 * time.Second // a device that takes nothing for so long is gone
	closeTimeout = time.Second      // for the last bytes and TLS's close_notify
	maxPending   = 1 << 20          // bytes that wait for a device; more means that it has stopped reading
	maxLate      = 1000             // packets behind a delay fault
	keptBuffer   = 4096
)

var (
	errShutdown   = errors.New("the hub is shutting down")
	errNotReading = errors.New("the device does not read what it is sent")
	errFinished   = errors.New("the connection is finished")
	errFrozen     = errors.New("a fault rule has frozen the connection until it was silent for too long")
)

// conn is the byte side of one connection. One goroutine reads; any goroutine may send. What is sent is appended to
// out, and whoever finds nobody writing writes until out is empty: there is no goroutine that waits for something to
// write, and no caller of post waits for the device.
type conn struct {
	ctx    context.Context // done once the connection is to end; its cause says why
	cancel context.CancelCauseFunc
	nc     net.Conn
	in     *frameReader
	wg     sync.WaitGroup

	mu      sync.Mutex
	out     []byte
	spare   []byte // the other buffer, so that one can be written while the next fills
	held    bool   // nothing is written yet: the CONNACK must come first
	writing bool
	broken  bool // a write has failed
	frozen  bool // a fault has made the connection half open
	silence time.Duration
	late    []latePacket
	timer   *time.Timer
}

// latePacket is one that a delay fault holds back. Packets behind it wait too, so that order is kept.
type latePacket struct {
	at  time.Time
	raw []byte
}

func newConn(ctx context.Context, nc net.Conn) *conn {
	c := &conn{nc: nc, held: true, silence: connectTimeout}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx)) // the end of ctx comes by end, with its cause
	c.in = newFrameReader(nc, c.flush)
	return c
}

// end makes the reader come back with an error. It does not wait, and only the first cause counts.
func (c *conn) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(cause)
}

func (c *conn) endLocked(cause error) {
	c.cancel(cause)
	past := time.Unix(1, 0)
	_ = c.nc.SetReadDeadline(past)
	if c.writing {
		_ = c.nc.SetWriteDeadline(past)
	}
}

// deadline says until when the next packet must have come.
func (c *conn) deadline(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil { // after end, the deadline in the past must stay
		return context.Cause(c.ctx)
	}
	return c.nc.SetReadDeadline(time.Now().Add(d))
}

// patient gives the device this long before each read, from now on.
func (c *conn) patient(d time.Duration) {
	c.mu.Lock()
	c.silence = d
	c.mu.Unlock()
	c.in.idle = func() error {
		if err := c.flush(); err != nil {
			return err
		}
		return c.deadline(d)
	}
}

// freeze makes the connection half open: nothing more is sent, what is queued neither, and the reader's goroutine stops at
// its next packet (see thaw). The socket stays as it is.
func (c *conn) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
	c.out, c.late = c.out[:0], nil
}

func (c *conn) isFrozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frozen
}

// thaw waits, for the reader's goroutine, until a frozen connection ends: the hub, too, hears nothing from a device that it
// does not read, and gives up after the same time.
func (c *conn) thaw() error {
	c.mu.Lock()
	silence := c.silence
	c.mu.Unlock()
	t := time.NewTimer(silence)
	defer t.Stop()
	select {
	case <-t.C:
		return errFrozen
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// queue appends a packet, to be written before the reader waits for the next one. For the reader's goroutine.
func (c *conn) queue(raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appendLocked(raw)
}

// post sends a packet from any goroutine, without waiting for the device.
func (c *conn) post(raw []byte, delay time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delay > 0 || len(c.late) > 0 {
		c.postponeLocked(raw, delay)
		return
	}
	c.appendLocked(raw)
	c.startLocked()
}

func (c *conn) appendLocked(raw []byte) {
	if c.ctx.Err() != nil || c.frozen {
		return
	}
	if len(c.out)+len(raw) > maxPending {
		c.endLocked(errNotReading)
		return
	}
	c.out = append(c.out, raw...)
}

// startLocked writes out in a goroutine of its own, unless somebody writes already.
func (c *conn) startLocked() {
	if c.held || c.writing || len(c.out) == 0 || c.ctx.Err() != nil {
		return
	}
	c.writing = true
	c.wg.Go(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drainLocked()
	})
}

func (c *conn) postponeLocked(raw []byte, delay time.Duration) {
	if c.ctx.Err() != nil {
		return
	}
	if len(c.late) == maxLate {
		c.endLocked(errNotReading)
		return
	}
	at := time.Now().Add(delay)
	if n := len(c.late); n > 0 && c.late[n-1].at.After(at) {
		at = c.late[n-1].at
	}
	c.late = append(c.late, latePacket{at, raw})
	if len(c.late) == 1 {
		c.timer = time.AfterFunc(delay, c.sendLate)
	}
}

func (c *conn) sendLate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for len(c.late) > 0 && !c.late[0].at.After(now) {
		c.appendLocked(c.late[0].raw)
		c.late = c.late[1:]
	}
	if len(c.late) > 0 && c.ctx.Err() == nil {
		c.timer.Reset(c.late[0].at.Sub(now))
	}
	c.startLocked()
}

// release ends the time in which packets are held back, and writes them.
func (c *conn) release() error {
	c.mu.Lock()
	c.held = false
	c.mu.Unlock()
	return c.flush()
}

// flush writes what is queued, in the caller's goroutine. The frame reader calls it before each read.
func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held && !c.writing && len(c.out) > 0 {
		c.writing = true
		c.drainLocked()
	}
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	return nil
}

// drainLocked writes until out is empty. The lock is open during a write.
func (c *conn) drainLocked() {
	for len(c.out) > 0 && c.ctx.Err() == nil {
		b := c.out
		c.out, c.spare = c.spare[:0], nil
		_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		c.mu.Unlock()
		_, err := c.nc.Write(b)
		c.mu.Lock()
		if cap(b) <= keptBuffer {
			c.spare = b
		}
		if err != nil {
			c.broken = true
			c.cancel(fmt.Errorf("write to the device: %w", err))
			_ = c.nc.SetReadDeadline(time.Unix(1, 0))
		}
	}
	c.writing = false
}

// wait lets d pass, for delay faults. It ends early with the connection.
func (c *conn) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// finish writes what is still queued and then goodbye, if the device still takes bytes, and closes.
func (c *conn) finish(goodbye []byte) {
	c.cancel(errFinished)
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.writing {
		_ = c.nc.SetWriteDeadline(time.Now().Add(closeTimeout))
	}
	c.mu.Unlock()
	c.wg.Wait()

	c.mu.Lock()
	if c.frozen {
		goodbye = nil
	}
	last, broken := append(c.out, goodbye...), c.broken
	c.out, c.spare, c.late = nil, nil, nil
	c.mu.Unlock()
	cut := time.AfterFunc(closeTimeout, func() { _ = rawConn(c.nc).Close() })
	defer cut.Stop()
	if len(last) > 0 && !broken {
		_ = c.nc.SetWriteDeadline(time.Now().Add(closeTimeout))
		_, err := c.nc.Write(last)
		broken = err != nil
	}
	if broken {
		_ = rawConn(c.nc).Close() // close_notify would wait for a device that takes nothing
		return
	}
	if len(goodbye) > 0 && !errors.Is(context.Cause(c.ctx), errShutdown) {
		c.linger()
	}
	_ = c.nc.Close()
}

// linger ends the hub's side and takes what the device still sends. A socket closed with bytes unread is reset, and on
// many systems a reset throws away what the device has not read yet: the packet that says why.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(closeTimeout))
	_, _ = io.CopyN(io.Discard, c.nc, maxPending)
}

// rawConn is the connection below WebSocket and TLS.
func rawConn(nc net.Conn) net.Conn {
	for {
		above, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = above.NetConn()
	}
}

// tlsConn is the TLS connection, which may lie below WebSocket; nil means that there is none.
func tlsConn(nc net.Conn) *tls.Conn {
	for {
		if t, ok := nc.(*tls.Conn); ok {
			return t
		}
		above, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		nc = above.NetConn()
	}
}
