package modkit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

// plain is a module made of functions.
type plain struct {
	run    func(context.Context, *modkit.Bay) error
	apply  func(modkit.Settings) (modkit.Applied, error)
	invoke func(string, json.RawMessage) (modkit.Answer, error)
}

func (p *plain) Describe() modkit.Description {
	return modkit.Description{
		Name: "plain", Version: "1.2.3",
		Settings: json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer","default":7}}}`),
		Wiring:   json.RawMessage(`{"type":"object","properties":{"bus":{"type":"string"}}}`),
		Methods:  []modkit.Method{{Name: "go", Summary: "goes", Deadline: 3 * time.Second}},
		Wires:    []modkit.Wire{{Name: "bus", Kind: modkit.I2C, Optional: true}},
		Inputs:   []modkit.InputPort{{Name: "door", Summary: "the door", Type: modkit.Boolean}},
		Outputs:  []modkit.OutputPort{{Name: "level", Summary: "how full", Type: modkit.Number}},
	}
}

func (p *plain) Apply(_ context.Context, s modkit.Settings) (modkit.Applied, error) {
	if p.apply == nil {
		return nil, nil
	}
	return p.apply(s)
}

func (p *plain) Invoke(_ context.Context, method string, payload json.RawMessage) (modkit.Answer, error) {
	if p.invoke == nil {
		return modkit.Answer{}, modkit.ErrNoMethod
	}
	return p.invoke(method, payload)
}

func (p *plain) Run(ctx context.Context, b *modkit.Bay) error {
	if p.run == nil {
		<-ctx.Done()
		return nil
	}
	return p.run(ctx, b)
}

func body(n int) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)) }

func TestDescribeCrossesUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &plain{}
		got, err := modtest.Dial(t, m, modtest.Config{}).Remote.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", m.Describe()); g != w {
			t.Errorf("got  %s\nwant %s", g, w)
		}
	})
}

func TestStartAppliesSettingsBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps []string
		m := &plain{
			apply: func(s modkit.Settings) (modkit.Applied, error) {
				steps = append(steps, fmt.Sprintf("apply %s version %d", s.Doc, s.Version))
				return modkit.Applied{"n": {Value: json.RawMessage("5"), Refused: true, Reason: "too high"}}, nil
			},
			run: func(ctx context.Context, b *modkit.Bay) error {
				steps = append(steps, fmt.Sprintf("run %s state %q", b.Wiring, b.State))
				<-ctx.Done()
				return nil
			},
		}
		b := modtest.Run(t, m, modtest.Config{Wiring: map[string]any{"bus": "test:x"}, State: []byte("old")})
		got := b.Running.Applied["n"]
		if string(got.Value) != "5" || !got.Refused || got.Reason != "too high" {
			t.Errorf("applied %+v", got)
		}
		b.Stop()
		want := `[apply {"n":7} version 1 run {"bus":"test:x"} state "old"]`
		if fmt.Sprint(steps) != want {
			t.Errorf("steps %v\nwant %s", steps, want)
		}
	})
}

func TestStartFailsWhenSettingsDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &plain{apply: func(modkit.Settings) (modkit.Applied, error) { return nil, errors.New("n is odd") }}
		_, err := modtest.Dial(t, m, modtest.Config{}).Remote.Run(t.Context(), modkit.Start{})
		if err == nil || !strings.Contains(err.Error(), "n is odd") {
			t.Errorf("err = %v, want the module's reason", err)
		}
	})
}

func TestTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error)
		m := &plain{run: func(ctx context.Context, b *modkit.Bay) error {
			for i := range 3 {
				ticket, err := b.Send(modkit.Message{
					Body: body(i), Priority: modkit.High, TTL: time.Minute, State: []byte{byte(i)},
					Properties: map[string]string{"k": "v"},
				})
				if err != nil {
					return err
				}
				go func() { <-ticket.Done(); errs <- ticket.Err() }()
			}
			<-ctx.Done()
			return nil
		}}
		b := modtest.Run(t, m, modtest.Config{Hold: true})
		first, second := b.Next(), b.Next()
		if g := first.Message; first.Seq != 1 || string(g.Body) != `{"n":0}` || g.Priority != modkit.High ||
			g.TTL != time.Minute || g.Properties["k"] != "v" || string(g.State) != "\x00" || !g.At.Equal(time.Now()) {
			t.Errorf("first message %+v", first)
		}
		b.Refuse(second, "no room")
		var refused *modkit.Refused
		if err := <-errs; !errors.As(err, &refused) || refused.Reason != "no room" {
			t.Errorf("err = %v, want Refused", err)
		}
		b.Accept(first)
		if err := <-errs; err != nil {
			t.Errorf("err = %v, want accepted", err)
		}
		go b.Stop()
		if err := <-errs; !errors.Is(err, modkit.ErrEnded) {
			t.Errorf("err = %v, want ErrEnded", err)
		}
		synctest.Wait()
	})
}

// An agent that accepts nothing must not stop a control loop: Send answers at once, also when it is full.
func TestSendNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type seen struct {
			sent int
			err  error
		}
		result := make(chan seen, 1)
		m := &plain{run: func(ctx context.Context, b *modkit.Bay) error {
			began := time.Now()
			for i := 0; ; i++ {
				if _, err := b.Send(modkit.Message{Body: body(i)}); err != nil {
					if time.Since(began) != 0 {
						t.Errorf("sending took %s", time.Since(began))
					}
					result <- seen{i, err}
					break
				}
			}
			<-ctx.Done()
			_, err := b.Send(modkit.Message{Body: body(0), State: make([]byte, modkit.MaxState+1)})
			if !errors.Is(err, modkit.ErrTooLarge) {
				t.Errorf("err = %v, want ErrTooLarge", err)
			}
			_, err = b.Send(modkit.Message{Body: make([]byte, modkit.MaxBody+1)})
			if !errors.Is(err, modkit.ErrTooLarge) {
				t.Errorf("err = %v, want ErrTooLarge", err)
			}
			return nil
		}}
		b := modtest.Run(t, m, modtest.Config{Hold: true})
		got := <-result
		if got.sent != modkit.MaxOutstanding || !errors.Is(got.err, modkit.ErrFull) {
			t.Errorf("sent %d, then %v", got.sent, got.err)
		}
		for i := range modkit.MaxOutstanding {
			if s := b.Next(); s.Seq != uint64(i+1) || string(s.Message.Body) != string(body(i)) {
				t.Fatalf("message %d is %d %s", i, s.Seq, s.Message.Body)
			}
		}
		b.Stop()
	})
}

func TestPingTellsOfAnOverdueCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := haltest.Faulty(haltest.I2C(t), haltest.Fault{Hang: true})
		drivers := map[string]hal.Driver{"test": haltest.Wires(map[string]any{"bus": hung})}
		var opened atomic.Bool
		m := &plain{run: func(ctx context.Context, b *modkit.Bay) error {
			bus, err := b.Wires.I2C(ctx, "test:bus")
			if err != nil {
				return err
			}
			defer bus.Close()
			opened.Store(true)
			_ = bus.Tx(ctx, 0x20, nil, nil) // never comes back while the run lasts
			return nil
		}}
		b := modtest.Run(t, m, modtest.Config{Drivers: drivers})
		if p := b.Ping(1); p.Overdue.Call != "" {
			t.Errorf("overdue at once: %+v", p)
		}
		time.Sleep(5 * time.Second)
		p := b.Ping(2)
		if !strings.Contains(p.Overdue.Call, "test:bus") || p.Overdue.By < 3*time.Second {
			t.Errorf("opened %v, overdue %+v, want the call on test:bus", opened.Load(), p.Overdue)
		}
	})
}

func TestInputsKeepTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{})
		got := make(chan string, 8)
		m := &plain{run: func(ctx context.Context, b *modkit.Bay) error {
			<-wake
			for {
				select {
				case in := <-b.Inputs:
					got <- fmt.Sprintf("%s=%s %v", in.Name, in.Value, in.Quality == modkit.Good)
				case <-ctx.Done():
					return nil
				}
			}
		}}
		b := modtest.Run(t, m, modtest.Config{})
		for i := range 50 {
			in := modkit.Input{Name: "door", Value: json.RawMessage(fmt.Sprint(i)), At: time.Now(), Quality: modkit.Good}
			if err := b.Running.Input(in); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Running.Input(modkit.Input{Name: "lamp", Value: json.RawMessage("1"), At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		b.Ping(1) // what came down before it has been read
		synctest.Wait()
		close(wake)
		synctest.Wait()
		b.Stop()
		close(got)
		var all []string
		for s := range got {
			all = append(all, s)
		}
		// One value may have been on offer when the next came; the newest of each name comes in any case.
		if n := len(all); n > 3 || all[n-1] != "lamp=1 false" || all[n-2] != "door=49 true" {
			t.Errorf("inputs %q, want door=49 and lamp=1 at the end", all)
		}
	})
}

// What is too large is refused where it is said: the agent would end a module that says it.
func TestTooLargeToSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 3)
		m := &plain{run: func(ctx context.Context, bay *modkit.Bay) error {
			for _, message := range []modkit.Message{
				{Body: json.RawMessage(`"` + strings.Repeat("x", modkit.MaxBody) + `"`)},
				{Body: body(1), Properties: map[string]string{"k": strings.Repeat("x", modkit.MaxBody)}},
				{Body: body(1), State: make([]byte, modkit.MaxState+1)},
			} {
				_, err := bay.Send(message)
				errs <- err
			}
			bay.Report(map[string]string{"small": "1"})
			bay.Report(map[string]string{"large": strings.Repeat("x", modkit.MaxReport)})
			bay.Health(modkit.Health{State: modkit.Degraded, Detail: strings.Repeat("ö", modkit.MaxDetail)})
			<-ctx.Done()
			return nil
		}}
		b := modtest.Run(t, m, modtest.Config{})
		for range 3 {
			if err := <-errs; !errors.Is(err, modkit.ErrTooLarge) {
				t.Errorf("err = %v, want ErrTooLarge", err)
			}
		}
		b.WaitReported(func(doc map[string]any) bool {
			if doc["large"] != nil {
				t.Error("what is too large was reported")
			}
			return doc["small"] == "1"
		})
		if got := b.WaitHealth(modkit.Degraded).Detail; len(got) > modkit.MaxDetail || len(got) < modkit.MaxDetail-4 {
			t.Errorf("a detail of %d bytes, want it cut to %d", len(got), modkit.MaxDetail)
		}
		b.Stop()
	})
}

func TestRunsErrorReachesTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &plain{run: func(_ context.Context, b *modkit.Bay) error {
			b.Health(modkit.Health{State: modkit.Faulted, Detail: "smoke"})
			if _, err := b.Send(modkit.Message{Body: body(1)}); err != nil {
				return err
			}
			return errors.New("plain: the board is on fire: call somebody")
		}}
		b := modtest.Run(t, m, modtest.Config{})
		err := b.Wait()
		if err == nil || !strings.Contains(err.Error(), "the board is on fire") {
			t.Errorf("err = %v", err)
		}
		if p := b.Pending(); len(p) != 1 {
			t.Errorf("%d messages came before the end, want the one that was sent", len(p))
		}
	})
}

func TestOneRunAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &plain{}
		b := modtest.Run(t, m, modtest.Config{})
		if _, err := b.Remote.Run(t.Context(), modkit.Start{}); err == nil || !strings.Contains(err.Error(), "runs already") {
			t.Errorf("second Run: %v", err)
		}
		b.Stop()
		b.Start(modtest.Config{}) // and again after the first has ended
		b.Stop()
	})
}

func TestInvokeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &plain{invoke: func(method string, payload json.RawMessage) (modkit.Answer, error) {
			switch method {
			case "echo":
				return modkit.Answer{Status: 207, Payload: payload}, nil
			case "late":
				return modkit.Answer{}, fmt.Errorf("waiting: %w", context.DeadlineExceeded)
			case "fail":
				return modkit.Answer{}, errors.New(`the "gate" is stuck`)
			}
			return modkit.Answer{}, modkit.ErrNoMethod
		}}
		b := modtest.Run(t, m, modtest.Config{})
		for _, row := range []struct {
			method, payload string
			status          int
			want            string
		}{
			{"echo", `{"a":1}`, 207, `{"a":1}`},
			{"late", ``, 504, `{"error":"waiting: context deadline exceeded"}`},
			{"fail", ``, 500, `{"error":"the \"gate\" is stuck"}`},
			{"nope", ``, 404, `{"error":"nope: no such direct method"}`},
		} {
			a := b.Invoke(row.method, row.payload)
			if a.Status != row.status || string(a.Payload) != row.want {
				t.Errorf("%s: %d %s, want %d %s", row.method, a.Status, a.Payload, row.status, row.want)
			}
		}
	})
}

func TestReportAndHealthSayTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &plain{run: func(ctx context.Context, b *modkit.Bay) error {
			b.Report(map[string]any{"bad": make(chan int)}) // a bug is logged, not fatal
			for i := range 100 {
				b.Report(map[string]int{"i": i})
				b.Health(modkit.Health{State: modkit.HealthState(i % 3), Detail: fmt.Sprint(i)})
			}
			<-ctx.Done()
			return nil
		}}
		b := modtest.Run(t, m, modtest.Config{})
		b.WaitReported(func(doc map[string]any) bool { return doc["i"] == 99.0 })
		if h := b.WaitHealth(modkit.OK); h.Detail != "99" {
			t.Errorf("health %+v", h)
		}
	})
}
