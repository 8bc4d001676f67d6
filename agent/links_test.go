package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/modules/modkit"
)

// talker is a module with an output that the test sets, and an input that it writes down.
type talker struct {
	name string
	say  chan modkit.Output
	end  chan error
	hang chan struct{}      // closed: a write to its line never comes back
	deaf chan chan struct{} // it takes nothing until what it is given here is closed

	mu    sync.Mutex
	heard []string
	moved chan struct{} // closed and replaced when something is heard
	runs  int
}

func newTalker(name string) *talker {
	return &talker{name: name, say: make(chan modkit.Output), end: make(chan error), hang: make(chan struct{}), deaf: make(chan chan struct{}), moved: make(chan struct{})}
}

func (m *talker) Describe() modkit.Description {
	return modkit.Description{
		Name: "talker", Version: "1.0.0", Settings: json.RawMessage(`{"type":"object"}`), Wiring: json.RawMessage(`{"type":"object"}`),
		Inputs:  []modkit.InputPort{{Name: "door", Summary: "a door", Type: modkit.Boolean}},
		Outputs: []modkit.OutputPort{{Name: "open", Summary: "it is open", Type: modkit.Boolean}, {Name: "level", Summary: "how full", Type: modkit.Number}},
	}
}

func (m *talker) Apply(context.Context, modkit.Settings) (modkit.Applied, error) { return nil, nil }

func (m *talker) Invoke(context.Context, string, json.RawMessage) (modkit.Answer, error) {
	return modkit.Answer{}, modkit.ErrNoMethod
}

func (m *talker) Run(ctx context.Context, bay *modkit.Bay) error {
	m.mu.Lock()
	m.runs++
	m.mu.Unlock()
	m.hear("start", bay.Linked...)
	for {
		select {
		case in := <-bay.Inputs:
			m.hear("", in)
		case o := <-m.say:
			bay.Output(o)
		case until := <-m.deaf:
			<-until
		case err := <-m.end:
			return err
		case <-m.hang:
			m.hang = make(chan struct{})
			if err := write(ctx, bay); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *talker) hear(what string, all ...modkit.Input) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, in := range all {
		text := fmt.Sprintf("%s=%s", in.Name, in.Value)
		if in.Quality != modkit.Good {
			text = in.Name + " unknown: " + in.Reason
		}
		m.heard = append(m.heard, strings.TrimSpace(what+" "+text))
	}
	close(m.moved)
	m.moved = make(chan struct{})
}

// last is the newest that the module has heard.
func (m *talker) last() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.heard) == 0 {
		return ""
	}
	return m.heard[len(m.heard)-1]
}

// hears waits until the newest that the module has heard begins so, at its start or later, and answers when that was.
func (m *talker) hears(t *testing.T, want string) time.Time {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		m.mu.Lock()
		moved := m.moved
		m.mu.Unlock()
		if last := m.last(); strings.HasPrefix(last, want) || strings.HasPrefix(last, "start "+want) {
			return time.Now()
		}
		select {
		case <-moved:
		case <-limit:
			t.Fatalf("%s has heard %q, want %q", m.name, m.heard, want)
		}
	}
}

func (m *talker) open(value string) {
	m.say <- modkit.Output{Name: "open", Value: json.RawMessage(value), Quality: modkit.Good}
}

// pair is a device with a door that talks to a cooling. extra is added to its link.
func pair(t *testing.T, extra string) (r *rig, door, cooling *talker) {
	t.Helper()
	door, cooling = newTalker("door"), newTalker("cooling")
	r = newRig(t, "5", linked(extra), "coins")
	r.add("door")
	r.add("cooling")
	r.modules = map[string]func(string) modkit.Module{
		"talker": func(component string) modkit.Module {
			return map[string]*talker{"door": door, "cooling": cooling}[component]
		},
	}
	return r, door, cooling
}

func linked(extra string) string {
	return `
[modules.door]
use = "talker"
credential = "file:door.cred"
[modules.cooling]
use = "talker"
credential = "file:cooling.cred"
[[link]]
from = "door.open"
to = "cooling.door"
` + extra
}

func (r *rig) input(component string) local.Input {
	r.t.Helper()
	c := r.component(component)
	if len(c.Inputs) != 1 {
		r.t.Fatalf("%s has the inputs %+v, want one", component, c.Inputs)
	}
	return c.Inputs[0]
}

// TestLink: a value goes from module to module, and is there when the second one starts later.
func TestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, door, cooling := pair(t, "")
		r.start()
		door.open("false")
		cooling.hears(t, "door=false")
		begin := time.Now()
		door.open("true")
		if took := cooling.hears(t, "door=true").Sub(begin); took != 0 {
			t.Errorf("a value takes %v on its way", took)
		}
		if in := r.input("cooling"); in.From != "door.open" || in.Name != "door" || !in.Known || string(in.Value) != "true" || !in.At.Equal(begin) {
			t.Errorf("status %+v", in)
		}
		r.kill("cooling", "killed")
		cooling.hears(t, "start door=true")
		r.hub.Down()
		synctest.Wait()
		door.open("false") // with no hub at all
		cooling.hears(t, "door=false")
	})
}

// TestDeadSourceIsUnknown: whatever keeps a source from saying its value makes it unknown, at once.
func TestDeadSourceIsUnknown(t *testing.T) {
	for name, row := range map[string]struct {
		spoil  func(*rig, *talker)
		within time.Duration
		want   string
	}{
		"killed":           {func(r *rig, _ *talker) { r.kill("door", "killed by signal 9") }, 0, "its module has ended: killed by signal 9"},
		"failed":           {func(_ *rig, door *talker) { door.end <- fmt.Errorf("the contact is loose") }, 0, "its module has ended: "},
		"hung":             {func(_ *rig, door *talker) { close(door.hang) }, 4 * time.Second, "its module has ended: hung: "},
		"says so":          {func(_ *rig, door *talker) { door.say <- modkit.Output{Name: "open", Reason: "the line is gone"} }, 0, "the line is gone"},
		"says nonsense":    {func(_ *rig, door *talker) { door.open(`"wide"`) }, 0, `output open: "\"wide\"" is not the boolean`},
		"the agent's own":  {nil, 0, "a fault of the agent's own ended it"},
		"says without why": {func(_ *rig, door *talker) { door.say <- modkit.Output{Name: "open"} }, 0, "the module does not know it"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, door, cooling := pair(t, "")
				crash := false
				var mu sync.Mutex
				r.start(func(a *Agent) {
					a.probe = func(component, _ string) {
						mu.Lock()
						defer mu.Unlock()
						if crash && component == "door" {
							crash = false
							panic("a bug")
						}
					}
				})
				if row.spoil == nil {
					row.spoil = func(_ *rig, door *talker) {
						mu.Lock()
						crash = true
						mu.Unlock()
						door.open("true")
					}
				}
				door.open("false")
				cooling.hears(t, "door=false")
				begin := time.Now()
				// The first restart takes no time: one that works would be heard in place of the end.
				r.machines["door"].ruin(strings.TrimPrefix(row.want, "its module has ended: ") + "still")
				row.spoil(r, door)
				if took := cooling.hears(t, "door unknown: door.open: "+row.want).Sub(begin); took > row.within {
					t.Errorf("it takes %v until the value is unknown, want %v", took, row.within)
				}
				if in := r.input("cooling"); in.Known || in.Value != nil || in.Reason == "" {
					t.Errorf("status %+v", in)
				}
				r.machines["door"].ruin("")
				door.open("false")
				cooling.hears(t, "door=false")
			})
		})
	}
}

// TestOldValueIsUnknown: a value lives as long as its source says, and no longer than its link lets it.
func TestOldValueIsUnknown(t *testing.T) {
	for name, row := range map[string]struct {
		link  string
		valid time.Duration
		want  time.Duration
	}{
		"by the source":         {"", 5 * time.Second, 5 * time.Second},
		"by the link":           {"max_age = '10s'\n", 0, 10 * time.Second},
		"by the shorter of two": {"max_age = '10s'\n", 20 * time.Second, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, door, cooling := pair(t, row.link)
				r.start()
				say := func() {
					door.say <- modkit.Output{Name: "open", Value: json.RawMessage("true"), Quality: modkit.Good, ValidFor: row.valid}
				}
				say()
				time.Sleep(row.want - time.Second)
				begin := time.Now()
				say() // again: the time begins anew
				cooling.hears(t, "door=true")
				if took := cooling.hears(t, "door unknown: door.open: nothing newer was heard for ").Sub(begin); took != row.want {
					t.Errorf("unknown after %v, want %v", took, row.want)
				}
				say()
				cooling.hears(t, "door=true")
			})
		})
	}
}

// TestLinkThatDoesNotFit: the consumer of an input that is not there cannot run; an output that is not there stays unknown.
func TestLinkThatDoesNotFit(t *testing.T) {
	for name, row := range map[string]struct{ from, to, health, input string }{
		"no such input":  {"door.open", "cooling.gate", `link.0.to: module talker has no input "gate"; its inputs are ["door"]`, "the module has not said it yet"},
		"no such output": {"door.wide", "cooling.door", "", "door.wide: the module has no such output"},
		"another type":   {"door.level", "cooling.door", "", "door.level: it is a number, and cooling.door takes a boolean"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _, cooling := pair(t, "")
				text := strings.Replace(strings.Replace(linked(""), "door.open", row.from, 1), "cooling.door", row.to, 1)
				file, err := r.parse(r.text("5", text, "coins"))
				if err != nil {
					t.Fatal(err)
				}
				r.file = file
				r.start()
				r.reported("door", `{"module":{"name":"talker"}}`)
				synctest.Wait()
				if got := r.component("cooling").Health; !strings.Contains(got.Detail, row.health) || (got.State == local.OK) != (row.health == "") {
					t.Errorf("health %+v, want %s", got, row.health)
				}
				if got := r.input("cooling"); got.Known || !strings.Contains(got.Reason, row.input) {
					t.Errorf("input %+v, want %s", got, row.input)
				}
				if row.health == "" && !strings.Contains(cooling.last(), row.input) {
					t.Errorf("the module has heard %q, want %s", cooling.last(), row.input)
				}
				wrong := Check(file, func(m config.Module) (modkit.Description, bool) {
					return cooling.Describe(), m.Use == "talker"
				})
				if len(wrong) != 1 || wrong[0].Line < 10 || !strings.HasPrefix(wrong[0].Key, "link.0.") {
					t.Errorf("check: %v, want one error of the link", wrong)
				}
			})
		})
	}
}

// TestReloadOfALink touches the component of the input, and not the source.
func TestReloadOfALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, door, cooling := pair(t, "")
		f := newReloads(r)
		r.start()
		door.open("true")
		cooling.hears(t, "door=true")
		whole := r.text("5", linked(""), "coins")
		f.mustReload(whole, local.Reloaded{})
		f.mustReload(whole+"max_age = \"30s\"\n", local.Reloaded{Changed: []string{"cooling"}})
		cooling.hears(t, "start door=true")
		cooling.hears(t, "door unknown: door.open: nothing newer")
		f.mustReload(strings.Split(whole, "[[link]]")[0], local.Reloaded{Changed: []string{"cooling"}})
		synctest.Wait()
		if c := r.component("cooling"); len(c.Inputs) != 0 || cooling.runs != 3 || door.runs != 1 {
			t.Errorf("inputs %+v, %d runs of the cooling, %d of the door", c.Inputs, cooling.runs, door.runs)
		}
		f.mustReload(whole, local.Reloaded{Changed: []string{"cooling"}})
		cooling.hears(t, "start door=true") // kept, although nobody took it
		f.mustReload(strings.Replace(whole, "[modules.door]\n", "[modules.door]\nsettings = {}\n", 1), local.Reloaded{})
		f.mustReload(strings.Replace(whole, "[modules.door]\n", "[modules.door]\nwiring = { x = 1 }\n", 1), local.Reloaded{Changed: []string{"door"}})
		cooling.hears(t, "door unknown: door.open: ")
		if n := r.livesOf("cooling"); n != 4 {
			t.Errorf("the cooling was started %d times, want 4", n)
		}
	})
}

// TestDeafConsumer: one that does not take its values holds nobody up.
func TestDeafConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, door, cooling := pair(t, "")
		r.start()
		door.open("false")
		cooling.hears(t, "door=false")
		until := make(chan struct{})
		cooling.deaf <- until
		for range 5000 {
			door.open("true")
			door.open("false")
		}
		door.open("true")
		r.machines["coins"].insert(1)
		if got := r.telemetry("coins"); got != `{"coin":1}` {
			t.Errorf("another component says %s", got)
		}
		close(until)
		cooling.hears(t, "door=true")
	})
}
