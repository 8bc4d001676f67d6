package cctalk

import (
	"bytes"
	"errors"
	"testing"
)

// The vectors are those of ccTalk Generic Specification 4.7 and the SR3 manual TSP005; the CRC vector follows from
// the polynomial.
func TestFrames(t *testing.T) {
	for _, row := range []struct {
		name string
		crc  bool
		wire []byte
		want frame
	}{
		{"request category", false, []byte{2, 0, 1, 245, 8}, frame{dest: 2, src: 1, header: 245}},
		{"category", false, append(append([]byte{1, 13, 2, 0}, "Coin Acceptor"...), 22), frame{dest: 1, src: 2, data: []byte("Coin Acceptor")}},
		{"request credit", false, []byte{2, 0, 1, 229, 24}, frame{dest: 2, src: 1, header: 229}},
		{"credit", false, []byte{1, 11, 2, 0, 6, 6, 4, 0, 20, 0, 23, 6, 4, 13, 2, 158}, frame{dest: 1, src: 2, data: []byte{6, 6, 4, 0, 20, 0, 23, 6, 4, 13, 2}}},
		{"request inhibit", false, []byte{2, 0, 1, 230, 23}, frame{dest: 2, src: 1, header: 230}},
		{"inhibit", false, []byte{1, 2, 2, 0, 0, 0, 251}, frame{dest: 1, src: 2, data: []byte{0, 0}}},
		{"poll", false, []byte{2, 0, 1, 254, 255}, frame{dest: 2, src: 1, header: 254}},
		{"acknowledge", false, []byte{1, 0, 2, 0, 253}, frame{dest: 1, src: 2}},
		{"poll of 40 with CRC", true, []byte{0x28, 0, 0xb6, 0xfe, 0x21}, frame{dest: 40, header: 254}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, n, err := parse(row.wire, row.crc)
			if err != nil || n != len(row.wire) {
				t.Fatalf("parse: %d bytes, %v", n, err)
			}
			if got.dest != row.want.dest || got.src != row.want.src || got.header != row.want.header || !bytes.Equal(got.data, row.want.data) {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if wire := row.want.encode(row.crc); !bytes.Equal(wire, row.wire) {
				t.Errorf("encoded % x, want % x", wire, row.wire)
			}
		})
	}
}

func TestFramesThatAreNone(t *testing.T) {
	for _, row := range []struct {
		name string
		crc  bool
		wire []byte
		want error
	}{
		{"nothing", false, nil, errShort},
		{"half", false, []byte{1, 2, 2, 0, 0}, errShort},
		{"sum", false, []byte{1, 0, 2, 0, 252}, errChecksum},
		{"crc low", true, []byte{0x28, 0, 0xb7, 0xfe, 0x21}, errChecksum},
		{"crc high", true, []byte{0x28, 0, 0xb6, 0xfe, 0x20}, errChecksum},
		{"simple where CRC is meant", true, []byte{1, 0, 2, 0, 253}, errChecksum},
		{"too long", false, []byte{1, 253, 2, 0}, errForeign},
	} {
		if _, _, err := parse(row.wire, row.crc); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{1, 11, 2, 0, 6, 6, 4, 0, 20, 0, 23, 6, 4, 13, 2, 158}, false)
	f.Add([]byte{0x28, 0, 0xb6, 0xfe, 0x21}, true)
	f.Fuzz(func(t *testing.T, p []byte, crc bool) {
		got, n, err := parse(p, crc)
		if err != nil {
			return
		}
		if back := got.encode(crc); !bytes.Equal(back, p[:n]) {
			t.Errorf("% x became % x", p[:n], back)
		}
	})
}

func FuzzCents(f *testing.F) {
	for _, s := range []string{"EU100A", "EU050B", "......", "HU1K0A", "XX1M0A", "EUK00A", "", "EU-10A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if v, ok := cents(id); ok && (v < 0 || v > 999_000) {
			t.Errorf("%q is worth %d", id, v)
		}
		_ = cleanID([]byte(id))
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"serial":12345,"counter":17,"credits":42}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		if rec, err := parseRecord(p); err == nil && (rec.Serial < -1 || rec.Serial > 0xffffff) {
			t.Errorf("%q passed as %+v", p, rec)
		}
	})
}

func FuzzReading(f *testing.F) {
	f.Add([]byte{6, 6, 4, 0, 20, 0, 23, 6, 4, 13, 2}, byte(1))
	f.Fuzz(func(t *testing.T, p []byte, last byte) {
		r, err := parseReading(p)
		if err != nil {
			return
		}
		c := r.since(last)
		if len(c.fresh) > depth || c.lost < 0 || c.lost > 250 {
			t.Errorf("%v since %d: %+v", r, last, c)
		}
		for _, e := range c.fresh {
			if e.none() || e.counter == 0 {
				t.Errorf("%v since %d credits nothing: %+v", r, last, c)
			}
		}
	})
}

func TestCents(t *testing.T) {
	for id, want := range map[string]int{
		"EU100A": 100, "EU050B": 50, "EU001A": 1, "HU1K0A": 1000, "HU1K5A": 1500, "HU10KA": 10000, "HU2K5A": 2500,
		"......": -1, "EU1A0A": -1, "TOKEN1": -1, "EU10": -1, "EUK10A": -1, "EU1M0A": -1, "EU-10A": -1, "EU1KKA": -1,
	} {
		v, ok := cents(id)
		if !ok {
			v = -1
		}
		if v != want {
			t.Errorf("%s is worth %d, want %d", id, v, want)
		}
	}
}
