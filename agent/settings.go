package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/twinbay/twinbay/agent/twin"
	"github.com/twinbay/twinbay/modules/modkit"
)

// moduleProperty is the reported property that says which module a component runs, {"name","version"}. A setting of the
// same name takes its place.
const moduleProperty = "module"

// prepare makes what a module starts with: its wiring from the device file, its settings from there and from the twin,
// and its last durable state. The error is for a person, with the device file's line.
func (b *bay) prepare(d modkit.Description) (modkit.Start, error) {
	if b.cfg.Path == "" && d.Name != b.cfg.Use {
		return modkit.Start{}, b.file.Error(b.key("use"), fmt.Sprintf("the program answers as module %q", d.Name), "is agent.modules the right program?")
	}
	schema, err := twin.ParseSchema(d.Settings)
	if err != nil {
		return modkit.Start{}, fmt.Errorf("module %s: the schema of its settings: %w; this is the module's fault", d.Name, err)
	}
	wiring, err := b.wiring(d)
	if err != nil {
		return modkit.Start{}, err
	}
	inputs, err := b.link(d)
	if err != nil {
		return modkit.Start{}, err
	}
	b.described, b.description, b.schema = true, d, schema
	b.checkFileSettings()
	b.asked, b.dirty = b.compose(), false
	return modkit.Start{Wiring: wiring, Settings: b.asked.settings(), State: b.box.State(), Inputs: inputs}, nil
}

func (b *bay) key(more ...string) []string {
	return append([]string{"modules", b.name}, more...)
}

// wiring is what the module is told of its hardware. No other component has any of it.
func (b *bay) wiring(d modkit.Description) (json.RawMessage, error) {
	doc, wrong, err := wiringOf(b.file, b.cfg, d)
	switch {
	case err != nil:
		return nil, err
	case len(wrong) > 0:
		return nil, wrong
	}
	if h, other, ok := b.hold(holdings(d, doc)); !ok {
		return nil, heldBy(b.file, b.name, h, other)
	}
	return json.Marshal(doc)
}

// checkFileSettings says what of the device file's settings is left out.
func (b *bay) checkFileSettings() {
	note := ""
	if wrong := settingsProblems(b.file, b.cfg, b.schema); len(wrong) > 0 {
		note = wrong.Error()
	}
	var before string
	b.shown.set(func(v *view) { before, v.fileNote = v.fileNote, note })
	if note != "" && note != before {
		b.log.Warn("a setting of the device file is left out", "error", note)
	}
}

// compose makes the whole settings document that holds now.
func (b *bay) compose() *composed {
	effective, acks := b.schema.Compose(b.cfg.Settings, b.memo.desired.Doc, b.memo.inForce)
	c := &composed{effective: effective, acks: acks, since: map[string]int64{}, version: b.memo.desired.Version}
	for name := range acks {
		c.since[name] = b.memo.desired.Since(name)
	}
	return c
}

func (c *composed) settings() modkit.Settings {
	return modkit.Settings{Doc: object(c.effective), Version: c.version}
}

// onDesired takes a change of desired properties to the module: one Apply at a time, and the newest document after it.
func (b *bay) onDesired() {
	desired := b.memo.desired
	b.shown.set(func(v *view) { v.desired, v.desiredVersion = desired.Doc, desired.Version })
	if b.running == nil {
		return // the next start brings it
	}
	if b.asked != nil {
		b.dirty = true
		return
	}
	b.apply()
}

func (b *bay) apply() {
	b.asked, b.dirty = b.compose(), false
	asked, remote, running, kill := b.asked, b.remote, b.running, b.kill
	b.loop.away(func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, applyBudget)
		defer cancel()
		applied, err := remote.Apply(ctx, asked.settings())
		if errors.Is(err, context.DeadlineExceeded) {
			kill(fmt.Sprintf("it did not apply its settings within %v", applyBudget))
		}
		return func() {
			if b.running == running { // else the module has ended, and the next start brings the settings
				b.settled(applied, err)
			}
		}
	})
}

// settled takes the module's answer to the settings it was given, and reports it.
func (b *bay) settled(applied modkit.Applied, err error) {
	c := b.asked
	b.asked = nil
	outcomes := map[string]twin.Outcome{}
	for name, s := range applied {
		outcomes[name] = twin.Outcome{Value: value(s.Value), Refused: s.Refused, Reason: s.Reason}
	}
	if err != nil {
		b.log.Warn("the module refuses its settings; the last good ones hold", "version", c.version, "error", err)
		for name, asked := range c.effective {
			if good, ok := b.memo.inForce[name]; ok && !twin.Equal(good, asked) {
				outcomes[name] = twin.Outcome{Value: good, Refused: true, Reason: err.Error()}
			}
		}
	}
	for name, o := range outcomes {
		if o.Refused {
			b.log.Warn("a setting is refused", "setting", name, "reason", clip(o.Reason, 300), "version", c.version)
		}
	}
	b.memo.inForce, b.acks = twin.Settle(c.effective, c.acks, outcomes, func(name string) int64 { return c.since[name] })
	b.memo.keep(b.loop)
	b.shown.set(func(v *view) { v.settings, v.applied = b.memo.inForce, c.version })
	b.log.Debug("settings applied", "version", c.version)
	b.report()
	if b.dirty || b.memo.desired.Version != c.version {
		b.apply()
	}
}

// value reads a value of the module's; nil when it is none.
func value(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	doc, err := twin.Parse(slices.Concat([]byte(`{"v":`), raw, []byte(`}`)))
	if err != nil {
		return nil
	}
	return doc["v"]
}

// onReported takes the module's own reported properties.
func (b *bay) onReported(r modkit.Reported) {
	doc, err := twin.Parse(r.Properties)
	if err != nil {
		b.log.Warn("the module's reported properties cannot be read", "error", err)
		return
	}
	for _, name := range b.schema.Names() {
		if _, clash := doc[name]; clash {
			delete(doc, name) // Parse has made it for us alone
			b.log.Warn("a reported property has the name of a setting and is left out", "property", name)
		}
	}
	b.extra = doc
	b.report()
}

// report makes the reported document anew.
func (b *bay) report() {
	doc := map[string]any{moduleProperty: map[string]any{"name": b.description.Name, "version": b.description.Version}}
	for name, v := range b.extra {
		doc[name] = v
	}
	b.hub.want(twin.Reported(doc, b.acks))
}
