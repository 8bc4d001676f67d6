package hubtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipeCarriesBytesBothWaysAtOnce(t *testing.T) {
	a, b := newPipe()
	defer a.Close()
	defer b.Close()
	for _, w := range []net.Conn{a, b} { // with net.Pipe the first of these waits for ever
		if n, err := w.Write([]byte("hello")); n != 5 || err != nil {
			t.Fatal(n, err)
		}
	}
	for _, r := range []net.Conn{a, b} {
		got := make([]byte, 10)
		if n, err := r.Read(got); string(got[:n]) != "hello" || err != nil {
			t.Errorf("%q, %v", got[:n], err)
		}
	}
}

func TestPipeLongerThanItsBuffer(t *testing.T) {
	a, b := newPipe()
	sent := bytes.Repeat([]byte("0123456789"), 3*pipeBuffer/10)
	go func() {
		_, _ = a.Write(sent)
		_ = a.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe()
		start := time.Now()
		_ = a.SetDeadline(start.Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("Read gave up after %v", d)
		}
		_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, pipeBuffer+1))
		if n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %d, %v", n, err)
		}
		_ = a.SetDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			_, _ = b.Write([]byte("x"))
		}()
		if _, err := a.Read(make([]byte, 1)); err != nil {
			t.Errorf("Read without a deadline: %v", err)
		}
	})
}

// A deadline in the past, set by another goroutine, is how a read is broken off.
func TestPipeDeadlineBreaksARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newPipe()
		go func() {
			time.Sleep(time.Second)
			_ = a.SetReadDeadline(time.Unix(1, 0))
		}()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestPipeClose(t *testing.T) {
	a, b := newPipe()
	_, _ = a.Write([]byte("last words"))
	_ = a.Close()
	if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
		t.Errorf("the other end reads %q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the other end writes: %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the closed end reads: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the closed end writes: %v", err)
	}
}
