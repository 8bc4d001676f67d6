package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func pair(t *testing.T, opt Options) (*Link, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	if opt.MaxFrame == 0 {
		opt.MaxFrame = 1000
	}
	if opt.Silence == 0 {
		opt.Silence = 10 * time.Second
	}
	l := New(near, opt)
	t.Cleanup(func() {
		l.Fail(ErrClosed)
		_ = far.Close()
		<-l.Gone()
	})
	return l, far
}

func TestReadHandsOutFrames(t *testing.T) {
	var seen []string
	l, far := pair(t, Options{Check: func(first byte, n int) error {
		seen = append(seen, fmt.Sprintf("%#x:%d", first, n))
		return nil
	}})
	long := append([]byte{0x30, 0xAC, 0x02}, bytes.Repeat([]byte("x"), 300)...)
	all := append([]byte{0xD0, 0x00, 0x40, 0x02, 0, 7}, long...)
	go func() {
		_, _ = far.Write(all)
		_ = far.Close()
	}()
	got, err := io.ReadAll(iotest.OneByteReader(l))
	if !bytes.Equal(got, all) {
		t.Errorf("read %d bytes, want %d", len(got), len(all))
	}
	if err == nil || !strings.Contains(err.Error(), "the hub closed the connection") {
		t.Errorf("end: %v", err)
	}
	if want := "[0xd0:0 0x40:2 0x30:300]"; fmt.Sprint(seen) != want {
		t.Errorf("checked %v, want %v", seen, want)
	}
}

func TestBadFramesEndTheLink(t *testing.T) {
	for _, test := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"too large", []byte{0x30, 0xE9, 0x07}, "announces a packet of 1001 bytes: 1000 are allowed"},
		{"256 MiB", []byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}, "announces a packet of 268435455 bytes"},
		{"five bytes of length", []byte{0x30, 0x80, 0x80, 0x80, 0x80}, "more than four bytes"},
		{"refused by check", []byte{0x62, 0x02}, "no such packet"},
		{"cut in a header", []byte{0x30, 0x80}, "closed the connection"},
		{"cut in a body", []byte{0x30, 0x05, 'a'}, "closed the connection"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, far := pair(t, Options{Check: func(first byte, _ int) error {
				if first>>4 == 6 {
					return errors.New("no such packet")
				}
				return nil
			}})
			go func() {
				_, _ = far.Write(test.bytes)
				_ = far.Close()
			}()
			_, err := io.ReadAll(l)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("err = %v, want %q", err, test.want)
			}
			<-l.Lost()
			if l.Err() == nil {
				t.Error("no reason is kept")
			}
		})
	}
}

func TestWriteNeverBlocksOrFails(t *testing.T) {
	l, _ := pair(t, Options{}) // the far end reads nothing
	chunk := make([]byte, 1<<20)
	for i := range 16 {
		if n, err := l.Write(chunk); n != len(chunk) || err != nil {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
	}
	if _, err := l.Write(chunk[:1]); err != nil {
		t.Fatal(err)
	}
	<-l.Lost()
	if err := l.Err(); !strings.Contains(err.Error(), "takes nothing") {
		t.Errorf("reason = %v", err)
	}
	if n, err := l.Write(chunk); n != len(chunk) || err != nil {
		t.Errorf("write after the end: %d, %v", n, err)
	}
}

func TestSilenceAfterPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, far := pair(t, Options{})
		go func() { _, _ = io.Copy(io.Discard, l) }()
		ping := []byte{0xC0, 0x00}
		buf := make([]byte, 2)

		for range 3 { // an answered ping, three times
			_, _ = l.Write(ping)
			if _, err := io.ReadFull(far, buf); err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Second)
			_, _ = far.Write([]byte{0xD0, 0x00})
			time.Sleep(time.Minute)
		}
		if err := l.Err(); err != nil {
			t.Fatalf("ended though the pings were answered: %v", err)
		}

		start := time.Now()
		_, _ = l.Write(ping)
		_, _ = io.ReadFull(far, buf)
		<-l.Lost()
		if took := time.Since(start); took != 10*time.Second || !strings.Contains(l.Err().Error(), "silent") {
			t.Errorf("ended after %v: %v", took, l.Err())
		}
	})
}

func TestCloseFlushes(t *testing.T) {
	l, far := pair(t, Options{})
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(far)
		got <- b
	}()
	_, _ = l.Write([]byte{0xE0, 0x00})
	_ = l.Close()
	_ = l.Close()
	<-l.Gone()
	if b := <-got; !bytes.Equal(b, []byte{0xE0, 0x00}) {
		t.Errorf("the far end got %x", b)
	}
	if !errors.Is(l.Err(), ErrClosed) {
		t.Errorf("reason = %v", l.Err())
	}
}

func TestCloseOfAStuckLinkIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := pair(t, Options{})
		_, _ = l.Write([]byte{0xE0, 0x00})
		synctest.Wait()
		start := time.Now()
		_ = l.Close()
		<-l.Gone()
		if took := time.Since(start); took > 2*flushTime {
			t.Errorf("closing took %v", took)
		}
	})
}

func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		l, far := pair(t, Options{Hold: hold})
		read := make(chan error, 1)
		go func() {
			_, err := l.Read(make([]byte, 1))
			read <- err
		}()
		_ = far.Close()
		<-l.Lost()
		synctest.Wait()
		select {
		case err := <-read:
			t.Fatalf("Read answered %v before it was let go", err)
		default:
		}
		close(hold)
		if err := <-read; err == nil {
			t.Error("Read answered no error")
		}
	})
}

// Paho's 3.1.1 client passes over an error with this text and then never ends.
func TestErrorTextIsNotOfAClosedConnection(t *testing.T) {
	l, _ := pair(t, Options{})
	_ = l.Close()
	_, err := l.Read(make([]byte, 1))
	if err == nil || strings.Contains(err.Error(), net.ErrClosed.Error()) {
		t.Errorf("err = %v", err)
	}
}

func TestBatchIsOneWrite(t *testing.T) {
	l, far := pair(t, Options{})
	b := &Batch{Link: l}
	b.Lock()
	for _, part := range []string{"ab", "cd", "e"} {
		_, _ = b.Write([]byte(part))
	}
	b.Unlock()
	buf := make([]byte, 16)
	n, err := far.Read(buf)
	if err != nil || string(buf[:n]) != "abcde" {
		t.Errorf("one read gives %q, %v", buf[:n], err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{0x20, 0x02, 0x00, 0x00, 0xD0, 0x00})
	f.Add([]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01})
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		frames := 0
		l := New(near, Options{MaxFrame: 64, Silence: time.Second, Check: func(_ byte, n int) error {
			if n > 64 {
				t.Errorf("a frame of %d bytes gets through", n)
			}
			frames++
			return nil
		}})
		go func() {
			_, _ = far.Write(in)
			_ = far.Close()
		}()
		out, err := io.ReadAll(l)
		if err == nil || len(out) > len(in) || !bytes.Equal(out, in[:len(out)]) {
			t.Errorf("%x: read %x, %v", in, out, err)
		}
		<-l.Gone()
	})
}
