package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/agent/systemd"
)

// serviceManager is how the service manager that started this program is told of it, and how often it has to be: 0 when it
// does not watch.
func serviceManager(log *slog.Logger) (tell func(states ...string), watchdog time.Duration) {
	n, err := systemd.New(os.Getenv)
	if err != nil {
		log.Warn("there is no way to the service manager", "error", err)
	}
	if n == nil {
		return nil, 0
	}
	watchdog, err = systemd.Watchdog(os.Getenv, os.Getpid())
	if err != nil {
		log.Warn("the service manager's watchdog cannot be fed", "error", err)
	}
	return func(states ...string) {
		if err := n.Send(states...); err != nil {
			log.Warn("the service manager does not hear", "error", err)
		}
	}, watchdog
}

// onSecondSignal answers what is closed when somebody asks for the second time that the program ends.
func onSecondSignal(log *slog.Logger) (second <-chan struct{}, stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	hurry, end := make(chan struct{}), make(chan struct{})
	go func() {
		if s := twice(signals, end); s != nil {
			log.Warn("told a second time to end: modules are killed, and what is not sent yet is sent by the next start", "signal", s)
			close(hurry)
		}
	}()
	return hurry, func() {
		signal.Stop(signals)
		close(end)
	}
}

// twice waits for a signal that has come before, or for the end: nil. One SIGINT and one SIGTERM are one wish: at Ctrl-C the
// terminal sends the first to everybody, and a program that runs the agent the second.
func twice(signals <-chan os.Signal, end <-chan struct{}) os.Signal {
	seen := map[os.Signal]bool{}
	for {
		select {
		case s := <-signals:
			if seen[s] {
				return s
			}
			seen[s] = true
		case <-end:
			return nil
		}
	}
}
