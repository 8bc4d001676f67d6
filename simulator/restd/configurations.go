package restd

import (
	"encoding/json"

	"github.com/twinbay/twinbay/simulator/hub"
)

// Which permission configurations want is not published: those of the registry do, and that of services.
const (
	readsConfigurations  = hub.AnyOf | hub.RegistryRead | hub.ServiceConnect
	writesConfigurations = hub.AnyOf | hub.RegistryWrite | hub.ServiceConnect
)

var configurationRoutes = []route{
	{"GET", "configurations", readsConfigurations, (*Server).listConfigurations},
	{"POST", "configurations/testQueries", readsConfigurations, (*Server).testConfiguration},
	{"GET", "configurations/{configuration}", readsConfigurations, (*Server).showConfiguration},
	{"PUT", "configurations/{configuration}", writesConfigurations, (*Server).putConfiguration},
	{"DELETE", "configurations/{configuration}", writesConfigurations, (*Server).deleteConfiguration},
	{"POST", "devices/{device}/applyConfigurationContent", writesConfigurations, (*Server).applyContent},
}

// listConfigurations answers all: a hub ignores top.
func (s *Server) listConfigurations(x *exchange) error { return x.answer(s.hub.Configurations()) }

func (s *Server) showConfiguration(x *exchange) error {
	c, err := s.hub.Configuration(x.names["configuration"])
	if err != nil {
		return err
	}
	return x.configuration(c)
}

func (s *Server) putConfiguration(x *exchange) error {
	var in hub.ConfigurationRequest
	if err := x.decode(&in); err != nil {
		return err
	}
	if err := sameID("id", &in.ID, x.names["configuration"]); err != nil {
		return err
	}
	c, err := s.hub.PutConfiguration(in, x.ifMatch())
	if err != nil {
		return err
	}
	return x.configuration(c)
}

// configuration answers one; unlike an identity's, its etag is quoted in the header.
func (x *exchange) configuration(c hub.Configuration) error {
	x.w.Header().Set("ETag", `"`+c.ETag+`"`)
	return x.answer(c)
}

func (s *Server) deleteConfiguration(x *exchange) error {
	if err := s.hub.DeleteConfiguration(x.names["configuration"], x.ifMatch()); err != nil {
		return err
	}
	return x.nothing()
}

func (s *Server) testConfiguration(x *exchange) error {
	var in struct {
		TargetCondition     string
		CustomMetricQueries map[string]string
	}
	if err := x.decode(&in); err != nil {
		return err
	}
	return x.answer(s.hub.TestConfiguration(in.TargetCondition, in.CustomMetricQueries))
}

func (s *Server) applyContent(x *exchange) error {
	var content json.RawMessage
	if err := x.decode(&content); err != nil {
		return err
	}
	if err := s.hub.ApplyContent(x.id.Device, content); err != nil {
		return err
	}
	return x.nothing()
}
