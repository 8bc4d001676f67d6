package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit"
)

// machine is the hardware of a test: it counts coins, whoever reads it, and remembers what modules did to it.
type machine struct {
	mu      sync.Mutex
	coins   int           // ever inserted
	changed chan struct{} // closed and replaced at each coin
	applied []modkit.Settings
	starts  []string // the state that each Run began with
	report  map[string]any
	refuse  string        // a reason to refuse the setting "mode"
	hold    chan struct{} // the method "hold" answers when it is closed
	stuck   bool          // the serial line never finishes a write

	absent string        // why the module cannot be started
	lasts  time.Duration // how long a run of the module lasts before it fails; 0 is for ever
}

func newMachine() *machine {
	return &machine{changed: make(chan struct{}), hold: make(chan struct{})}
}

func (m *machine) insert(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.coins += n
	close(m.changed)
	m.changed = make(chan struct{})
}

// ruin keeps the module from being started; "" mends that.
func (m *machine) ruin(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.absent = why
}

func (m *machine) read() (int, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.coins, m.changed
}

// lastApplied is the settings document that the module was given last, and how many there were.
func (m *machine) lastApplied() (string, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.applied) == 0 {
		return "", 0
	}
	return string(m.applied[len(m.applied)-1].Doc), len(m.applied)
}

// counter is a module that reports each coin of its machine once: its state is the number reported.
type counter struct{ machine *machine }

func (c *counter) Describe() modkit.Description {
	return modkit.Description{
		Name: "counter", Version: "1.0.0",
		Settings: json.RawMessage(`{"type":"object","properties":{
			"interval_ms":{"type":"integer","minimum":1,"maximum":10000,"default":100},
			"mode":{"type":"string","default":"normal"}}}`),
		Wiring:  json.RawMessage(`{"type":"object","properties":{"port":{"type":"string"},"address":{"type":"integer","default":2}},"required":["port"]}`),
		Methods: []modkit.Method{{Name: "echo"}, {Name: "hold"}, {Name: "slow", Deadline: 2 * time.Second}, {Name: "big"}, {Name: "huge"}, {Name: "fault"}},
		Wires:   []modkit.Wire{{Name: "port", Kind: modkit.Serial}},
	}
}

func (c *counter) Apply(_ context.Context, s modkit.Settings) (modkit.Applied, error) {
	c.machine.mu.Lock()
	defer c.machine.mu.Unlock()
	c.machine.applied = append(c.machine.applied, s)
	if c.machine.refuse != "" && strings.Contains(string(s.Doc), `"mode":"bad"`) {
		return modkit.Applied{"mode": {Value: json.RawMessage(`"normal"`), Refused: true, Reason: c.machine.refuse}}, nil
	}
	return nil, nil
}

func (c *counter) Invoke(ctx context.Context, method string, payload json.RawMessage) (modkit.Answer, error) {
	switch method {
	case "echo":
		return modkit.Answer{Status: 200, Payload: payload}, nil
	case "hold":
		c.machine.mu.Lock()
		hold := c.machine.hold
		c.machine.mu.Unlock()
		select {
		case <-hold:
			return modkit.Answer{Status: 200}, nil
		case <-ctx.Done():
			return modkit.Answer{}, ctx.Err()
		}
	case "slow":
		<-ctx.Done()
		return modkit.Answer{}, ctx.Err()
	case "big":
		return modkit.Answer{Status: 200, Payload: json.RawMessage(`"` + strings.Repeat("x", 200<<10) + `"`)}, nil
	case "huge": // more than a module may say at once
		return modkit.Answer{Status: 200, Payload: json.RawMessage(`"` + strings.Repeat("x", modkit.MaxSaid) + `"`)}, nil
	case "fault":
		return modkit.Answer{}, errors.New("the motor is stuck")
	}
	return modkit.Answer{}, modkit.ErrNoMethod
}

func (c *counter) Run(ctx context.Context, bay *modkit.Bay) error {
	c.machine.mu.Lock()
	c.machine.starts = append(c.machine.starts, string(bay.State))
	report, stuck, lasts := c.machine.report, c.machine.stuck, c.machine.lasts
	c.machine.stuck = false
	c.machine.mu.Unlock()
	if stuck {
		if err := write(ctx, bay); err != nil {
			return err
		}
	}
	if report != nil {
		bay.Report(report)
	}
	var over <-chan time.Time
	if lasts > 0 {
		over = time.After(lasts)
	}
	done := 0
	fmt.Sscan(string(bay.State), &done)
	for {
		coins, changed := c.machine.read()
		for done < coins {
			m := modkit.Message{Body: fmt.Appendf(nil, `{"coin":%d}`, done+1), State: fmt.Append(nil, done+1)}
			ticket, err := bay.Send(m)
			if err != nil {
				return err
			}
			done++
			select {
			case <-ticket.Done():
				if err := ticket.Err(); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-changed:
		case <-over:
			return errors.New("the motor is stuck")
		case <-ctx.Done():
			return nil
		}
	}
}

// write writes one byte to the module's serial line.
func write(ctx context.Context, bay *modkit.Bay) error {
	line, err := bay.Wires.Serial(ctx, "stuck:line", hal.SerialMode{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return line.Write(ctx, []byte{1})
}

// stuckDriver has serial lines whose writes never end, whatever their context says.
type stuckDriver struct {
	hal.Driver
	end <-chan struct{} // of the test
}

func (d stuckDriver) OpenSerial(context.Context, string, hal.SerialMode) (hal.Serial, error) {
	return stuckLine{end: d.end}, nil
}

type stuckLine struct {
	hal.Serial
	end <-chan struct{}
}

func (l stuckLine) Write(context.Context, []byte) error { <-l.end; return hal.ErrGone }
