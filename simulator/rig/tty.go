package rig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/twinbay/twinbay/simulator/chips"
)

// tty is the pty that stands for the acceptor's USB interface.
type tty struct {
	master *os.File
	slave  *os.File // kept open, or reading the master is EIO while no program has the port open
	link   string
	out    chan []chips.TimedByte
	cancel context.CancelFunc
	ended  chan struct{} // closed when its goroutines have ended
	badAt  atomic.Bool   // a wrong speed was logged
}

// plugCoins makes the pty and its link, and puts the acceptor behind it. It is no error if it is there. ctx is not that
// of the pty, which lives until unplugCoins.
func (r *Rig) plugCoins(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil { // finish has unplugged, or will after this lock
		return err
	}
	if r.tty != nil {
		return nil
	}
	master, slave, path, err := openPTY()
	if err != nil {
		return err
	}
	t := &tty{master: master, slave: slave, link: filepath.Join(r.cfg.Dir, CoinPort),
		out: make(chan []chips.TimedByte, 64), ended: make(chan struct{})}
	if err := placeLink(path, t.link); err != nil {
		master.Close()
		slave.Close()
		return err
	}
	r.coins.PowerOn()
	r.tty = t
	life, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	go func() {
		defer close(t.ended)
		t.run(life, r.coins, r.log)
	}()
	return nil
}

// unplugCoins makes the pty vanish: the open port hangs up and the path is gone.
func (r *Rig) unplugCoins() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tty
	if t == nil {
		return nil
	}
	r.tty = nil
	r.coins.PowerOff()
	t.cancel()
	// The link goes first: who sees the hang-up must not find the path any more.
	err := os.Remove(t.link)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, t.slave.Close(), t.master.Close())
	<-t.ended
	return err
}

// placeLink puts a symlink at link, in place of an older one.
func placeLink(target, link string) error {
	if st, err := os.Lstat(link); err == nil {
		if st.Mode()&os.ModeSymlink == 0 {
			return fmt.Errorf("%s is in the way and is no symlink; move it", link)
		}
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	return os.Symlink(target, link)
}

// run carries bytes between the port and the acceptor until the master is closed.
func (t *tty) run(ctx context.Context, acceptor *chips.CoinAcceptor, log *slog.Logger) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		t.write(ctx)
	}()
	defer func() { <-written }()
	buf := make([]byte, 512)
	for {
		n, err := t.master.Read(buf)
		if err != nil {
			return // closed
		}
		if speed := baudOf(t.slave); speed != 9600 {
			if speed != 0 && !t.badAt.Swap(true) { // 0 is a port that is being closed (termios(3), B0)
				log.Warn("the coin acceptor's port is open at the wrong speed; it understands nothing", "baud", speed, "want", 9600)
			}
			continue
		}
		select {
		case t.out <- acceptor.Receive(buf[:n]):
		case <-ctx.Done():
			return
		}
	}
}

// inject puts bytes on the line that nobody sent. What finds no room is lost.
func (t *tty) inject(p []byte) {
	burst := make([]chips.TimedByte, len(p))
	for i, b := range p {
		burst[i].B = b // at once
	}
	select {
	case t.out <- burst:
	default:
	}
}

// write gives each byte to the port when its time on the line has passed.
func (t *tty) write(ctx context.Context) {
	for {
		var burst []chips.TimedByte
		select {
		case <-ctx.Done():
			return
		case burst = <-t.out:
		}
		for len(burst) > 0 {
			if d := time.Until(burst[0].At); d > 0 && !pause(ctx, d) {
				return
			}
			now := time.Now()
			var due []byte
			for len(burst) > 0 && !burst[0].At.After(now) {
				due = append(due, burst[0].B)
				burst = burst[1:]
			}
			if _, err := t.master.Write(due); err != nil {
				return // closed
			}
		}
	}
}
