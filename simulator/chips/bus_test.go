package chips

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
)

func TestBusFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := new(Bus)
		bus.Attach(0x76, NewBME280(still(Air{})))
		id := func(addr uint16) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return bus.Tx(ctx, addr, []byte{bmeID}, make([]byte, 1))
		}
		check := func(name string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: err = %v, want %v", name, err, want)
			}
		}
		check("present", id(0x76), nil)
		check("absent", id(0x77), hal.ErrAbsent)
		check("ten bits", id(0x176), hal.ErrUnsupported)
		bus.Nack(2)
		check("first nack", id(0x76), hal.ErrAbsent)
		check("second nack", id(0x76), hal.ErrAbsent)
		check("after them", id(0x76), nil)
		bus.Unplug(0x76, true)
		check("unplugged", id(0x76), hal.ErrAbsent)
		bus.Unplug(0x76, false)
		check("plugged", id(0x76), nil)
		bus.Hang(2500 * time.Millisecond)
		start := time.Now()
		check("hung", id(0x76), context.DeadlineExceeded)
		if d := time.Since(start); d != time.Second {
			t.Errorf("the end of the context took %v", d)
		}
		check("hung", id(0x76), context.DeadlineExceeded)
		check("freed by time", id(0x76), nil)
		bus.Hang(time.Hour)
		time.AfterFunc(time.Millisecond, func() { bus.Hang(0) })
		check("freed by hand", id(0x76), nil)
	})
}
