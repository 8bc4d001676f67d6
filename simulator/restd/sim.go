package restd

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

var simRoutes = []route{
	{"GET", "_sim/events", hub.Owner, (*Server).events},
	{"POST", "_sim/faults", hub.Owner, (*Server).addFault},
	{"DELETE", "_sim/faults", hub.Owner, (*Server).clearFaults},
}

// events streams what happens at the hub, a line of JSON each, until the client goes.
func (s *Server) events(x *exchange) error {
	ctx := x.r.Context()
	events := s.hub.Watch(ctx) // before the headers: who has those misses nothing
	x.w.Header().Set("Content-Type", "application/x-ndjson; charset=utf-8")
	x.w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(x.w)
	lines := json.NewEncoder(x.w)
	lines.SetEscapeHTML(false)
	for out.Flush() == nil {
		e, open := <-events
		// Those that wait already share a flush.
		for n := len(events); ; n-- {
			if !open || lines.Encode(e) != nil {
				return nil
			}
			if n == 0 {
				break
			}
			e, open = <-events
		}
	}
	return nil
}

// addFault takes a fault rule: {"on","who","after","times","do","delay"}, the last like "250ms".
func (s *Server) addFault(x *exchange) error {
	var in struct {
		On, Who      string
		After, Times int
		Do, Delay    string
	}
	if err := x.decode(&in); err != nil {
		return err
	}
	f := hub.Fault{On: in.On, Who: in.Who, After: in.After, Times: in.Times, Do: in.Do}
	if in.Delay != "" {
		var err error
		if f.Delay, err = time.ParseDuration(in.Delay); err != nil {
			return &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: "delay: want a duration like 250ms"}
		}
	}
	if err := s.hub.AddFault(f); err != nil {
		return err
	}
	return x.nothing()
}

func (s *Server) clearFaults(x *exchange) error {
	s.hub.ClearFaults()
	return x.nothing()
}
