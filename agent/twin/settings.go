package twin

import (
	"errors"
	"maps"
)

// Codes of an acknowledgement (Microsoft Learn, "IoT Plug and Play conventions", acknowledgment responses).
const (
	InForce = 200 // the desired value is in force
	Default = 203 // nothing is desired: the device file's value or the module's default is in force
	Refused = 400 // the desired value was refused, Value stays in force
	Unknown = 404 // the module has no such setting
)

// Ack is what is reported of one setting.
type Ack struct {
	Value any    // in force; nil when there is none
	AC    int    // InForce, Default, Refused or Unknown
	AV    int64  // the desired $version that is acknowledged; 0 when desired properties never named the setting
	AD    string // why, for a person; "" when there is nothing to say
}

// Compose makes the whole settings document: the schema's defaults, under the device file's settings, under the desired
// properties. A setting is taken whole: an object in desired replaces the file's object. A desired null, like absence,
// leaves the file's value or the default. A refused desired value keeps the setting's last good value (what was in
// force), or else the file's value or the default. A value of the file that the schema refuses is left out; Problems
// finds it for the person who wrote it.
//
// There is an acknowledgement for each setting that has a value, and for each desired one; AV is left to Settle.
func (s *Schema) Compose(file, desired, lastGood map[string]any) (effective map[string]any, acks map[string]Ack) {
	effective = s.Defaults()
	for name, v := range file {
		if v != nil && s.Check(name, v) == nil {
			effective[name] = v
		}
	}
	acks = map[string]Ack{}
	for name, v := range effective {
		acks[name] = Ack{Value: v, AC: Default}
	}
	for name, v := range desired {
		if v == nil {
			continue
		}
		err := s.Check(name, v)
		switch {
		case err == nil:
			effective[name] = v
			acks[name] = Ack{Value: v, AC: InForce}
		case errors.Is(err, ErrUnknown):
			acks[name] = Ack{AC: Unknown, AD: clip(err.Error(), maxText)}
		default:
			if good := lastGood[name]; good != nil && s.Check(name, good) == nil {
				effective[name] = good
			}
			acks[name] = Ack{Value: effective[name], AC: Refused, AD: clip(err.Error(), 2*maxText)}
		}
	}
	return effective, acks
}

// Outcome is the module's word on one setting: the value in force, and whether what was asked was refused.
type Outcome struct {
	Value   any // nil: as asked
	Refused bool
	Reason  string
}

// Settle puts the module's outcomes over what Compose made, and the versions that are acknowledged. applied need not
// name every setting; since is Desired.Since. inForce is the last good document for the next Compose.
func Settle(effective map[string]any, acks map[string]Ack, applied map[string]Outcome, since func(string) int64) (
	inForce map[string]any, settled map[string]Ack,
) {
	inForce, settled = maps.Clone(effective), maps.Clone(acks)
	for name, o := range applied {
		a, known := settled[name]
		if !known || a.AC == Unknown {
			continue // the module speaks of something that nobody asked for
		}
		if o.Value != nil {
			a.Value = o.Value
			inForce[name] = o.Value
		}
		switch {
		case o.Refused && a.AC == Refused:
			// The schema's reason stands: the module only saw the last good value.
		case o.Refused:
			a.AC, a.AD = Refused, clip(o.Reason, 2*maxText)
		case o.Reason != "" && a.AD == "":
			a.AD = clip(o.Reason, 2*maxText)
		}
		settled[name] = a
	}
	for name, a := range settled {
		a.AV = since(name)
		settled[name] = a
	}
	return inForce, settled
}

// Acks is the part of the reported document that acknowledges settings: per setting {"value","ac","av","ad"}, with
// "value" and "ad" only where there is one.
func Acks(acks map[string]Ack) map[string]any {
	out := make(map[string]any, len(acks))
	for name, a := range acks {
		m := map[string]any{"ac": number(int64(a.AC)), "av": number(a.AV)}
		if a.Value != nil {
			m["value"] = a.Value
		}
		if a.AD != "" {
			m["ad"] = a.AD
		}
		out[name] = m
	}
	return out
}

// Reported is a whole reported document: the module's own properties, with the acknowledgements over them. A property of
// the same name as a setting loses.
func Reported(properties map[string]any, acks map[string]Ack) map[string]any {
	out := maps.Clone(properties)
	if out == nil {
		out = map[string]any{}
	}
	maps.Copy(out, Acks(acks))
	return out
}
