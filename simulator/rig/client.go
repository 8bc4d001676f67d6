package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twinbay/twinbay/simulator/chips"
)

// callLimit is how long a call of Client may take when its context has no deadline.
const callLimit = 5 * time.Second

// Client controls the rig in Dir. Each call is a connection of its own.
type Client struct {
	Dir string
}

// Coin throws in a coin: an id of the acceptor's table, as EU100A, or "slug" for one that it does not recognize.
func (c Client) Coin(ctx context.Context, id string) (chips.Outcome, error) {
	a, err := c.call(ctx, request{Op: "coin", Coin: id})
	return a.Outcome, err
}

// Door opens or closes the door. Its contact bounces.
func (c Client) Door(ctx context.Context, open bool) error {
	return c.do(ctx, request{Op: "door", Open: &open})
}

// Beam lets a product fall through the delivery beam.
func (c Client) Beam(ctx context.Context) error { return c.do(ctx, request{Op: "beam"}) }

// SetAir changes the air in the cabinet, for good.
func (c Client) SetAir(ctx context.Context, a Air) error {
	return c.do(ctx, request{Op: "air", Set: &a})
}

// Plug puts a part in again. Parts lists them.
func (c Client) Plug(ctx context.Context, part string) error {
	return c.do(ctx, request{Op: "plug", Part: part})
}

// Unplug pulls a part out.
func (c Client) Unplug(ctx context.Context, part string) error {
	return c.do(ctx, request{Op: "unplug", Part: part})
}

// Fault makes something go wrong with a part, count times or for d, as the fault wants. An unknown fault's error names
// the faults of the part.
func (c Client) Fault(ctx context.Context, part, fault string, count int, d time.Duration) error {
	return c.do(ctx, request{Op: "fault", Part: part, Fault: fault, Count: count, MilliS: d.Milliseconds()})
}

// Status asks for the rig's state.
func (c Client) Status(ctx context.Context) (Status, error) {
	a, err := c.call(ctx, request{Op: "status"})
	if err != nil {
		return Status{}, err
	}
	if a.Status == nil {
		return Status{}, errors.New("rig: the answer has no status")
	}
	return *a.Status, nil
}

func (c Client) do(ctx context.Context, q request) error {
	_, err := c.call(ctx, q)
	return err
}

func (c Client) call(ctx context.Context, q request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	path := filepath.Join(c.Dir, ControlSocket)
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return answer{}, fmt.Errorf("no rig runs in %s; start twinbay-sim, or name its folder (%w)", c.Dir, err)
	}
	if err != nil {
		return answer{}, fmt.Errorf("rig: %w", err)
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	a, err := ask(nc, q)
	if ctx.Err() != nil {
		return answer{}, fmt.Errorf("rig: %s: %w", q.Op, ctx.Err())
	}
	if err != nil {
		return answer{}, fmt.Errorf("rig: %s: %w", q.Op, err)
	}
	return a, nil
}

func ask(nc net.Conn, q request) (answer, error) {
	p, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	if _, err := nc.Write(append(p, '\n')); err != nil {
		return answer{}, err
	}
	lines := bufio.NewScanner(nc)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() {
		return answer{}, errors.Join(errors.New("the rig hung up"), lines.Err())
	}
	return parseAnswer(lines.Bytes())
}

func parseAnswer(line []byte) (answer, error) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, fmt.Errorf("the answer is no JSON object of this protocol: %w", err)
	}
	if a.Error != "" {
		return answer{}, errors.New(a.Error)
	}
	return a, nil
}
