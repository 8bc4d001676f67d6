// Package netlink tells when a network link of this device comes up or changes, so that nobody has to wait for the next
// try. It needs no privileges.
//
// Source: rtnetlink(7), the groups RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_IPV4_ROUTE and
// RTMGRP_IPV6_ROUTE; netlink(7).
package netlink

import (
	"context"
	"errors"
	"time"
)

// ErrUnsupported says that this system does not tell: callers go on without.
var ErrUnsupported = errors.New("this system does not tell of network changes")

// gap is the least time between two calls of Watch's function: a link that comes up brings a dozen messages, and one that
// flaps brings many more.
const gap = time.Second

// gather is how long the messages of one event may come apart: a link is up before it has an address, and has an address
// before it has a route.
const gather = 100 * time.Millisecond

// paced calls up for what comes out of changes: gather after the first of a batch, and at most once per gap. It returns
// when changes is closed or ctx ends.
func paced(ctx context.Context, changes <-chan struct{}, up func()) {
	var last time.Time
	for {
		select {
		case _, ok := <-changes:
			if !ok {
				return
			}
		case <-ctx.Done():
			return
		}
		wait := gather
		if !last.IsZero() {
			wait = max(gather, gap-time.Since(last))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select { // what came meanwhile belongs to it
		case _, ok := <-changes:
			if !ok {
				up()
				return
			}
		default:
		}
		last = time.Now()
		up()
	}
}
