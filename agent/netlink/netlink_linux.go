package netlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// groups are the multicast groups to hear, as nl_groups has them.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// Watch calls up, one call at a time, when a link has come up, or has got an address or a route; at most once a second. It
// blocks until ctx ends, and answers nil then. An error says at once that this system does not tell, as in a container
// that forbids the socket.
func Watch(ctx context.Context, up func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("%w: rtnetlink: %w", ErrUnsupported, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("%w: rtnetlink: %w", ErrUnsupported, err)
	}
	socket := os.NewFile(uintptr(fd), "rtnetlink") // non-blocking: Close ends a Read
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	defer socket.Close()

	changes := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(changes)
	wg.Go(func() { paced(ctx, changes, up) })
	buf, known := make([]byte, 64<<10), links{}
	for {
		n, err := socket.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost: there were many
		case err != nil:
			return fmt.Errorf("rtnetlink: %w", err)
		case !known.interesting(buf[:n]):
			continue
		}
		select {
		case changes <- struct{}{}:
		default:
		}
	}
}

// links is which links run, by their index. Many messages tell nothing new: each scan of a wireless link makes one.
type links map[int32]bool

// interesting says whether one of the messages tells of something that has come: a link that runs now and did not before,
// an address, or a route of the main table.
func (l links) interesting(b []byte) bool {
	found := false
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return found
		}
		body := b[unix.SizeofNlMsghdr:length]
		switch kind {
		case unix.RTM_NEWADDR:
			found = true
		case unix.RTM_NEWROUTE:
			const table = 4 // of struct rtmsg
			found = found || len(body) >= unix.SizeofRtMsg && body[table] == unix.RT_TABLE_MAIN
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			if len(body) >= unix.SizeofIfInfomsg {
				found = l.note(kind, body) || found
			}
		}
		b = b[min((length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return found
}

// note takes the state of a link, a struct ifinfomsg, and says whether it has come up.
func (l links) note(kind uint16, body []byte) bool {
	index := int32(binary.NativeEndian.Uint32(body[4:]))
	flags := binary.NativeEndian.Uint32(body[8:])
	if kind == unix.RTM_DELLINK {
		delete(l, index)
		return false
	}
	runs, ran := flags&unix.IFF_RUNNING != 0 && flags&unix.IFF_LOOPBACK == 0, l[index]
	l[index] = runs
	return runs && !ran
}
