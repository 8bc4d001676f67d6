package hubtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how much one end takes before the other has read: about what a socket holds. net.Pipe takes nothing,
// so that two ends that write at once, as TLS does when it closes, wait for each other for ever.
const pipeBuffer = 64 * 1024

// newPipe returns the two ends of a connection in memory, with deadlines, that may be used inside a synctest bubble:
// whoever waits, waits on a condition of that bubble.
func newPipe() (client, server net.Conn) {
	up, down := newStream(), newStream()
	return &end{in: down, out: up, name: "client"}, &end{in: up, out: down, name: "server"}
}

// stream is one direction.
type stream struct {
	mu       sync.Mutex
	changed  *sync.Cond
	buf      []byte
	finished bool // the writer has closed: what is left is read, then io.EOF
	broken   bool // the reader has closed: nobody will ever read
	read     limit
	write    limit
}

// limit is a deadline of one side.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (l *limit) passed() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

// set changes a deadline and wakes those that wait, now and when it passes.
func (s *stream) set(l *limit, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.at = at
	if d := time.Until(at); !at.IsZero() && d > 0 && !s.finished && !s.broken {
		l.timer = time.AfterFunc(d, s.wake)
	}
	s.changed.Broadcast()
}

func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

func (s *stream) get(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.broken:
			return 0, net.ErrClosed
		case s.read.passed():
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case len(s.buf) > 0:
			n := copy(b, s.buf)
			s.buf = s.buf[:copy(s.buf, s.buf[n:])]
			s.changed.Broadcast()
			return n, nil
		case s.finished:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) put(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := 0
	for {
		switch {
		case s.finished:
			return done, net.ErrClosed
		case s.broken:
			return done, io.ErrClosedPipe
		case s.write.passed():
			return done, os.ErrDeadlineExceeded
		case done == len(b):
			return done, nil
		}
		if n := min(len(b)-done, pipeBuffer-len(s.buf)); n > 0 {
			s.buf = append(s.buf, b[done:done+n]...)
			done += n
			s.changed.Broadcast()
			if done == len(b) {
				return done, nil
			}
		}
		s.changed.Wait()
	}
}

// close ends the stream for one of its sides. Nobody waits on it from then on, so that its timers go too.
func (s *stream) close(side *bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*side = true
	for _, l := range []*limit{&s.read, &s.write} {
		if l.timer != nil {
			l.timer.Stop()
		}
	}
	s.changed.Broadcast()
}

// end is one end of a connection.
type end struct {
	in, out *stream
	name    string
}

func (e *end) Read(b []byte) (int, error)  { return e.in.get(b) }
func (e *end) Write(b []byte) (int, error) { return e.out.put(b) }

func (e *end) Close() error {
	e.in.close(&e.in.broken)
	e.out.close(&e.out.finished)
	return nil
}

func (e *end) SetDeadline(t time.Time) error {
	e.in.set(&e.in.read, t)
	e.out.set(&e.out.write, t)
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.set(&e.in.read, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.set(&e.out.write, t)
	return nil
}

func (e *end) LocalAddr() net.Addr { return memory(e.name) }

func (e *end) RemoteAddr() net.Addr {
	if e.name == "client" {
		return memory("server")
	}
	return memory("client")
}

// memory is the address of an end.
type memory string

func (m memory) Network() string { return "memory" }
func (m memory) String() string  { return string(m) }
