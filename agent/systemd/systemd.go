// Package systemd tells a service manager how a service is: sd_notify(3) and sd_watchdog_enabled(3), without libsystemd.
//
// The protocol is a datagram of lines NAME=VALUE to the unix socket that $NOTIFY_SOCKET names (sd_notify(3), "Notes"). It is
// small enough to stand here: a library for it would bring more text than this and nothing that is missing.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// States of a service, for Send; see sd_notify(3).
const (
	Ready    = "READY=1"    // it has started, or a reload has ended
	Stopping = "STOPPING=1" // it ends as asked
	Alive    = "WATCHDOG=1" // it gets on
)

// Reloading says that the configuration is being read again, until Ready. now is CLOCK_MONOTONIC, by which the manager
// tells an old answer from a new one (systemd.service(5), Type=notify-reload).
func Reloading(now time.Duration) string {
	return "RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Microseconds(), 10)
}

// Monotonic is CLOCK_MONOTONIC of clock_gettime(2); Go's own monotonic clock has another beginning.
func Monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// Status is one line for people, as `systemctl status` shows it.
func Status(text string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' ' // a line feed would begin the next variable
		}
		return r
	}, text)
}

// Notifier is the way to the service manager. A nil Notifier has none: nobody is told.
type Notifier struct{ addr net.UnixAddr }

// New reads $NOTIFY_SOCKET by getenv, for example os.Getenv. It answers nil when the process was not started as a service
// that may tell. A name that begins with @ is in the abstract namespace (unix(7)).
func New(getenv func(string) string) (*Notifier, error) {
	name := getenv("NOTIFY_SOCKET")
	switch {
	case name == "":
		return nil, nil
	case name[0] != '/' && name[0] != '@' || len(name) < 2:
		return nil, fmt.Errorf("NOTIFY_SOCKET is %.200q, neither a path nor an abstract name: the service manager is told nothing", name)
	}
	return &Notifier{net.UnixAddr{Name: name, Net: "unixgram"}}, nil // package net makes the leading NUL of an @
}

// Send tells states, each on a line of its own. It does not wait for the manager to read them.
func (n *Notifier) Send(states ...string) error {
	if n == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &n.addr)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	_, err = conn.Write([]byte(strings.Join(states, "\n")))
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// maxWatchdog bounds what is believed of $WATCHDOG_USEC: beyond a year it is no watchdog.
const maxWatchdog = 365 * 24 * time.Hour

// Watchdog is how long the service manager waits between two Alive before it ends the service; 0 when it does not watch,
// or watches another process than pid.
func Watchdog(getenv func(string) string, pid int) (time.Duration, error) {
	text := getenv("WATCHDOG_USEC")
	if text == "" {
		return 0, nil
	}
	if who := getenv("WATCHDOG_PID"); who != "" && who != strconv.Itoa(pid) {
		return 0, nil
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > maxWatchdog.Microseconds() {
		return 0, fmt.Errorf("WATCHDOG_USEC is %.100q, no number of microseconds: the watchdog is not fed", text)
	}
	return time.Duration(usec) * time.Microsecond, nil
}
