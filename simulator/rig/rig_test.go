package rig

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/linux"
	"github.com/twinbay/twinbay/hal/simbus"
	"github.com/twinbay/twinbay/simulator/chips"
)

// folder is a short one: a socket's path has room for 107 bytes.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// bench is a rig in which nothing happens by itself, and wires to it.
type bench struct {
	*Rig
	Client
	wires *hal.Wires
}

func start(t *testing.T) bench {
	t.Helper()
	dir := folder(t)
	r, err := Start(t.Context(), Config{Dir: dir, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return bench{r, Client{Dir: dir}, &hal.Wires{Drivers: map[string]hal.Driver{"sim": simbus.Driver{}, "serial": linux.Serial{}}}}
}

func (b bench) uri(s string) string { return hal.Resolve(s, b.Client.Dir) }

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// openCoins waits for the acceptor's start, and takes its line.
func (b bench) openCoins(t *testing.T) hal.Serial {
	t.Helper()
	line, err := b.wires.Serial(limit(t), b.uri("serial:ttyCOIN"), hal.SerialMode{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	for range 100 {
		if talk(t, line, 300*time.Millisecond, 2, 0, 1, 254, 255) != nil {
			return line
		}
	}
	t.Fatal("the acceptor does not start")
	return nil
}

// talk sends a frame and returns the answer without the echo, or nil if none comes in time.
func talk(t *testing.T, line hal.Serial, d time.Duration, frame ...byte) []byte {
	t.Helper()
	if err := line.Flush(limit(t)); err != nil {
		t.Fatal(err)
	}
	if err := line.Write(limit(t), frame); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var got []byte
	buf := make([]byte, 64)
	for {
		n, err := line.Read(ctx, buf)
		if err != nil {
			return nil
		}
		got = append(got, buf[:n]...)
		if rest, ok := bytes.CutPrefix(got, frame); ok && len(rest) >= 5 && len(rest) == int(rest[1])+5 {
			return rest
		}
	}
}

func TestCoinsEndToEnd(t *testing.T) {
	b := start(t)
	line := b.openCoins(t)
	begin := time.Now()
	poll := func() []byte { return talk(t, line, 5*time.Second, 2, 0, 1, 229, 24) }
	if got := poll(); len(got) != 16 || got[4] != 0 {
		t.Fatalf("229: % d", got)
	}
	if d := time.Since(begin); d < 21*time.Second*10/9600 {
		t.Errorf("21 bytes took %v; at 9600 baud they take at least 22 ms", d)
	}
	if o, err := b.Coin(limit(t), "EU100A"); err != nil || o != chips.Inhibited {
		t.Errorf("a coin before the inhibits are off: %s, %v", o, err)
	}
	talk(t, line, 5*time.Second, 2, 2, 1, 231, 0xff, 0xff, 22)
	poll()
	if o, err := b.Coin(limit(t), "EU050A"); err != nil || o != chips.Credited {
		t.Errorf("coin: %s, %v", o, err)
	}
	if got := poll(); len(got) != 16 || got[4] != 2 || got[5] != 3 || got[6] != 1 {
		t.Errorf("229: % d, want counter 2 and coin 3 on path 1", got)
	}
	s, err := b.Status(limit(t))
	if err != nil || s.Coins.Credited != 1 || s.Coins.CreditedCents != 50 || s.Coins.Counter != 2 || !s.Coins.Accepting {
		t.Errorf("status %+v, %v", s.Coins, err)
	}
}

func TestUnplugCoins(t *testing.T) {
	b := start(t)
	line := b.openCoins(t)
	waiting := make(chan error, 1)
	go func() {
		_, err := line.Read(limit(t), make([]byte, 1))
		waiting <- err
	}()
	for range 2 { // the second is no error
		if err := b.Unplug(limit(t), "coins"); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-waiting; !errors.Is(err, hal.ErrGone) {
		t.Errorf("waiting read: err = %v, want ErrGone", err)
	}
	if _, err := b.wires.Serial(limit(t), b.uri("serial:ttyCOIN"), hal.SerialMode{}); !errors.Is(err, hal.ErrGone) {
		t.Errorf("open: err = %v, want ErrGone", err)
	}
	if o, err := b.Coin(limit(t), "EU100A"); err != nil || o != chips.Refused {
		t.Errorf("a coin without power: %s, %v", o, err)
	}
	line.Close()
	if err := b.Plug(limit(t), "coins"); err != nil {
		t.Fatal(err)
	}
	line = b.openCoins(t)
	if got := talk(t, line, 5*time.Second, 2, 0, 1, 230, 23); len(got) != 7 || got[4]|got[5] != 0 {
		t.Errorf("inhibits after the plug % d, want all inhibited", got)
	}
}

func TestWrongSpeed(t *testing.T) {
	b := start(t)
	b.openCoins(t).Close()
	line, err := b.wires.Serial(limit(t), b.uri("serial:ttyCOIN"), hal.SerialMode{Baud: 19200})
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	if got := talk(t, line, 150*time.Millisecond, 2, 0, 1, 254, 255); got != nil {
		t.Errorf("at 19200 baud the acceptor said % x", got)
	}
}

func TestClimateEndToEnd(t *testing.T) {
	b := start(t)
	bus, err := b.wires.I2C(limit(t), b.uri("sim:rig.sock#climate"))
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	id := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		r := make([]byte, 1)
		err := bus.Tx(ctx, ClimateAddr, []byte{0xd0}, r)
		if err == nil && r[0] != 0x60 {
			t.Errorf("id %#02x, want 0x60", r[0])
		}
		return err
	}
	if err := id(5 * time.Second); err != nil {
		t.Error(err)
	}
	if err := b.Unplug(limit(t), "climate"); err != nil {
		t.Fatal(err)
	}
	if err := id(5 * time.Second); !errors.Is(err, hal.ErrAbsent) {
		t.Errorf("unplugged: err = %v, want ErrAbsent", err)
	}
	if err := b.Plug(limit(t), "climate"); err != nil {
		t.Fatal(err)
	}
	if err := b.Fault(limit(t), "climate", "nack", 1, 0); err != nil {
		t.Fatal(err)
	}
	if err := id(5 * time.Second); !errors.Is(err, hal.ErrAbsent) {
		t.Errorf("nack: err = %v, want ErrAbsent", err)
	}
	if err := b.Fault(limit(t), "climate", "hang", 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := id(30 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: err = %v, want DeadlineExceeded", err)
	}
	if err := b.Fault(limit(t), "climate", "hang", 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := id(5 * time.Second); err != nil {
		t.Errorf("after the hang: %v", err)
	}
	c := 35.5
	if err := b.SetAir(limit(t), Air{Celsius: &c}); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(limit(t)); err != nil || s.Climate.Celsius != 35.5 || !s.Climate.Plugged {
		t.Errorf("status %+v, %v; want 35.5 °C", s.Climate, err)
	}
}

func TestDoorEndToEnd(t *testing.T) {
	b := start(t)
	in, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#door"), hal.InputMode{ActiveLow: true, Debounce: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for i, open := range []bool{true, false} {
		if err := b.Door(limit(t), open); err != nil {
			t.Fatal(err)
		}
		if e, err := in.Next(limit(t)); err != nil || e.Level != open || e.Seq != uint32(i+1) {
			t.Errorf("edge = %+v, %v; want one of level %v for all the bounces", e, err, open)
		}
	}
	beam, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#beam"), hal.InputMode{ActiveLow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer beam.Close()
	if err := b.Beam(limit(t)); err != nil {
		t.Fatal(err)
	}
	dark, err1 := beam.Next(limit(t))
	light, err2 := beam.Next(limit(t))
	if d := light.At.Sub(dark.At); err1 != nil || err2 != nil || !dark.Level || light.Level || d < 20*time.Millisecond || d > 80*time.Millisecond {
		t.Errorf("a delivery is %+v (%v), %+v (%v)", dark, err1, light, err2)
	}
	if err := b.Fault(limit(t), "door", "storm", 101, 0); err != nil {
		t.Fatal(err)
	}
	if open, err := in.Read(limit(t)); err != nil {
		t.Errorf("Read = %v, %v", open, err)
	}
}

func TestLineHasOneOwner(t *testing.T) {
	b := start(t)
	first, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#door"), hal.InputMode{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#door"), hal.InputMode{}); !errors.Is(err, hal.ErrBusy) {
		t.Errorf("a second owner: err = %v, want ErrBusy", err)
	}
	first.Close()
	again, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#door"), hal.InputMode{})
	if err != nil {
		t.Fatalf("after the first is gone: %v", err)
	}
	again.Close()
}

func TestWrongWires(t *testing.T) {
	b := start(t)
	if _, err := b.wires.I2C(limit(t), b.uri("sim:rig.sock#cellar")); !errors.Is(err, hal.ErrBadURI) || !strings.Contains(err.Error(), "beam, climate, compressor, door") {
		t.Errorf("unknown wire: err = %v, want ErrBadURI with the wires", err)
	}
	for _, name := range []string{"door", "lock"} {
		if _, err := b.wires.I2C(limit(t), b.uri("sim:rig.sock#"+name)); !errors.Is(err, hal.ErrUnsupported) {
			t.Errorf("%s as a bus: err = %v, want ErrUnsupported", name, err)
		}
	}
	if _, err := b.wires.DigitalOut(limit(t), b.uri("sim:rig.sock#door"), hal.OutputMode{}); !errors.Is(err, hal.ErrUnsupported) {
		t.Errorf("the door as an output: err = %v, want ErrUnsupported", err)
	}
	if err := b.Unplug(limit(t), "door"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#door"), hal.InputMode{}); !errors.Is(err, hal.ErrGone) {
		t.Errorf("the door unplugged: err = %v, want ErrGone", err)
	}
}

func TestControlErrorsNameTheChoices(t *testing.T) {
	b := start(t)
	ctx := limit(t)
	_, coin := b.Coin(ctx, "EU500A")
	hot := 900.0
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"coin":  {coin, "EU200A, EU100A"},
		"part":  {b.Unplug(ctx, "cellar"), "beam, climate, coins, cooling, door"},
		"fault": {b.Fault(ctx, "climate", "fire", 1, 0), "bitflip, hang, nack, poison"},
		"of":    {b.Fault(ctx, "cellar", "nack", 1, 0), "beam, climate, coins, cooling, door"},
		"count": {b.Fault(ctx, "climate", "nack", 1e6, 0), "at most 1000"},
		"air":   {b.SetAir(ctx, Air{Celsius: &hot}), "-40 to 85"},
		"op":    {b.Client.do(ctx, request{Op: "dance"}), "air, beam, coin, door"},
		"door":  {b.Client.do(ctx, request{Op: "door"}), "open: true or false"},
		"rig":   {Client{Dir: "/nonexistent"}.Beam(ctx), "no rig runs in /nonexistent"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: err = %v, want %q in it", name, c.err, c.want)
		}
	}
}

func TestFilesComeAndGo(t *testing.T) {
	dir := filepath.Join(folder(t), "made", "by", "the", "rig")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// What a killed rig leaves: a socket that nobody serves, and a link to a pty of another time.
	for _, name := range []string{BusSocket, ControlSocket} {
		l, err := listen(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
		l.Close()
	}
	if err := os.Symlink("/dev/pts/99999", filepath.Join(dir, CoinPort)); err != nil {
		t.Fatal(err)
	}
	r, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{BusSocket, ControlSocket} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, st, err)
		}
	}
	if _, err := Start(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "served already") {
		t.Errorf("a second rig: err = %v", err)
	}
	if _, err := (Client{Dir: dir}).Status(limit(t)); err != nil {
		t.Errorf("the second rig hurt the first: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestStartErrors(t *testing.T) {
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, CoinPort), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ dir, want string }{
		"no folder":    {"", "Config.Dir is empty"},
		"long path":    {filepath.Join(dir, strings.Repeat("x", 100)), "too long for a unix socket"},
		"in the way":   {dir, "is in the way"},
		"not a folder": {filepath.Join(dir, CoinPort), "not a directory"},
	} {
		if _, err := Start(t.Context(), Config{Dir: c.dir}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: err = %v, want %q in it", name, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, BusSocket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a start that failed left its socket: %v", err)
	}
}

// TestNothingIsLeftRunning: a rig that is closed in the middle of everything leaves no goroutine and no descriptor.
func TestNothingIsLeftRunning(t *testing.T) {
	count := func() (goroutines, files int) {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(d)
	}
	t.Run("warm up", func(t *testing.T) { start(t) }) // the poller's own descriptors
	goroutines, files := count()
	t.Run("busy rig", func(t *testing.T) {
		b := start(t)
		b.openCoins(t)
		bus, err := b.wires.I2C(limit(t), b.uri("sim:rig.sock#climate"))
		if err != nil {
			t.Fatal(err)
		}
		in, err := b.wires.DigitalIn(limit(t), b.uri("sim:rig.sock#door"), hal.InputMode{})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Fault(limit(t), "climate", "hang", 0, time.Hour); err != nil {
			t.Fatal(err)
		}
		ends := make(chan error, 2)
		go func() { ends <- bus.Tx(limit(t), ClimateAddr, []byte{0xd0}, make([]byte, 1)) }()
		go func() { _, err := in.Next(limit(t)); ends <- err }()
		if err := b.Rig.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-ends; !errors.Is(err, hal.ErrGone) {
				t.Errorf("err = %v, want ErrGone", err)
			}
		}
		bus.Close()
		in.Close()
	})
	for end := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		g, f := count()
		if g <= goroutines && f <= files {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines and %d files, before %d and %d", g, f, goroutines, files)
		}
	}
}

// TestGarbageOnTheSockets: neither socket minds what comes.
func TestGarbageOnTheSockets(t *testing.T) {
	b := start(t)
	for _, name := range []string{BusSocket, ControlSocket} {
		for _, p := range []string{"\xff\xff\xff\xff\xff", "\x00\x00\x00\x01\x01", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("{", 100000)} {
			nc, err := dial(filepath.Join(b.Client.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			nc.Write([]byte(p)) // the rig may hang up before the end
			nc.(interface{ CloseWrite() error }).CloseWrite()
			nc.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s kept the connection after %.10q", name, p)
			}
			nc.Close()
		}
	}
	if _, err := b.Status(limit(t)); err != nil {
		t.Error(err)
	}
}
