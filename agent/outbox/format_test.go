package outbox

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestMessageRoundTrip(t *testing.T) {
	for _, m := range []message{
		{name: "coins", epoch: 0xa1b2c3d4e5f6, seq: 1, Record: Record{Body: []byte("{}"), At: time.Unix(0, 1)}},
		{name: "c", epoch: 1, seq: 1 << 40, age: time.Hour, Record: Record{
			Body: []byte{}, High: true, TTL: time.Second, At: time.Unix(-5, 7), State: []byte{},
			Properties: map[string]string{"": "x", "k": ""},
		}},
		{name: "c", epoch: 1, seq: 2, Record: Record{Body: make([]byte, MaxMessage), State: make([]byte, MaxState), At: time.Unix(0, 0)}},
	} {
		m.ID = idOf(m.epoch, m.seq)
		payload, body := encodeMessage(m)
		if !bytes.Equal(payload[body:], m.Body) {
			t.Errorf("%s: the body is not at %d", m.ID, body)
		}
		got, err := decodeMessage(payload)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
	}
}

func TestTimeToLiveNeverBecomesNone(t *testing.T) {
	payload, _ := encodeMessage(message{name: "c", seq: 1, Record: Record{TTL: 1, At: time.Unix(0, 0)}})
	if got, err := decodeMessage(payload); err != nil || got.TTL != time.Millisecond {
		t.Errorf("a nanosecond came back as %v, %v", got.TTL, err)
	}
}

func TestCheckpointRoundTrip(t *testing.T) {
	c := checkpoint{age: time.Hour, clock: clockMark{wall: -3, age: time.Minute}, boxes: []boxMark{
		{name: "a", next: 9, accepted: 8, acked: 7, dropped: map[string]uint64{"full": 3}, stateSeq: 5, state: []byte{},
			live: []span{{1, 2}, {5, 1}}, aside: []span{{3, 1}}},
		{name: "b", next: 1, dropped: map[string]uint64{}, live: []span{}, aside: []span{}},
	}}
	got, err := decodeCheckpoint(encodeCheckpoint(c))
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v, %v; want %+v", got, err, c)
	}
}

func TestSpans(t *testing.T) {
	all := spans([]uint64{1, 2, 3, 7, 9, 10})
	if want := []span{{1, 3}, {7, 1}, {9, 2}}; !reflect.DeepEqual(all, want) {
		t.Fatalf("%v, want %v", all, want)
	}
	for seq, want := range map[uint64]bool{0: false, 1: true, 3: true, 4: false, 7: true, 8: false, 10: true, 11: false} {
		if within(all, seq) != want {
			t.Errorf("within(%d) = %v", seq, !want)
		}
	}
	if got, want := shorten(all, 2), []span{{1, 3}, {7, 4}}; !reflect.DeepEqual(got, want) {
		t.Errorf("shortened to %v, want %v", got, want)
	}
	if got := shorten(all, 3); !reflect.DeepEqual(got, all) {
		t.Errorf("%v", got)
	}
}

// FuzzPayloads decodes what has a good checksum and may be anything else. What is understood is written the same again.
func FuzzPayloads(f *testing.F) {
	m, _ := encodeMessage(message{name: "coins", epoch: 5, seq: 3, Record: Record{Body: []byte("{}"), State: []byte("s"), Properties: map[string]string{"a": "b"}, At: time.Unix(0, 0)}})
	f.Add(byte(kindMessage), m)
	f.Add(byte(kindGone), encodeGone(departure{"coins", "full", []span{{1, 2}, {9, 1}}}))
	f.Add(byte(kindState), encodeState(savedState{"coins", 4, []byte("s")}))
	f.Add(byte(kindCheckpoint), encodeCheckpoint(checkpoint{boxes: []boxMark{{name: "a", live: []span{{1, 1}}}}}))
	f.Add(byte(kindClock), appendClock(nil, clockMark{5, time.Second}))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		p := piece{header: header{kind: kind}}
		if p.understand(payload) != nil {
			return
		}
		switch kind {
		case kindMessage:
			m, err := decodeMessage(payload)
			if err != nil {
				t.Fatal(err)
			}
			again, _ := encodeMessage(m)
			if b, err := decodeMessage(again); err != nil || b.seq != m.seq || !bytes.Equal(b.Body, m.Body) || !maps.Equal(b.Properties, m.Properties) || !b.At.Equal(m.At) {
				t.Fatalf("%+v became %+v, %v", m, b, err)
			}
		case kindGone:
			if d, err := decodeGone(encodeGone(p.departure)); err != nil || !reflect.DeepEqual(d, p.departure) {
				t.Fatalf("%+v became %+v, %v", p.departure, d, err)
			}
		case kindCheckpoint:
			if c, err := decodeCheckpoint(encodeCheckpoint(p.checkpoint)); err != nil || !reflect.DeepEqual(c, p.checkpoint) {
				t.Fatalf("%+v became %+v, %v", p.checkpoint, c, err)
			}
		}
	})
}

// FuzzScan looks for records in whatever a segment may hold: it ends, and finds what was put at the end.
func FuzzScan(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{recordMagic}, 100))
	f.Add(appendRecord(nil, header{kind: kindState, batch: 1}, []byte("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		good := appendRecord(nil, header{kind: kindGone, index: 3, batch: 1 << 62}, []byte("good"))
		for len(b)%recordAlign != 0 {
			b = append(b, 0)
		}
		ok := false
		scan(append(b, good...), 0, func(r found) { ok = string(r.payload) == "good" })
		if !ok && !bytes.Contains(b, []byte{recordMagic}) {
			t.Fatal("the record at the end is not found")
		}
	})
}

func TestMinus(t *testing.T) {
	for a := range uint64(1 << 7) {
		for b := range uint64(1 << 7) {
			var in, out, want []uint64
			for seq := range uint64(7) {
				if a>>seq&1 == 1 {
					in = append(in, seq)
				}
				if b>>seq&1 == 1 {
					out = append(out, seq)
				}
				if a&^b>>seq&1 == 1 {
					want = append(want, seq)
				}
			}
			if got := minus(spans(in), spans(out)); !slices.Equal(got, spans(want)) || total(got) != uint64(len(want)) {
				t.Fatalf("%v minus %v is %v, want %v", in, out, got, want)
			}
		}
	}
}
