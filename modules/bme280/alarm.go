package bme280

import "github.com/twinbay/twinbay/modules/modkit"

// hysteresis keeps an alarm from coming and going at its limit.
const hysteresis Celsius = 0.5

// alarm is which limit is passed.
type alarm int

const (
	normal alarm = iota
	low
	high
)

// next is the alarm at temperature t, after the alarm a.
func (a alarm) next(t, lowest, highest Celsius) alarm {
	switch {
	case t < lowest || a == low && t < lowest+hysteresis:
		return low
	case t > highest || a == high && t > highest-hysteresis:
		return high
	}
	return normal
}

// raise sends a message when the alarm changes. One that the agent does not take is tried again with the next
// reading.
func (s *session) raise(r reading) {
	lowest, highest := Celsius(s.m.set.AlarmLowC), Celsius(s.m.set.AlarmHighC)
	next := s.alarm.next(r.temperature, lowest, highest)
	if next == s.alarm {
		return
	}
	doc := map[string]any{"event": "temperature_normal", "temperature_c": round(r.temperature)}
	switch next {
	case low:
		doc["event"], doc["limit_c"] = "temperature_low", round(lowest)
	case high:
		doc["event"], doc["limit_c"] = "temperature_high", round(highest)
	}
	if s.send(modkit.Message{Body: must(doc), Priority: modkit.High}) {
		s.alarm = next
	}
}
