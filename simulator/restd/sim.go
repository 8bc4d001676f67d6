package restd

import (
	"encoding/json"
	"net/http"

	"github.com/twinbay/twinbay/simulator/conformance"
	"github.com/twinbay/twinbay/simulator/hub"
)

var simRoutes = []route{
	{"GET", "_sim/events", hub.Owner, (*Server).events},
	{"GET", "_sim/unsupported", hub.Owner, (*Server).unsupported},
	{"GET", "_sim/faults", hub.Owner, (*Server).listFaults},
	{"POST", "_sim/faults", hub.Owner, (*Server).addFault},
	{"DELETE", "_sim/faults", hub.Owner, (*Server).clearFaults},
	{"DELETE", "_sim/faults/{fault}", hub.Owner, (*Server).removeFault},
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

// unsupported answers what this hub does not have: as a list of what IoT Hub has and it lacks, and as what its clients have
// asked for in vain since it started.
func (s *Server) unsupported(x *exchange) error {
	return x.answer(struct {
		Unsupported []conformance.Gap `json:"unsupported"`
		Attempts    []hub.Attempt     `json:"attempts"`
	}{conformance.Gaps(), s.hub.Unsupported()})
}
