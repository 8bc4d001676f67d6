package outbox

import (
	"encoding/binary"
	"time"
)

// A checkpoint begins each segment and says everything that must not be lost with the segments before it, which can then
// be used again as soon as the last message in them is gone.
//
//	age uvarint (ms, of the log's clock) · clock (as kind 5) · count uvarint of boxes, each:
//	name text · next seq uvarint · accepted uvarint · acked uvarint · reasons (uvarint count, reason text, count uvarint)
//	state seq uvarint (0: none; else state text follows) · live spans · set-aside spans
type checkpoint struct {
	age   time.Duration
	clock clockMark
	boxes []boxMark
}

// boxMark is one box in a checkpoint.
type boxMark struct {
	name            string
	next            uint64 // the next seq is at least this
	accepted, acked uint64
	dropped         map[string]uint64
	stateSeq        uint64 // the seq of the message that brought the state; 0: there is none
	state           []byte
	live, aside     []span // whatever is older than the checkpoint and in neither is gone
}

func encodeCheckpoint(c checkpoint) []byte {
	b := binary.AppendUvarint(nil, uint64(c.age/time.Millisecond))
	b = appendClock(b, c.clock)
	b = binary.AppendUvarint(b, uint64(len(c.boxes)))
	for _, x := range c.boxes {
		b = appendText(b, x.name)
		b = binary.AppendUvarint(b, x.next)
		b = binary.AppendUvarint(b, x.accepted)
		b = binary.AppendUvarint(b, x.acked)
		b = binary.AppendUvarint(b, uint64(len(x.dropped)))
		for reason, n := range x.dropped {
			b = binary.AppendUvarint(appendText(b, reason), n)
		}
		b = binary.AppendUvarint(b, x.stateSeq)
		if x.stateSeq > 0 {
			b = appendText(b, x.state)
		}
		b = appendSpans(appendSpans(b, x.live), x.aside)
	}
	return b
}

func decodeCheckpoint(payload []byte) (c checkpoint, err error) {
	r := reader{b: payload}
	c.age = r.duration()
	c.clock = r.clock()
	n := r.uvarint()
	for range n {
		if r.bad {
			return c, errPayload
		}
		x := boxMark{name: string(r.bytes()), next: r.uvarint(), accepted: r.uvarint(), acked: r.uvarint()}
		reasons := r.uvarint()
		x.dropped = map[string]uint64{}
		for range reasons {
			if r.bad {
				return c, errPayload
			}
			reason := string(r.bytes())
			x.dropped[reason] = r.uvarint()
		}
		if x.stateSeq = r.uvarint(); x.stateSeq > 0 {
			x.state = r.bytes()
			if x.state == nil {
				x.state = []byte{}
			}
		}
		x.live, x.aside = r.spans(), r.spans()
		c.boxes = append(c.boxes, x)
	}
	if r.bad || len(r.b) > 0 {
		return c, errPayload
	}
	return c, nil
}

// shorten merges spans until there are at most n: what lies between is taken for live, so that it is sent once more
// rather than lost.
func shorten(all []span, n int) []span {
	if len(all) <= n {
		return all
	}
	last := all[len(all)-1]
	out := append([]span(nil), all[:n]...)
	k := len(out) - 1
	out[k].n = last.from + last.n - out[k].from
	return out
}
