package cctalk

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
)

var (
	pollWire   = []byte{2, 0, 1, 254, 255}
	ackWire    = []byte{1, 0, 2, 0, 253}
	nakWire    = []byte{1, 0, 2, 5, 248}
	busyWire   = []byte{1, 0, 2, 6, 247}
	creditAsk  = []byte{2, 0, 1, 229, 24}
	creditWire = []byte{1, 11, 2, 0, 6, 6, 4, 0, 20, 0, 23, 6, 4, 13, 2, 158}
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestAsk(t *testing.T) {
	for _, row := range []struct {
		name   string
		echo   string
		crc    bool
		tries  int
		script []haltest.Exchange
		want   []byte
		err    error
		count  func(stats) uint64
	}{
		{name: "answer", tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire}}, want: creditWire[4:15]},
		{name: "echo found out", tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire, Echo: true}}, want: creditWire[4:15]},
		{name: "echo on", echo: echoOn, tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire, Echo: true}}, want: creditWire[4:15]},
		{name: "echo off", echo: echoOff, tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire}}, want: creditWire[4:15]},
		{name: "echo missing", echo: echoOn, tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire}}, err: errEcho,
			count: func(s stats) uint64 { return s.EchoErrors }},
		{name: "echo where none is meant", echo: echoOff, tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire, Echo: true}}, err: errEcho,
			count: func(s stats) uint64 { return s.EchoErrors }},
		{name: "echo damaged by a collision", tries: 1, script: []haltest.Exchange{{W: creditAsk, R: []byte{2, 0, 1, 231, 24}}}, err: errEcho,
			count: func(s stats) uint64 { return s.EchoErrors }},
		{name: "echo alone", tries: 1, script: []haltest.Exchange{{W: creditAsk, Echo: true}}, err: errSilent,
			count: func(s stats) uint64 { return s.Timeouts }},
		{name: "silence", tries: 1, script: []haltest.Exchange{{W: creditAsk}}, err: errSilent,
			count: func(s stats) uint64 { return s.Timeouts }},
		{name: "silence, then an answer", tries: 2, script: []haltest.Exchange{{W: creditAsk}, {W: creditAsk, R: creditWire}}, want: creditWire[4:15],
			count: func(s stats) uint64 { return s.Timeouts }},
		{name: "cut off", tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire[:9]}}, err: errShort,
			count: func(s stats) uint64 { return s.Cut }},
		{name: "cut off after the echo", tries: 1, script: []haltest.Exchange{{W: creditAsk, R: creditWire[:9], Echo: true}}, err: errShort,
			count: func(s stats) uint64 { return s.Cut }},
		{name: "wrong checksum, then right", tries: 2, script: []haltest.Exchange{
			{W: creditAsk, R: join(creditWire[:15], []byte{0})}, {W: creditAsk, R: creditWire}}, want: creditWire[4:15],
			count: func(s stats) uint64 { return s.Checksums }},
		{name: "garbage, then an answer", tries: 2, script: []haltest.Exchange{
			{W: creditAsk, R: []byte{0xff, 0x00, 0x55}}, {W: creditAsk, R: creditWire}}, want: creditWire[4:15],
			count: func(s stats) uint64 { return s.Resyncs }},
		{name: "somebody else answers", tries: 1, script: []haltest.Exchange{{W: pollWire, R: []byte{1, 0, 3, 0, 252}}}, err: errForeign,
			count: func(s stats) uint64 { return s.Garbage }},
		{name: "a header that is no reply", tries: 1, script: []haltest.Exchange{{W: pollWire, R: []byte{1, 0, 2, 9, 244}}}, err: errForeign,
			count: func(s stats) uint64 { return s.Garbage }},
		{name: "a length beyond all", tries: 1, script: []haltest.Exchange{{W: pollWire, R: []byte{1, 255, 2, 9, 244}}}, err: errForeign,
			count: func(s stats) uint64 { return s.Garbage }},
		{name: "not known", tries: 3, script: []haltest.Exchange{{W: pollWire, R: nakWire}}, err: errNAK,
			count: func(s stats) uint64 { return s.NAKs }},
		{name: "busy, then not", tries: 2, script: []haltest.Exchange{{W: pollWire, R: busyWire}, {W: pollWire, R: ackWire}},
			count: func(s stats) uint64 { return s.Busies }},
		{name: "crc", crc: true, tries: 1, script: []haltest.Exchange{
			{W: frame{dest: 2, header: simplePoll}.encode(true), R: frame{dest: 1}.encode(true), Echo: true}}},
		{name: "crc, damaged", crc: true, tries: 1, script: []haltest.Exchange{
			{W: frame{dest: 2, header: simplePoll}.encode(true), R: []byte{1, 0, 0, 0, 0}}}, err: errChecksum,
			count: func(s stats) uint64 { return s.Checksums }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s stats
				b := bus{line: haltest.Serial(t, row.script...), address: 2, crc: row.crc, echo: row.echo, stats: &s}
				if b.echo == "" {
					b.echo = echoAuto
				}
				header := byte(simplePoll)
				if w := row.script[0].W; !row.crc && w[3] == bufferedCredit {
					header = bufferedCredit
				}
				got, err := b.ask(t.Context(), row.tries, header)
				if !errors.Is(err, row.err) || !bytes.Equal(got, row.want) {
					t.Errorf("got % x, %v, want % x, %v", got, err, row.want, row.err)
				}
				if row.count != nil && row.count(s) != 1 {
					t.Errorf("counted wrong: %+v", s)
				}
			})
		})
	}
}

// A late reply must not be taken for the answer to the next question.
func TestAskAfterALateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := haltest.Serial(t)
		b := bus{line: line, address: 2, echo: echoAuto, stats: &stats{}}
		go func() {
			time.Sleep(replyLimit + 10*time.Millisecond)
			line.Push(creditWire...)
		}()
		if _, err := b.ask(t.Context(), 1, bufferedCredit); !errors.Is(err, errSilent) {
			t.Fatalf("err = %v, want silence", err)
		}
		go func() {
			if _, err := line.Sent(t.Context(), len(creditAsk)+len(pollWire)); err == nil {
				line.Push(ackWire...)
			}
		}()
		if got, err := b.ask(t.Context(), 1, simplePoll); err != nil || len(got) != 0 {
			t.Errorf("got % x, %v: the late reply", got, err)
		}
	})
}

func TestAskOnALineThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := haltest.Serial(t)
		b := bus{line: line, address: 2, echo: echoAuto, stats: &stats{}}
		go func() {
			time.Sleep(20 * time.Millisecond)
			line.Unplug()
		}()
		if _, err := b.ask(t.Context(), 3, simplePoll); !errors.Is(err, hal.ErrGone) {
			t.Errorf("err = %v, want ErrGone", err)
		}
	})
}

func TestAskOnALineThatBabbles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := haltest.Serial(t)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					line.Push(0xaa)
				}
			}
		}()
		b := bus{line: line, address: 2, echo: echoAuto, stats: &stats{}}
		if _, err := b.ask(t.Context(), 3, simplePoll); !errors.Is(err, errNoise) {
			t.Errorf("err = %v, want errNoise", err)
		}
		close(stop)
	})
}
