package restd

import (
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// faultRule is a hub.Fault in JSON. Durations are like "250ms".
type faultRule struct {
	ID          string  `json:"id"`
	On          string  `json:"on"`
	Who         string  `json:"who,omitempty"`
	After       int     `json:"after,omitempty"`
	Times       int     `json:"times,omitempty"`
	Probability float64 `json:"probability,omitempty"`
	Do          string  `json:"do"`
	Delay       string  `json:"delay,omitempty"`
	For         string  `json:"for,omitempty"`
	Connack     int     `json:"connack,omitempty"`

	Passed int `json:"passed"` // out only, like Acted
	Acted  int `json:"acted"`
}

// addFault takes a fault rule and answers 204.
func (s *Server) addFault(x *exchange) error {
	var in faultRule
	if err := x.decode(&in); err != nil {
		return err
	}
	f := hub.Fault{ID: in.ID, On: in.On, Who: in.Who, After: in.After, Times: in.Times, P: in.Probability, Do: in.Do, Connack: in.Connack}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"delay", in.Delay, &f.Delay}, {"for", in.For, &f.For}} {
		if d.text == "" {
			continue
		}
		var err error
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			return &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: d.name + ": want a duration like 250ms"}
		}
	}
	if err := s.hub.AddFault(f); err != nil {
		return err
	}
	return x.nothing()
}

// listFaults answers the rules in force, each with how many events it has let pass and acted on.
func (s *Server) listFaults(x *exchange) error {
	all := []faultRule{}
	for _, f := range s.hub.Faults() {
		r := faultRule{
			ID: f.ID, On: f.On, Who: f.Who, After: f.After, Times: f.Times, Probability: f.P, Do: f.Do, Connack: f.Connack,
			Passed: f.Passed, Acted: f.Acted,
		}
		if f.Delay > 0 {
			r.Delay = f.Delay.String()
		}
		if f.For > 0 {
			r.For = f.For.String()
		}
		all = append(all, r)
	}
	return x.answer(all)
}

func (s *Server) clearFaults(x *exchange) error {
	s.hub.ClearFaults()
	return x.nothing()
}

func (s *Server) removeFault(x *exchange) error {
	if id := x.names["fault"]; !s.hub.RemoveFault(id) {
		return &hub.Error{Code: 404000, Name: "FaultNotFound", Text: "there is no fault rule " + id}
	}
	return x.nothing()
}
