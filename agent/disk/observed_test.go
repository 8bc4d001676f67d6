package disk_test

import (
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
	"github.com/twinbay/twinbay/agent/disk/disktest"
)

// What goes through an observer is what the file system does, and a call that hangs is seen while it hangs.
func TestObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow time.Duration
		o := disk.Observe(&disktest.FS{Fault: func(op disktest.Op) disktest.Fault {
			if op.Kind == "sync" {
				return disktest.Fault{Delay: slow}
			}
			return disktest.Fault{}
		}})
		if err := disk.Save(o, "/state/x", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		data, damage := disk.Load(o, "/state/x", nil)
		if string(data) != "hello" || damage != nil {
			t.Errorf("%q, %v", data, damage)
		}
		if _, err := o.Open("/state/none", false); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing file: %v", err)
		}
		before := o.Ended()
		if before == 0 || !o.Oldest().IsZero() || o.Written() < 5 {
			t.Errorf("%d calls have ended, one is under way since %v, %d bytes", before, o.Oldest(), o.Written())
		}

		slow = time.Hour
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- disk.Save(o, "/state/x", []byte("again")) }()
		time.Sleep(time.Minute)
		if oldest := o.Oldest(); !oldest.Equal(began) {
			t.Errorf("the oldest call is of %v, want %v", oldest, began)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !o.Oldest().IsZero() || o.Ended() <= before {
			t.Errorf("one is still under way since %v; %d ended", o.Oldest(), o.Ended())
		}
	})
}
