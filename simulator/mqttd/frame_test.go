package mqttd

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func noWait() error { return nil }

func TestFramesAreCutOutOfAStream(t *testing.T) {
	big := append([]byte{0x30, 0x90, 0x4e}, bytes.Repeat([]byte{7}, 10000)...)
	stream := bytes.Join([][]byte{{0xc0, 0}, {0x40, 2, 0, 1}, big, {0xe0, 0}}, nil)
	sources := map[string]io.Reader{
		"whole":       bytes.NewReader(stream),
		"bytewise":    iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":      iotest.HalfReader(bytes.NewReader(stream)),
		"EOF at once": iotest.DataErrReader(bytes.NewReader(stream)),
	}
	for name, src := range sources {
		t.Run(name, func(t *testing.T) {
			r := newFrameReader(src, noWait)
			var got []byte
			for range 4 {
				f, err := r.next()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, f.raw...)
			}
			if !bytes.Equal(got, stream) {
				t.Error("the frames don't add up to the stream")
			}
			if _, err := r.next(); err != io.EOF {
				t.Errorf("at the end: %v, want io.EOF", err)
			}
		})
	}
}

func TestFrameErrors(t *testing.T) {
	tests := []struct {
		name   string
		stream []byte
		want   error
	}{
		{"cut in the header", []byte{0x30}, io.ErrUnexpectedEOF},
		{"cut in the body", []byte{0x30, 5, 1}, io.ErrUnexpectedEOF},
		{"length of five bytes", []byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, errMalformed},
		{"longest length", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, errTooLarge},
		{"too long by one", appendLength([]byte{0x30}, maxFrame+1), errTooLarge},
		{"nothing", nil, io.EOF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := newFrameReader(bytes.NewReader(test.stream), noWait).next()
			if !errors.Is(err, test.want) {
				t.Errorf("err = %v, want %v", err, test.want)
			}
		})
	}
}

// A length alone must not make the reader reserve memory.
func TestFrameBufferGrowsWithWhatArrives(t *testing.T) {
	r := newFrameReader(bytes.NewReader(appendLength([]byte{0x10}, maxFrame)), noWait)
	if _, err := r.next(); err != io.ErrUnexpectedEOF {
		t.Fatalf("err = %v", err)
	}
	if cap(r.buf) > firstRead {
		t.Errorf("the buffer has %d bytes after a header of 4", cap(r.buf))
	}
}

func TestLargeBufferGoesWithItsFrame(t *testing.T) {
	large := appendPublish(nil, publish{topic: "t", payload: make([]byte, 100_000)})
	r := newFrameReader(bytes.NewReader(append(large, 0xc0, 0, 0xc0, 0)), noWait)
	for range 3 {
		if _, err := r.next(); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = r.next()
	if cap(r.buf) > busyRead {
		t.Errorf("%d bytes are kept", cap(r.buf))
	}
}

func TestFrameOfTheLongestMessagePasses(t *testing.T) {
	p := publish{topic: "devices/d/messages/events/", payload: make([]byte, maxMessage)}
	f, err := newFrameReader(bytes.NewReader(appendPublish(nil, p)), noWait).next()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodePublish(f.flags(), f.body())
	if err != nil || len(got.payload) != maxMessage {
		t.Errorf("%d bytes, %v", len(got.payload), err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0xc0, 0, 0x40, 2, 0, 1}, uint8(3))
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		r := newFrameReader(&stepReader{stream, int(step)%7 + 1}, noWait)
		var got []byte
		for {
			f, err := r.next()
			if err != nil {
				break
			}
			if _, head, err := frameSize(f.raw); err != nil || head != f.head {
				t.Fatalf("header of %d bytes, then %d, %v", f.head, head, err)
			}
			got = append(got, f.raw...)
		}
		if !bytes.HasPrefix(stream, got) {
			t.Fatal("the frames are not the stream")
		}
	})
}

// stepReader hands out a few bytes at a time.
type stepReader struct {
	b    []byte
	step int
}

func (s *stepReader) Read(b []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.b[:min(s.step, len(s.b))])
	s.b = s.b[n:]
	return n, nil
}
