package simbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
)

// far is the other side of the socket, as the test plays it: frames in hex, after the protocol's comment.
type far struct {
	t  *testing.T
	nc net.Conn
}

// listenFar gives a target for the wire name and the far side of the next connection.
func listenFar(t *testing.T, name string) (target string, accept func() *far) {
	t.Helper()
	dir, err := os.MkdirTemp("", "simbus") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path + "#" + name, func() *far {
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
			return &far{t, nil}
		}
		t.Cleanup(func() { nc.Close() })
		return &far{t, nc}
	}
}

func (f *far) want(frame ...byte) {
	f.t.Helper()
	got := make([]byte, len(frame))
	f.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(f.nc, got); err != nil || !bytes.Equal(got, frame) {
		f.t.Errorf("the client sent % x, %v; want % x", got, err, frame)
	}
}

func (f *far) send(frame ...byte) {
	if _, err := f.nc.Write(frame); err != nil {
		f.t.Error(err)
	}
}

// granted answers an Open whose payload is p.
func (f *far) granted(p ...byte) {
	f.t.Helper()
	f.want(append(binary.BigEndian.AppendUint32(nil, uint32(len(p)+1)), append([]byte{TypeOpen}, p...)...)...)
	f.send(0, 0, 0, 6, TypeResult, 0, 0, 0, 0, CodeOK)
}

func TestI2CBytes(t *testing.T) {
	target, accept := listenFar(t, "cl")
	done := make(chan struct{})
	go func() {
		defer close(done)
		f := accept()
		f.granted(1, KindI2C, 0, 0, 0, 0, 0, 'c', 'l')
		f.want(0, 0, 0, 10, TypeTransfer, 0, 0, 0, 1, 0, 0x76, 0, 2, 0xd0)
		f.send(0, 0, 0, 8, TypeResult, 0, 0, 0, 1, CodeOK, 0x60, 0x61)
		f.want(0, 0, 0, 10, TypeTransfer, 0, 0, 0, 2, 0, 0x77, 0, 1, 0xd0)
		f.send(0, 0, 0, 9, TypeResult, 0, 0, 0, 2, CodeAbsent, 'n', 'o', '!')
		f.want(0, 0, 0, 9, TypeTransfer, 0, 0, 0, 3, 0, 0x76, 0, 1)
		f.send(0, 0, 0, 6, TypeResult, 0, 0, 0, 3, CodeOK) // one byte short
	}()
	bus, err := Driver{}.OpenI2C(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	r := make([]byte, 2)
	if err := bus.Tx(t.Context(), 0x76, []byte{0xd0}, r); err != nil || r[0] != 0x60 || r[1] != 0x61 {
		t.Errorf("read % x, %v", r, err)
	}
	if err := bus.Tx(t.Context(), 0x77, []byte{0xd0}, r[:1]); !errors.Is(err, hal.ErrAbsent) || !strings.Contains(err.Error(), "no!") {
		t.Errorf("err = %v, want ErrAbsent with the server's text", err)
	}
	if err := bus.Tx(t.Context(), 0x76, nil, r[:1]); err == nil {
		t.Error("an answer of the wrong length passed")
	}
	<-done
}

func TestInputBytes(t *testing.T) {
	target, accept := listenFar(t, "d")
	go func() {
		f := accept()
		f.granted(1, KindDigitalIn, ModeActiveLow|byte(hal.PullUp)<<ModeBiasShift, 0, 0, 0x4e, 0x20, 'd')
		f.send(0, 0, 0, 14, TypeEdgeSeen, 1, 0, 0, 0, 0, 0x3b, 0x9a, 0xca, 0x00, 0, 0, 0, 9)
		f.want(0, 0, 0, 5, TypeRead, 0, 0, 0, 1)
		f.send(0, 0, 0, 7, TypeResult, 0, 0, 0, 1, CodeOK, 1)
	}()
	in, err := Driver{}.OpenDigitalIn(t.Context(), target, hal.InputMode{ActiveLow: true, Bias: hal.PullUp, Debounce: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if e, err := in.Next(t.Context()); err != nil || !e.Level || e.Seq != 9 || !e.At.Equal(time.Unix(1, 0)) {
		t.Errorf("edge = %+v, %v", e, err)
	}
	if level, err := in.Read(t.Context()); err != nil || !level {
		t.Errorf("Read = %v, %v", level, err)
	}
}

func TestOutputBytes(t *testing.T) {
	target, accept := listenFar(t, "o")
	go func() {
		f := accept()
		f.granted(1, KindDigitalOut, ModeInitial, 0, 0, 0, 0, 'o')
		f.want(0, 0, 0, 6, TypeSet, 0, 0, 0, 1, 0)
		f.send(0, 0, 0, 6, TypeResult, 0, 0, 0, 1, CodeDenied)
	}()
	out, err := Driver{}.OpenDigitalOut(t.Context(), target, hal.OutputMode{Initial: true})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := out.Set(t.Context(), false); !errors.Is(err, hal.ErrDenied) || !out.Level() {
		t.Errorf("err = %v, level %v; want ErrDenied, and the level as it was", err, out.Level())
	}
}

func TestLateResultIsNobodys(t *testing.T) {
	target, accept := listenFar(t, "x")
	go func() {
		f := accept()
		f.granted(1, KindI2C, 0, 0, 0, 0, 0, 'x')
		f.want(0, 0, 0, 9, TypeTransfer, 0, 0, 0, 1, 0, 1, 0, 1) // no answer in time
		f.want(0, 0, 0, 9, TypeTransfer, 0, 0, 0, 2, 0, 1, 0, 1)
		f.send(0, 0, 0, 7, TypeResult, 0, 0, 0, 1, CodeOK, 0xaa)
		f.send(0, 0, 0, 7, TypeResult, 0, 0, 0, 2, CodeOK, 0xbb)
	}()
	bus, err := Driver{}.OpenI2C(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var r [1]byte
	if err := bus.Tx(ctx, 1, nil, r[:]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want DeadlineExceeded", err)
	}
	if err := bus.Tx(t.Context(), 1, nil, r[:]); err != nil || r[0] != 0xbb {
		t.Errorf("read %#02x, %v; want 0xbb", r[0], err)
	}
}

func TestBadFramesEndTheWire(t *testing.T) {
	for name, frame := range map[string][]byte{
		"too long":          {0, 1, 0, 0, TypeResult},
		"empty":             {0, 0, 0, 0, 0},
		"short result":      {0, 0, 0, 3, TypeResult, 0, 0},
		"edge on a bus":     {0, 0, 0, 14, TypeEdgeSeen, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9},
		"unknown type":      {0, 0, 0, 1, 0x7f},
		"a request of ours": {0, 0, 0, 5, TypeRead, 0, 0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			target, accept := listenFar(t, "x")
			go func() {
				f := accept()
				f.granted(1, KindI2C, 0, 0, 0, 0, 0, 'x')
				f.send(frame...)
			}()
			bus, err := Driver{}.OpenI2C(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			defer bus.Close()
			if err := bus.Tx(t.Context(), 1, nil, make([]byte, 1)); !errors.Is(err, hal.ErrGone) {
				t.Errorf("err = %v, want ErrGone", err)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	for target, want := range map[string]error{
		"no-hash":            hal.ErrBadURI,
		dir + "/none#door":   hal.ErrGone,
		dir + "/none#":       hal.ErrBadURI,
		"#door":              hal.ErrBadURI,
		dir + "/none#a#b":    hal.ErrGone,
		dir + "/x/y/z#climb": hal.ErrGone,
	} {
		if _, err := (Driver{}).OpenI2C(t.Context(), target); !errors.Is(err, want) {
			t.Errorf("%q: err = %v, want %v", target, err, want)
		}
	}
	if _, err := (Driver{}).OpenSerial(t.Context(), dir+"/s#coins", hal.SerialMode{}); !errors.Is(err, hal.ErrUnsupported) {
		t.Errorf("serial: err = %v, want ErrUnsupported", err)
	}
	target, accept := listenFar(t, "busy")
	go func() {
		f := accept()
		f.want(0, 0, 0, 12, TypeOpen, 1, KindDigitalIn, 0, 0, 0, 0, 0, 'b', 'u', 's', 'y')
		f.send(0, 0, 0, 6, TypeResult, 0, 0, 0, 0, CodeBusy)
	}()
	if _, err := (Driver{}).OpenDigitalIn(t.Context(), target, hal.InputMode{}); !errors.Is(err, hal.ErrBusy) {
		t.Errorf("refused: err = %v, want ErrBusy", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := (Driver{}).OpenDigitalIn(ctx, target, hal.InputMode{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that says nothing: err = %v, want DeadlineExceeded", err)
	}
}

func TestLimits(t *testing.T) {
	b := bus{}
	for _, c := range []struct{ w, r int }{{MaxData + 1, 0}, {0, MaxData + 1}} {
		if err := b.Tx(t.Context(), 1, make([]byte, c.w), make([]byte, c.r)); !errors.Is(err, hal.ErrUnsupported) {
			t.Errorf("write %d, read %d: err = %v, want ErrUnsupported", c.w, c.r, err)
		}
	}
	if err := WriteFrame(io.Discard, TypeTransfer, make([]byte, MaxFrame)); err == nil {
		t.Error("a frame beyond MaxFrame was written")
	}
}

func TestCodesKeepTheKind(t *testing.T) {
	for _, k := range kinds {
		if err := errorOf(CodeOf(k.err), "at the far end"); !errors.Is(err, k.err) {
			t.Errorf("%v came back as %v", k.err, err)
		}
	}
	if CodeOf(nil) != CodeOK || CodeOf(io.EOF) != CodeFailed || errorOf(CodeOK, "") != nil || errorOf(200, "x") == nil {
		t.Error("no error, or one that is none of ours, is not told apart")
	}
}

// TestI2CSuite runs against a server in a few lines; simulator/rig runs the suites against its own.
func TestI2CSuite(t *testing.T) {
	haltest.TestI2C(t, func(t *testing.T) haltest.I2CBench {
		target, accept := listenFar(t, "bus")
		served := make(chan *far, 1)
		go func() {
			f := accept()
			f.granted(1, KindI2C, 0, 0, 0, 0, 0, 'b', 'u', 's')
			served <- f
			for {
				typ, p, err := ReadFrame(f.nc)
				if err != nil || typ != TypeTransfer {
					return
				}
				answer := append(append([]byte{}, p[:4]...), CodeOK, 0x60)
				if binary.BigEndian.Uint16(p[4:]) != 0x76 {
					answer = append(answer[:4], CodeAbsent)
				}
				WriteFrame(f.nc, TypeResult, answer)
			}
		}()
		bus, err := Driver{}.OpenI2C(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { bus.Close() })
		f := <-served
		return haltest.I2CBench{Bus: bus, Present: 0x76, W: []byte{0xd0}, R: []byte{0x60}, Absent: 0x51, Unplug: func() { f.nc.Close() }}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 7, TypeResult, 0, 0, 0, 1, CodeOK, 1})
	f.Add([]byte{0, 0, 0, 14, TypeEdgeSeen, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		c := &conn{waiting: map[uint32]chan<- reply{}}
		c.expect(1)
		r := bytes.NewReader(p)
		for {
			typ, payload, err := ReadFrame(r)
			if err != nil {
				return
			}
			if len(payload) >= MaxFrame {
				t.Fatalf("a payload of %d bytes", len(payload))
			}
			var again bytes.Buffer
			if err := WriteFrame(&again, typ, payload); err != nil {
				t.Fatal(err)
			}
			if typ2, payload2, err := ReadFrame(&again); err != nil || typ2 != typ || !bytes.Equal(payload2, payload) {
				t.Fatalf("%#02x % x came back as %#02x % x, %v", typ, payload, typ2, payload2, err)
			}
			if c.take(typ, payload) != nil {
				return
			}
		}
	})
}
