package agent

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/modules/modkit"
)

// links carries what modules say at their outputs to the inputs of others. Bays tell it what their own module says, and
// take what is for it from an inlet; they know nothing of each other. All of it is behind one mutex, and nothing in it
// waits for a module.
//
// A value is unknown from the moment that the module of its output ends, whatever the reason, and until its next one has
// said it anew; while its output says so itself; when it is not of the input's type; and when it is older than it may be:
// than its source says that it holds, and than max_age of the link. Age counts from when the agent heard of it, by a clock
// that nobody sets.
type links struct {
	mu      sync.Mutex
	sources map[string]*source // by component
	inlets  map[string]*inlet  // by component, of the modules that run
}

// source is a component whose outputs others may take.
type source struct {
	silent  string // why nothing is heard of it; "" while its module runs
	since   time.Time
	outputs map[string]modkit.ValueType
	said    map[string]saying // by output, since the module's start
}

// saying is the last that was said of an output.
type saying struct {
	modkit.Output
	heard time.Time
}

// inlet is what comes over links to one life of a module.
type inlet struct {
	links *links
	lines []*line
	more  chan struct{} // capacity one: there is something to take
	gone  chan struct{} // closed when the module has ended
}

// line is one link whose input's module runs.
type line struct {
	config.Link
	kind  modkit.ValueType
	now   modkit.Input
	fresh bool // now is to be taken
	late  *time.Timer
}

func newLinks() *links {
	return &links{sources: map[string]*source{}, inlets: map[string]*inlet{}}
}

// neverHeard is a component that has not run since the agent's start.
const neverHeard = "its module has not started yet"

// source is a component's, made on its first mention. The lock is held.
func (l *links) source(component string) *source {
	s := l.sources[component]
	if s == nil {
		s = &source{silent: neverHeard, since: time.Now()}
		l.sources[component] = s
	}
	return s
}

// speaks says that a component's module runs, and what outputs it has.
func (l *links) speaks(component string, ports []modkit.OutputPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.source(component)
	*s = source{since: time.Now(), outputs: map[string]modkit.ValueType{}, said: map[string]saying{}}
	for _, p := range ports {
		s.outputs[p.Name] = p.Type
	}
	l.refresh(component, "")
}

// silent says that nothing is heard of a component any more, and why.
func (l *links) silent(component, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.source(component)
	if s.silent != "" {
		s.silent = why // unknown since before
		l.refresh(component, "")
		return
	}
	*s = source{silent: why, since: time.Now()}
	l.refresh(component, "")
}

// forget is for a component that is gone.
func (l *links) forget(component string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sources, component)
}

// say takes what a component's module says of one of its outputs. An error is the module's fault, and others see the
// output as unknown for it.
func (l *links) say(component string, o modkit.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.source(component)
	kind, ok := s.outputs[o.Name]
	if !ok {
		return fmt.Errorf("output %.64q is not in the module's description", o.Name)
	}
	var err error
	if o.Quality != modkit.Good {
		o.Quality, o.Value = modkit.Unknown, nil
	} else if !kind.Holds(o.Value) {
		err = fmt.Errorf("output %s: %.64q is not the %s that its description says", o.Name, o.Value, kind)
		o.Quality, o.Value, o.Reason = modkit.Unknown, nil, err.Error()
	}
	o.Reason = clip(o.Reason, 300)
	s.said[o.Name] = saying{o, time.Now()}
	l.refresh(component, o.Name)
	return err
}

// attach gives the module of a component its inlet, and the values as they stand. An earlier one ends.
func (l *links) attach(component string, to []config.Link, kinds map[string]modkit.ValueType) (*inlet, []modkit.Input) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(component)
	in := &inlet{links: l, more: make(chan struct{}, 1), gone: make(chan struct{})}
	l.inlets[component] = in
	var now []modkit.Input
	for _, link := range to {
		n := &line{Link: link, kind: kinds[link.To.Port]}
		n.late = time.AfterFunc(time.Hour, func() { l.late(in, n) })
		l.update(in, n)
		n.fresh = false // it goes with the module's start
		in.lines = append(in.lines, n)
		now = append(now, n.now)
	}
	return in, now
}

// detach ends the inlet of a component whose module has ended.
func (l *links) detach(component string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(component)
}

func (l *links) end(component string) {
	in := l.inlets[component]
	if in == nil {
		return
	}
	delete(l.inlets, component)
	close(in.gone)
	for _, n := range in.lines {
		n.late.Stop()
	}
}

// late is the moment at which a line's value may have grown too old.
func (l *links) late(in *inlet, n *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-in.gone:
	default:
		l.update(in, n)
	}
}

// refresh brings up to date who takes an output of a component; "" is all of them. The lock is held.
func (l *links) refresh(component, output string) {
	for _, in := range l.inlets {
		for _, n := range in.lines {
			if n.From.Component == component && (output == "" || n.From.Port == output) {
				l.update(in, n)
			}
		}
	}
}

// update works out a line's value anew, and wakes whoever takes it. The lock is held.
func (l *links) update(in *inlet, n *line) {
	now := time.Now()
	value, until := judge(l.source(n.From.Component), n.Link, n.kind, now)
	n.late.Stop()
	if !until.IsZero() {
		n.late.Reset(until.Sub(now))
	}
	if same(n.now, value) {
		return
	}
	n.now, n.fresh = value, true
	select {
	case in.more <- struct{}{}:
	default:
	}
}

// same is whether nobody need hear of b after a. What is unknown is as unknown for another reason, but a person wants to
// know.
func same(a, b modkit.Input) bool {
	return a.Name == b.Name && a.Quality == b.Quality && a.Reason == b.Reason && a.At.Equal(b.At) && string(a.Value) == string(b.Value)
}

// judge is a link's value at a time, and when that will be too old; zero: never. kind "" is an input whose module has not
// been asked.
func judge(s *source, k config.Link, kind modkit.ValueType, now time.Time) (in modkit.Input, until time.Time) {
	unknown := func(at time.Time, format string, args ...any) (modkit.Input, time.Time) {
		return modkit.Input{Name: k.To.Port, At: at, Reason: k.From.String() + ": " + fmt.Sprintf(format, args...)}, time.Time{}
	}
	if s.silent != "" {
		return unknown(s.since, "%s", s.silent)
	}
	from, ok := s.outputs[k.From.Port]
	switch {
	case !ok:
		return unknown(s.since, "the module has no such output")
	case kind != "" && from != kind:
		return unknown(s.since, "it is a %s, and %s takes a %s", from, k.To, kind)
	}
	said, ok := s.said[k.From.Port]
	switch {
	case !ok:
		return unknown(s.since, "the module has not said it yet")
	case said.Quality != modkit.Good && said.Reason == "":
		return unknown(said.At, "the module does not know it")
	case said.Quality != modkit.Good:
		return unknown(said.At, "%s", said.Reason)
	}
	limit := k.MaxAge
	if v := said.ValidFor; v > 0 && (limit == 0 || v < limit) {
		limit = v
	}
	if limit > 0 {
		until = said.heard.Add(limit)
		if !until.After(now) {
			return unknown(until, "nothing newer was heard for %v", limit)
		}
	}
	return modkit.Input{Name: k.To.Port, Value: said.Value, At: said.At, Quality: modkit.Good}, until
}

// take is what has changed since the last time: at most one value for each input, the newest.
func (in *inlet) take() (values []modkit.Input) {
	in.links.mu.Lock()
	defer in.links.mu.Unlock()
	for _, n := range in.lines {
		if n.fresh {
			n.fresh = false
			values = append(values, n.now)
		}
	}
	return values
}

// status is the inputs of a component for people, whether its module runs or not.
func (l *links) status(to []config.Link) []local.Input {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []local.Input
	now := time.Now()
	for _, k := range to {
		v, _ := judge(l.source(k.From.Component), k, l.kind(k.To), now)
		all = append(all, local.Input{Name: k.To.Port, From: k.From.String(), Value: v.Value, At: v.At, Known: v.Quality == modkit.Good, Reason: v.Reason})
	}
	return all
}

// kind is the type of an input whose module runs. The lock is held.
func (l *links) kind(to config.End) modkit.ValueType {
	in := l.inlets[to.Component]
	if in == nil {
		return ""
	}
	if i := slices.IndexFunc(in.lines, func(n *line) bool { return n.To == to }); i >= 0 {
		return in.lines[i].kind
	}
	return ""
}
