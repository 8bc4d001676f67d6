package mqttd

import (
	"bytes"
	"fmt"

	"github.com/eclipse/paho.golang/packets"
)

// decode5 reads a packet of MQTT 5. check5 has held its shape by then, because package packets takes a good deal that
// the standard forbids: properties that end early, fields twice, bytes left over.
func decode5(f frame) (packets.Packet, error) {
	if err := check5(f); err != nil {
		return nil, err
	}
	if f.kind() == typeDisconnect && len(f.body()) == 0 { // which package packets can't read (MQTT 5, section 3.14.2.1)
		return &packets.Disconnect{Properties: &packets.Properties{}}, nil
	}
	p, err := packets.ReadPacket(bytes.NewReader(f.raw))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return p.Content, nil
}

// check5 walks a packet that a client may send: MQTT 5, chapter 3.
func check5(f frame) error {
	c := cursor{b: f.body()}
	want := byte(0)
	if f.kind() == typeSubscribe || f.kind() == typeUnsubscribe {
		want = 2
	}
	if f.kind() != typePublish && f.flags() != want {
		c.fail("flags %#x in a packet of type %d", f.flags(), f.kind())
	}
	switch f.kind() {
	case typeConnect:
		checkConnect5(&c)
	case typePublish:
		checkPublish5(&c, f.flags())
		return c.err // the rest is the payload
	case typePuback:
		c.packetID()
		checkReason5(&c, packets.PUBACK)
	case typeSubscribe, typeUnsubscribe:
		checkFilters5(&c, f.kind())
	case typePingreq:
	case typeDisconnect:
		checkReason5(&c, packets.DISCONNECT)
	case typeAuth:
		checkReason5(&c, packets.AUTH)
	default:
		c.fail("packet of type %d", f.kind())
	}
	return c.done()
}

func checkConnect5(c *cursor) {
	c.text() // name and level
	c.u8()
	flags := c.u8()
	checkConnectFlags(c, flags)
	c.u16() // keep-alive
	checkProperties(c, packets.CONNECT)
	c.text() // client id
	if flags&flagWill != 0 {
		checkProperties(c, packets.CONNECT)
		c.text()
		c.binary()
	}
	if flags&flagUser != 0 {
		c.text()
	}
	if flags&flagPassword != 0 {
		c.binary()
	}
}

func checkPublish5(c *cursor, flags byte) {
	qos := flags >> 1 & 3
	if qos == 3 || (qos == 0 && flags&8 != 0) {
		c.fail("PUBLISH flags %#x", flags)
	}
	c.text()
	if qos > 0 {
		c.packetID()
	}
	checkProperties(c, packets.PUBLISH)
}

func checkFilters5(c *cursor, kind byte) {
	c.packetID()
	checkProperties(c, kind)
	n := 0
	for ; len(c.b) > 0; n++ {
		c.text()
		if kind != typeSubscribe {
			continue
		}
		if o := c.u8(); o&3 == 3 || o&0x30 == 0x30 || o&0xc0 != 0 { // section 3.8.3.1
			c.fail("subscription options %#x", o)
		}
	}
	if n == 0 {
		c.fail("no topic filter")
	}
}

// checkReason5 is for packets whose reason code and properties may be missing.
func checkReason5(c *cursor, kind byte) {
	if len(c.b) > 0 {
		c.u8()
	}
	if len(c.b) > 0 {
		checkProperties(c, kind)
	}
}

// Shapes of properties: MQTT 5, section 2.2.2.2.
const (
	shapeByte = iota + 1
	shapeTwo
	shapeFour
	shapeVarint
	shapeText
	shapeBinary
	shapePair
)

var propertyShapes = map[byte]int{
	packets.PropPayloadFormat:          shapeByte,
	packets.PropMessageExpiry:          shapeFour,
	packets.PropContentType:            shapeText,
	packets.PropResponseTopic:          shapeText,
	packets.PropCorrelationData:        shapeBinary,
	packets.PropSubscriptionIdentifier: shapeVarint,
	packets.PropSessionExpiryInterval:  shapeFour,
	packets.PropAuthMethod:             shapeText,
	packets.PropAuthData:               shapeBinary,
	packets.PropRequestProblemInfo:     shapeByte,
	packets.PropWillDelayInterval:      shapeFour,
	packets.PropRequestResponseInfo:    shapeByte,
	packets.PropReasonString:           shapeText,
	packets.PropReceiveMaximum:         shapeTwo,
	packets.PropTopicAliasMaximum:      shapeTwo,
	packets.PropTopicAlias:             shapeTwo,
	packets.PropUser:                   shapePair,
	packets.PropMaximumPacketSize:      shapeFour,
}

// checkProperties walks the properties of a packet of this kind.
func checkProperties(c *cursor, kind byte) {
	p := cursor{b: c.take(c.varint()), err: c.err}
	var seen [64]bool
	for len(p.b) > 0 {
		id := p.u8()
		shape := propertyShapes[id]
		if shape == 0 || !packets.ValidateID(kind, id) {
			p.fail("property %#x in a packet of type %d", id, kind)
		}
		if seen[id&63] && id != packets.PropUser {
			p.fail("property %#x twice", id)
		}
		seen[id&63] = true
		p.skip(shape)
	}
	if p.err != nil {
		c.err, c.b = p.err, nil
	}
}

func (c *cursor) skip(shape int) {
	switch shape {
	case shapeByte:
		if c.u8() > 1 { // each of those that a client sends is 0 or 1
			c.fail("a property that is neither 0 nor 1")
		}
	case shapeTwo:
		c.take(2)
	case shapeFour:
		c.take(4)
	case shapeVarint:
		c.varint()
	case shapeText:
		c.text()
	case shapeBinary:
		c.binary()
	case shapePair:
		c.text()
		c.text()
	}
}

// varint reads a variable byte integer of at most four bytes.
func (c *cursor) varint() int {
	n := 0
	for i := range 4 {
		b := c.u8()
		n |= int(b&0x7f) << (7 * i)
		if b < 0x80 {
			return n
		}
	}
	c.fail("a length of more than four bytes")
	return 0
}

// encode5 is a packet's bytes.
func encode5(p packets.Packet) []byte {
	var b bytes.Buffer
	_, _ = p.WriteTo(&b) // a bytes.Buffer takes everything
	return b.Bytes()
}
