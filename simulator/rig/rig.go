// Package rig serves the simulated hardware of one vending machine: a coin acceptor behind a pty, a climate sensor and
// GPIO lines behind a unix socket, and a small world that moves them.
//
// A rig has a folder, and there:
//
//	ttyCOIN      symlink to the pty of the ccTalk coin acceptor (9600 8N1)
//	rig.sock     the bus: wires climate (I²C, BME280 at 0x76), machine (I²C, MCP9808 at 0x18 in the cabinet's air, MCP23017
//	             at 0x20 with the spirals, INA219 at 0x40 in the 24 V supply), door, beam and expander (inputs; the last is
//	             the MCP23017's INTA), lock and compressor (outputs); protocol in hal/simbus
//	rigctl.sock  control: one JSON object a line each way; Client speaks it
//
// All of them are readable by their owner only, and are removed by Close.
package rig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/simulator/chips"
)

// Names in the rig's folder.
const (
	BusSocket     = "rig.sock"
	ControlSocket = "rigctl.sock"
	CoinPort      = "ttyCOIN"
)

// ClimateAddr is the BME280's address: SDO to ground (BST-BME280-DS002, section 6.2).
const ClimateAddr = 0x76

// maxSocketPath is sun_path without its final zero: unix(7).
const maxSocketPath = 107

// Config is what a rig needs. Only Dir is required.
type Config struct {
	Dir   string       // made if it is not there
	Seed  uint64       // of everything that happens by chance
	World bool         // things happen by themselves
	Log   *slog.Logger // nil means none
}

// Rig is a running rig.
type Rig struct {
	cfg Config
	log *slog.Logger

	coins   *chips.CoinAcceptor
	climate *chips.BME280
	cooling *chips.MCP9808
	supply  *chips.INA219
	vending *vending
	buses   map[string]*chips.Bus // climate, machine
	wires   map[string]*wire      // door, beam, expander, lock, compressor
	world   *world

	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup
	done   chan struct{}
	err    error // set before done is closed

	mu  sync.Mutex
	tty *tty            // nil while the acceptor is unplugged
	off map[string]bool // parts that are off their bus
}

// Start makes the rig's files and serves them until ctx ends or Close. What a killed rig left there is replaced; a
// rig that still runs in the folder is an error.
func Start(ctx context.Context, cfg Config) (*Rig, error) {
	if cfg.Dir == "" {
		return nil, errors.New("rig: Config.Dir is empty; name the folder for its sockets")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	r := newRig(cfg)
	ctx, r.cancel = context.WithCancelCause(ctx)
	if err := r.serve(ctx); err != nil {
		r.cancel(nil)
		r.tasks.Wait()
		return nil, fmt.Errorf("rig: %w", err)
	}
	go r.finish(ctx)
	return r, nil
}

func newRig(cfg Config) *Rig {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Rig{
		cfg:   cfg,
		log:   log,
		coins: chips.NewCoinAcceptor(chips.CoinConfig{Serial: uint32(cfg.Seed)&0x7fffff | 0x100000}),
		buses: map[string]*chips.Bus{"climate": new(chips.Bus), "machine": new(chips.Bus)},
		off:   map[string]bool{},
		wires: map[string]*wire{
			// The reed contact opens when the magnet of the closed door is near; open, it pulls the line to ground against the
			// board's pull-up. So active-low is "door open", and so it is for the beam's receiver: low while interrupted.
			"door": newWire(true, false),
			"beam": newWire(true, false),
			"lock": newWire(false, true),
			// A solid state relay: high is on, and the board pulls it low.
			"compressor": newWire(false, true),
		},
		done: make(chan struct{}),
	}
	r.world = newWorld(rand.New(rand.NewPCG(cfg.Seed, 0x5ca1ab1e)), r.coins, r.wires["door"].line, r.wires["beam"].line, log)
	r.wires["compressor"].driven = r.world.cool
	r.climate = chips.NewBME280(r.world.air)
	r.buses["climate"].Attach(ClimateAddr, r.climate)

	r.cooling = chips.NewMCP9808(func() float64 { return r.world.air().Celsius })
	r.vending = newVending(rand.New(rand.NewPCG(cfg.Seed, 0xfa11)), r.world.fall)
	r.world.vends = r.vending.used
	r.supply = chips.NewINA219(shuntOhms, r.load)
	r.wires["expander"] = newWire(true, false)
	r.wires["expander"].line = r.vending.expander.Int(0)
	r.buses["machine"].Attach(CoolingAddr, r.cooling)
	r.buses["machine"].Attach(ExpanderAddr, r.vending.expander)
	r.buses["machine"].Attach(SupplyAddr, r.supply)
	return r
}

// load is what the 24 V supply has to bear.
func (r *Rig) load() chips.Supply {
	amperes := idleAmperes + r.vending.amperes()
	if r.world.compressing() {
		amperes += coolAmperes
	}
	return chips.Supply{Volts: supplyVolts - amperes*supplyOhms, Amperes: amperes}
}

// serve starts everything. The listeners end with ctx, and take their files along.
func (r *Rig) serve(ctx context.Context) error {
	control, err := listen(filepath.Join(r.cfg.Dir, ControlSocket))
	if err != nil {
		return err
	}
	r.accept(ctx, control, r.serveControl)
	bus, err := listen(filepath.Join(r.cfg.Dir, BusSocket))
	if err != nil {
		return err
	}
	r.accept(ctx, bus, r.serveBus)
	if err := r.plugCoins(ctx); err != nil {
		return err
	}
	r.tasks.Go(func() { r.world.run(ctx, r.cfg.World) })
	return nil
}

// finish waits for the end and cleans up.
func (r *Rig) finish(ctx context.Context) {
	<-ctx.Done()
	err := r.unplugCoins()
	r.tasks.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	r.err = err
	close(r.done)
}

// Close ends the rig, removes its files and waits until nothing of it runs any more.
func (r *Rig) Close() error {
	r.cancel(nil)
	return r.Wait()
}

// Wait waits for the end of the rig, and returns why it ended if it was not asked to.
func (r *Rig) Wait() error {
	<-r.done
	return r.err
}

// Dir is the rig's folder, absolute.
func (r *Rig) Dir() string { return r.cfg.Dir }

// accept serves each connection on goroutines that end with ctx.
func (r *Rig) accept(ctx context.Context, l net.Listener, serve func(context.Context, net.Conn)) {
	context.AfterFunc(ctx, func() { l.Close() })
	r.tasks.Go(func() {
		defer l.Close()
		for {
			c, err := l.Accept()
			switch {
			case ctx.Err() != nil:
				if err == nil {
					c.Close()
				}
				return
			case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
				r.log.Warn("cannot accept a connection", "err", err)
				if !pause(ctx, 100*time.Millisecond) {
					return
				}
				continue
			case err != nil:
				r.cancel(fmt.Errorf("rig: the socket stopped serving: %w", err))
				return
			}
			r.tasks.Go(func() {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				serve(ctx, c)
			})
		}
	})
}

// pause waits for d; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// listen makes a socket for its owner alone, in place of one that nobody serves any more.
func listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s is too long for a unix socket (%d bytes, at most %d); choose a shorter folder", path, len(path), maxSocketPath)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s is served already; stop that simulator or choose another folder", path)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is in the way and is no socket; move it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
