package simbus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/internal/edges"
)

// conn is the connection of one open wire. A goroutine reads it until it ends; Close waits for that.
type conn struct {
	nc      net.Conn
	edges   *edges.Queue // of a digital input, else nil
	ended   chan struct{}
	writing sync.Mutex

	mu      sync.Mutex
	lastID  uint32
	waiting map[uint32]chan<- reply
	err     error // why the connection is over
}

type reply struct {
	code byte
	data []byte
}

// open connects to the wire "<socket>#<name>". payload is what Open says before the name.
func open(ctx context.Context, target string, payload []byte, q *edges.Queue) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	i := strings.LastIndexByte(target, '#')
	if i <= 0 || i == len(target)-1 {
		return nil, fmt.Errorf("%w: write sim:<socket>#<wire>", hal.ErrBadURI)
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", target[:i])
	if err != nil {
		return nil, dialError(err)
	}
	c := &conn{nc: nc, edges: q, ended: make(chan struct{}), waiting: make(map[uint32]chan<- reply)}
	answer := c.expect(0)
	go c.read()
	_, err = c.exchange(ctx, 0, answer, TypeOpen, append(payload, target[i+1:]...))
	if err != nil {
		c.end(hal.ErrClosed)
		<-c.ended
		return nil, err
	}
	return c, nil
}

func dialError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing serves the socket; is twinbay-sim running? %w (%w)", hal.ErrGone, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", hal.ErrDenied, err)
	}
	return err
}

// call sends a request and waits for its result.
func (c *conn) call(ctx context.Context, typ byte, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.lastID++
	if c.lastID == 0 {
		c.lastID = 1 // 0 is Open's
	}
	id := c.lastID
	c.mu.Unlock()
	return c.exchange(ctx, id, c.expect(id), typ, append(binary.BigEndian.AppendUint32(nil, id), payload...))
}

// expect makes room for the result of request id.
func (c *conn) expect(id uint32) <-chan reply {
	answer := make(chan reply, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[id] = answer
	return answer
}

func (c *conn) exchange(ctx context.Context, id uint32, answer <-chan reply, typ byte, payload []byte) ([]byte, error) {
	defer c.forget(id)
	if err := c.write(ctx, typ, payload); err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		return r.data, errorOf(r.code, string(r.data))
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ended:
	}
	// The last result may have come together with the end.
	select {
	case r := <-answer:
		return r.data, errorOf(r.code, string(r.data))
	default:
		return nil, c.reason()
	}
}

// forget drops the room for a result; when that comes later, nobody is told.
func (c *conn) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *conn) write(ctx context.Context, typ byte, payload []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	limit := time.Now().Add(time.Second)
	if t, ok := ctx.Deadline(); ok && t.Before(limit) {
		limit = t
	}
	c.nc.SetWriteDeadline(limit)
	if err := WriteFrame(c.nc, typ, payload); err != nil {
		// Half a frame may be out: nothing more can be said on this connection.
		c.end(fmt.Errorf("the simulator takes no requests: %w (%w)", hal.ErrGone, err))
		return c.reason()
	}
	return nil
}

// end closes the connection; the first reason counts, but hal.ErrClosed wins.
func (c *conn) end(reason error) {
	c.mu.Lock()
	if c.err == nil || reason == hal.ErrClosed {
		c.err = reason
	}
	c.mu.Unlock()
	c.nc.Close()
}

func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close implements the wires' Close.
func (c *conn) Close() error {
	c.end(hal.ErrClosed)
	<-c.ended
	if c.edges != nil {
		c.edges.End(hal.ErrClosed, true)
	}
	return nil
}

func (c *conn) read() {
	defer close(c.ended)
	r := bufio.NewReaderSize(c.nc, 512)
	for {
		typ, payload, err := ReadFrame(r)
		if err == nil {
			err = c.take(typ, payload)
		}
		if err != nil {
			c.end(fmt.Errorf("the simulator unplugged the wire or went away: %w (%w)", hal.ErrGone, err))
			if c.edges != nil {
				c.edges.End(c.reason(), false)
			}
			return
		}
	}
}

// take handles one frame of the server. It is given outside bytes.
func (c *conn) take(typ byte, payload []byte) error {
	switch typ {
	case TypeResult:
		if len(payload) < 5 {
			return fmt.Errorf("simbus: a result of %d bytes; at least 5 are needed", len(payload))
		}
		id := binary.BigEndian.Uint32(payload)
		c.mu.Lock()
		defer c.mu.Unlock()
		if answer, ok := c.waiting[id]; ok {
			delete(c.waiting, id) // a second result of the same id is nobody's
			answer <- reply{payload[4], payload[5:]}
		}
		return nil
	case TypeEdgeSeen:
		if len(payload) != 13 || c.edges == nil {
			return fmt.Errorf("simbus: an edge of %d bytes; 13 are needed, on a digital input", len(payload))
		}
		c.edges.Push(hal.Edge{
			Level: payload[0] != 0,
			At:    time.Unix(0, int64(binary.BigEndian.Uint64(payload[1:]))),
			Seq:   binary.BigEndian.Uint32(payload[9:]),
		})
		return nil
	}
	return fmt.Errorf("simbus: unknown frame type %#02x", typ)
}
