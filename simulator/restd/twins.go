package restd

import (
	"encoding/json"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

var methodRoutes = []route{
	{"POST", "twins/{device}/methods", hub.ServiceConnect, (*Server).invoke},
	{"POST", "twins/{device}/modules/{module}/methods", hub.ServiceConnect, (*Server).invoke},
}

var twinRoutes = []route{
	{"GET", "twins/{device}", hub.ServiceConnect, (*Server).showTwin},
	{"PATCH", "twins/{device}", hub.ServiceConnect, (*Server).patchTwin},
	{"PUT", "twins/{device}", hub.ServiceConnect, (*Server).replaceTwin},
	{"GET", "twins/{device}/modules/{module}", hub.ServiceConnect, (*Server).showTwin},
	{"PATCH", "twins/{device}/modules/{module}", hub.ServiceConnect, (*Server).patchTwin},
	{"PUT", "twins/{device}/modules/{module}", hub.ServiceConnect, (*Server).replaceTwin},
}

func (s *Server) showTwin(x *exchange) error {
	t, err := s.hub.Twin(x.id)
	if err != nil {
		return err
	}
	return x.twin(t)
}

func (s *Server) patchTwin(x *exchange) error { return x.writeTwin(s.hub.PatchTwin) }

func (s *Server) replaceTwin(x *exchange) error { return x.writeTwin(s.hub.ReplaceTwin) }

func (x *exchange) writeTwin(write func(hub.ID, json.RawMessage, string) (hub.Twin, error)) error {
	body, err := x.body()
	if err != nil {
		return err
	}
	t, err := write(x.id, body, x.ifMatch())
	if err != nil {
		return err
	}
	return x.twin(t)
}

func (x *exchange) twin(t hub.Twin) error {
	x.w.Header().Set("ETag", `"`+t.ETag+`"`)
	return x.answer(t)
}

func (s *Server) invoke(x *exchange) error {
	var in struct {
		MethodName               string
		Payload                  json.RawMessage
		ResponseTimeoutInSeconds int
		ConnectTimeoutInSeconds  int
	}
	if err := x.decode(&in); err != nil {
		return err
	}
	r := hub.MethodRequest{
		Name:     in.MethodName,
		Payload:  in.Payload,
		Response: seconds(in.ResponseTimeoutInSeconds),
		Connect:  seconds(in.ConnectTimeoutInSeconds),
	}
	result, err := s.hub.Invoke(x.r.Context(), x.id, r)
	if err != nil {
		return methodError{err, r.Connect}
	}
	return x.answer(result)
}

// seconds is n seconds; what is far out of range stays out of range, without overflow.
func seconds(n int) time.Duration {
	return time.Duration(min(max(n, -1), 1<<20)) * time.Second
}
