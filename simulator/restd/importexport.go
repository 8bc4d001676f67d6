package restd

import "github.com/twinbay/twinbay/simulator/hub"

// Import and export read and write the whole registry, so they want both permissions.
var importExportRoutes = []route{
	{"POST", "jobs/create", hub.RegistryRead | hub.RegistryWrite, (*Server).createImportExport},
	{"GET", "jobs", hub.RegistryRead, (*Server).listImportExports},
	{"GET", "jobs/{job}", hub.RegistryRead, (*Server).showImportExport},
	{"DELETE", "jobs/{job}", hub.RegistryRead | hub.RegistryWrite, (*Server).cancelImportExport},
}

func (s *Server) createImportExport(x *exchange) error {
	var in hub.JobProperties
	if err := x.decode(&in); err != nil {
		return err
	}
	j, err := s.hub.CreateImportExport(x.r.Context(), in)
	if err != nil {
		return err
	}
	return x.answer(j)
}

func (s *Server) listImportExports(x *exchange) error {
	return x.answer(s.hub.ImportExports())
}

func (s *Server) showImportExport(x *exchange) error {
	j, err := s.hub.ImportExport(x.names["job"])
	if err != nil {
		return err
	}
	return x.answer(j)
}

func (s *Server) cancelImportExport(x *exchange) error {
	if err := s.hub.CancelImportExport(x.r.Context(), x.names["job"]); err != nil {
		return err
	}
	return x.nothing()
}
