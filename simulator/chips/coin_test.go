package chips

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// ask sends one command and returns the reply's bytes, after the line is quiet again.
func ask(t *testing.T, c *CoinAcceptor, header byte, data ...byte) []byte {
	t.Helper()
	return exchange(t, c, ccFrame{dest: c.cfg.Address, src: ccHost, header: header, data: data}.append(nil, c.cfg.CRC))
}

func exchange(t *testing.T, c *CoinAcceptor, p []byte) []byte {
	t.Helper()
	out := c.Receive(p)
	var got []byte
	for _, b := range out {
		got = append(got, b.B)
	}
	if len(out) > 0 {
		time.Sleep(time.Until(out[len(out)-1].At))
	}
	if c.cfg.NoEcho {
		return got
	}
	if len(got) < len(p) || !bytes.Equal(got[:len(p)], p) {
		t.Fatalf("echo of % x is % x", p, got)
	}
	return got[len(p):]
}

// data is the data of a good reply.
func data(t *testing.T, c *CoinAcceptor, header byte, d ...byte) []byte {
	t.Helper()
	r := ask(t, c, header, d...)
	if len(r) < ccOverhead || len(r) != int(r[1])+ccOverhead {
		t.Fatalf("header %d: reply % x", header, r)
	}
	f, ok := parseCCFrame(r, c.cfg.CRC)
	if !ok || f.dest != ccHost || f.header != ccReply || f.src != c.cfg.Address && !c.cfg.CRC {
		t.Fatalf("header %d: reply % x", header, r)
	}
	return f.data
}

// ready is an acceptor that takes all coins.
func ready(t *testing.T, cfg CoinConfig) *CoinAcceptor {
	t.Helper()
	c := NewCoinAcceptor(cfg)
	time.Sleep(ccBoot)
	data(t, c, 231, 0xff, 0xff)
	data(t, c, 229)
	return c
}

// TestVectors has the frames of Alberici's AL66 manual, section 6, and of the generic specification.
func TestVectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCoinAcceptor(CoinConfig{})
		time.Sleep(ccBoot)
		for _, v := range []struct{ ask, want []byte }{
			{[]byte{2, 0, 1, 254, 255}, []byte{1, 0, 2, 0, 253}},
			{[]byte{2, 0, 1, 245, 8}, append(append([]byte{1, 13, 2, 0}, "Coin Acceptor"...), 22)},
			{[]byte{2, 0, 1, 230, 23}, []byte{1, 2, 2, 0, 0, 0, 251}},
		} {
			if got := exchange(t, c, v.ask); !bytes.Equal(got, v.want) {
				t.Errorf("% x: reply % d, want % d", v.ask, got, v.want)
			}
		}
		// The manual's six events, oldest first; the first falls out of the five.
		data(t, c, 210, 6, 4)
		data(t, c, 210, 13, 2)
		c.event(1, 1)
		c.event(13, 2)
		c.event(6, 4)
		c.event(0, 23)
		c.event(0, 20)
		c.event(6, 4)
		if got, want := exchange(t, c, []byte{2, 0, 1, 229, 24}), []byte{1, 11, 2, 0, 6, 6, 4, 0, 20, 0, 23, 6, 4, 13, 2, 158}; !bytes.Equal(got, want) {
			t.Errorf("229: % d, want % d", got, want)
		}
	})
}

// TestCRC: poll of address 40, computed from the specification's definition (CCITT, 0x1021, initial value 0).
func TestCRC(t *testing.T) {
	if got, want := (ccFrame{dest: 40, header: 254}).append(nil, true), []byte{0x28, 0x00, 0xb6, 0xfe, 0x21}; !bytes.Equal(got, want) {
		t.Errorf("poll % x, want % x", got, want)
	}
	if got := crcCCITT([]byte("123456789")); got != 0x31c3 { // the check value of CRC-16/XMODEM
		t.Errorf("CRC of the check string is %#04x, want 0x31c3", got)
	}
	synctest.Test(t, func(t *testing.T) {
		c := ready(t, CoinConfig{CRC: true, Address: 40})
		if got := data(t, c, 245); string(got) != "Coin Acceptor" {
			t.Errorf("category %q", got)
		}
		if got := exchange(t, c, []byte{40, 0, 1, 254, 217}); len(got) != 0 { // a simple checksum
			t.Errorf("a frame with a simple checksum was answered by % x", got)
		}
	})
}

func TestReplyLengths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ready(t, CoinConfig{Serial: 0x123456})
		for header, want := range map[byte]string{
			254: "", 246: "TWB", 245: "Coin Acceptor", 244: "SIM5", 242: "\x56\x34\x12", 241: "SIM5-1.0", 192: "EU1",
			249: "\x02\x14", 232: "\x00", 230: "\xff\xff", 228: "nak", 227: "\x01", 4: "\x01\x04\x07", 3: "", 2: "\x00\x00\x00",
		} {
			if want == "nak" { // its data is missing
				if r := ask(t, c, header); len(r) != 5 || r[3] != ccNAK {
					t.Errorf("header %d without data: % x, want NAK", header, r)
				}
				continue
			}
			if got := data(t, c, header); string(got) != want {
				t.Errorf("header %d: %q, want %q", header, got, want)
			}
		}
		if n := len(data(t, c, 229)); n != 11 {
			t.Errorf("229 has %d bytes, want 11", n)
		}
		for position, want := range map[byte]string{1: "EU200A", 6: "EU005A", 7: "......", 16: "......"} {
			if got := data(t, c, 184, position); string(got) != want {
				t.Errorf("coin %d is %q, want %q", position, got, want)
			}
		}
		if r := ask(t, c, 184, 17); len(r) != 5 || r[3] != ccNAK {
			t.Errorf("coin 17: % x, want NAK", r)
		}
		if r := ask(t, c, 77); len(r) != 0 {
			t.Errorf("unknown header: % x, want silence", r)
		}
		data(t, c, 210, 2, 5)
		if got := data(t, c, 209, 2); got[0] != 5 {
			t.Errorf("path of coin 2 is %d, want 5", got[0])
		}
	})
}

func TestInhibits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCoinAcceptor(CoinConfig{})
		insert := func(id string, want Outcome) {
			t.Helper()
			if got := c.Insert(id); got != want {
				t.Errorf("%s: %s, want %s", id, got, want)
			}
		}
		insert("EU100A", Refused) // starting
		time.Sleep(ccBoot)
		insert("EU100A", Refused) // nobody has polled
		data(t, c, 229)
		insert("EU100A", Inhibited) // all are inhibited after power-up
		data(t, c, 231, 0x02, 0x00)
		insert("EU100A", Credited)
		insert("EU200A", Inhibited)
		insert("washer", Rejected)
		data(t, c, 228, 0)
		insert("EU100A", Inhibited)
		data(t, c, 228, 1)
		time.Sleep(ccAutoInhibit + time.Second)
		insert("EU100A", Refused) // not polled for a second: no event either
		if got, want := data(t, c, 229), []byte{5, 0, 2, 0, 1, 0, 2, 2, 1, 0, 2}; !bytes.Equal(got, want) {
			t.Errorf("events % d, want % d", got, want)
		}
		insert("EU100A", Credited) // the poll woke it
		want := CoinCount{Credited: 2, CreditedCents: 200, Inhibited: 3, Rejected: 1, Refused: 3}
		if got := c.Count(); got != want {
			t.Errorf("count %+v, want %+v", got, want)
		}
	})
}

func TestCounterSkipsZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ready(t, CoinConfig{})
		if got := data(t, c, 229)[0]; got != 0 {
			t.Errorf("counter after power-up %d, want 0", got)
		}
		for range 255 {
			c.Insert("EU010A")
		}
		if got := data(t, c, 229)[0]; got != 255 {
			t.Errorf("counter after 255 coins %d", got)
		}
		c.Insert("EU010A")
		if got := data(t, c, 229)[0]; got != 1 {
			t.Errorf("counter after 256 coins %d, want 1", got)
		}
		data(t, c, 1) // reset
		if r := ask(t, c, 254); len(r) != 0 {
			t.Errorf("answered % x while it starts", r)
		}
		time.Sleep(ccBoot)
		if got := data(t, c, 229); !bytes.Equal(got, make([]byte, 11)) {
			t.Errorf("events after a reset % d, want zeros", got)
		}
		if got := data(t, c, 230); !bytes.Equal(got, []byte{0, 0}) {
			t.Errorf("inhibits after a reset % x, want all inhibited", got)
		}
	})
}

func TestByteTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ready(t, CoinConfig{})
		time.Sleep(time.Second)
		start := time.Now()
		out := c.Receive([]byte{2, 0, 1, 229, 24})
		if len(out) != 5+16 {
			t.Fatalf("%d bytes, want the echo of 5 and a reply of 16", len(out))
		}
		if d := out[4].At.Sub(start); d != 5*ccByteTime {
			t.Errorf("the echo took %v, want five bytes at 9600 baud", d)
		}
		if d := out[20].At.Sub(out[4].At); d != ccReplyDelay+16*ccByteTime {
			t.Errorf("the reply ended %v after the command, want %v", d, ccReplyDelay+16*ccByteTime)
		}
		if !slices.IsSortedFunc(out, func(a, b TimedByte) int { return a.At.Compare(b.At) }) {
			t.Error("bytes are out of order")
		}
	})
}

func TestGapEndsAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ready(t, CoinConfig{NoEcho: true})
		c.Receive([]byte{2, 0})
		time.Sleep(40 * time.Millisecond)
		if out := c.Receive([]byte{1, 254, 255}); len(out) != 5 {
			t.Errorf("a gap of 40 ms: %d bytes, want the reply", len(out))
		}
		time.Sleep(time.Second)
		c.Receive([]byte{2, 0})
		time.Sleep(70 * time.Millisecond)
		if out := c.Receive([]byte{1, 254, 255}); len(out) != 0 {
			t.Errorf("a gap of 70 ms: %d bytes, want none", len(out))
		}
		time.Sleep(time.Second)
		if out := c.Receive([]byte{2, 255, 1, 2, 3}); len(out) != 0 { // longer than any frame
			t.Errorf("a wild length: %d bytes, want none", len(out))
		}
		time.Sleep(time.Second)
		if out := c.Receive([]byte{2, 0, 1, 254, 0}); len(out) != 0 {
			t.Errorf("a wrong checksum: %d bytes, want none", len(out))
		}
		if got := data(t, c, 2); got[0] != 3 || got[2] != 1 {
			t.Errorf("counters % d, want 3 timeouts and 1 checksum", got)
		}
		data(t, c, 3)
		if got := data(t, c, 2); !bytes.Equal(got, []byte{0, 0, 0}) {
			t.Errorf("counters % d after clearing", got)
		}
	})
}

func TestCoinFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ready(t, CoinConfig{Without: []byte{228}})
		if r := ask(t, c, 228, 1); len(r) != 0 {
			t.Errorf("a make without 228 answered % x", r)
		}
		good := ask(t, c, 254)
		c.Silence(1)
		if r := ask(t, c, 254); len(r) != 0 {
			t.Errorf("silence: % x", r)
		}
		c.Garble(1)
		if r := ask(t, c, 254); len(r) != 5 || sum(r) == 0 {
			t.Errorf("garbled: % x", r)
		}
		c.Truncate(1)
		if r := ask(t, c, 254); len(r) != 2 {
			t.Errorf("truncated: % x", r)
		}
		c.Refuse(1)
		if r := ask(t, c, 254); len(r) != 5 || r[3] != ccNAK {
			t.Errorf("refused: % x", r)
		}
		if r := ask(t, c, 254); !bytes.Equal(r, good) {
			t.Errorf("after the faults: % x, want % x", r, good)
		}
		c.SelfCheckFault(3)
		if got := data(t, c, 232); !bytes.Equal(got, []byte{3, 0}) {
			t.Errorf("self-check % d, want 3 0", got)
		}
		c.Event(EventCoinOnString)
		if got := data(t, c, 229); !bytes.Equal(got[:3], []byte{1, 0, 20}) {
			t.Errorf("events % d, want a coin on a string", got)
		}
		c.PowerOff()
		if out := c.Receive([]byte{2, 0, 1, 254, 255}); out != nil || c.Insert("EU100A") != Refused {
			t.Error("works without power")
		}
		c.PowerOn()
		time.Sleep(ccBoot)
		if got := data(t, c, 229)[0]; got != 0 {
			t.Errorf("counter after a power cycle %d, want 0", got)
		}
	})
}

func FuzzCoinAcceptor(f *testing.F) {
	f.Add([]byte{2, 0, 1, 254, 255}, false)
	f.Add([]byte{2, 2, 1, 231, 255, 255, 22}, false)
	f.Add([]byte{2, 255, 1, 2, 0, 1, 254, 255}, false)
	f.Add([]byte{0x02, 0x00, 0x30, 0xfe, 0x27}, true)
	f.Fuzz(func(t *testing.T, p []byte, crc bool) {
		c := NewCoinAcceptor(CoinConfig{CRC: crc})
		c.bootEnd = time.Time{}
		out := c.Receive(p)
		if len(out) < len(p) {
			t.Errorf("%d bytes came back, the echo alone has %d", len(out), len(p))
		}
		if len(c.line.frame) > ccMaxData+ccOverhead {
			t.Errorf("%d bytes are kept", len(c.line.frame))
		}
		last := time.Time{}
		for _, b := range out[len(p):] {
			if b.At.Before(last) {
				t.Fatal("the replies' bytes are out of order")
			}
			last = b.At
		}
	})
}
