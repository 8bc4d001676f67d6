//go:build !linux

package netlink

import "context"

// Watch answers [ErrUnsupported].
func Watch(context.Context, func()) error { return ErrUnsupported }
