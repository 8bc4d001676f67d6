package restd

import (
	"net/http"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// fault asks the fault rules about "rest".
func (s *Server) fault(x *exchange) error {
	switch f := s.hub.Fault("rest", x.id); f.Do {
	case "kick":
		panic(http.ErrAbortHandler) // what net/http has for closing a connection without an answer
	case "drop", "freeze":
		<-x.r.Context().Done()
		panic(http.ErrAbortHandler)
	case "refuse":
		return &hub.Error{Code: 503001, Name: "ServiceUnavailable", Text: "a fault rule refuses this"}
	case "quota":
		return &hub.Error{Code: 403002, Name: "IotHubQuotaExceeded", Text: "a fault rule has the hub's messages of this day used up"}
	case "throttle":
		return x.throttled(&hub.Error{Code: 429001, Name: "ThrottlingException", Text: "a fault rule throttles this"})
	case "delay":
		x.hold(f.Delay)
	}
	return nil
}

// throttled refuses as measured: the connection ends, and there is no Retry-After.
func (x *exchange) throttled(e *hub.Error) error {
	x.w.Header().Set("Connection", "close")
	return e
}

// hold lets d pass, unless the client goes.
func (x *exchange) hold(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-x.r.Context().Done():
	}
}

// throttle holds a request back as the hub's tier wants it, or refuses it. A hub queues first and refuses later
// (github.com/mwalser/terraform-provider-iothub, CONCEPT.md, section 6).
func (s *Server) throttle(x *exchange, rt route) error {
	op, n := rt.operation(), 1
	if op == hub.OpMethod {
		meters := max(1, (x.r.ContentLength+hub.MethodMeter-1)/hub.MethodMeter)
		n = int(meters) * hub.MethodMeter
	}
	return s.count(x, op, n)
}

// bulkThrottle counts the identities of a bulk operation, each of which is one operation of the registry ("IoT Hub quotas and
// throttling"), the first by the request itself.
func (s *Server) bulkThrottle(x *exchange, identities int) error {
	if identities < 2 || identities > 100 { // too many are refused, and done nothing with
		return nil
	}
	return s.count(x, hub.OpRegistry, identities-1)
}

func (s *Server) count(x *exchange, op hub.Operation, n int) error {
	held, err := s.hub.Throttle(op, x.id, n)
	if err != nil {
		return x.throttled(&hub.Error{Code: 429003, Name: "ThrottlingBacklogTimeout", Text: err.(*hub.Error).Text})
	}
	x.hold(held)
	return nil
}

// operation is the throttle that counts a route: "IoT Hub quotas and throttling".
func (rt route) operation() hub.Operation {
	path := strings.ToLower(rt.path)
	has := func(part string) bool { return strings.Contains(path, part) }
	switch {
	case path == "devices/query":
		return hub.OpQuery
	case has("/methods"):
		return hub.OpMethod
	case strings.HasPrefix(path, "twins"), has("/twin"):
		if rt.method == http.MethodGet {
			return hub.OpTwinRead
		}
		return hub.OpTwinUpdate
	case has("messages/events"):
		return hub.OpSend
	case has("devicebound") && (rt.method == http.MethodPost && !has("abandon")):
		return hub.OpC2DSend
	case has("devicebound"):
		return hub.OpC2DReceive
	case has("/files"):
		if has("notifications") {
			return "" // the upload has been counted
		}
		return hub.OpUpload
	case has("configuration"):
		return hub.OpConfiguration
	case strings.HasPrefix(path, "jobs"):
		return hub.OpJob
	}
	return hub.OpRegistry
}
