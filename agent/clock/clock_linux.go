package clock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is the time since the system's start, with what it slept: CLOCK_BOOTTIME of clock_gettime(2). Go's monotonic
// clock stands still while the system sleeps.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(began) // Linux before 2.6.39
	}
	return time.Duration(ts.Nano())
}

var began = time.Now()

// Watch calls stepped whenever the system's clock is set, or the system wakes from sleep, until ctx ends; then it answers
// nil. It blocks in a timer far ahead that the kernel cancels (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func Watch(ctx context.Context, stepped func()) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "timerfd") // non-blocking: Close ends a Read
	defer timer.Close()
	stop := context.AfterFunc(ctx, func() { _ = timer.Close() })
	defer stop()
	buf := make([]byte, 8)
	for {
		if err := arm(timer); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		_, err := timer.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil, errors.Is(err, unix.ECANCELED):
			stepped()
		default:
			return fmt.Errorf("timerfd: %w", err)
		}
	}
}

// arm sets the timer to a year from now: a 32-bit board counts until 2038 only.
func arm(timer *os.File) error {
	raw, err := timer.SyscallConn()
	if err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(time.Now().AddDate(1, 0, 0).UnixNano())}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &spec, nil)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	return nil
}
