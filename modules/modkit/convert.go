package modkit

import (
	"encoding/json"
	"math"
	"time"

	"github.com/twinbay/twinbay/modules/modkit/internal/modpb"
)

func descriptionToPB(d Description) *modpb.Description {
	p := &modpb.Description{Name: d.Name, Version: d.Version, SettingsSchema: d.Settings, WiringSchema: d.Wiring}
	for _, m := range d.Methods {
		p.Methods = append(p.Methods, &modpb.Method{Name: m.Name, Summary: m.Summary, DeadlineMs: m.Deadline.Milliseconds()})
	}
	for _, w := range d.Wires {
		p.Wires = append(p.Wires, &modpb.Wire{Name: w.Name, Kind: string(w.Kind), Optional: w.Optional})
	}
	for _, i := range d.Inputs {
		p.Inputs = append(p.Inputs, &modpb.InputPort{Name: i.Name, Summary: i.Summary, Type: string(i.Type)})
	}
	for _, o := range d.Outputs {
		p.Outputs = append(p.Outputs, &modpb.OutputPort{Name: o.Name, Summary: o.Summary, Type: string(o.Type)})
	}
	return p
}

func descriptionFromPB(p *modpb.Description) Description {
	d := Description{Name: p.GetName(), Version: p.GetVersion(), Settings: p.GetSettingsSchema(), Wiring: p.GetWiringSchema()}
	for _, m := range p.GetMethods() {
		d.Methods = append(d.Methods, Method{Name: m.GetName(), Summary: m.GetSummary(), Deadline: millis(m.GetDeadlineMs())})
	}
	for _, w := range p.GetWires() {
		d.Wires = append(d.Wires, Wire{Name: w.GetName(), Kind: WireKind(w.GetKind()), Optional: w.GetOptional()})
	}
	for _, i := range p.GetInputs() {
		d.Inputs = append(d.Inputs, InputPort{Name: i.GetName(), Summary: i.GetSummary(), Type: ValueType(i.GetType())})
	}
	for _, o := range p.GetOutputs() {
		d.Outputs = append(d.Outputs, OutputPort{Name: o.GetName(), Summary: o.GetSummary(), Type: ValueType(o.GetType())})
	}
	return d
}

func appliedToPB(a Applied) *modpb.ApplyResponse {
	p := &modpb.ApplyResponse{Settings: make(map[string]*modpb.Setting, len(a))}
	for name, s := range a {
		p.Settings[name] = &modpb.Setting{Value: s.Value, Refused: s.Refused, Reason: s.Reason}
	}
	return p
}

func appliedFromPB(p *modpb.ApplyResponse) Applied {
	a := make(Applied, len(p.GetSettings()))
	for name, s := range p.GetSettings() {
		a[name] = Setting{Value: s.GetValue(), Refused: s.GetRefused(), Reason: s.GetReason()}
	}
	return a
}

func messageToPB(seq uint64, m Message) *modpb.Message {
	return &modpb.Message{
		Seq: seq, Body: m.Body, Properties: m.Properties, Priority: modpb.Priority(m.Priority),
		TtlMs: m.TTL.Milliseconds(), State: m.State, AtUnixNs: m.At.UnixNano(),
	}
}

func messageFromPB(p *modpb.Message) Message {
	return Message{
		Body: p.GetBody(), Properties: p.GetProperties(), Priority: Priority(p.GetPriority()),
		TTL: millis(p.GetTtlMs()), State: p.State, At: time.Unix(0, p.GetAtUnixNs()),
	}
}

func inputToPB(i Input) *modpb.Input {
	return &modpb.Input{Name: i.Name, Value: i.Value, AtUnixNs: i.At.UnixNano(), Quality: modpb.Quality(i.Quality), Reason: i.Reason}
}

func inputFromPB(p *modpb.Input) Input {
	return Input{Name: p.GetName(), Value: p.GetValue(), At: time.Unix(0, p.GetAtUnixNs()), Quality: Quality(p.GetQuality()), Reason: p.GetReason()}
}

func outputToPB(o Output) *modpb.Output {
	return &modpb.Output{
		Name: o.Name, Value: o.Value, AtUnixNs: o.At.UnixNano(), Quality: modpb.Quality(o.Quality),
		ValidMs: o.ValidFor.Milliseconds(), Reason: o.Reason,
	}
}

func outputFromPB(p *modpb.Output) Output {
	return Output{
		Name: p.GetName(), Value: p.GetValue(), At: time.Unix(0, p.GetAtUnixNs()), Quality: Quality(p.GetQuality()),
		ValidFor: millis(p.GetValidMs()), Reason: p.GetReason(),
	}
}

// upFromPB answers nil for a kind that this version does not know: an agent must outlive newer modules.
func upFromPB(p *modpb.Up) Up {
	switch k := p.GetKind().(type) {
	case *modpb.Up_Message:
		return Sent{Seq: k.Message.GetSeq(), Message: messageFromPB(k.Message)}
	case *modpb.Up_Pong:
		return Pong{ID: k.Pong.GetId(), Overdue: Overdue{Call: k.Pong.GetOverdueCall(), By: millis(k.Pong.GetOverdueByMs())}}
	case *modpb.Up_Health:
		return Health{State: HealthState(k.Health.GetState()), Detail: k.Health.GetDetail()}
	case *modpb.Up_Output:
		return outputFromPB(k.Output)
	case *modpb.Up_Reported:
		return Reported{Properties: json.RawMessage(k.Reported.GetProperties())}
	}
	return nil
}

// millis keeps what the other side may say within what a Duration holds.
func millis(ms int64) time.Duration {
	const most = int64(math.MaxInt64 / time.Millisecond)
	return time.Duration(max(-most, min(ms, most))) * time.Millisecond
}
