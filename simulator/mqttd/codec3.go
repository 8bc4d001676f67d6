package mqttd

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// CONNACK return codes of MQTT 3.1.1, section 3.2.2.3.
const (
	connackAccepted      = 0
	connackVersion       = 1
	connackUnavailable   = 3
	connackNotAuthorized = 5
)

const subackFailure = 0x80 // MQTT 3.1.1, section 3.9.3

// connect is a CONNECT packet of MQTT 3.1.1.
type connect struct {
	clean     bool
	keepAlive uint16
	clientID  string
	will      *publish // qos, retain, topic and payload
	user      string
	password  string
}

// publish is a PUBLISH packet of MQTT 3.1.1. payload points into the frame.
type publish struct {
	topic       string
	id          uint16 // 0 with QoS 0
	qos         byte
	dup, retain bool
	payload     []byte
}

// subscribe is a SUBSCRIBE packet of MQTT 3.1.1, or an UNSUBSCRIBE packet, whose qos are all 0.
type subscribe struct {
	id      uint16
	filters []filter
}

type filter struct {
	topic string
	qos   byte
}

// cursor reads the fields of a packet. After the first field that does not fit, err is set and everything reads as zero.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: "+format, append([]any{errMalformed}, args...)...)
	}
	c.b = nil
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.fail("it ends inside a field")
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) u8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) binary() []byte { return c.take(int(c.u16())) }

// text reads a string as both versions of MQTT define it (3.1.1, section 1.5.3): UTF-8 without U+0000.
func (c *cursor) text() string {
	s := string(c.binary())
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		c.fail("a string is not UTF-8 without NUL")
		return ""
	}
	return s
}

func (c *cursor) packetID() uint16 {
	id := c.u16()
	if id == 0 {
		c.fail("packet id 0")
	}
	return id
}

// done is the packet's error, which includes bytes left over.
func (c *cursor) done() error {
	if len(c.b) > 0 {
		c.fail("%d bytes left over", len(c.b))
	}
	return c.err
}

// protocolLevel reads name and level of a CONNECT packet. It tells 3.1.1 (4) from 5; every other pair is level 0.
func protocolLevel(body []byte) (byte, error) {
	c := cursor{b: body}
	name, level := c.text(), c.u8()
	if c.err != nil {
		return 0, c.err
	}
	if name != "MQTT" || (level != 4 && level != 5) {
		return 0, nil
	}
	return level, nil
}

// CONNECT flags, MQTT 3.1.1, section 3.1.2.3.
const (
	flagReserved = 1 << 0
	flagClean    = 1 << 1
	flagWill     = 1 << 2
	flagWillQoS  = 3 << 3
	flagRetain   = 1 << 5
	flagPassword = 1 << 6
	flagUser     = 1 << 7
)

// checkConnectFlags holds what both versions demand of the flags.
func checkConnectFlags(c *cursor, flags byte) {
	switch {
	case flags&flagReserved != 0:
		c.fail("the reserved CONNECT flag is set")
	case flags&flagWillQoS == flagWillQoS:
		c.fail("will QoS 3")
	case flags&flagWill == 0 && flags&(flagWillQoS|flagRetain) != 0:
		c.fail("will flags without a will")
	}
}

func decodeConnect(body []byte) (connect, error) {
	c := cursor{b: body}
	c.text() // name and level have been read by protocolLevel
	c.u8()
	flags := c.u8()
	checkConnectFlags(&c, flags)
	if flags&flagPassword != 0 && flags&flagUser == 0 {
		c.fail("a password without a user name") // MQTT-3.1.2-22
	}
	p := connect{clean: flags&flagClean != 0, keepAlive: c.u16(), clientID: c.text()}
	if flags&flagWill != 0 {
		p.will = &publish{qos: flags & flagWillQoS >> 3, retain: flags&flagRetain != 0}
		p.will.topic = c.text()
		p.will.payload = slices.Clone(c.binary()) // kept as long as the connection
	}
	if flags&flagUser != 0 {
		p.user = c.text()
	}
	if flags&flagPassword != 0 {
		p.password = string(c.binary())
	}
	return p, c.done()
}

func decodePublish(flags byte, body []byte) (publish, error) {
	c := cursor{b: body}
	p := publish{qos: flags >> 1 & 3, dup: flags&8 != 0, retain: flags&1 != 0}
	if p.qos == 3 || (p.qos == 0 && p.dup) {
		c.fail("PUBLISH flags %#x", flags) // MQTT-3.3.1-4, MQTT-3.3.1-2
	}
	p.topic = c.text()
	if p.qos > 0 {
		p.id = c.packetID()
	}
	p.payload = c.b
	return p, c.err
}

func decodeSubscribe(flags byte, body []byte) (subscribe, error) {
	c := cursor{b: body}
	if flags != 2 {
		c.fail("SUBSCRIBE flags %#x", flags)
	}
	p := subscribe{id: c.packetID()}
	for len(c.b) > 0 {
		f := filter{topic: c.text(), qos: c.u8()}
		if f.qos > 2 {
			c.fail("requested QoS %#x", f.qos)
		}
		p.filters = append(p.filters, f)
	}
	if len(p.filters) == 0 {
		c.fail("SUBSCRIBE without a topic filter")
	}
	return p, c.done()
}

func decodeUnsubscribe(flags byte, body []byte) (subscribe, error) {
	c := cursor{b: body}
	if flags != 2 {
		c.fail("UNSUBSCRIBE flags %#x", flags)
	}
	p := subscribe{id: c.packetID()}
	for len(c.b) > 0 {
		p.filters = append(p.filters, filter{topic: c.text()})
	}
	if len(p.filters) == 0 {
		c.fail("UNSUBSCRIBE without a topic filter")
	}
	return p, c.done()
}

// decodeEmpty is for PINGREQ and DISCONNECT.
func decodeEmpty(flags byte, body []byte) error {
	if flags != 0 || len(body) != 0 {
		return fmt.Errorf("%w: flags or bytes in a packet that has none", errMalformed)
	}
	return nil
}

func decodePuback(flags byte, body []byte) (uint16, error) {
	c := cursor{b: body}
	if flags != 0 {
		c.fail("PUBACK flags %#x", flags)
	}
	id := c.packetID()
	return id, c.done()
}

func appendConnack(dst []byte, present bool, code byte) []byte {
	var flags byte
	if present && code == connackAccepted { // MQTT-3.2.2-4
		flags = 1
	}
	return append(dst, typeConnack<<4, 2, flags, code)
}

func appendAck(dst []byte, kind byte, id uint16) []byte {
	return append(dst, kind<<4, 2, byte(id>>8), byte(id))
}

func appendSuback(dst []byte, id uint16, codes []byte) []byte {
	dst = appendLength(append(dst, typeSuback<<4), 2+len(codes))
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(dst, codes...)
}

// appendPublish leaves dst as it is if the topic is longer than a topic can be.
func appendPublish(dst []byte, p publish) []byte {
	if len(p.topic) > math.MaxUint16 {
		return dst
	}
	flags := p.qos << 1
	if p.dup {
		flags |= 8
	}
	if p.retain {
		flags |= 1
	}
	size := 2 + len(p.topic) + len(p.payload)
	if p.qos > 0 {
		size += 2
	}
	dst = appendLength(append(dst, typePublish<<4|flags), size)
	dst = appendText(dst, p.topic)
	if p.qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.id)
	}
	return append(dst, p.payload...)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}
