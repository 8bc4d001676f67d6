package door

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/hal/haltest"
	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

func TestContract(t *testing.T) { modtest.Contract(t, func() modkit.Module { return New() }, Sample) }

// machine is a door module on two lines that the test moves.
type machine struct {
	*modtest.Bench
	door, beam *haltest.InputLine
}

func start(t *testing.T, settings map[string]any) machine {
	t.Helper()
	m := machine{door: haltest.Input(t, false), beam: haltest.Input(t, false)}
	m.Bench = modtest.Run(t, New(), modtest.Config{
		Drivers:  map[string]hal.Driver{"test": haltest.Wires(map[string]any{"door": m.door, "beam": m.beam})},
		Wiring:   map[string]any{"switch": "test:door", "beam": "test:beam"},
		Settings: settings,
	})
	if e := m.next(t); e.Event != "state" || *e.Open {
		t.Fatalf("the first message is %+v, want a closed door", e)
	}
	synctest.Wait()
	return m
}

func (m machine) next(t *testing.T) event {
	t.Helper()
	var e event
	m.NextBody(&e)
	return e
}

func (m machine) silent(t *testing.T, d time.Duration) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	for _, s := range m.Pending() {
		t.Errorf("unexpected message %s", s.Message.Body)
	}
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestDoorOpensAndCloses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		time.Sleep(time.Minute)
		m.door.Push(true)
		e := m.next(t)
		if e.Event != "opened" || !*e.Open || e.Count != 1 || *e.DurationMS != 60_000 {
			t.Errorf("got %+v, want opened after 60 s", e)
		}
		time.Sleep(5*time.Second - 20*time.Millisecond) // the debounce time has passed already
		m.door.Push(false)
		e = m.next(t)
		if e.Event != "closed" || *e.Open || *e.DurationMS != 5000 || e.Bounces != 0 {
			t.Errorf("got %+v, want closed after 5 s", e)
		}
	})
}

func TestBouncesAreWaitedOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		for _, level := range []bool{true, false, true, false, true} {
			m.door.Push(level)
			time.Sleep(3 * time.Millisecond)
		}
		if e := m.next(t); e.Event != "opened" || e.Bounces != 4 {
			t.Errorf("got %+v, want one opening with 4 bounces", e)
		}
		m.door.Push(false) // a glitch of 5 ms
		time.Sleep(5 * time.Millisecond)
		m.door.Push(true)
		m.silent(t, time.Second)
	})
}

func TestDebounceTimeChangesWhileRunning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		m.Apply(map[string]any{"debounce_ms": 500})
		begin := time.Now()
		m.door.Push(true)
		m.next(t)
		if took := time.Since(begin); took != 500*time.Millisecond {
			t.Errorf("the opening is reported after %s, want 500 ms", took)
		}
	})
}

func TestAlarmWhenOpenTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, map[string]any{"open_alarm_s": 10})
		m.door.Push(true)
		m.next(t)
		var e event
		s := m.NextBody(&e)
		if e.Event != "open_too_long" || *e.DurationMS != 10_000 || s.Message.Priority != modkit.High {
			t.Errorf("got %+v of priority %v, want an urgent alarm at 10 s", e, s.Message.Priority)
		}
		m.silent(t, time.Hour) // once is enough
		m.door.Push(false)
		m.next(t)
		m.door.Push(true)
		m.next(t)
		if e := m.next(t); e.Event != "open_too_long" {
			t.Errorf("the second time: %+v", e)
		}
	})
}

func TestShorterAlarmForAnOpenDoorIsDueAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, map[string]any{"open_alarm_s": 0})
		m.door.Push(true)
		m.next(t)
		m.silent(t, time.Hour)
		m.Apply(map[string]any{"open_alarm_s": 60})
		if e := m.next(t); e.Event != "open_too_long" || *e.DurationMS != 3_600_020 {
			t.Errorf("got %+v, want the alarm after 1 h", e)
		}
	})
}

func TestLostEdgesAreSaid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		m.door.Push(true)
		m.next(t)
		m.door.Lose(3, true)
		m.door.Push(false)
		if e := m.next(t); e.Event != "closed" || e.Missed != 3 {
			t.Errorf("got %+v, want a closing with 3 missed edges", e)
		}
	})
}

func TestDeliveries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		fall := func() {
			m.beam.Push(true)
			time.Sleep(40 * time.Millisecond)
			m.beam.Push(false)
			time.Sleep(40 * time.Millisecond)
		}
		fall()
		if e := m.next(t); e.Event != "delivery" || e.Count != 1 {
			t.Errorf("got %+v, want delivery 1", e)
		}
		fall() // it tumbles
		m.silent(t, time.Second)
		fall()
		if e := m.next(t); e.Count != 2 {
			t.Errorf("got %+v, want delivery 2", e)
		}
		m.Apply(map[string]any{"report_beam": false})
		time.Sleep(time.Second)
		fall()
		m.silent(t, time.Second)
		if s := m.state(t); s.Deliveries != 3 {
			t.Errorf("readState: %d deliveries, want 3", s.Deliveries)
		}
	})
}

func (m machine) state(t *testing.T) state {
	t.Helper()
	a, err := m.Remote.Invoke(t.Context(), "readState", nil)
	if err != nil || a.Status != 200 {
		t.Fatalf("readState: %d %s, %v", a.Status, a.Payload, err)
	}
	var s state
	if err := json.Unmarshal(a.Payload, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBlockedBeamIsAFault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		m.beam.Push(true)
		m.next(t)
		m.WaitHealth(modkit.Degraded)
		m.beam.Push(false)
		m.WaitHealth(modkit.OK)
	})
}

func TestUnpluggedSwitchComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		m.door.Unplug()
		h := m.WaitHealth(modkit.Faulted)
		if want := "door: door switch on test:door: "; len(h.Detail) < len(want) || h.Detail[:len(want)] != want {
			t.Errorf("detail %q does not begin with %q", h.Detail, want)
		}
		time.Sleep(time.Minute)
		m.door.Push(true) // while nobody looks
		m.door.Plug()
		if e := m.next(t); e.Event != "opened" {
			t.Errorf("got %+v, want the opening that nobody saw", e)
		}
		m.WaitHealth(modkit.OK)
	})
}

// A module works with what there is: no beam in the wiring, no line that opens.
func TestMissingLines(t *testing.T) {
	for _, tt := range []struct {
		name   string
		wiring map[string]any
		want   modkit.HealthState
	}{
		{"no such switch", map[string]any{"switch": "test:none"}, modkit.Faulted},
		{"no such beam", map[string]any{"switch": "test:door", "beam": "test:none"}, modkit.Degraded},
		{"no scheme", map[string]any{"switch": "door"}, modkit.Faulted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := modtest.Run(t, New(), modtest.Config{
					Drivers: map[string]hal.Driver{"test": haltest.Wires(map[string]any{"door": haltest.Input(t, false)})},
					Wiring:  tt.wiring,
				})
				b.WaitHealth(tt.want)
				if a, err := b.Remote.Invoke(t.Context(), "readState", nil); err != nil || a.Status != 200 {
					t.Errorf("readState: %v %v", a, err)
				}
			})
		})
	}
}

func TestOutput(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := start(t, nil)
		is := func(value string) func(modkit.Output) bool {
			return func(o modkit.Output) bool { return o.Quality == modkit.Good && string(o.Value) == value }
		}
		m.WaitOutput("open", is("false"))
		begin := time.Now()
		m.door.Push(true)
		if o := m.WaitOutput("open", is("true")); !o.At.Equal(begin) || o.ValidFor != 0 {
			t.Errorf("output %+v, want it from %v until it changes", o, begin)
		}
		m.door.Unplug()
		if o := m.WaitOutput("open", func(o modkit.Output) bool { return o.Quality == modkit.Unknown }); o.Value != nil || o.Reason == "" {
			t.Errorf("output %+v, want a reason", o)
		}
		m.door.Plug()
		m.WaitOutput("open", is("true")) // although the door has not moved
	})
}

func TestRefusedSettingsKeepTheirValue(t *testing.T) {
	for name, bad := range map[string]int{"debounce_ms": 1001, "open_alarm_s": -1, "beam_gap_ms": 5001} {
		doc := json.RawMessage(fmt.Sprintf(`{%q:%d}`, name, bad))
		s, applied, err := decodeSettings(doc, defaults)
		if err != nil || !applied[name].Refused || s != defaults {
			t.Errorf("%s: %+v, %+v, %v", doc, s, applied, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"debounce_ms":20}`), []byte(`{"switch":"gpio:a/1"}`))
	f.Fuzz(func(t *testing.T, set, wire []byte) {
		s, _, err := decodeSettings(set, defaults)
		if err == nil && (s.DebounceMS < 0 || s.DebounceMS > 1000) {
			t.Errorf("debounce of %d ms is in force", s.DebounceMS)
		}
		if w, err := decodeWiring(wire); err == nil && w.Switch == "" {
			t.Error("wiring without a switch passes")
		}
	})
}
