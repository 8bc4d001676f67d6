// Package link is the connection under an MQTT client of the Paho project, with the guards that those clients lack:
//
//   - A frame header is checked before the client sees it: Paho allocates whatever length the header says (up to 256
//     MiB) and acts upon packets that no hub sends.
//   - Write never blocks and never fails: a goroutine of the link writes. All losses show in Read, so that a client has
//     one path of ending, whatever happened.
//   - After a PINGREQ something must come within a limit; Paho's MQTT 5 client waits for a whole keep-alive.
//   - Packets leave in as few TLS records as can be; Paho's MQTT 5 client writes each in four pieces.
//
// Source of the frame format: MQTT 3.1.1 and MQTT 5.0 (OASIS), section 2 of each.
package link

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	maxUnsent = 16 << 20               // more than every message in flight at its largest
	flushTime = 150 * time.Millisecond // for what is unsent when Close is called
)

// ErrClosed is a link that this side has closed.
var ErrClosed = errors.New("closed by the agent")

// Options says what a link lets through.
type Options struct {
	MaxFrame int                             // bytes of a packet after its fixed header
	Check    func(first byte, len int) error // called with each fixed header; an error ends the link
	Silence  time.Duration                   // how long nothing may come after a PINGREQ
	Hold     <-chan struct{}                 // a loss shows in Read only after this has closed; nil: at once
}

// Link is a net.Conn with the guards. Only one goroutine may read.
type Link struct {
	net.Conn
	opt  Options
	lost chan struct{} // closed by the first end
	gone chan struct{} // closed when the writer has ended and the connection is closed

	// Of the reader alone.
	head []byte // checked and not yet handed out
	body int    // bytes of the current frame still to come

	mu      sync.Mutex
	err     error
	unsent  []byte
	writing int // bytes that the writer has taken and not yet written
	closing bool
	more    chan struct{} // capacity one
	hard    *time.Timer   // ends a close that does not get on
	silence *time.Timer   // runs while an answer is due
}

// New puts a link on conn and owns it.
func New(conn net.Conn, opt Options) *Link {
	l := &Link{Conn: conn, opt: opt, lost: make(chan struct{}), gone: make(chan struct{}), more: make(chan struct{}, 1)}
	go l.writeLoop()
	return l
}

// Lost is closed when the link has ended, by whichever side.
func (l *Link) Lost() <-chan struct{} { return l.lost }

// Gone is closed when the connection is closed and the writer has ended.
func (l *Link) Gone() <-chan struct{} { return l.gone }

// Err says why the link has ended; nil while it stands.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Fail ends the link at once.
func (l *Link) Fail(err error) {
	if l.end(err) {
		_ = raw(l.Conn).Close()
		l.wake()
	}
}

// Close writes what is unsent, if that is possible quickly, and ends the link. It does not wait for that.
func (l *Link) Close() error {
	l.mu.Lock()
	first := !l.closing && l.err == nil
	l.closing = true
	if first {
		l.hard = time.AfterFunc(2*flushTime, func() { _ = raw(l.Conn).Close() })
	}
	l.mu.Unlock()
	if first {
		_ = l.Conn.SetWriteDeadline(time.Now().Add(flushTime))
		l.wake()
	}
	return nil
}

// end records the first reason.
func (l *Link) end(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.err = err
	l.unsent = nil
	if l.silence != nil {
		l.silence.Stop()
	}
	close(l.lost)
	return true
}

func (l *Link) wake() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// Write hands p over to the writer. On a link that has ended p is discarded: Read tells.
func (l *Link) Write(p []byte) (int, error) {
	l.mu.Lock()
	if l.err != nil || l.closing {
		l.mu.Unlock()
		return len(p), nil
	}
	if l.writing+len(l.unsent)+len(p) > maxUnsent {
		l.mu.Unlock()
		l.Fail(fmt.Errorf("%d MiB wait to be sent: the hub takes nothing", maxUnsent>>20))
		return len(p), nil
	}
	l.unsent = append(l.unsent, p...)
	if len(p) == 2 && p[0] == pingReq && p[1] == 0 {
		l.expect()
	}
	l.mu.Unlock()
	l.wake()
	return len(p), nil
}

const pingReq = 0xC0 // MQTT 3.1.1 and 5.0, section 3.12.1

// expect starts the wait for any packet. mu is held.
func (l *Link) expect() {
	if l.silence == nil {
		l.silence = time.AfterFunc(l.opt.Silence, func() {
			l.Fail(fmt.Errorf("the hub has been silent for %v after a ping", l.opt.Silence))
		})
	}
}

// heard ends the wait.
func (l *Link) heard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silence != nil {
		l.silence.Stop()
		l.silence = nil
	}
}

func (l *Link) writeLoop() {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.hard != nil {
			l.hard.Stop()
		}
		close(l.gone)
	}()
	for range l.more {
		for {
			l.mu.Lock()
			out, closing, ended := l.unsent, l.closing, l.err != nil
			l.unsent, l.writing = nil, len(out)
			l.mu.Unlock()
			if ended {
				return
			}
			if len(out) == 0 {
				if closing {
					l.end(ErrClosed)
					_ = l.Conn.Close() // with TLS's own goodbye
					return
				}
				break
			}
			if _, err := l.Conn.Write(out); err != nil {
				l.Fail(l.lossOf(err))
				return
			}
		}
	}
}

// raw is the connection under TLS: closing it does not wait for an alert to be written.
func raw(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// Read hands out checked frames. The end of the link is an error whose text never says "use of closed network
// connection", because Paho's 3.1.1 client passes over such an error and would wait forever.
func (l *Link) Read(p []byte) (int, error) {
	n, err := l.read(p)
	if err == nil {
		return n, nil
	}
	l.Fail(l.lossOf(err))
	if l.opt.Hold != nil {
		<-l.opt.Hold
	}
	return n, fmt.Errorf("link: %w", l.Err())
}

func (l *Link) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(l.head) == 0 && l.body == 0 {
		if err := l.readHeader(); err != nil {
			return 0, err
		}
	}
	if len(l.head) > 0 {
		n := copy(p, l.head)
		l.head = l.head[n:]
		return n, nil
	}
	n, err := l.Conn.Read(p[:min(len(p), l.body)])
	l.body -= n
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}

// readHeader reads and checks the next fixed header: a byte of type and flags, and up to four of remaining length.
func (l *Link) readHeader() error {
	var buf [5]byte
	length, used := 0, 0
	for used < 2 || buf[used-1]&0x80 != 0 {
		if used == len(buf) {
			return errors.New("a packet's length has more than four bytes")
		}
		if _, err := io.ReadFull(l.Conn, buf[used:used+1]); err != nil {
			return err
		}
		if used > 0 {
			length |= int(buf[used]&0x7f) << (7 * (used - 1))
		}
		used++
	}
	l.heard()
	if length > l.opt.MaxFrame {
		return fmt.Errorf("the hub announces a packet of %d bytes: %d are allowed", length, l.opt.MaxFrame)
	}
	if l.opt.Check != nil {
		if err := l.opt.Check(buf[0], length); err != nil {
			return err
		}
	}
	l.head, l.body = append(l.head[:0], buf[:used]...), length
	return nil
}

// lossOf puts the ends that the network reports into words.
func (l *Link) lossOf(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return ErrClosed
	}
	for _, far := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, far) {
			return ErrHub
		}
	}
	return err
}

// ErrHub is an end that came from the other side.
var ErrHub = errors.New("the hub closed the connection")

// Batch makes one write of all that a client writes between Lock and Unlock, as Paho's MQTT 5 client does for each
// packet with a connection that has both.
type Batch struct {
	*Link
	mu  sync.Mutex
	buf []byte
}

// Lock starts a packet.
func (b *Batch) Lock() { b.mu.Lock() }

// Write adds to the packet.
func (b *Batch) Write(p []byte) (int, error) {
	b.buf = append(b.buf, p...)
	return len(p), nil
}

// Unlock sends the packet.
func (b *Batch) Unlock() {
	_, _ = b.Link.Write(b.buf) // never fails
	b.buf = b.buf[:0]
	if cap(b.buf) > 64<<10 {
		b.buf = nil // a large message is rare
	}
	b.mu.Unlock()
}
