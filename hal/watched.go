package hal

import (
	"context"
	"fmt"
	"time"
)

// watched registers the calls on one wire, and puts the wire's URI before its errors.
type watched struct {
	w    *Wires
	kind string
	uri  string
}

func (v *watched) do(ctx context.Context, op string, addr int, limit time.Duration, f func() error) error {
	c := v.w.begin(ctx, &call{kind: v.kind, uri: v.uri, op: op, addr: addr}, limit)
	defer v.w.end(c)
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", v.uri, err)
	}
	return nil
}

func (v *watched) close(f func() error) error {
	return v.do(context.Background(), "close", -1, openLimit, f)
}

type watchedI2C struct {
	watched
	bus I2C
}

func (v *watchedI2C) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	return v.do(ctx, "transaction", int(addr), callLimit, func() error { return v.bus.Tx(ctx, addr, w, r) })
}

func (v *watchedI2C) Close() error { return v.close(v.bus.Close) }

type watchedSerial struct {
	watched
	line Serial
}

func (v *watchedSerial) Read(ctx context.Context, p []byte) (n int, err error) {
	err = v.do(ctx, "read", -1, 0, func() error {
		n, err = v.line.Read(ctx, p)
		return err
	})
	return n, err
}

func (v *watchedSerial) Write(ctx context.Context, p []byte) error {
	return v.do(ctx, "write", -1, callLimit, func() error { return v.line.Write(ctx, p) })
}

func (v *watchedSerial) Flush(ctx context.Context) error {
	return v.do(ctx, "flush", -1, callLimit, func() error { return v.line.Flush(ctx) })
}

func (v *watchedSerial) Close() error { return v.close(v.line.Close) }

type watchedIn struct {
	watched
	in DigitalIn
}

func (v *watchedIn) Read(ctx context.Context) (level bool, err error) {
	err = v.do(ctx, "read", -1, callLimit, func() error {
		level, err = v.in.Read(ctx)
		return err
	})
	return level, err
}

func (v *watchedIn) Next(ctx context.Context) (e Edge, err error) {
	err = v.do(ctx, "wait for an edge", -1, 0, func() error {
		e, err = v.in.Next(ctx)
		return err
	})
	return e, err
}

func (v *watchedIn) Close() error { return v.close(v.in.Close) }

type watchedOut struct {
	watched
	out DigitalOut
}

func (v *watchedOut) Set(ctx context.Context, level bool) error {
	return v.do(ctx, "set", -1, callLimit, func() error { return v.out.Set(ctx, level) })
}

func (v *watchedOut) Level() bool { return v.out.Level() }

func (v *watchedOut) Close() error { return v.close(v.out.Close) }
