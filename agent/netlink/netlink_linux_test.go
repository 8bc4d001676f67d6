package netlink

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func message(kind uint16, body ...byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(len(b)+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return append(b, body...)
}

func linkBody(flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[8:], flags)
	return b
}

func TestInteresting(t *testing.T) {
	route := func(table byte) []byte { return message(unix.RTM_NEWROUTE, 2, 0, 0, 0, table, 0, 0, 0, 0, 0, 0, 0) }
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"nothing", nil, false},
		{"torn", []byte{1, 2, 3}, false},
		{"an address", message(unix.RTM_NEWADDR), true},
		{"an address that has gone", message(unix.RTM_DELADDR), false},
		{"a route", route(unix.RT_TABLE_MAIN), true},
		{"the kernel's own route", route(unix.RT_TABLE_LOCAL), false},
		{"a short route", message(unix.RTM_NEWROUTE, 1), false},
		{"a link that runs", message(unix.RTM_NEWLINK, linkBody(unix.IFF_UP|unix.IFF_RUNNING)...), true},
		{"a link without a carrier", message(unix.RTM_NEWLINK, linkBody(unix.IFF_UP)...), false},
		{"the loopback", message(unix.RTM_NEWLINK, linkBody(unix.IFF_UP|unix.IFF_RUNNING|unix.IFF_LOOPBACK)...), false},
		{"the second of two", append(message(unix.RTM_DELADDR), message(unix.RTM_NEWADDR)...), true},
		{"a length beyond the end", append([]byte{255, 0, 0, 0}, message(unix.RTM_NEWADDR)...), false},
	} {
		if got := (links{}).interesting(c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestALinkCountsWhenItComesUp(t *testing.T) {
	l := links{}
	up := message(unix.RTM_NEWLINK, linkBody(unix.IFF_UP|unix.IFF_RUNNING)...)
	down := message(unix.RTM_NEWLINK, linkBody(unix.IFF_UP)...)
	gone := message(unix.RTM_DELLINK, linkBody(unix.IFF_UP)...)
	for i, c := range []struct {
		b    []byte
		want bool
	}{{up, true}, {up, false}, {up, false}, {down, false}, {up, true}, {gone, false}, {up, true}} {
		if got := l.interesting(c.b); got != c.want {
			t.Errorf("message %d: %v", i+1, got)
		}
	}
}

func FuzzInteresting(f *testing.F) {
	f.Add(message(unix.RTM_NEWADDR))
	f.Add(message(unix.RTM_NEWLINK, linkBody(unix.IFF_RUNNING)...))
	f.Add([]byte{16, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if (links{}).interesting(b) && len(b) < unix.SizeofNlMsghdr {
			t.Errorf("%x", b)
		}
	})
}
