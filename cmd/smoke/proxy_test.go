package main

import (
	"io"
	"net"
	"testing"
	"time"
)

func TestProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	p, err := newProxy()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.aim(echo.Addr().String())
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.address())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	echoes := func(c net.Conn) {
		t.Helper()
		var b [5]byte
		c.Write([]byte("hello"))
		if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:]) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	breaks := func(c net.Conn) {
		t.Helper()
		if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
			t.Fatalf("%d bytes, %v; want an end", n, err)
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Fatal(err)
		}
	}

	a := dial()
	echoes(a)
	p.slow(time.Millisecond)
	echoes(a)
	p.reset()
	breaks(a)
	b := dial()
	echoes(b)

	p.swallow(true)
	b.Write([]byte("later"))
	b.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := b.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatalf("%d bytes through a hole", n)
	}
	b.SetReadDeadline(time.Now().Add(10 * time.Second))
	p.swallow(false)
	var late [5]byte
	if _, err := io.ReadFull(b, late[:]); err != nil || string(late[:]) != "later" {
		t.Fatalf("%q, %v", late, err)
	}

	p.swallow(true)
	b.Write([]byte("never"))
	p.cut(true)
	p.swallow(false)
	breaks(b)
	if c, err := net.Dial("tcp", p.address()); err == nil { // or it is reset before Dial has returned
		c.SetDeadline(time.Now().Add(10 * time.Second))
		breaks(c)
	}
	p.cut(false)
	echoes(dial())
}
