package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/modules/modkit"
)

// link attaches the module's inputs, and answers them as they stand.
func (b *bay) link(d modkit.Description) ([]modkit.Input, error) {
	if wrong := inputProblems(b.file, b.cfg, d); len(wrong) > 0 {
		return nil, wrong
	}
	kinds := map[string]modkit.ValueType{}
	for _, p := range d.Inputs {
		kinds[p.Name] = p.Type
	}
	inlet, now := b.links.attach(b.name, b.cfg.Links, kinds)
	b.inlet = inlet
	return now, nil
}

// feed takes what comes over links to the module, until it has ended.
func (b *bay) feed(to *modkit.Running) {
	in := b.inlet
	b.loop.away(func(ctx context.Context) func() {
		good := map[string]bool{}
		for {
			for _, v := range in.take() {
				if known := v.Quality == modkit.Good; known != good[v.Name] || v.Reason != "" {
					b.log.Info("an input has changed", "input", v.Name, "known", known, "reason", v.Reason)
					good[v.Name] = known
				}
				if err := to.Input(v); err != nil {
					if !errors.Is(err, modkit.ErrEnded) {
						b.log.Debug("the module could not be told of an input", "input", v.Name, "error", err)
					}
					return nil
				}
			}
			select {
			case <-in.more:
			case <-in.gone:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// mute says that nothing is heard of the module any more.
func (b *bay) mute(why string) {
	b.links.detach(b.name)
	b.links.silent(b.name, why)
}

func (b *bay) onOutput(o modkit.Output) {
	if err := b.links.say(b.name, o); err != nil {
		b.log.Warn("an output of the module cannot be taken, this is a fault of the module", "error", err)
	}
}

// inputProblems are the links of a component to inputs that its module does not have.
func inputProblems(file *config.Config, m config.Module, d modkit.Description) (wrong config.Errors) {
	for _, k := range m.Links {
		if !slices.ContainsFunc(d.Inputs, func(p modkit.InputPort) bool { return p.Name == k.To.Port }) {
			var names []string
			for _, p := range d.Inputs {
				names = append(names, p.Name)
			}
			wrong = append(wrong, file.Error(file.LinkKey(k.To, "to"), fmt.Sprintf("module %s has no input %q", d.Name, k.To.Port), thereAre("inputs", names)))
		}
	}
	return wrong
}

// linkProblems holds both ends of a component's links against what their modules say.
func linkProblems(file *config.Config, m config.Module, d modkit.Description, source func(component string) (modkit.Description, bool)) config.Errors {
	wrong := inputProblems(file, m, d)
	for _, k := range m.Links {
		from, ok := source(k.From.Component)
		if !ok {
			continue
		}
		out := slices.IndexFunc(from.Outputs, func(p modkit.OutputPort) bool { return p.Name == k.From.Port })
		in := slices.IndexFunc(d.Inputs, func(p modkit.InputPort) bool { return p.Name == k.To.Port })
		switch {
		case out < 0:
			var names []string
			for _, p := range from.Outputs {
				names = append(names, p.Name)
			}
			wrong = append(wrong, file.Error(file.LinkKey(k.To, "from"), fmt.Sprintf("module %s has no output %q", from.Name, k.From.Port), thereAre("outputs", names)))
		case in >= 0 && from.Outputs[out].Type != d.Inputs[in].Type:
			wrong = append(wrong, file.Error(file.LinkKey(k.To, "from"),
				fmt.Sprintf("%s is a %s, and %s takes a %s", k.From, from.Outputs[out].Type, k.To, d.Inputs[in].Type), "link an output of the input's type"))
		}
	}
	return wrong
}

func thereAre(what string, names []string) string {
	if len(names) == 0 {
		return "it has no " + what
	}
	return fmt.Sprintf("its %s are %q", what, names)
}
